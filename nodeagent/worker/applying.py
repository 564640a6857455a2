"""Applies a change of the plan; a part that cannot be applied affects no other.

The plan is checked before it is sent, so nothing should fail here. If something does, it is a bug that one
Service triggers. It must not end every worker of every node again and again.
"""

from __future__ import annotations

import structlog

from nodeagent.control.messages import Apply, PortFailure, typed_backend, typed_listener
from nodeagent.plan.model import Listener
from nodeagent.proxy.data_plane import DataPlane

log = structlog.get_logger()


def apply_change(data_plane: DataPlane, change: Apply) -> list[PortFailure]:
    """Make the data plane follow; return the listeners that it could not take.

    All of it at once, and only where that fails one after another: taking the same into use twice changes
    nothing.
    """
    try:
        _apply(data_plane, change)
    except Exception:
        return _apply_one_by_one(data_plane, change)
    return []


def _apply(data_plane: DataPlane, change: Apply) -> None:
    data_plane.apply(
        [(typed_listener(one.listener), one.slot) for one in change.upserted],
        change.removed,
        [(typed_backend(one.backend), one.slot) for one in change.backends],
        change.removed_backends,
    )


def _apply_one_by_one(data_plane: DataPlane, change: Apply) -> list[PortFailure]:
    failures: list[PortFailure] = []
    for backend in change.backends:
        try:
            _apply(data_plane, Apply(change.version, (), (), (backend,)))
        except Exception:
            key = backend.backend.key
            log.exception("backend_failed", service=str(key.service), port=key.port)
    for one in change.upserted:
        listener = one.listener
        try:
            _apply(data_plane, Apply(change.version, (one,), ()))
        except Exception as error:
            log.exception("listener_failed", service=str(listener.service), port=listener.port)
            failures.append(_failure(listener, error))
    _apply(data_plane, Apply(change.version, (), change.removed, (), change.removed_backends))
    return failures


def _failure(listener: Listener, error: Exception) -> PortFailure:
    return PortFailure(
        listener.key,
        f"a worker cannot take this port into use: {error!r}",
        "nothing of the Service: this is a bug of the mesh; report it with the traceback in the log",
        "the port is served as it was before this change, or not at all if it is new",
    )
