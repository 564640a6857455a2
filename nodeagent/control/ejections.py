"""Which endpoints the workers have ejected, all workers together. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from nodeagent.control.messages import BackendEjections, Ejections
from nodeagent.plan.model import BackendKey

Address = tuple[str, int]
OfWorker = Mapping[BackendKey, BackendEjections]
"""What one worker has ejected; without backends of which it has ejected nothing."""


def follow(before: OfWorker, news: Ejections) -> OfWorker:
    """Return what a worker has ejected after this message."""
    after = {**before, **{one.backend: one for one in news.backends}}
    return {key: one for key, one in after.items() if one.ejected}


def merged(workers: Iterable[OfWorker]) -> Mapping[BackendKey, Mapping[Address, str]]:
    """Return why each endpoint is ejected, and by how many workers if there are several."""
    workers = list(workers)
    reasons: dict[BackendKey, dict[Address, list[str]]] = {}
    for worker in workers:
        for key, one in worker.items():
            found = reasons.setdefault(key, defaultdict(list))
            for address, port, reason in one.ejected:
                found[address, port].append(reason)
    return {
        key: {address: _said(said, len(workers)) for address, said in sorted(found.items())}
        for key, found in reasons.items()
    }


def _said(reasons: list[str], workers: int) -> str:
    return reasons[0] if workers == 1 else f"{reasons[0]} (by {len(reasons)} of {workers} workers)"
