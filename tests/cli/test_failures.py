"""`meshctl failures`: the latest of all agents in the order of time, and what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.meshctl.failures import failure_line, read_failures
from nodeagent.stats.failures import FailureLine, FailureMemory
from tests.cli.test_stat import meshctl
from tests.cli.test_status import put_agent
from tests.cli.test_table import in_terminal
from tests.discovery.kube.fake_api import FakeApi, raw

FAILED = {
    "time": "2026-01-01T09:30:00.25Z",
    "by": "endpoint",
    "service": "shop/cart",
    "method": "GET",
    "path": "/items",
    "status": 503,
    "reason": "no_endpoint",
    "detail": "nobody is ready",
    "took_ms": 1.5,
    "source": "10.1.0.9",
    "source_workload": "shop/deployment/web",
}
REFUSED = {
    **FAILED,
    "time": "2026-01-01T09:30:01Z",
    "by": "mesh",
    "layer": "rate-limit",
    "status": 429,
    "reason": "rate_limited",
    "detail": "more than 5/s",
}
ASKED = "shop/deployment/web → shop/cart GET /items"
LINES = [
    f"09:30:00.25Z {ASKED} 503 1.5ms -  no_endpoint; nobody is ready",
    f"09:30:01Z {ASKED} 429 1.5ms -  refused by rate-limit: rate_limited; more than 5/s",
]


def put_failures(api: FakeApi, number: int, *failures: dict[str, Any], left_out: int = 0) -> None:
    memory = FailureMemory(f"node-{number}", 5.0)
    lines = [FailureLine(one["service"], json.dumps(one).encode()) for one in failures]
    memory.heard(lines, [("shop/cart", left_out)] if left_out else [])
    put_agent(api, f"agent-{number}", f"node-{number}")
    body = msgspec.json.encode(memory.show())
    api.pages[f"agent-{number}:15000", "failures"] = raw(200, body, "application/json")


def test_all_agents_in_the_order_of_time(api: FakeApi, tmp_path: Path) -> None:
    put_failures(api, 1, REFUSED, left_out=7)
    put_failures(api, 2, FAILED)
    code, output, errors = meshctl(api, tmp_path, "failures")
    assert (code, errors) == (0, "")
    assert output.splitlines() == [
        *LINES,
        "nothing is known of 7 further ones: there were too many in one second",
        "2 shown of 9 that failed or were refused; 2 of 2 agents have answered",
    ]
    assert (
        meshctl(api, tmp_path, "failures", "cart", "-n", "shop", "--limit", "1")[1].splitlines()[0]
        == LINES[1]
    )


def test_in_a_terminal_of_60_columns_lines_are_broken_between_words(api: FakeApi, tmp_path: Path) -> None:
    put_failures(api, 1, REFUSED, {**FAILED, "path": "/\x1b[2J", "detail": "\x1b]0;taken\x07"}, left_out=7)
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    said = in_terminal(60, "failures", "--kubeconfig", kubeconfig)
    lines = said.splitlines()
    assert all(len(line) <= 60 and line.isprintable() for line in lines), said
    assert " ".join(LINES[1].split()) in " ".join(said.split())


def test_a_request_that_could_not_be_read_has_no_method_and_no_path() -> None:
    line = failure_line({**FAILED, "by": "client", "method": "", "path": "", "status": 400})
    assert line.startswith("09:30:00.25Z shop/deployment/web → shop/cart 400 1.5ms -  no_endpoint")


def test_a_namespace_alone_is_no_choice(api: FakeApi, tmp_path: Path) -> None:
    code, _, errors = meshctl(api, tmp_path, "failures", "-n", "shop")
    assert (code, "there is none" in errors) == (2, True)


def test_agents_that_do_not_answer_are_named(api: FakeApi, tmp_path: Path) -> None:
    put_failures(api, 1, FAILED)
    put_agent(api, "agent-2", "node-2", phase="Pending")
    put_agent(api, "agent-3", "node-3")
    api.pages["agent-3:15000", "failures"] = raw(200, b"hello", "text/plain")
    code, output, _ = meshctl(api, tmp_path, "failures", "-o", "json")
    page = json.loads(output)
    assert (code, page["seen"], page["answered"], page["total"]) == (1, 1, 1, 3)
    assert page["failures"] == [FAILED]
    assert [one["reason"][:18] for one in page["agents"]] == ["", "the pod is Pending", "no page of this ve"]
    assert "node-2 (agent-2): the pod is Pending" in meshctl(api, tmp_path, "failures")[1]


@pytest.mark.parametrize("text", ["", "{}", '{"failures": [1]}', "[]"])
def test_pages_of_others(text: str) -> None:
    with pytest.raises(ValueError, match="no page of this version"):
        read_failures(text)


@given(st.dictionaries(st.sampled_from(sorted(REFUSED)), st.text() | st.integers() | st.none()))
def test_nobody_writes_to_a_terminal_as_they_like(fields: dict[str, Any]) -> None:
    assert failure_line(fields).isprintable()
