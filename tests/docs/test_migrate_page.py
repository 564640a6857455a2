"""docs/migrate-traefik-mesh.md says what the code does: its table of options, and its example, run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from discovery.compat import OPTIONS, ZONES
from nodeagent.meshctl.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "migrate-traefik-mesh.md").read_text()


def test_the_table_has_every_option_and_no_other() -> None:
    table = PAGE.partition("## Every option")[2].partition("\n\nThese are not")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{o.name}` | {o.values} | {o.meaning} | {o.ours} | {o.changes} |" for o in OPTIONS]


def test_the_zones_are_named() -> None:
    assert all(f"<service>.<namespace>.{zone}`" in PAGE for zone in ZONES)


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = PAGE.partition("## An example")[2]
    document, said = re.findall(r"```\w+\n(.*?)```", example, re.DOTALL)
    command, _, output = said.partition("\n")
    monkeypatch.chdir(tmp_path)
    Path("cart.yaml").write_text(document)
    result = CliRunner().invoke(main, command.removeprefix("$ meshctl ").split())
    assert (result.exit_code, result.stdout + result.stderr) == (0, output)
