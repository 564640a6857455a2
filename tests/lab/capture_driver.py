"""Run on a node of the lab: a `NftablesCapture` that does what it reads, one JSON command a line.

`["start"]`, `["apply", [[address, port], ...]]`, `["apply_many", N]` (N addresses from 250.0.0.0 on),
`["verify"]`, `["close"]`; answers `{"error": text, "seconds": number, "events": [names of what was logged]}`.
"""

from __future__ import annotations

import ipaddress
import json
import sys
import time

import structlog
import uvloop

from nodeagent.capture.contract import CaptureError
from nodeagent.capture.nftables import NftablesCapture
from nodeagent.settings import Settings

SETTINGS = Settings(
    source="file:unused",
    capture="nftables",
    mesh_range="240.0.0.0/4",
    zone="svc.mesh",
    alias_zones=(),
    dns_listen=("240.0.0.53", 15053),
    admin_listen=("127.0.0.1", 15000),
    workers=1,
    node_name="n1",
    drain_timeout=30.0,
    log_level="info",
    log_format="json",
)
FIRST = int(ipaddress.IPv4Address("250.0.0.0"))


async def main() -> None:
    capture = NftablesCapture(SETTINGS)
    for line in iter(sys.stdin.readline, ""):
        command, *arguments = json.loads(line)
        if command == "apply":
            arguments = [[(address, port) for address, port in arguments[0]]]
        elif command == "apply_many":
            command, count = "apply", arguments[0]
            arguments = [[(str(ipaddress.IPv4Address(FIRST + n)), 80) for n in range(count)]]
        error = ""
        with structlog.testing.capture_logs() as events:
            begin = time.perf_counter()
            try:
                await getattr(capture, command)(*arguments)
            except CaptureError as refused:
                error = str(refused)
            seconds = time.perf_counter() - begin
        names = [event["event"] for event in events]
        print(json.dumps({"error": error, "seconds": seconds, "events": names}), flush=True)


uvloop.run(main())
