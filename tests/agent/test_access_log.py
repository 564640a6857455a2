"""The access log of a whole agent: all is all, and a gap is said without a further line."""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from hack.kit import manifests
from hack.kit.manifests import ENABLED, Port, render
from hack.kit.waiting import until
from nodeagent.worker.access_log import LINES_PER_SECOND
from tests.agent.harness import Agent, Whoami, endpoints, service

SHAPE = '{event} {service} "{method} {path} {protocol}" {status} {reason} {queue_ms}'
DROPPED = 'svcmesh_access_log_dropped_total{reason="budget"}'


@contextlib.contextmanager
def running(folder: Path, *arguments: str, **files: str) -> Iterator[Agent]:
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    agent = Agent(folder, *arguments)
    try:
        until(agent.ready)
        yield agent
    finally:
        agent.stop()


def ask(agent: Agent, name: str, times: int) -> None:
    """Send requests on one connection."""
    with contextlib.closing(http.client.HTTPConnection(agent.address(name), 18080, timeout=20)) as connection:
        for number in range(times):
            connection.request("GET", f"/{number}?secret")
            connection.getresponse().read()


def test_all_is_all(tmp_path: Path, start_whoami: Callable[[str], Whoami]) -> None:
    web = service("web", ENABLED) + endpoints("web", [start_whoami("a").port])
    with running(tmp_path / "cluster", "--access-log", "all", web=web) as agent:
        ask(agent, "web.shop", 1000)
        until(lambda: len(agent.events("request")) == 1000)
        assert [line["path"] for line in agent.events("request")] == [f"/{n}" for n in range(1000)]
        assert not agent.events("access_log_gap", "log_lines_lost")
        assert agent.metric(DROPPED) == 0


def test_a_gap_is_said_at_once_and_hides_nobody_else(tmp_path: Path) -> None:
    other = render(
        manifests.service("other", [Port(18080, 18080, "http")], namespace="shop", cluster_ip="10.96.7.11")
    )
    with running(tmp_path / "cluster", web=service("web", ENABLED), other=other) as agent:
        ask(agent, "web.shop", 500)
        ask(agent, "other.shop", 1)
        until(lambda: any(line["service"] == "shop/other" for line in agent.events("request_failed")))

        def told() -> int:
            lines = agent.events("request_failed", "access_log_gap")
            return sum(line.get("lines", 1) for line in lines if line["service"] == "shop/web")

        until(lambda: told() == 500)  # though nothing fails any more
        gaps = agent.events("access_log_gap")
        assert {(gap["service"], gap["port"], gap["worker"]) for gap in gaps} == {("shop/web", 18080, 0)}
        assert len(agent.events("request_failed")) >= LINES_PER_SECOND
        until(lambda: agent.metric(DROPPED) == sum(gap["lines"] for gap in gaps))


def test_a_tcp_connection_has_a_line(tmp_path: Path, start_whoami: Callable[[str], Whoami]) -> None:
    annotations = {**ENABLED, "svc.mesh/protocol": "tcp"}
    port = start_whoami("a").port
    web = service("web", annotations) + endpoints("web", [port])
    with running(tmp_path / "cluster", "--access-log", "all", web=web) as agent:
        with socket.create_connection((agent.address("web.shop"), 18080), timeout=20) as connection:
            client = connection.getsockname()
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            received = 0
            while data := connection.recv(1000):
                received += len(data)
        (line,) = until(lambda: agent.events("connection"))
        assert (line["service"], line["protocol"], line["reason"]) == ("shop/web", "tcp", "endpoint_closed")
        assert (line["source"], line["source_port"], line["endpoint"]) == (*client, f"127.0.0.1:{port}")
        assert (line["received"], line["sent"]) == (18, received)


def test_lines_by_a_template_stand_among_other_lines(
    tmp_path: Path, start_whoami: Callable[[str], Whoami]
) -> None:
    web = service("web", ENABLED) + endpoints("web", [start_whoami("a").port])
    options = ("--access-log", "all", "--access-log-format", SHAPE)
    with running(tmp_path / "cluster", *options, web=web) as agent:
        with contextlib.closing(agent.connect()) as connection:
            connection.request("GET", '/"a?secret')
            connection.getresponse().read()
        with socket.create_connection((agent.address("web.shop"), 18080), timeout=20) as refused:
            refused.sendall(b"\x1b[2J\r\n\r\n")
            refused.recv(1000)

        def own_lines() -> list[str]:
            lines = agent.log.read_text().splitlines()
            return [line for line in lines if not line.startswith("{")]

        until(lambda: len(own_lines()) == 2)
        assert own_lines() == [
            'request shop/web "GET /\\"a HTTP/1.1" 200 - 0.0',
            'request_refused shop/web "- - -" 400 control_byte -',
        ]
        assert agent.events("agent_ready", "worker_started"), "all other lines keep their form"
