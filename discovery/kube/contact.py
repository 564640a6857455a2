"""When to say `Synced` and `Stale`: the reflectors' fortunes as one statement. Pure; time is given."""

from __future__ import annotations

from discovery.source import Stale, Synced


class Contact:
    """Joins what the reflectors report; each method returns what has to be said now, if anything.

    `Synced` is said when every reflector has finished its list and all are in touch: at first, after every
    relist, and when contact comes back. `Stale` is said once when any has been out of touch for longer than
    `patience` seconds.
    """

    def __init__(self, names: tuple[str, ...], patience: float, now: float) -> None:
        self._patience = patience
        self._unlisted = set(names)
        # Not having been in touch yet counts: an agent that starts without an API server says so.
        self._lost: dict[str, tuple[float, str]] = dict.fromkeys(names, (now, "no answer yet"))
        self._stale = False

    @property
    def stale(self) -> bool:
        """True from a `Stale` to the next `Synced`."""
        return self._stale

    def list_begun(self, name: str) -> None:
        """A reflector lists again: what it told is not complete until it is done."""
        self._unlisted.add(name)

    def listed(self, name: str) -> Synced | None:
        """A reflector has finished its list."""
        self._unlisted.discard(name)
        self._lost.pop(name, None)
        return self._synced()

    def touched(self, name: str) -> Synced | None:
        """A reflector had an answer: a page of a list, or a watch that was accepted."""
        was_lost = self._lost.pop(name, None) is not None
        return self._synced() if was_lost and self._stale else None

    def lost(self, name: str, reason: str, now: float) -> None:
        """A reflector failed; the time counts from the first failure in a row, the reason is the last."""
        since, _ = self._lost.get(name, (now, ""))
        self._lost[name] = (since, reason)

    def due_in(self, now: float) -> float | None:
        """Seconds until `Stale` has to be said unless contact comes back; None if it need not be."""
        if self._stale or not self._lost:
            return None
        return max(0.0, min(since for since, _ in self._lost.values()) + self._patience - now)

    def expire(self, now: float) -> Stale | None:
        """Return `Stale` if its time has come."""
        due = self.due_in(now)
        if due is None or due > 0:
            return None
        self._stale = True
        name = min(self._lost, key=lambda lost: (self._lost[lost][0], lost))
        return Stale(f"{name}: {self._lost[name][1]}")

    def _synced(self) -> Synced | None:
        if self._unlisted or self._lost:
            return None
        self._stale = False
        return Synced()
