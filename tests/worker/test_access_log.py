"""The access log: what has a line, what the line says, and how it says that lines are missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from discovery.model import ServiceKey
from middleware.contract import Ended, ExchangeError, NoEndpoint
from middleware.grpc import GrpcStatus
from middleware.journey import Journey, Stage
from nodeagent.control.messages import SourcePod, Sources
from nodeagent.log.access_lines import AccessLines
from nodeagent.log.forms import JsonForm
from nodeagent.log.writer import LineWriter
from nodeagent.plan.model import LineChoice, Listener
from nodeagent.proxy.errors import ConnectionLimit
from nodeagent.proxy.observer import Closed, Refused
from nodeagent.settings import AccessLog
from nodeagent.worker.access_log import LINES_PER_SECOND, AccessLogger
from nodeagent.worker.sources import SourcePods

WEB = {
    "source": "10.1.0.9",
    "source_port": 40001,
    "source_pod": "shop/web-x",
    "source_workload": "shop/deployment/web",
}
TCP = Closed(
    "shop/db", 5432, "10.1.0.9", 40001, "250.96.0.9:5432", "10.1.0.7:5432", 1.5, 10, 20, "client_closed"
)


class Asked(SourcePods):
    """Counts how often it is asked."""

    times = 0

    def names(self, address: str) -> tuple[str, str] | None:
        self.times += 1
        return super().names(address)


class Written(list[dict[str, Any]]):
    """Lines in a list. Implements `nodeagent.worker.access_log.Lines`."""

    lowest = "debug"

    def takes(self, level: str) -> bool:
        return ["debug", "info", "warning"].index(level) >= ["debug", "info", "warning"].index(self.lowest)

    def info(self, event: str, about: str, fields: Mapping[str, object]) -> None:
        self.append({"level": "info", "event": event, "about": about, **fields})

    def warning(self, event: str, about: str, fields: Mapping[str, object]) -> None:
        self.append({"level": "warning", "event": event, "about": about, **fields})

    def write(self, level: str, about: str, line: msgspec.Struct) -> None:
        written = {"about": about, **msgspec.to_builtins(line)}
        assert written.pop("time").endswith("Z")
        assert written["level"] == level
        self.append(written)


class Clock:
    time = 7.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def sources() -> Asked:
    known = Asked()
    known.change(Sources({"10.1.0.9": SourcePod("shop", "web-x", "deployment/web")}))
    return known


@pytest.fixture
def lines() -> Written:
    return Written()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mode() -> AccessLog:
    return "all"


@pytest.fixture
def logger(mode: AccessLog, sources: Asked, lines: Written, clock: Clock) -> AccessLogger:
    return AccessLogger(mode, 0, sources, lines, now=clock)


errors = pytest.mark.parametrize("mode", ["errors"])


def ended(source: str, error: ExchangeError | None = None, **changes: Any) -> Ended:
    status = 200 if error is None else 503
    whole = Ended(
        "shop/cart", 80, source, "GET", "/?q", status, "10.1.0.1:8080", 0.1, 1, 2, error, source_port=40001
    )
    return msgspec.structs.replace(whole, **changes)


def refused(source: str, **changes: Any) -> Refused:
    whole = Refused("shop/cart", 80, source, 40001, "250.96.0.10:80", refusal())
    return msgspec.structs.replace(whole, **changes)


def refusal() -> ExchangeError:
    return NoEndpoint("nobody is ready")


def keys(line: Any) -> dict[str, str]:
    return {key: value for key, value in line.items() if key.startswith("source")}


def test_all_lines_name_the_pod_and_its_workload(logger: AccessLogger, lines: Written) -> None:
    logger.ended(ended("10.1.0.9"))
    logger.ended(ended("10.1.0.9", refusal()))
    logger.refused(refused("10.1.0.9"))
    logger.refused(refused("10.1.0.9", connection=True))
    logger.closed(TCP)
    logger.closed(msgspec.structs.replace(TCP, failed=True))
    assert [line["event"] for line in lines] == [
        "request",
        "request_failed",
        "request_refused",
        "connection_refused",
        "connection",
        "connection_failed",
    ]
    assert [keys(line) for line in lines] == [WEB] * 6
    assert [line["level"] for line in lines] == ["info", *["warning"] * 3, "info", "warning"]


def test_a_client_that_is_no_pod_of_this_node_has_an_address(logger: AccessLogger, lines: Written) -> None:
    logger.ended(ended("10.1.0.8"))
    logger.refused(refused("10.1.0.8"))
    assert [keys(line) for line in lines] == [{"source": "10.1.0.8", "source_port": 40001}] * 2


def test_a_pod_that_has_gone_is_not_named(logger: AccessLogger, sources: Asked, lines: Written) -> None:
    sources.change(Sources({}, ("10.1.0.9", "10.1.0.7")))
    logger.ended(ended("10.1.0.9"))
    assert keys(lines[0]) == {"source": "10.1.0.9", "source_port": 40001}


def test_a_request(logger: AccessLogger, lines: Written) -> None:
    logger.ended(ended("10.1.0.9", target="/a/b?secret=1"))
    assert lines == [
        {
            "level": "info",
            "event": "request",
            "about": "shop/cart",
            "service": "shop/cart",
            "port": 80,
            "method": "GET",
            "path": "/a/b",
            "status": 200,
            "endpoint": "10.1.0.1:8080",
            "took_ms": 100.0,
            "protocol": "HTTP/1.1",
            "received": 1,
            "sent": 2,
            **WEB,
            "worker": 0,
        }
    ]


@pytest.mark.parametrize("version", ["1.0", "1.1", "2"])
def test_what_the_client_speaks(logger: AccessLogger, lines: Written, version: str) -> None:
    logger.ended(ended("10.1.0.9", http_version=version))
    assert [line["protocol"] for line in lines] == [f"HTTP/{version}"]


def test_a_tcp_connection(logger: AccessLogger, lines: Written) -> None:
    logger.closed(TCP)
    assert lines == [
        {
            "level": "info",
            "event": "connection",
            "about": "shop/db",
            "service": "shop/db",
            "port": 5432,
            "protocol": "tcp",
            "reason": "client_closed",
            "endpoint": "10.1.0.7:5432",
            "received": 10,
            "sent": 20,
            "took_ms": 1500.0,
            **WEB,
            "worker": 0,
        }
    ]


def test_who_is_refused_has_a_source_and_where_it_wanted_to_go(logger: AccessLogger, lines: Written) -> None:
    logger.refused(refused("10.1.0.9"))
    limit = ConnectionLimit("it has 4 already")
    logger.refused(refused("10.1.0.9", connection=True, error=limit, service="", port=0))
    first, second = lines
    assert (first["status"], first["reason"], first["destination"]) == (503, "no_endpoint", "250.96.0.10:80")
    assert (second["reason"], second["destination"]) == ("limit", "250.96.0.10:80")
    assert not {"status", "service", "port"} & second.keys()


def test_a_call_of_grpc_has_its_status(logger: AccessLogger, lines: Written) -> None:
    logger.ended(ended("10.1.0.7"))
    logger.ended(ended("10.1.0.7", grpc_status=GrpcStatus.RESOURCE_EXHAUSTED))
    assert [line.get("grpc_status") for line in lines] == [None, "RESOURCE_EXHAUSTED"]


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"status": 503}, "upstream_status", "10.1.0.1:8080 answered 503"),
        ({"status": 500}, "upstream_status", "10.1.0.1:8080 answered 500"),
        ({"grpc_status": GrpcStatus.UNAVAILABLE}, "upstream_status", "10.1.0.1:8080 answered UNAVAILABLE"),
        ({"status": 507, "reply_reason": "no_room"}, "no_room", "a middleware answered"),
        ({"status": 503, "error": refusal()}, "no_endpoint", "nobody is ready"),
        ({"status": 404, "error": refusal()}, "no_endpoint", "nobody is ready"),
        ({"status": 499}, None, None),
        ({"status": 0}, None, None),
        ({"status": 101}, None, None),
        ({"status": 429, "reply_reason": "slow_down"}, None, None),
        ({"grpc_status": GrpcStatus.OK}, None, None),
        ({"grpc_status": GrpcStatus.NOT_FOUND}, None, None),
        ({"grpc_status": GrpcStatus.CANCELLED}, None, None),
    ],
)
def test_what_is_a_failure(
    changes: dict[str, Any], reason: str | None, detail: str | None, logger: AccessLogger, lines: Written
) -> None:
    logger.ended(ended("10.1.0.9", **changes))
    assert lines[0]["event"] == ("request_failed" if reason else "request")
    assert (lines[0].get("reason"), lines[0].get("detail")) == (reason, detail)


def test_all_is_all(logger: AccessLogger, lines: Written) -> None:
    for _ in range(1000):
        logger.ended(ended("10.1.0.9"))
        logger.ended(ended("10.1.0.9", refusal()))
    with capture_logs() as events:
        logger.tick()
    assert len(lines) == 2000
    assert (events, logger.left_out) == ([], 0)


@errors
def test_a_storm_at_one_service_does_not_hide_another(logger: AccessLogger, lines: Written) -> None:
    for _ in range(1000):
        logger.ended(ended("10.1.0.9", refusal()))
    logger.ended(ended("10.1.0.9", refusal(), service="shop/other"))
    logger.ended(ended("10.1.0.9", refusal(), port=81))
    logger.closed(msgspec.structs.replace(TCP, failed=True))
    assert [(line["service"], line["port"]) for line in lines[LINES_PER_SECOND:]] == [
        ("shop/other", 80),
        ("shop/cart", 81),
        ("shop/db", 5432),
    ]


@errors
def test_what_is_left_out_is_said_within_a_second_and_at_its_end(
    logger: AccessLogger, lines: Written, clock: Clock
) -> None:
    with capture_logs() as events:
        for tenth in range(70, 90):
            clock.time = tenth / 10
            for _ in range(LINES_PER_SECOND):
                logger.ended(ended("10.1.0.9", refusal()))
            if tenth in (74, 84):
                logger.tick()
        clock.time = 9.4
        logger.tick()
        clock.time = 10.4
        logger.tick()
    assert [line["event"] for line in events] == ["access_log_gap"] * 3
    assert [line["lines"] for line in events] == [4 * 20, 5 * 20 + 4 * 20, 5 * 20]
    assert [line["lasted_ms"] for line in events] == [300, 900, 900]
    assert {(line["service"], line["port"]) for line in events} == {("shop/cart", 80)}
    assert len(lines) == 2 * LINES_PER_SECOND
    assert logger.left_out == sum(line["lines"] for line in events)


@errors
def test_nobody_is_looked_up_for_a_line_that_is_left_out(
    logger: AccessLogger, sources: Asked, lines: Written
) -> None:
    for _ in range(LINES_PER_SECOND * 2):
        logger.ended(ended("10.1.0.9", refusal()))
        logger.refused(refused("10.1.0.9"))
    assert len(lines) == sources.times == LINES_PER_SECOND


@errors
def test_tracebacks_have_the_same_budget(logger: AccessLogger) -> None:
    with capture_logs() as events:
        for _ in range(100):
            logger.layer_failed("shop/cart", 80, ValueError("a bug"))
        logger.tick()
    assert [line["event"] for line in events] == ["middleware_failed"] * LINES_PER_SECOND + ["access_log_gap"]
    assert "ValueError: a bug" in events[0]["traceback"]


@pytest.mark.parametrize("mode", ["off"])
def test_off_leaves_the_tracebacks_of_middleware(logger: AccessLogger, lines: Written) -> None:
    with capture_logs() as events:
        logger.ended(ended("10.1.0.9", refusal()))
        logger.refused(refused("10.1.0.9"))
        logger.closed(msgspec.structs.replace(TCP, failed=True))
        logger.layer_failed("shop/cart", 80, ValueError("a bug"))
    assert (lines, [event["event"] for event in events]) == ([], ["middleware_failed"])


def test_lines_that_the_level_hides_are_not_made(sources: Asked, lines: Written) -> None:
    lines.lowest = "warning"
    logger = AccessLogger("all", 0, sources, lines)
    assert (logger.wants_all, logger.from_status) == (False, 500)


def test_lines_below_the_level_are_not_written() -> None:
    made: list[Mapping[str, Any]] = []

    class Form(JsonForm):
        def __call__(self, event: Mapping[str, Any]) -> str:
            made.append(event)
            return ""

    access = AccessLines(Form(), "warning", LineWriter(2))
    assert (access.takes("info"), access.takes("warning")) == (False, True)
    access.info("request", "", {})
    assert made == []


def chosen(choice: LineChoice, port: int = 80) -> Listener:
    return Listener(
        ServiceKey("shop", "cart"), "http", "250.96.0.10", port, port, "http", (), access_log=choice
    )


class TestAServicesOwnChoice:
    @pytest.mark.parametrize("mode", ["off", "errors", "all"])
    def test_it_goes_before_the_flag(self, logger: AccessLogger, lines: Written) -> None:
        logger.follow([chosen(LineChoice(all=True))], ())
        for _ in range(LINES_PER_SECOND * 2):
            logger.ended(ended("10.1.0.9"))
        assert len(lines) == LINES_PER_SECOND * 2
        logger.follow([chosen(LineChoice())], ())
        logger.ended(ended("10.1.0.9", refusal()))
        logger.refused(refused("10.1.0.9"))
        assert len(lines) == LINES_PER_SECOND * 2

    @pytest.mark.parametrize("mode", ["off"])
    def test_it_holds_for_its_port_until_it_is_gone(self, logger: AccessLogger, lines: Written) -> None:
        listener = chosen(LineChoice(all=True), port=81)
        logger.follow([listener], ())
        logger.ended(ended("10.1.0.9"))
        assert not lines
        logger.ended(ended("10.1.0.9", port=81))
        assert len(lines) == 1
        logger.follow((), [listener.key])
        logger.ended(ended("10.1.0.9", port=81))
        assert len(lines) == 1

    @errors
    def test_slow_ones_have_a_line_within_the_budget(
        self, logger: AccessLogger, lines: Written, clock: Clock
    ) -> None:
        logger.follow([chosen(LineChoice(slow=0.5))], ())
        logger.ended(ended("10.1.0.9", took=0.49))
        logger.ended(ended("10.1.0.9", refusal(), took=0.49))
        assert not lines
        for _ in range(LINES_PER_SECOND + 3):
            logger.ended(ended("10.1.0.9", took=0.5))
        assert len(lines) == LINES_PER_SECOND
        assert logger.left_out == 3

    def test_a_share_is_drawn_and_has_no_budget(self, sources: Asked, lines: Written, clock: Clock) -> None:
        draws = iter([0.0099, 0.01] * 2 * LINES_PER_SECOND)
        logger = AccessLogger("errors", 0, sources, lines, now=clock, random=lambda: next(draws))
        logger.follow([chosen(LineChoice(share=100))], ())
        for _ in range(4 * LINES_PER_SECOND):
            logger.ended(ended("10.1.0.9"))
        assert len(lines) == 2 * LINES_PER_SECOND
        assert logger.left_out == 0

    @errors
    def test_connections_too(self, logger: AccessLogger, lines: Written) -> None:
        listener = msgspec.structs.replace(
            chosen(LineChoice(slow=1.0), 5432), service=ServiceKey("shop", "db"), protocol="tcp"
        )
        logger.follow([listener], ())
        logger.closed(TCP)
        logger.closed(msgspec.structs.replace(TCP, took=0.5))
        assert [line["took_ms"] for line in lines] == [1500.0]


def test_a_line_says_how_the_time_was_spent_and_what_was_decided(
    logger: AccessLogger, lines: Written
) -> None:
    journey = Journey(
        0.0,
        0.1,
        (
            Stage("queue", 0.0, 0.01),
            Stage("connect", 0.01, 0.03, "10.1.0.1:80", 1, "connect_failed"),
            Stage("backoff", 0.03, 0.05),
            Stage("connect", 0.05, 0.055, "10.1.0.2:80", 2),
            Stage("try", 0.055, 0.09, "10.1.0.2:80", 2, "200", 0.08),
            Stage("middleware", 0.09, 0.1),
        ),
    )
    logger.ended(ended("10.1.0.9", journey=journey, trace_id="4bf92f3577b34da6a3ce929d0e0e4736"))
    (line,) = lines
    assert {key: line[key] for key in line if key.endswith("_ms")} == {
        "took_ms": 100.0,
        "queue_ms": 10.0,
        "connect_ms": 25.0,
        "upstream_ms": 35.0,
        "middleware_ms": 10.0,
        "backoff_ms": 20.0,
    }
    assert line["tries"] == 2
    assert line["decided"] == "2 tries: 10.1.0.1:80 connect_failed, 10.1.0.2:80 200"
    assert line["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"


def test_a_line_says_that_a_middleware_answered(logger: AccessLogger, lines: Written) -> None:
    logger.ended(ended("10.1.0.9", reply_reason="cache_hit"))
    assert lines[0]["decided"] == "a middleware answered: cache_hit"


def test_very_many_tries_are_not_all_named(logger: AccessLogger, lines: Written) -> None:
    stages = tuple(Stage("try", n / 100, (n + 1) / 100, "10.1.0.1:80", n + 1, "503") for n in range(60))
    logger.ended(ended("10.1.0.9", journey=Journey(0.0, 0.6, stages)))
    assert lines[0]["tries"] == 60
    assert len(lines[0]["decided"]) < 200
