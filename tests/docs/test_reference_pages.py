"""The generated pages are up to date, and name every variable and every metric there is, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from hack import flags, metrics
from nodeagent.cli.main import main, run

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *DOCS.rglob("*.md")]
SOURCES = ("nodeagent", "discovery", "middleware", "hack", "manifests", ".ci", "Makefile", "Dockerfile")
VARIABLE = re.compile(r"\bSVCMESH_[A-Z_]*[A-Z]\b")
METRIC = re.compile(r"\bsvcmesh_[a-z_]*[a-z]\b")
SERIES = re.compile(r"_(bucket|sum|count)$")


def texts(*names: str) -> Iterator[str]:
    for name in names:
        path = ROOT / name
        for file in [path] if path.is_file() else path.rglob("*"):
            if file.is_file() and file.suffix not in (".pyc", ".so"):
                yield file.read_text(errors="replace")


def variables_of_flags() -> set[str]:
    return {str(parameter.envvar) for parameter in run.params if isinstance(parameter, click.Option)}


def variables_of_sources() -> set[str]:
    return {name for text in texts(*SOURCES, "tests") for name in VARIABLE.findall(text)}


def variables_of_pages() -> set[str]:
    return {name for page in PAGES for name in VARIABLE.findall(page.read_text())}


def known_metrics() -> set[str]:
    return {family.name for family in metrics.families()}


def unknown(texts_: Iterator[str]) -> set[str]:
    """The names of metrics in the texts that nothing exposes, with or without what is added to a family's."""
    known = known_metrics()
    known |= {name.removesuffix("_total") for name in known}
    return {
        name
        for text in texts_
        for name in (SERIES.sub("", found) for found in METRIC.findall(text))
        if name not in known and f'Metric("{name}"' not in text  # an example declares its own
    }


def test_the_page_of_the_command_line_is_up_to_date() -> None:
    assert (DOCS / "nodeagent.md").read_text() == flags.render(), "run `make docs`"


def test_the_page_of_metrics_is_up_to_date() -> None:
    assert (DOCS / "metrics.md").read_text() == metrics.render(), "run `make docs`"


def test_every_variable_stands_on_a_page_and_no_other() -> None:
    there = variables_of_flags() | variables_of_sources()
    assert len(there) > 15
    assert variables_of_pages() == there


def test_every_metric_stands_on_its_page() -> None:
    rows = re.findall(r"^\| `(svcmesh_\w+)` \|", (DOCS / "metrics.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(known_metrics())


def test_no_page_and_no_source_names_a_metric_that_does_not_exist() -> None:
    assert unknown(page.read_text() for page in PAGES) == set()
    assert unknown(texts(*SOURCES)) == set()


def test_an_unknown_metric_is_found() -> None:
    assert unknown(iter(["`svcmesh_requests_total`, `svcmesh_request_duration_seconds_bucket`"])) == set()
    assert unknown(iter(["`svcmesh_wishes_total`"])) == {"svcmesh_wishes_total"}


def test_an_empty_variable_is_the_same_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an agent is given is the same with all variables empty as without any."""

    def given(environment: dict[str, str | None]) -> dict[str, object]:
        seen: dict[str, object] = {}

        def remember(**values: object) -> None:
            seen.update(values)

        monkeypatch.setattr(run, "callback", remember)
        result = CliRunner().invoke(main, ["run"], env=environment)
        assert result.exit_code == 0, result.output
        return seen

    unset = given(dict.fromkeys(variables_of_flags()))
    assert unset == given(dict.fromkeys(variables_of_flags(), ""))
    assert unset["capture"] == "auto"
