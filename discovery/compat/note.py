"""What is reported about an annotation that has no equivalent."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

NOT_MESHED: Final = "the Service is not meshed"


class Note(msgspec.Struct, frozen=True):
    """What has no equivalent, or not quite the same; the fields are those of `discovery.model.Problem`."""

    annotation: str
    value: str
    reason: str
    expected: str
    effect: str
    severity: Literal["error", "info"] = "error"
    excludes: bool = False
    """The Service must not be meshed, unless its owner says so with `svc.mesh/enabled`."""
