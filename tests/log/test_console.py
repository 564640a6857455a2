"""The form of lines for people: what comes first, the width of a terminal, colours."""

from __future__ import annotations

import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from fcntl import ioctl
from typing import Any

import pytest

from nodeagent.log.console import ConsoleForm, terminal_width, uses_colour

MOMENT = datetime(2026, 3, 1, 9, 30, 0, 125_000, tzinfo=UTC)
ANSI = re.compile(r"\x1b\[[0-9;]*m")
REQUEST = {
    "level": "info",
    "event": "request",
    "service": "shop/cart",
    "port": 80,
    "method": "GET",
    "path": "/items",
    "status": 200,
    "endpoint": "10.1.0.5:8080",
    "took_ms": 1.25,
    "source": "10.1.0.9",
    "worker": 0,
}
FAILED = {
    **REQUEST,
    "level": "warning",
    "event": "request_failed",
    "status": 503,
    "reason": "no_endpoint",
    "detail": "shop/cart has no ready endpoint for port 80",
}


def form(event: Mapping[str, Any], width: int = 0, colour: bool = False) -> str:
    return ConsoleForm(colour, lambda: width, now=lambda: MOMENT)(event)


def test_a_line_begins_with_what_a_person_reads_first() -> None:
    assert form(REQUEST) == (
        "09:30:00.125 request            shop/cart:80 200 GET /items"
        " endpoint=10.1.0.5:8080 took_ms=1.25 source=10.1.0.9 worker=0"
    )
    assert form(FAILED).startswith(
        "09:30:00.125 request_failed     warning shop/cart:80 503 GET /items reason=no_endpoint "
        'detail="shop/cart has no ready endpoint for port 80" endpoint='
    )


def test_where_the_width_is_not_known_nothing_is_cut() -> None:
    line = form({**REQUEST, "path": "/" + "x" * 3000})
    assert "x" * 3000 in line
    assert "\n" not in line


@pytest.mark.parametrize("width", [40, 66, 80, 100, 101, 110, 118, 119, 120, 121, 200])
def test_a_line_that_informs_is_cut_at_the_width_of_the_terminal(width: int) -> None:
    whole, line = form(REQUEST), form(REQUEST, width)
    assert len(line) <= width
    assert line == whole or (line.endswith("…") and whole.startswith(line[:-1].rstrip()))
    assert (line == whole) == (len(whole) <= width)


def test_a_long_path_does_not_push_the_rest_out() -> None:
    line = form({**REQUEST, "path": "/a/" + "x" * 500 + "/z"}, 120)
    assert len(line) <= 120
    assert re.search(r"GET /a/x+…x+/z endpoint=10.1.0.5:8080 ", line)


@pytest.mark.parametrize("width", [40, 61, 80, 100])
def test_of_a_warning_nothing_is_missing(width: int) -> None:
    event = {**FAILED, "source_pod": "shop/" + "x" * 300}
    lines = form(event, width).split("\n")
    assert len(lines) > 1
    assert all(len(line) <= width for line in lines)
    assert all(line.startswith("    ") for line in lines[1:])

    def squeezed(text: str) -> str:
        return re.sub(r"\s", "", text)

    assert squeezed("".join(lines)) == squeezed(form(event))


def test_a_terminal_that_says_it_has_no_columns_is_treated_as_narrow() -> None:
    assert len(form(REQUEST, 3)) <= 40


def test_no_value_ends_a_line_or_moves_the_cursor() -> None:
    line = form({**FAILED, "detail": 'a\nb\x1b[2J"c" \u202e', "path": "/\r\x07"})
    assert line.isprintable()
    assert r'detail="a\nb\x1b[2J\"c\" \u202e"' in line


def test_a_traceback_stands_below_line_by_line() -> None:
    line = form(
        {"level": "error", "event": "x", "exception": "Traceback:\n  File\x1b\nValueError", "lines": 3}, 80
    )
    assert line.split("\n")[1:] == ["    Traceback:", r"      File\x1b", "    ValueError"]


def test_values_of_other_types() -> None:
    line = form(
        {"level": "debug", "event": "e", "of": {"a": 1, "b": 2}, "list": ["x", "y"], "none": None, "no": ""}
    )
    assert line.endswith('debug of="a 1, b 2" list="x, y" none=None')


def test_a_port_without_a_service_has_its_name() -> None:
    assert form({"level": "info", "event": "e", "address": "::1", "port": 53}).endswith("address=::1 port=53")


def test_colours_say_nothing_that_the_text_does_not() -> None:
    for event in (REQUEST, FAILED, {"level": "error", "event": "e", "exception": "x\ny"}):
        coloured = form(event, 80, colour=True)
        assert coloured != form(event, 80)
        assert ANSI.sub("", coloured) == form(event, 80)


@pytest.mark.parametrize(
    ("terminal", "environment", "expected"),
    [
        (True, {}, True),
        (True, {"TERM": "xterm-256color"}, True),
        (True, {"TERM": "dumb"}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": "0"}, False),
        (True, {"NO_COLOR": ""}, True),
        (False, {}, False),
        (False, {"FORCE_COLOR": "1"}, True),
        (True, {"FORCE_COLOR": "1", "TERM": "dumb"}, True),
        (True, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_who_decides_on_colours(terminal: bool, environment: dict[str, str], expected: bool) -> None:
    assert uses_colour(terminal, environment) is expected


SCRIPT = """
import structlog
from nodeagent.log.configure import configure_logging
configure_logging("info", "console")
log = structlog.get_logger()
log.info("service_added", service="shop/web", address="250.96.0.10", note="y" * 20, more="z" * 20)
log.warning("request_failed", service="shop/web", port=80, status=503, detail="no ready endpoint " * 5)
"""


def test_what_the_mesh_has_decided_is_not_cut_off() -> None:
    decided = "2 tries: 10.1.0.4:8080 connect_failed, 10.1.0.5:8080 200"
    stages = {"queue_ms": 0.0, "connect_ms": 0.3, "upstream_ms": 0.8, "middleware_ms": 0.1, "tries": 2}
    line = form({**REQUEST, **stages, "decided": decided}, width=180)
    assert f'GET /items decided="{decided}" endpoint=10.1.0.5:8080 took_ms=1.25' in line
    assert len(line) <= 180
    assert line.endswith("…")


@contextmanager
def terminal(columns: int) -> Iterator[tuple[int, int]]:
    """Yield both ends of a terminal: a person's, and a program's."""
    person, program = pty.openpty()
    ioctl(program, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    try:
        yield person, program
    finally:
        os.close(person)
        os.close(program)


def shown(columns: int, **environment: str) -> str:
    """Return what the script shows on a terminal."""
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS")}
    with terminal(columns) as (person, program):
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            stderr=program,
            env={**kept, **environment},
            check=True,
            timeout=60,
        )
        return os.read(person, 65536).decode()


def test_on_a_terminal_lines_keep_to_its_width() -> None:
    lines = ANSI.sub("", shown(60)).split("\r\n")
    assert max(map(len, lines)) <= 60
    assert lines[0].endswith("…")
    assert "".join(lines[1:]).count("endpoint") == 5
    assert any(
        "service_added" in line and "z" * 20 in line for line in ANSI.sub("", shown(200)).split("\r\n")
    )


def test_on_a_terminal_of_unknown_width_lines_are_as_long_as_they_are() -> None:
    assert "z" * 20 in shown(0)


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["NO_COLOR", "dumb"])
def test_a_terminal_without_colours(environment: dict[str, str]) -> None:
    assert "\x1b" not in shown(80, **environment)


def test_a_terminal_has_colours() -> None:
    assert "\x1b[" in shown(80, TERM="xterm")


def test_the_width_is_that_of_the_terminal_now() -> None:
    with terminal(123) as (_, program):
        assert terminal_width(program) == 123
        ioctl(program, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 77, 0, 0))
        assert terminal_width(program) == 77
    with open(os.devnull, "wb") as nowhere:
        assert terminal_width(nowhere.fileno()) == 0


def test_what_is_wrong_with_an_object_begins_with_the_object() -> None:
    line = form(
        {
            "level": "warning",
            "event": "problem_found",
            "reason": "no",
            "field": "f",
            "object": "Service shop/a",
        }
    )
    assert line.endswith('warning object="Service shop/a" field=f reason=no')
