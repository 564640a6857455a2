"""What `meshctl cache purge` writes into a Service. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from discovery.annotations import ENABLED
from middleware.cache_options import CACHE
from middleware.cache_purge import PURGE, Purge, add_purge, parse_purges, write_purges
from middleware.values import InvalidValue


class PurgePatch(msgspec.Struct, frozen=True):
    """A change of a Service's annotations."""

    annotations: Mapping[str, str]
    """Those that are set."""
    version: str
    """Of the Service that was read."""
    doubts: tuple[str, ...] = ()
    """Why it may do nothing."""

    @property
    def document(self) -> dict[str, Any]:
        """The JSON merge patch; it is refused if the Service has changed since."""
        return {"metadata": {"resourceVersion": self.version, "annotations": dict(self.annotations)}}


def plan_purge(service: Mapping[str, Any], purge: Purge) -> PurgePatch:
    """Return what to change in a Service, as the API server has it, so that its caches purge.

    The mark is added to the annotation for all ports, and to those for single ports, which take its place
    there. Values that cannot be used are replaced.
    """
    metadata = service.get("metadata") or {}
    annotations: Mapping[str, str] = metadata.get("annotations") or {}
    names = [PURGE, *sorted(name for name in annotations if name.startswith(f"{PURGE}."))]
    changed = {name: write_purges(add_purge(_purges(annotations.get(name, "")), purge)) for name in names}
    doubts = []
    if annotations.get(ENABLED) != "true":
        doubts.append(f"it has no annotation {ENABLED}: true")
    if not any(name == CACHE or name.startswith(f"{CACHE}.") for name in annotations):
        doubts.append(f"it has no annotation {CACHE}")
    return PurgePatch(changed, str(metadata.get("resourceVersion", "")), tuple(doubts))


def _purges(text: str) -> tuple[Purge, ...]:
    try:
        return parse_purges(text)
    except InvalidValue:
        return ()
