"""Who listens on a port: real sockets of this process, and a /proc that is made up."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import cast

import pytest

from hack.kit.ports import free_port
from nodeagent.capture.occupant import Transport, occupant

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0", "::1", "::"])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_socket_of_this_process(transport: str, bound: str) -> None:
    family = socket.AF_INET6 if ":" in bound else socket.AF_INET
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as listener:
        listener.bind((bound, 0))
        if transport == "tcp":
            listener.listen()
        port = listener.getsockname()[1]
        asked = "::1" if bound == "::1" else "127.0.0.1"
        said = occupant(asked, port, cast("Transport", transport))
        where = f"[{bound}]:{port}" if ":" in bound else f"{bound}:{port}"
        assert said.endswith(f"(process {os.getpid()}) listens on {where}")
        assert occupant("192.0.2.1", port, cast("Transport", transport)) == (
            said if bound in ("0.0.0.0", "::") else ""
        ), "another address of the machine"


def test_a_port_that_nobody_has() -> None:
    assert occupant("127.0.0.1", free_port(), "tcp") == ""


def test_a_process_that_may_not_be_looked_into(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    line = "   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 {user:5} 0 4711 1 0\n"
    (tmp_path / "net" / "tcp").write_text(HEAD + line.format(user=0))
    assert (
        occupant("127.0.0.1", 8080, "tcp", tmp_path) == "a process of the user root listens on 0.0.0.0:8080"
    )
    (tmp_path / "net" / "tcp").write_text(HEAD + line.format(user=54321))
    assert (
        occupant("127.0.0.1", 8080, "tcp", tmp_path) == "a process of the user 54321 listens on 0.0.0.0:8080"
    )


@pytest.mark.parametrize("text", ["", "sl\n", "sl\n  0: nonsense\n", "\xff\n"])
def test_a_proc_that_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(text, encoding="latin-1")
    assert occupant("127.0.0.1", 8080, "tcp", tmp_path) == ""
