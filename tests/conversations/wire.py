"""Conversations as text: a wire log is read, and played on the data plane as it stands there.

    case: What it shows
    rules: 9112-2.2-empty-line
    > GET / HTTP/1.1        a client says a line
    >> [connects]           the mesh connects to the endpoint, which accepts
    >> GET / HTTP/1.1       the endpoint hears a line
    << HTTP/1.1 200 OK      the endpoint says one
    < HTTP/1.1 200 OK       the client hears one

A line ends in CRLF, unless a backslash is its last character. `\\r`, `\\n`, `\\t`, `\\0`, `\\\\` and `\\x7f`
are bytes; `{a*700}` is 700 times a. Words in brackets are no bytes: a peer `[ends]`, `[closes]`, `[resets]`;
it hears `[end]` or `[reset]`, or `[gone]` for either, where that depends on whether its last bytes were read.
`[mesh 400 host close]` is an answer of the mesh itself, with its status and reason; `.. 2s` lets time pass.
`>>2` and `<<2` are the second connection to the endpoint; without a number it is the newest one.

Every case is played twice: what somebody says comes at once, and byte by byte. `pieces: no` in its head is
for those where that makes a difference, `option:` for an annotation, `limit:` for a limit of the worker,
`clock:` for the time of day.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from nodeagent.settings import Limits
from tests.exchange.http1 import Http1Stage, Own
from tests.exchange.script import Hears, Passes, Says, Step

FOLDER: Final = Path(__file__).parent
_LINE: Final = re.compile(r"(>>|<<|>|<|\.\.)(\d?)(?: (.*))?")
_ESCAPE: Final = re.compile(rb"\\(?:x([0-9a-f]{2})|(.))")
_BYTES: Final = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}
_REPEATED: Final = re.compile(rb"\{([^}*]+)\*(\d+)\}")
_OWN: Final = re.compile(r"mesh (\d{3}) (\w+)( close)?")


class Case(msgspec.Struct):
    """A conversation, and the rules that it shows to be kept."""

    name: str
    file: str
    number: int
    """Of its first line in the file."""
    rules: list[str] = []
    pieces: bool = True
    options: dict[str, str] = {}
    limits: dict[str, int] = {}
    clock: int | None = None
    """The time of day in seconds since 1970; without it the mesh knows none, and writes no Date."""
    script: list[tuple[str, str, bytes | str]] = []
    """Who speaks or hears (`>`, `>>`, `<<`, `<`), on which connection, and what: bytes, or a word."""

    @property
    def label(self) -> str:
        """How to find it."""
        return f"{self.file}: {self.name}"


def read_cases(folder: Path = FOLDER) -> Iterator[Case]:
    """Yield every case of the folder's wire logs."""
    for path in sorted(folder.glob("*.txt")):
        yield from _read(path.name, path.read_text())


def _read(file: str, text: str) -> Iterator[Case]:
    case: Case | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        key, _, value = line.partition(": ")
        if key == "case":
            if case is not None:
                yield case
            case = Case(value, file, number)
        elif not line or line.startswith("#"):
            continue
        elif case is None:
            raise ValueError(f"{file}:{number}: a line before the first case")
        else:
            _add(case, key, value, line, f"{file}:{number}")
    if case is not None:
        yield case


def _add(case: Case, key: str, value: str, line: str, place: str) -> None:
    match = _LINE.fullmatch(line)
    if match is not None:
        arrow, connection, text = match[1], match[2], match[3] or ""
        word = re.fullmatch(r"\[(.*)\]", text)
        what: bytes | str = text if arrow == ".." else word[1] if word else _bytes(text)
        before = case.script[-1] if case.script else ("", "", "")
        if isinstance(what, bytes) and isinstance(before[2], bytes) and before[:2] == (arrow, connection):
            case.script[-1] = (arrow, connection, before[2] + what)
        else:
            case.script.append((arrow, connection, what))
        return
    name, _, setting = value.partition("=")
    match key:
        case "rules":
            case.rules.extend(value.split())
        case "pieces" if value == "no":
            case.pieces = False
        case "option":
            case.options[name] = setting
        case "clock":
            case.clock = int(value)
        case "limit":
            case.limits[name] = int(setting)
        case _:
            raise ValueError(f"{place}: neither a line of the log nor a setting: {line!r}")


def _bytes(text: str) -> bytes:
    """Return what a line of the log stands for."""
    raw = text.encode("latin-1")
    whole = re.search(rb"(?<!\\)(?:\\\\)*\\\Z", raw) is None
    raw = raw if whole else raw[:-1]
    raw = _REPEATED.sub(lambda one: one[1] * int(one[2]), raw)
    data = _ESCAPE.sub(lambda one: bytes.fromhex(one[1].decode()) if one[1] else _BYTES[one[2]], raw)
    return data + b"\r\n" if whole else data


def play(case: Case, stage: Http1Stage, in_pieces: bool) -> None:
    """Play it; what somebody says comes byte by byte if `in_pieces`."""
    steps: list[Step] = []
    connections = 0
    for arrow, number, what in case.script:
        endpoint = f"a{number or connections}"
        if arrow == "..":
            steps.append(Passes(float(str(what).removesuffix("s"))))
        elif what == "connects":
            connections += 1
            steps += [Hears("a", "dialled"), Says("a", "accepts")]
        elif arrow in (">", "<<"):
            peer = "client" if arrow == ">" else endpoint
            whole = isinstance(what, str) or not in_pieces
            steps.append(Says(peer, what) if whole else _spelled(stage, peer, what))
        else:
            steps.append(Hears("client" if arrow == "<" else endpoint, _heard(what)))
    stage.play(*steps)


def _spelled(stage: Http1Stage, peer: str, what: bytes | str) -> Step:
    """Return a step in which a peer says something byte by byte."""

    def says() -> None:
        assert isinstance(what, bytes)
        for at in range(len(what)):
            stage.act(peer, what[at : at + 1])

    return says


class _Gone:
    """The end of a connection, in order or not."""

    def __eq__(self, other: object) -> bool:
        return other in ("end", "reset")

    __hash__ = None  # type: ignore[assignment]


def _heard(what: bytes | str) -> object:
    if what == "gone":
        return _Gone()
    match = _OWN.fullmatch(what) if isinstance(what, str) else None
    return Own(int(match[1]), match[2], closing=bool(match[3])) if match else what


def settings(case: Case) -> dict[str, Any]:
    """Return what the stage of a case is made with."""
    clock = case.clock
    return {
        "annotations": case.options,
        "limits": Limits(**case.limits),
        "wall": None if clock is None else lambda: float(clock),
        "high": 10**6,
    }
