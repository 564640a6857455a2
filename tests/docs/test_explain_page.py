"""The page of `meshctl explain`: its examples are run, and its tables are complete."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from middleware.contract import Asked, Decision
from nodeagent.explain.model import BackendView, Explanation, RuleView, Step
from nodeagent.meshctl.main import main
from tests.middleware.pages import DOCS, blocks, rows

PAGE = (DOCS / "explain.md").read_text()


def test_the_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.yaml").write_text(blocks(PAGE, "yaml")[0])
    text = "\n".join(blocks(PAGE, "console"))
    examples = re.findall(r"^\$ meshctl (.*)\n((?:(?!\$ ).*\n?)*)", text, re.MULTILINE)
    assert len(examples) == 3
    for command, output in examples:
        result = CliRunner().invoke(main, shlex.split(command))
        assert result.exit_code == 0, result.output
        assert result.output.strip() == output.strip()


def test_the_fields() -> None:
    table = rows(PAGE, "| field | is |")
    named = {name for row in table for name in re.findall(r"`(\w+)`", row[0])}
    assert named == {field.name for field in msgspec.structs.fields(Explanation)}
    texts = {row[0].strip("`"): row[1] for row in table}
    for name, kind in (("steps", Step), ("backends", BackendView), ("rules", RuleView)):
        for field in msgspec.structs.fields(kind):
            assert f"`{field.name}`" in texts[name]


def test_the_function_of_a_middleware() -> None:
    class Options(msgspec.Struct, frozen=True):
        team: str

    space = {"Options": Options, "Asked": Asked, "Decision": Decision}
    exec(blocks(PAGE, "python")[0], space)
    from middleware.testing import FakeRequest

    asked = FakeRequest()
    said = space["explain"](Options("blue"), asked)
    assert said == Decision("tells endpoints the team, blue")
    assert asked.headers.get("x-team") == "blue"
