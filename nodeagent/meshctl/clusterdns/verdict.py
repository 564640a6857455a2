"""Whether the cluster's DNS is well after a change, judged from what its pods answer. No I/O, no clock."""

from __future__ import annotations

import msgspec

WORSE = 3
"""Looks in a row at which a pod gives no good answer, before that counts as worse: a reload may cost one."""


class Sight(msgspec.Struct, frozen=True):
    """What one look at one pod showed; empty texts are good, others say what is wrong."""

    pod: str
    cluster: str = ""
    mesh: str = ""


class Worse(Exception):
    """The change has to be undone; the message says why."""


class Verdict:
    """Judges looks until `deadline` (seconds of the clock that `judge` is given).

    With `strict` the mesh zones have to be as they should by then; else only the cluster's names count.
    """

    def __init__(self, deadline: float, *, strict: bool) -> None:
        self._deadline = deadline
        self._strict = strict
        self._bad: dict[str, int] = {}

    def judge(self, sights: tuple[Sight, ...], now: float) -> bool:
        """Take a look into account; return whether the waiting is over.

        Raises:
            Worse: the cluster's names are gone, or the mesh zones are not as they should in time.
        """
        self._bad = {sight.pod: self._bad.get(sight.pod, 0) + 1 for sight in sights if sight.cluster}
        for sight in sights:
            if self._bad.get(sight.pod, 0) >= WORSE:
                raise Worse(f"the cluster's DNS got worse: pod {sight.pod}: {sight.cluster}")
        waiting = [sight for sight in sights if sight.cluster or sight.mesh]
        if waiting and now >= self._deadline and (self._strict or any(sight.cluster for sight in waiting)):
            one = waiting[0]
            raise Worse(f"not in force in time: pod {one.pod}: {one.cluster or one.mesh}")
        return not waiting or now >= self._deadline
