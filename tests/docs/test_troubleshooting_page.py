"""docs/troubleshooting.md explains every response that the mesh makes itself, and no other."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import middleware
import nodeagent.proxy
from middleware.contract import ExchangeError
from nodeagent.proxy.errors import BadRequest
from nodeagent.proxy.message import HeadError
from nodeagent.settings import Limits
from nodeagent.stats.columns import REFUSALS, UPSTREAM_ERRORS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "troubleshooting.md").read_text()


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    lines = [line for line in section(title).splitlines() if line.startswith("| ") and "`" in line]
    return [[cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def errors(of: type[ExchangeError] = ExchangeError) -> Iterator[type[ExchangeError]]:
    for package in (middleware, nodeagent.proxy):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    for subclass in of.__subclasses__():
        if subclass.__module__.startswith(("middleware.", "nodeagent.")):
            yield subclass
            yield from errors(subclass)


def test_every_response_of_the_mesh_is_explained_and_no_other() -> None:
    made = {(str(e.status), e.reason, e.proxy_error) for e in errors() if e is not BadRequest and e.status}
    assert len(made) > 20
    assert {(row[0], row[1], row[2]) for row in rows("Responses of the mesh")} == made


def test_every_end_of_a_connection_is_explained_and_no_other() -> None:
    ends = [error.reason for error in errors() if not error.status]
    assert sorted(row[0] for row in rows("Connections that the mesh ends")) == sorted(ends)


def test_every_reason_to_refuse_a_request_is_explained_and_no_other() -> None:
    named = [row[0] for row in rows("Malformed requests")]
    assert sorted(named) == sorted({*REFUSALS, "head_timeout", "other"})


def statuses() -> dict[str, set[str]]:
    """The statuses that requests are refused with, as the sources have them."""
    found: dict[str, set[str]] = {}
    for name in ("http1/head.py", "http1/incomplete.py", "chunks.py"):
        source = (DOCS.parent / "nodeagent" / "proxy" / name).read_text()
        for reason, status in re.findall(r'HeadError\(\s*"(\w+)",.*?(?:, (\d{3}))?\)$', source, re.MULTILINE):
            found.setdefault(reason, set()).add(status or str(HeadError("", "").status))
    return found


@pytest.mark.parametrize("row", rows("Malformed requests"), ids=lambda row: row[0])
def test_the_statuses_of_refusals(row: list[str]) -> None:
    known = statuses()
    assert len(known) > 10
    for status in known.get(row[0], set()) - {"502"}:  # of responses
        assert status in row[1]


def test_every_error_of_endpoints_is_explained_and_no_other() -> None:
    assert [row[0] for row in rows("Errors of endpoints")] == list(UPSTREAM_ERRORS)


def test_the_responses_that_the_errors_lead_to_are_explained() -> None:
    explained = {(row[0], row[1]) for row in rows("Responses of the mesh")}
    promised = re.findall(r"(\d{3}) `(\w+)`", section("Errors of endpoints"))
    assert promised
    assert set(promised) <= explained


def test_the_times_are_those_of_the_mesh() -> None:
    limits = Limits()
    times = {int(seconds) for seconds in re.findall(r"(\d+) seconds", PAGE)}
    known = {
        limits.head_time, limits.stall_time, limits.response_time, limits.connect_time,
        limits.upstream_queue_time,
    }  # fmt: skip
    assert times == known


def test_events_that_the_page_names_exist() -> None:
    events = set(re.findall(r"^\| `([^`]+)` \|", (DOCS / "logs.md").read_text(), re.MULTILINE))
    starts = tuple({f"{event.partition('_')[0]}_" for event in events} - {"circuit_", "middleware_", "node_"})
    symptoms = section("What you see, and where to look") + section("Installing and upgrading")
    named = {name for name in re.findall(r"`([a-z]+_[a-z_]+)`", symptoms) if name.startswith(starts)}
    assert len(named) > 8
    assert named <= events


def test_the_readme_leads_here() -> None:
    assert "(docs/troubleshooting.md)" in (DOCS.parent / "README.md").read_text()
