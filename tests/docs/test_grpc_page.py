"""docs/grpc.md says what the code does: its example, tables and bounds."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from middleware.circuit_breaker_options import parse as parse_breaker
from middleware.contract import Problem
from middleware.grpc import GrpcStatus, of_http, of_reply
from middleware.retry_options import parse as parse_retry
from nodeagent.admin.families import METHODS, port_families
from nodeagent.proxy.grpc_exchange import OF_NO_METHOD
from nodeagent.stats.columns import Layout
from nodeagent.stats.methods import MOST_METHODS, ROWS

PAGE = (Path(__file__).parents[2] / "docs" / "grpc.md").read_text()


def test_the_example() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    annotations = yaml.safe_load(example)["metadata"]["annotations"]
    for options in (parse_retry(annotations), parse_breaker(annotations)):
        assert options is not None
        assert not isinstance(options, Problem)


def test_what_the_mesh_tells_callers() -> None:
    rows = re.findall(r"^\| (\d{3}) \| (\w+) \|", PAGE, re.MULTILINE)
    assert len(rows) == 8
    assert [of_reply(int(code)).name for code, _ in rows] == [name for _, name in rows]


def test_what_callers_make_of_http() -> None:
    (codes,) = re.findall(r"make of it: ([\d, and]+) are UNAVAILABLE, 404 is UNIMPLEMENTED", PAGE)
    assert {of_http(int(code)) for code in re.findall(r"\d+", codes)} == {GrpcStatus.UNAVAILABLE}
    assert of_http(404) is GrpcStatus.UNIMPLEMENTED


def test_what_says_nothing_of_a_method() -> None:
    (names,) = re.findall(r"is none of ([A-Z_,\s]+ and [A-Z_]+),", PAGE)
    assert {GrpcStatus[name] for name in re.findall(r"[A-Z_]+", names)} == OF_NO_METHOD


def test_the_bounds_and_the_metrics() -> None:
    assert f"| {MOST_METHODS} methods |" in PAGE
    assert f"| {ROWS:,} names |" in PAGE
    shown = {family.name for family in port_families(Layout(()))} | {METHODS.name}
    assert set(re.findall(r"^\| `(svcmesh_\w+)` \|", PAGE, re.MULTILINE)) <= shown
