"""No annotation, name or reason commands the terminal of who looks at it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.meshctl.plain import harmless, plain
from nodeagent.meshctl.table import Table
from tests.cli.test_table import in_terminal

EVIL = (
    "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  namespace: shop\n  annotations:\n"
    '    svc.mesh/enabled: "true"\n'
    '    svc.mesh/retry-attempts: "\\e[2J\\0\\u202e many"\n'
    '    svc.mesh/tracing: "\\e[8mhidden\\n0 problems"\n'
    '    svc.mesh/request-headers: "set x=a\\e]0;taken\\a"\n'
    "spec:\n  clusterIP: 10.96.0.10\n  ports: [{name: http, port: 80}]\n"
)
COLOURS = re.compile(r"\x1b\[(?:0|1|2|3[1-7])m")


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "FILE"],
        ["routes", "shop/web", "--files", "FILE"],
        ["endpoints", "shop/web", "--files", "FILE"],
        ["explain", "--files", "FILE", "http://web.shop.svc.mesh/"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_annotations_do_not_command_the_terminal(arguments: list[str], tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(EVIL)
    written = in_terminal(120, *(str(file) if one == "FILE" else one for one in arguments))
    assert "web" in written
    lines = COLOURS.sub("", written).split("\n")
    assert [line for line in lines if not line.isprintable()] == []
    assert not any(line.startswith("0 problems") for line in lines)


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_becomes_one_line(text: str) -> None:
    assert plain(text).isprintable()
    if text.isprintable():
        assert plain(text) == text


@given(st.text(st.sampled_from("a\n\t\x1b[0123456789;mJ\x9b\u202e")))
def test_any_line_has_colours_at_most_and_they_end_with_it(text: str) -> None:
    line = harmless(text)
    assert COLOURS.sub("", line).replace("\n", "").isprintable()
    assert not COLOURS.search(line) or line.endswith("\x1b[0m")


def test_a_cell_of_a_table_is_one_line() -> None:
    table = Table(("SETTING", "VALUE"), (("a", "one\ntwo\x1b[2J"), ("b", "three")))
    assert list(table.lines()) == ["SETTING  VALUE", "a        one two\ufffd[2J", "b        three"]
    assert all(line.isprintable() for line in table.lines(10))
