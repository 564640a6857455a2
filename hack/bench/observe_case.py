"""What it costs to watch requests: one agent and several equal Services, each watched in a different way.

Every request is counted by its source, which nothing turns off, so that is in the bare figure too. The client
is a pod by name, as in a cluster; lines of the access log go to a file, and spans to a collector on the other
core, which takes them and forgets them.
"""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from hack.bench.accounting import cpu_time
from hack.bench.agent import NAMESPACE, PORT, Agent, Spec, write_folder
from hack.bench.figures import AGENT, EVERYTHING, TAPPED, Sample
from hack.bench.http_cases import CONNECTIONS, costs
from hack.bench.load import HttpLoader
from hack.bench.machine import Cores
from hack.bench.peers import start_backend
from hack.bench.processes import ProcessGroup
from hack.kit.manifests import render
from hack.kit.ports import LOCALHOST, free_port
from hack.kit.proc import family
from hack.kit.processes import Process, wait_until

_MODULE: Final = "hack.bench.observe_case"
CASE: Final = "observed"
BARE: Final = AGENT
NARROWED: Final = "watched for its failures"
_LOG: Final = {"svc.mesh/access-log": "all"}
_TRACING: Final = {"svc.mesh/tracing": "1%"}
WAYS: Final[Mapping[str, Mapping[str, str]]] = {
    BARE: {},
    "access log of all": _LOG,
    "access log of 1 %": {"svc.mesh/access-log": "1%"},
    "1 % tracing": _TRACING,
    EVERYTHING: {**_LOG, **_TRACING},
    TAPPED: {},
    NARROWED: {},
}
WATCHES: Final[Mapping[str, str]] = {TAPPED: "", NARROWED: "&status=5xx"}
"""What the one who watches asks of `/tap`, besides the Service."""
CLIENT: Final = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "client-5d89bdfbf9-x7k2p",
        "namespace": NAMESPACE,
        "labels": {"pod-template-hash": "5d89bdfbf9"},
        "ownerReferences": [
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": "client-5d89bdfbf9",
                "uid": "1",
                "controller": True,
            }
        ],
    },
    "status": {"phase": "Running", "podIP": LOCALHOST, "podIPs": [{"ip": LOCALHOST}]},
}


def measure(
    group: ProcessGroup, cores: Cores, rounds: int, seconds: float, progress: Callable[[str], None]
) -> Iterator[Sample]:
    """Ask each Service in turn, `rounds` times; yield a sample for each."""
    _, backend = start_backend(group, cores.load)
    loader = HttpLoader(group.directory, cores.load)
    names = {way: f"way-{number}" for number, way in enumerate(WAYS)}
    specs = {
        way: Spec(names[way], number + 1, (LOCALHOST,), backend, annotations=asked)
        for number, (way, asked) in enumerate(WAYS.items())
    }
    folder = group.directory / "cluster"
    write_folder(folder, list(specs.values()))
    (folder / "client.yaml").write_text(render(CLIENT))
    collector = f"otlp+http://{LOCALHOST}:{_collector(group, cores)}"
    agent = Agent(group, folder, cores.proxy, options=("--traces", collector))
    agent.wait_ready()
    for spec in specs.values():
        loader.run(f"http://{spec.address}:{PORT}/", CONNECTIONS, 1)
    for number in range(rounds):
        for way, spec in specs.items():
            url = f"http://{spec.address}:{PORT}/"
            with _watched(group, cores, agent, spec, WATCHES.get(way)):
                pids = family(agent.process.pid)
                before = cpu_time(pids)
                load = loader.run(url, CONNECTIONS, seconds)
                values = costs(f"{CASE}, {way}, {url}", load, cpu_time(pids) - before)
            progress(f"round {number + 1} of {rounds}: {CASE}, {way}: {values['cpu_us_per_request']:.1f} us")
            yield Sample(CASE, way, number, {**values, "p50_us": load.p50, "p99_us": load.p99})


@contextmanager
def _watched(
    group: ProcessGroup, cores: Cores, agent: Agent, spec: Spec, asked: str | None
) -> Iterator[None]:
    """Have somebody read `/tap` meanwhile, if `asked` says what for."""
    if asked is None:
        yield
        return
    url = f"http://{LOCALHOST}:{agent.admin_port}/tap?service={NAMESPACE}/{spec.name}{asked}"
    watcher = group.start("watcher", [sys.executable, "-m", _MODULE, "watch", url], cores.load)
    try:
        _wait_for(watcher, "watching")
        yield
    finally:
        group.stop(watcher)


def _collector(group: ProcessGroup, cores: Cores) -> int:
    """Start what takes spans; return its port."""
    port = free_port()
    collector = group.start("collector", [sys.executable, "-m", _MODULE, "collect", str(port)], cores.load)
    _wait_for(collector, "listening")
    return port


def _wait_for(process: Process, said: str) -> None:
    """Wait until a process has written this."""
    assert process.log is not None
    log = process.log
    wait_until(lambda: said in log.read_text(), process)


class _Forget(BaseHTTPRequestHandler):
    """A collector that accepts everything and keeps nothing."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main(role: str, what: str) -> None:
    """Run as the collector, or as the reader of `/tap`, until ended."""
    if role == "collect":
        with ThreadingHTTPServer((LOCALHOST, int(what)), _Forget) as server:
            print("listening", flush=True)
            server.serve_forever()
        return
    with urllib.request.urlopen(what) as lines:
        print("watching", flush=True)
        while lines.read1(1 << 16):
            pass


if __name__ == "__main__":
    main(*sys.argv[1:])
