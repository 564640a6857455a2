"""Whether the source is in touch with the cluster or the files that it reads, and how to say so. Pure.

Times are Unix times in seconds. An agent whose source is out of touch stays ready: it continues to serve the
last plan, and no other agent would know better.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from middleware.values import format_duration
from nodeagent.plan.counts import ServiceCounts, describe_counts


class SnapshotState(msgspec.Struct, frozen=True):
    """The state of the snapshot file, for metrics. `written` is a Unix time; 0 if this agent has not written
    it.
    """

    refused: bool = False
    """The file that was there at start was not trusted."""
    written: float = 0.0
    failures: int = 0
    """Writes that failed."""


class Freshness(msgspec.Struct, frozen=True):
    """How far the source can be relied on. As an agent starts with it: the source has told nothing yet."""

    stale_since: float = 0.0
    """When the source got out of touch (when that was noticed, or the last time known to be good); 0 while it
    is in touch."""
    reason: str = ""
    """Why it is stale."""
    synced: float = 0.0
    """When the source last told everything that exists; 0: never."""

    @property
    def stale(self) -> bool:
        """Whether what is served may be out of date."""
        return self.stale_since > 0

    @property
    def fresh(self) -> bool:
        """Whether everything has been told, and the source has been in touch since."""
        return self.synced > 0 and not self.stale

    def lost(self, reason: str, since: float) -> Freshness:
        """Return the value for a source that is out of touch since then; if it already was, only the reason
        changes.
        """
        return msgspec.structs.replace(self, stale_since=self.stale_since or since, reason=reason)

    def regained(self, now: float) -> Freshness:
        """Return the value for a source that has told everything."""
        return Freshness(synced=now)

    def stale_seconds(self, now: float) -> float:
        """How long the source has been out of touch; 0 while it is in touch."""
        return max(0.0, now - self.stale_since) if self.stale else 0.0


def describe_source(source: Freshness, now: float) -> str:
    """Return the state of the source in one line, for `/readyz?verbose`."""
    if source.stale:
        age = format_duration(round(source.stale_seconds(now)))
        return f"source: stale since {_clock(source.stale_since)} ({age}): {source.reason}"
    if not source.synced:
        return "source: waiting for the first list"
    return f"source: fresh, last listed {_clock(source.synced)}"


def describe_state(
    source: Freshness, plan_version: int, plan_changed: float, services: ServiceCounts, now: float
) -> Iterator[str]:
    """Yield the lines about source and plan of `/readyz?verbose`; `plan_changed` is 0 without a plan."""
    yield describe_source(source, now)
    if plan_changed:
        age = format_duration(round(max(0.0, now - plan_changed)))
        yield ", ".join((f"plan: version {plan_version}, changed {age} ago", *describe_counts(services)))
    else:
        yield "plan: none yet"


def _clock(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
