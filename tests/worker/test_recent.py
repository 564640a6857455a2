"""What the agent is told of failures: which, what a line says and keeps secret, and what is only counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import middleware
from middleware.contract import Ended, Journey, Stage
from middleware.grpc import GrpcStatus
from middleware.rate_limit import RateLimited
from middleware.registry import MIDDLEWARES
from nodeagent.control.messages import Failed, SourcePod, Sources
from nodeagent.proxy.observer import Closed
from nodeagent.worker.failure_fields import LAYERS, LONGEST, MOST_STAGES, fails
from nodeagent.worker.recent import MOST_COUNTED, MOST_PENDING, PER_PORT, PER_SECOND, RecentFailures
from nodeagent.worker.sources import SourcePods
from tests.docs.test_troubleshooting_page import errors
from tests.worker.test_access_log import TCP, ended, refusal, refused


class Agent:
    """Takes what a worker sends. `pending` is what it has not taken, `due` what is called later."""

    def __init__(self) -> None:
        self.sent: list[Failed] = []
        self.due: list[Callable[[], None]] = []
        self.pending = 0
        self.time = 7.0
        sources = SourcePods(lambda _: False)
        sources.change(Sources({"10.1.0.9": SourcePod("shop", "web-x", "deployment/web")}))
        self.recent = RecentFailures(
            sources,
            3,
            "node-1",
            self.sent.append,
            lambda: self.pending,
            lambda _, call: self.due.append(call),
            now=lambda: self.time,
            wall=lambda: 0.0,
        )

    def wait(self) -> None:
        """Let the time pass after which lines are sent."""
        due, self.due = self.due, []
        for call in due:
            call()

    def lines(self) -> list[dict[str, Any]]:
        self.wait()
        return [json.loads(line.line) for failed in self.sent for line in failed.lines]

    def left_out(self) -> dict[str, int]:
        self.wait()
        counts: dict[str, int] = {}
        for failed in self.sent:
            for service, count in failed.left_out:
                counts[service] = counts.get(service, 0) + count
        return counts


@pytest.fixture
def agent() -> Agent:
    return Agent()


def test_a_line_says_who_what_where_and_why(agent: Agent) -> None:
    agent.recent.ended(ended("10.1.0.9", refusal(), target="/a?token=secret", trace_id="4bf9"))
    (line,) = agent.lines()
    assert line == {
        "time": "1970-01-01T00:00:00.000000Z",
        "node": "node-1",
        "kind": "request",
        "by": "endpoint",
        "service": "shop/cart",
        "port": 80,
        "method": "GET",
        "path": "/a",
        "status": 503,
        "reason": "no_endpoint",
        "detail": "nobody is ready",
        "endpoint": "10.1.0.1:8080",
        "took_ms": 100.0,
        "protocol": "HTTP/1.1",
        "received": 1,
        "sent": 2,
        "trace_id": "4bf9",
        "source": "10.1.0.9",
        "source_pod": "shop/web-x",
        "source_workload": "shop/deployment/web",
        "worker": 3,
    }


def test_a_refusal_names_its_layer(agent: Agent) -> None:
    agent.recent.ended(ended("10.1.0.9", RateLimited("more than 5 a second"), status=429))
    agent.recent.ended(ended("10.1.0.9", status=403, reply_reason="cors_denied"))
    agent.recent.ended(ended("10.1.0.9", status=403, reply_reason="not_yours"))
    told = [(one["by"], one.get("layer"), one["reason"], one["status"]) for one in agent.lines()]
    assert told == [
        ("mesh", "rate-limit", "rate_limited", 429),
        ("mesh", "cors", "cors_denied", 403),
        ("mesh", None, "not_yours", 403),
    ]


def test_a_kept_response_is_that_of_its_endpoint(agent: Agent) -> None:
    agent.recent.ended(ended("10.1.0.9", status=503, reply_reason="cached"))
    assert [one["by"] for one in agent.lines()] == ["endpoint"]


def test_every_reason_of_our_middleware_has_its_layer() -> None:
    own = {
        error.reason
        for error in errors()
        if error.__module__.startswith(f"{middleware.__name__}.")
        and error.__module__ not in ("middleware.errors", "middleware.custom")
    }
    assert own - {"response_timeout"} <= LAYERS.keys()
    assert set(LAYERS.values()) <= {one.name for one in MIDDLEWARES}


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"status": 200}, False),
        ({"status": 404}, False),
        ({"status": 500}, True),
        ({"status": 0}, False),
        ({"status": 200, "grpc_status": GrpcStatus.OK}, False),
        ({"status": 200, "grpc_status": GrpcStatus.UNAVAILABLE}, True),
        ({"status": 200, "grpc_status": GrpcStatus.NOT_FOUND}, False),
        ({"status": 404, "reply_reason": "cached"}, False),
        ({"status": 301, "reply_reason": "redirected"}, False),
        ({"status": 418, "reply_reason": "fault_injected"}, True),
        ({"status": 200, "error": refusal()}, True),
    ],
)
def test_what_is_a_failure(agent: Agent, changes: dict[str, Any], failed: bool) -> None:
    one = ended("10.1.0.9", **changes)
    assert fails(one) is failed
    agent.recent.ended(one)
    assert len(agent.lines()) == failed


def test_refused_and_broken_connections(agent: Agent) -> None:
    agent.recent.refused(refused("10.1.0.9"))
    agent.recent.refused(refused("10.9.9.9", service="", port=0, connection=True))
    agent.recent.closed(TCP)
    agent.recent.closed(
        Closed("shop/db", 5432, "10.1.0.9", 1, "250.1.1.1:5432", "", 0.5, 1, 2, "connect_failed", failed=True)
    )
    lines = agent.lines()
    assert [(one["kind"], one.get("service"), one["reason"]) for one in lines] == [
        ("request", "shop/cart", "no_endpoint"),
        ("connection", None, "no_endpoint"),
        ("connection", "shop/db", "connect_failed"),
    ]
    assert lines[1]["destination"] == "250.96.0.10:80"


def test_stages_are_told_where_they_are_known(agent: Agent) -> None:
    stages = (
        Stage("connect", 5.0, 5.25, "10.1.0.1:80", 1),
        Stage("try", 5.25, 6.0, "10.1.0.1:80", 1, "503", 5.5),
    )
    agent.recent.ended(ended("10.1.0.9", status=503, journey=Journey(5.0, 6.0, stages)))
    agent.recent.ended(ended("10.1.0.9", status=503, journey=Journey(5.0, 6.0, stages * 40, 2)))
    first, second = agent.lines()
    assert first["stages"] == [
        {"kind": "connect", "start_ms": 0, "end_ms": 250, "endpoint": "10.1.0.1:80", "try": 1},
        {
            "kind": "try", "start_ms": 250, "end_ms": 1000, "endpoint": "10.1.0.1:80", "try": 1,
            "outcome": "503", "answered_ms": 500,
        },
    ]  # fmt: skip
    assert (len(second["stages"]), second["stages_left_out"]) == (MOST_STAGES, 80 - MOST_STAGES + 2)


def test_a_flood_at_one_port_is_counted_and_hides_no_other(agent: Agent) -> None:
    for _ in range(PER_PORT + 100):
        agent.recent.ended(ended("10.1.0.9", refusal()))
    agent.recent.ended(ended("10.1.0.9", refusal(), service="shop/other"))
    lines = agent.lines()
    assert [one["service"] for one in lines] == ["shop/cart"] * PER_PORT + ["shop/other"]
    assert agent.left_out() == {"shop/cart": 100}
    agent.time += 1
    agent.recent.ended(ended("10.1.0.9", refusal()))
    assert len(agent.lines()) == PER_PORT + 2


def test_a_flood_at_all_ports_is_bounded_in_lines_and_in_counts(agent: Agent) -> None:
    many = MOST_COUNTED + 200
    for number in range(many):
        agent.recent.ended(ended("10.1.0.9", refusal(), service=f"shop/s{number}"))
    assert len(agent.lines()) == PER_SECOND
    counts = agent.left_out()
    assert len(counts) == MOST_COUNTED + 1
    assert sum(counts.values()) == many - PER_SECOND
    assert counts[""] == many - PER_SECOND - MOST_COUNTED


def test_refusals_without_room_are_counted_before_they_are_described(agent: Agent) -> None:
    for _ in range(PER_PORT):
        assert agent.recent.takes_reply("shop/cart", 80, "cors_denied")
        agent.recent.ended(ended("10.1.0.9", status=403, reply_reason="cors_denied"))
    assert not agent.recent.takes_reply("shop/cart", 80, "cors_denied")
    assert not agent.recent.takes_reply("shop/other", 80, "cached")
    assert agent.left_out() == {"shop/cart": 1}


def test_nothing_is_sent_to_an_agent_that_does_not_take_it(agent: Agent) -> None:
    agent.pending = MOST_PENDING + 1
    agent.recent.ended(ended("10.1.0.9", refusal()))
    agent.wait()
    assert agent.sent == []
    agent.pending = 0
    agent.wait()
    assert agent.sent == [Failed((), (("shop/cart", 1),))]
    agent.recent.flush()
    assert len(agent.sent) == 1, "nothing is sent if there is nothing"


@given(st.text(max_size=600), st.text(max_size=600), st.text(max_size=600))
def test_a_line_is_short_whatever_a_client_sends(method: str, target: str, detail: str) -> None:
    agent = Agent()
    error = refusal()
    error.detail = detail
    one: Ended = ended("10.1.0.9", error, method=method, target=target)
    agent.recent.ended(one)
    (line,) = agent.lines()
    assert all(len(value) <= LONGEST + 1 for value in line.values() if isinstance(value, str))
    assert "?" not in line.get("path", "")
