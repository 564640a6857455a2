"""Log lines as they are written: several processes share the descriptor, so each has to be one piece."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from nodeagent.log.configure import access_form
from nodeagent.log.forms import JsonForm

SCRIPT = """
import structlog
from nodeagent.log.configure import configure_logging
configure_logging("info", "FORMAT")
log = structlog.get_logger()
log.info("first_event", service="shop/web")
log.error("second_event", reason="x" * 5000)  # too long to be written with the first
"""


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_line_is_written_in_one_piece(log_format: str, unbuffered: str) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # each write is a packet
    with ours, theirs:
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        command = [sys.executable, "-c", SCRIPT.replace("FORMAT", log_format)]
        subprocess.run(command, stderr=theirs.fileno(), env=environment, check=True, timeout=60)
        lines = [ours.recv(65536).decode() for _ in range(2)]
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            ours.recv(1)
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in lines)
    assert "first_event" in lines[0]
    assert "second_event" in lines[1]
    if log_format == "json":
        assert [json.loads(line)["level"] for line in lines] == ["info", "error"]


ODD = """
import structlog
from nodeagent.log.configure import configure_logging
configure_logging("info", "json")
log = structlog.get_logger()
log.info("odd", name="\\udc80", size=1 << 70, kind=object, text="\u00e9\\n", numbers=(1, 2), of={"a": 1})
log.info("plain", kind=ValueError("x"), text="\u00e9")
"""


def test_json_takes_whatever_it_is_given() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ODD], stderr=subprocess.PIPE, check=True, timeout=60, encoding="utf-8"
    )
    odd, plain = done.stderr.splitlines()
    assert list(json.loads(odd))[:3] == ["time", "level", "event"]
    assert json.loads(odd)["name"] == "\udc80"
    assert json.loads(odd)["size"] == 1 << 70
    assert json.loads(plain)["kind"] == "ValueError('x')"
    assert plain.endswith('Z","level":"info","event":"plain","kind":"ValueError(\'x\')","text":"\u00e9"}')


def test_lines_of_the_access_log_have_the_form_that_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    usual = JsonForm()
    assert access_form("", usual) is usual
    event = {"level": "info", "event": "request", "path": "/"}
    assert json.loads(access_form("json", usual)(event))["path"] == "/"
    assert access_form("console", usual)(event).endswith("request            /")
    assert access_form("{path} {event}", usual)(event) == "/ request"
