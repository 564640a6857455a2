"""What the general pages list is all there is, and no more."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PACKAGES = ("nodeagent", "discovery", "middleware")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
NAMED_BY = {"_event", "_log_problem", "request_line", "write"}
"""Functions that log an event whose name is their first argument."""


def first_cells(page: str) -> list[str]:
    """Return what stands in backquotes at the beginning of the rows of a page's tables."""
    return re.findall(r"^\| `([^`]+)` \|", (DOCS / page).read_text(), re.MULTILINE)


@cache
def calls() -> list[tuple[ast.Call, Path]]:
    """Return every call in the sources."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    nodes = ((node, path) for path in files for node in ast.walk(ast.parse(path.read_text())))
    return [(node, path) for node, path in nodes if isinstance(node, ast.Call)]


def logged_events() -> Iterator[tuple[str, Path]]:
    for node, path in calls():
        if node.args and isinstance(node.args[0], ast.Constant):
            name, function = node.args[0].value, node.func
            by_level = isinstance(function, ast.Attribute) and function.attr in LEVELS
            by_function = isinstance(function, ast.Name) and function.id in NAMED_BY
            if isinstance(name, str) and (by_level or by_function):
                yield name, path


def test_every_log_event_is_in_the_table_and_every_row_is_an_event() -> None:
    rows = first_cells("logs.md")
    assert len(rows) == len(set(rows))
    assert set(rows) == {name for name, _ in logged_events()}


def test_log_events_are_snake_case() -> None:
    assert [found for found in logged_events() if not re.fullmatch(r"[a-z]+(_[a-z]+)*", found[0])] == []


def logged_keys() -> Iterator[tuple[str, str]]:
    """Yield the keys of log lines, each with its event."""
    for node, _ in calls():
        match node:
            case ast.Call(func=ast.Attribute(attr=level), args=[ast.Constant(value=str(event)), *_]):
                keys = node.keywords if level in LEVELS else []
                yield from ((event, key.arg) for key in keys if key.arg)


def test_a_duration_in_the_log_says_its_unit() -> None:
    keys = set(logged_keys())
    assert ("worker_died", "restart_in_ms") in keys
    duration = re.compile(r"(^|_)(seconds|took|after|waited|wait|age|timeout|delay|pause|interval|in)$")
    assert [found for found in keys if duration.search(found[1])] == []


def test_every_dependency_has_a_line_and_every_line_is_a_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(one for extra in project["optional-dependencies"].values() for one in extra),
    ]
    names = [re.match(r"[\w-]+", requirement)[0] for requirement in wanted]  # type: ignore[index]
    assert sorted(first_cells("dependencies.md")) == sorted(names)


def test_the_page_says_which_dependencies_only_the_agent_has() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    page = (DOCS / "dependencies.md").read_text()
    section = page.partition("the agent only\n")[2].partition("\n### ")[0]
    names = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    assert names == [requirement.partition(">=")[0] for requirement in extras["agent"]]


def failure_rows() -> list[str]:
    rows = re.findall(r"^\|(?! -|---)(.*)\|$", (DOCS / "failure.md").read_text(), re.MULTILINE)
    return [row for row in rows if not row.rstrip().endswith("| test")]


def test_every_row_of_what_fails_has_a_bound_and_a_test_that_exists() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    known = set(re.findall(r"def (test_\w+)", sources))
    assert len(failure_rows()) > 40
    for row in failure_rows():
        *_, bound, tests = row.split("|")
        assert bound.strip(), row
        named = re.findall(r"`(test_\w+)`", tests)
        assert named, row
        assert set(named) <= known, row


PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", page.read_text())
    paths = [link.partition("#")[0] for link in links if "://" not in link]
    assert [path for path in paths if path and not (page.parent / path).exists()] == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.parent.name != "middleware"], ids=lambda p: p.name
)
def test_files_that_pages_name_exist(page: Path) -> None:
    named = re.findall(r"`((?:nodeagent|discovery|middleware|hack|tests|docs)/[\w/.-]*)`", page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


FIGURE = re.compile(r"((?:\d[\d,.]* to )?\d[\d,.]*) (µs|ms|MiB|KiB)")


def test_a_figure_stands_on_one_page_alone() -> None:
    """What stands on two pages is mended on one, and then the pages contradict each other."""
    pages = [(DOCS / name).read_text() for name in ("dependencies.md", "performance.md")]
    dependencies, performance = (set(FIGURE.findall(page)) for page in pages)
    assert len(dependencies) > 3
    assert len(performance) > 50
    assert dependencies & performance == set()
