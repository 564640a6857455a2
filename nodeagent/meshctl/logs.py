"""What `meshctl logs` shows: lines of agents' logs about one Service, in the order of time. Pure."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from discovery.kube.commands.agents import AgentPod
from discovery.kube.commands.pod_logs import PodLine, utc_stamp
from discovery.kube.failure import UNREADABLE
from nodeagent.log.console import ConsoleForm, printable
from nodeagent.log.forms import LEVELS

_CONSOLE_EVENT: Final = re.compile(r"\d\d:\d\d:\d\d\.\d{3} (\S+)")
_WORD: Final = re.compile(r"[^\s\"'()\[\]{}<>,;|=]+")
"""In a line by a template, whatever stands between them."""
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class LogLine(msgspec.Struct, frozen=True):
    """A line about the Service. Lines are ordered by `stamp`, and then as they came."""

    stamp: str
    """As of `PodLine`: when it was made."""
    node: str
    pod: str
    text: str
    """As it stands in the log."""
    event: Mapping[str, Any] | None
    """What a line of JSON says; None for one in another form."""


class Wanted(msgspec.Struct, frozen=True):
    """Which lines are meant."""

    service: str
    """`namespace/name`."""
    events: frozenset[str] = frozenset()
    """Names of events; empty: all."""
    reasons: frozenset[str] = frozenset()

    def read(self, pod: AgentPod, line: PodLine) -> LogLine | None:
        """Return a line of an agent's log if it is meant; never raises, whatever it holds."""
        event = _read_event(line.text)
        if event is None:
            if not self._is_meant_text(line.text):
                return None
            return LogLine(line.stamp, pod.node, pod.name, line.text, None)
        if not self._is_meant(event):
            return None
        return LogLine(_stamp(event) or line.stamp, pod.node, pod.name, line.text, event)

    def _is_meant(self, event: Mapping[str, Any]) -> bool:
        return (
            (event.get("service") == self.service or event.get("object") == f"Service {self.service}")
            and (not self.events or event.get("event") in self.events)
            and (not self.reasons or event.get("reason") in self.reasons)
        )

    def _is_meant_text(self, text: str) -> bool:
        console = _CONSOLE_EVENT.match(text)
        if console is None:
            return self._is_meant_line(text)
        words = (word.strip('"') for word in text.split())
        return self._is_named(words) and not self.reasons and (not self.events or console[1] in self.events)

    def _is_meant_line(self, text: str) -> bool:
        """Of a line in a form that is not known: what is meant has to stand in it as a word."""
        words = {word.rstrip(":") for word in _WORD.findall(text)}
        return (
            self._is_named(words)
            and (not self.events or not self.events.isdisjoint(words))
            and (not self.reasons or not self.reasons.isdisjoint(words))
        )

    def _is_named(self, words: Iterable[str]) -> bool:
        return any(word == self.service or word.startswith(f"{self.service}:") for word in words)


def _read_event(text: str) -> Mapping[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        return _decode(text)
    except UNREADABLE:
        return None


def _stamp(event: Mapping[str, Any]) -> str:
    """Return the event's own time, which is more exact than when the container runtime got the line."""
    time = event.get("time")
    return utc_stamp(time) if isinstance(time, str) else ""


class _Entry(msgspec.Struct, order=True):
    stamp: str
    number: int
    """Keeps the order of equals, and lines out of comparisons."""
    line: LogLine
    came: float


class Newest:
    """Keeps the newest lines, at most so many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[_Entry] = []
        self._number = 0

    @property
    def left_out(self) -> int:
        """How many older lines there were."""
        return self._number - len(self._heap)

    def add(self, line: LogLine) -> None:
        """Take a line; the oldest goes if there are too many."""
        self._number += 1
        entry = _Entry(line.stamp, self._number, line, 0.0)
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def lines(self) -> Iterator[LogLine]:
        """Yield the lines in the order of time."""
        return (entry.line for entry in sorted(self._heap))


class Merge:
    """Puts lines that come from several agents at about the same time into the order of time.

    A line is held for `window` seconds after it came, so that one of another agent that is older can come
    before it; if more than `most` are held, the oldest goes at once.
    """

    def __init__(self, window: float, most: int) -> None:
        self._window = window
        self._most = most
        self._heap: list[_Entry] = []
        self._number = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, line: LogLine, now: float) -> None:
        """Take a line that came now."""
        self._number += 1
        heapq.heappush(self._heap, _Entry(line.stamp, self._number, line, now))

    def take(self, now: float) -> Iterator[LogLine]:
        """Yield the lines that have been held long enough, and those that are older than one of these."""
        due = max((entry for entry in self._heap if entry.came + self._window <= now), default=None)
        while self._heap and (len(self._heap) > self._most or (due is not None and self._heap[0] <= due)):
            yield heapq.heappop(self._heap).line


class TextForm:
    """Renders lines as an agent's console does, with the node in each, and the date where it changes."""

    def __init__(self, colour: bool, width: Callable[[], int], today: str) -> None:
        self._moment = datetime.now(UTC)
        self._form = ConsoleForm(colour, width, lambda: self._moment)
        self._day = today

    def lines(self, line: LogLine) -> Iterable[str]:
        """Return what to print for a line; times are local."""
        moment = read_stamp(line.stamp)
        if moment is not None:
            self._moment = moment.astimezone()
            if (day := self._moment.date().isoformat()) != self._day:
                self._day = day
                yield f"--- {day}"
        if line.event is None:
            yield f"{printable(line.text)} node={printable(line.node)}"
            return
        event = {printable(key): value for key, value in line.event.items() if key != "time"}
        level, name = event.get("level"), event.get("event")
        event["level"] = level if isinstance(level, str) and level in LEVELS else "info"
        event["event"] = printable(str(name)) if name is not None else "-"
        yield self._form({**event, "node": line.node})


def read_stamp(stamp: str) -> datetime | None:
    """Return the moment of a stamp; None if it is none."""
    try:
        return datetime.fromisoformat(f"{stamp[:26]}+00:00")
    except ValueError:
        return None


def record_of(line: LogLine) -> dict[str, Any]:
    """Return a line for programs: what the agent wrote, with node and pod; another form as `text`."""
    said = line.event if line.event is not None else {"time": line.stamp, "text": line.text}
    return {**said, "node": line.node, "pod": line.pod}
