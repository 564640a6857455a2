"""The logs of pods, line by line, each with the time at which the node's container runtime got it.

Needs `get` on `pods/log`. Between reads only the last, unfinished line is kept, and a bounded part of it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final

import msgspec

from discovery.kube.commands.agents import AgentPod
from discovery.kube.commands.reading import PATIENCE
from discovery.kube.connection import Connection

CONTAINER: Final = "agent"
LONGEST_LINE: Final = 256 * 1024
"""Bytes of a line; the rest of it is left out."""

_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,12}))?(Z|[+-][0-9]{2}:[0-9]{2})"
)


class PodLine(msgspec.Struct, frozen=True):
    """A line of a log."""

    stamp: str
    """When it was written: RFC 3339 with nanoseconds, in UTC; empty if the line has none."""
    text: str


class Since(msgspec.Struct, frozen=True):
    """From where on a log is read: so many seconds ago, or (if it is not empty) after a line's stamp."""

    seconds: float = 0.0
    stamp: str = ""


async def read_log(
    connection: Connection, pod: AgentPod, since: Since, *, follow: bool = False
) -> AsyncIterator[PodLine]:
    """Yield the lines of a pod's log; with `follow` until its container ends.

    Raises:
        ApiError: it cannot be read, or not to its end.
    """
    path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/log"
    query = {"container": CONTAINER, "timestamps": "true"}
    if since.stamp:
        query["sinceTime"] = since.stamp
    else:
        query["sinceSeconds"] = str(max(1, round(since.seconds)))
    if follow:
        query["follow"] = "true"
    async with connection.stream(path, query) as answer:
        lines = LineSplitter()
        while data := await answer.read(None if follow else PATIENCE.answer):
            for line in lines.feed(data):
                # The API server counts in whole seconds, so it begins with lines that are known.
                if not since.stamp or line.stamp > since.stamp:
                    yield line


class LineSplitter:
    """Makes lines of bytes as they come. What follows the last line feed is not a line yet. Pure."""

    def __init__(self) -> None:
        self._unfinished = bytearray()

    def feed(self, data: bytes) -> list[PodLine]:
        """Return the lines that these bytes complete."""
        *ends, rest = data.split(b"\n")
        found = []
        for end in ends:
            self._extend(end)
            found.append(read_line(bytes(self._unfinished)))
            self._unfinished.clear()
        self._extend(rest)
        return found

    def _extend(self, data: bytes) -> None:
        self._unfinished += data[: LONGEST_LINE - len(self._unfinished)]


def read_line(line: bytes) -> PodLine:
    """Take the stamp off a line."""
    first, _, text = line.decode("utf-8", "replace").partition(" ")
    stamp = utc_stamp(first)
    return PodLine(stamp, text.rstrip("\r")) if stamp else PodLine("", f"{first} {text}".strip())


def utc_stamp(text: str) -> str:
    """Write a time of RFC 3339 in UTC with nine digits of a second, so that times are ordered as texts are.

    Returns nothing if it is none.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        return ""
    whole, fraction, zone = found[1], found[2] or "", found[3]
    try:
        moment = datetime.fromisoformat(whole + ("+00:00" if zone == "Z" else zone))
        return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{fraction[:9]:0<9}Z"
    except (ValueError, OverflowError):
        return ""
