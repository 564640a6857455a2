"""Request heads that differ from earlier ones only where requests always differ: in the values of fields that
identify a request, such as `traceparent`, and in the target.

These values are cut out, and what is left is looked up. The codec, `nodeagent.proxy.http1.head`, stays the
only judge: what is remembered is what it has made of the same head with other values in these places, and it
says where they end up. The places are ones where it accepts a value whatever it is, as long as its bytes are
those of a field's value, or of a target in origin form; only that is checked here.
"""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Sequence
from typing import Final

from nodeagent.proxy.http1.head import parse_request
from nodeagent.proxy.memory import Memory
from nodeagent.proxy.message import TARGET, UNIQUE, HeadError, RequestHead

_ROOM: Final = 512 * 1024
"""Bytes in each of two generations."""
_MOST_CUTS: Final = 4
"""Of fields in one head; more cost more than they save."""
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*+\r\n")
"""The rest of a field's line behind the colon, as `nodeagent.proxy.message.FIELD` has it."""
_ORIGIN: Final = re.compile(rb"(?=/)%b" % TARGET)
_IDENTIFYING: Final = re.compile(rb"\r\n(?i:%b):" % b"|".join(sorted(map(re.escape, UNIQUE))))
_MARK: Final = secrets.token_hex(12).encode()
"""In place of a value; nobody can send it on purpose."""

Parts = tuple[bytes, ...]
"""What is left of a head: what stands before the first value, between two, and behind the last one."""


class _Template:
    """What the codec makes of a head, but for some values."""

    __slots__ = ("cost", "head", "pieces")

    def __init__(self, head: RequestHead, pieces: list[bytes], parts: Parts) -> None:
        self.head = head
        self.pieces = pieces
        """Of its fields, with a value between each two."""
        self.cost = 2 * sum(map(len, parts)) + 1000


_templates: Final[Memory[Parts, _Template]] = Memory(_ROOM)


class Found:
    """A head, cut up."""

    __slots__ = ("end", "parts", "target", "values")

    def __init__(self, parts: Parts, target: bytes, values: list[bytes], end: int) -> None:
        self.parts = parts
        self.target = target
        """Empty if it was not cut out."""
        self.values = values
        self.end = end

    def read(self) -> RequestHead | None:
        """Return what the codec would say, if that is known."""
        template = _templates.young.get(self.parts) or _templates.older(self.parts)
        if template is None:
            return None
        head = template.head.copy(self.end)
        if self.target:
            head.target = self.target
        values, pieces = self.values, template.pieces
        if len(values) == 1:
            head.fields = b"".join((pieces[0], values[0], pieces[1]))
        elif values:
            fields = [pieces[0]]
            for number, value in enumerate(values, 1):
                fields += (value, pieces[number])
            head.fields = b"".join(fields)
        return head

    def learn(self) -> None:
        """Remember this head without its values, if it has come before; the codec has accepted it."""
        if _templates.again(self.parts):
            template = self._template()
            if template is not None:
                _templates.keep(self.parts, template)

    def _template(self) -> _Template | None:
        """Ask the codec what it makes of the head, with marks for values."""
        marks = [b"%b-%d" % (_MARK, number) for number in range(len(self.values))]
        target = b"/" + _MARK if self.target else b""
        put = [target, *marks] if target else marks
        raw = b"".join([piece for pair in zip(self.parts, [*put, b""], strict=True) for piece in pair])
        try:
            head = parse_request(raw)
        except HeadError:
            return None
        # A request without Host gets that of the listener, which is not in these bytes.
        if head is None or head.minor != b"1" or (target and head.target != target):
            return None
        pieces = [head.fields]
        for mark in marks:
            before, found, behind = pieces.pop().partition(mark)
            if not found or mark in behind:  # `Connection` names it, so it does not go on
                return None
            pieces += (before, behind)
        return _Template(head, pieces, self.parts)


class Cuts:
    """The places where the heads of a connection are cut: in their order, as these fields' lines begin."""

    __slots__ = ("markers", "target")

    def __init__(self, markers: Sequence[bytes], target: bool) -> None:
        self.markers = tuple(markers)
        self.target = target

    def find(self, data: bytes, position: int, end: int) -> Found | None:
        """Cut up the head between these positions; None: it has no such places."""
        parts = []
        target = b""
        if self.target:
            start = data.find(b" ", position, end) + 1
            stop = data.find(b" ", start, end)
            if not start or _ORIGIN.fullmatch(data, start, stop) is None:
                return None
            parts.append(data[position:start])
            target = data[start:stop]
            position = stop
        values = []
        for marker in self.markers:
            start = data.find(marker, position, end)
            if start < 0:
                return None
            start += len(marker)
            match = _VALUE.match(data, start)
            if match is None:
                return None
            stop = match.end() - 2
            parts.append(data[position:start])
            values.append(data[start:stop])
            position = stop
        parts.append(data[position:end])
        return Found(tuple(parts), target, values, end)


_cuts: Final = functools.lru_cache(maxsize=256)(Cuts)


def places(data: bytes, position: int, end: int, target: bool) -> Cuts | None:
    """Return where to cut heads such as this one; None: it has nothing that identifies a request.

    `target`: its target is to be cut out as well.
    """
    markers = _IDENTIFYING.findall(data, position, end)[:_MOST_CUTS]
    return _cuts(tuple(markers), target) if markers or target else None
