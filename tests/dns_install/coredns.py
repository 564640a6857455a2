"""A real CoreDNS with a real Corefile, in a folder and on ports of its own.

What needs a cluster or fixed ports is replaced in the Corefile: `kubernetes` by a template that answers for
kubernetes.default, `/etc/resolv.conf` and the placeholders of NodeLocal DNSCache by an upstream on loopback.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rcode
import pytest

from discovery.dns.server import DnsServer
from discovery.dns.zone import Zone, ZoneService

LOCALHOST = "127.0.0.1"
BIN = Path(os.environ.get("SVCMESH_TOOLS", "") or Path.home() / ".cache" / "svcmesh" / "bin")
DEADLINE = 40.0
"""Seconds; reached only when a test fails."""
KUBERNETES = """\
template IN A kubernetes.default.svc.cluster.local {
        answer "{{ .Name }} 5 IN A 10.96.0.1"
    }
"""


def program() -> str:
    """Return the path of CoreDNS, or skip."""
    path = BIN / "coredns"
    if path.is_file():
        return str(path)
    pytest.skip(f"{path} is not there: `make coredns` builds it (needs Go)")


def free_port() -> int:
    """Return a port that is free for UDP and TCP at this moment."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind((LOCALHOST, 0))
        port: int = tcp.getsockname()[1]
        udp.bind((LOCALHOST, port))
        return port


def adapt(text: str, port: int, upstream: int) -> str:
    """Return the Corefile for this machine: same structure, other ports, no cluster."""
    text = re.sub(r"kubernetes [^{]*\{[^}]*\}\n", lambda _: KUBERNETES, text)
    text = re.sub(r"^(\S*):53 \{", rf"\1:{port} {{", text, flags=re.MULTILINE)
    text = re.sub(r"/etc/resolv\.conf|__PILLAR__\w+", f"{LOCALHOST}:{upstream}", text)
    text = re.sub(
        r"^    (prometheus|health|ready)( [\w.]*:\d+)?",
        lambda found: _listen(found[1]),
        text,
        flags=re.MULTILINE,
    )
    text = re.sub(r"^    reload$", "    reload 2s 1s", text, flags=re.MULTILINE)
    return re.sub(r"bind .*", f"bind {LOCALHOST}", text)


def _listen(plugin: str) -> str:
    return f"    {plugin} {LOCALHOST}:{free_port()}"


class MeshDns:
    """The mesh's own DNS server, on a thread; with another zone it stands for any other server."""

    def __init__(self, zone: str = "svc.mesh") -> None:
        service = ZoneService("default", "whoami", "250.96.0.10")
        self._zone = Zone(zone, (), 1, "240.0.0.0/4", "240.0.0.53", {("default", "whoami"): service})
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = 0

    def __enter__(self) -> MeshDns:
        self._thread.start()
        assert self._ready.wait(DEADLINE)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(DEADLINE)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = DnsServer(self._zone)
        self.port = await server.start(LOCALHOST, 0)
        self._ready.set()
        await self._stop.wait()
        await server.close()


class CoreDns:
    """The process; `folder` is what a kubelet would keep up to date from ConfigMaps."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self._log = folder / "coredns.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> CoreDns:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [program(), "-conf", str(self.folder / "Corefile")], stdout=log, stderr=subprocess.STDOUT
            )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        # It would wait for its lameduck time when told to end.
        self._process.kill()
        self._process.wait(DEADLINE)

    def write(self, name: str, text: str) -> None:
        """Replace a file in one step, as a kubelet does."""
        draft = self.folder / ".draft"
        draft.write_bytes(text.encode())
        (self.folder / name).parent.mkdir(exist_ok=True)
        shutil.move(draft, self.folder / name)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def ask(self, name: str, kind: str = "A", *, tcp: bool = False) -> str:
        """Return the data of the first record of an answer, or the name of its error."""
        send: Callable[..., dns.message.Message] = dns.query.tcp if tcp else dns.query.udp
        answer = send(dns.message.make_query(name, kind), LOCALHOST, timeout=5, port=self.port)
        return str(answer.answer[0][0]) if answer.answer else dns.rcode.to_text(answer.rcode())

    def wait_until_up(self) -> None:
        """Wait for the first answer."""
        assert self._process is not None
        deadline = threading.Event()
        for _ in range(int(DEADLINE / 0.05)):
            assert self._process.poll() is None, self.log
            try:
                self.ask("kubernetes.default.svc.cluster.local", tcp=True)
            except (dns.exception.DNSException, OSError):
                deadline.wait(0.05)
            else:
                return
        raise AssertionError(self.log)
