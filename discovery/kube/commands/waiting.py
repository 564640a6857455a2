"""Why a pod does not run, in the words of its status. Pure.

What its container waits for, how it ended, or why there is no node for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

LONGEST = 400
"""Characters of a reason: registries answer with whole pages."""


def why_not_running(document: Mapping[str, Any]) -> str:
    """Return why a pod does not run; empty if it does, or if nobody has said yet.

    Never raises, whatever the document holds.
    """
    status = _mapping(document, "status")
    said = next(_reasons(status), "")
    return said if len(said) <= LONGEST else f"{said[:LONGEST]}..."


def _reasons(status: Mapping[str, Any]) -> Iterator[str]:
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in _list(status, kind):
            if found := _of_container(container):
                yield found
    if status.get("phase") == "Pending":
        for condition in _list(status, "conditions"):
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                yield _joined("no node for it", _text(condition, "message"))
    if status.get("phase") == "Failed":
        yield _joined(_text(status, "reason") or "it has failed", _text(status, "message"))


def _of_container(container: Mapping[str, Any]) -> str:
    state = _mapping(container, "state")
    waiting = _mapping(state, "waiting")
    reason = _text(waiting, "reason")
    if reason and reason not in ("ContainerCreating", "PodInitializing"):
        last = _ended(_mapping(_mapping(container, "lastState"), "terminated"))
        return _joined(reason, " ".join(filter(None, (_text(waiting, "message"), last))))
    if ended := _ended(_mapping(state, "terminated")):
        return f"its container has ended: {ended}"
    return ""


def _ended(terminated: Mapping[str, Any]) -> str:
    """Say how a container ended, if it did so badly."""
    code = terminated.get("exitCode")
    if not isinstance(code, int) or code == 0:
        return ""
    words = f"(last exit code {code}"
    if reason := _text(terminated, "reason"):
        words += f", {reason}"
    if message := _text(terminated, "message"):
        words += f": {message}"
    return f"{words})"


def _joined(reason: str, message: str) -> str:
    return " ".join(": ".join(filter(None, (reason, message))).split())


def _mapping(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    return value if isinstance(value, Mapping) else {}


def _list(document: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = document.get(name)
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    return value.strip() if isinstance(value, str) else ""
