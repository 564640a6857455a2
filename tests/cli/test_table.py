"""Tables for terminals of any width, and commands in a terminal of 60 columns."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.meshctl.table import LEAST, Table, wrapped

TABLE = Table(("NAME", "STATE", "N"), [("shop/cart:80", "in use", "7"), ("a", "-", "12")], numbers=1)
FILE = """
apiVersion: v1
kind: Service
metadata:
  name: catalog
  namespace: shop
  annotations:
    svc.mesh/enabled: "true"
    svc.mesh/retry-attempts: "2"
    svc.mesh/circuit-breaker: NetworkErrorRatio() > 0.5
spec:
  clusterIP: 10.96.0.10
  ports: [{name: http, port: 80}]
"""


def test_a_table_that_fits_has_columns() -> None:
    lines = ["NAME          STATE    N", "shop/cart:80  in use   7", "a             -       12"]
    assert list(TABLE.lines()) == list(TABLE.lines(24)) == lines


def test_a_table_that_does_not_fit_is_stacked() -> None:
    assert list(TABLE.lines(23)) == [
        "NAME shop/cart:80",
        "  STATE  in use",
        "  N      7",
        "NAME a",
        "  N      12",
    ]


@given(st.lists(st.text("abc -", max_size=40), min_size=3, max_size=3), st.integers(LEAST, 120))
def test_no_line_is_wider_and_no_word_is_lost(row: list[str], width: int) -> None:
    lines = list(Table(("NAME", "STATE", "WHY"), [row]).lines(width))
    assert all(len(line) <= width for line in lines)
    said = "".join("".join(lines).split())
    assert all("".join(cell.split()) in said for cell in row if cell.strip() not in ("", "-"))


def test_a_line_is_folded_between_words() -> None:
    assert wrapped("layer     retry: sent again up to 2 times", 30, 12) == [
        "layer     retry: sent again up",
        "            to 2 times",
    ]


def in_terminal(columns: int, *arguments: str, **environment: str) -> str:
    """Return what meshctl writes to a terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    code = "from nodeagent.start import meshctl; meshctl()"
    try:
        with subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=slave,
            env={**env, "TERM": "xterm", **environment},
        ) as process:
            os.close(slave)
            said = b""
            try:
                while part := os.read(master, 65536):
                    said += part
            except OSError:
                pass  # the other end is closed
            process.wait(60)
    finally:
        os.close(master)
    return said.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("command", ["routes shop/catalog", "endpoints shop/catalog", "explain"])
def test_commands_in_a_terminal_of_60_columns(tmp_path: Path, command: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(FILE, encoding="utf-8")
    name, *words = command.split()
    said = in_terminal(60, name, "--files", str(path), *(words or ["http://catalog.shop.svc.mesh/items"]))
    assert "Error:" not in said
    assert "shop/catalog" in said
    assert [line for line in said.splitlines() if len(line) > 60] == []


def test_colours_are_for_terminals_that_may_have_them(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(FILE.replace('"2"', '"two"'), encoding="utf-8")
    assert "\x1b[" in in_terminal(60, "check", str(path))
    assert "\x1b[" not in in_terminal(60, "check", str(path), NO_COLOR="1")
