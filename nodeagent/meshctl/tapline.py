"""A live request as `meshctl tap` shows it to people. Pure.

What a client may choose (path, method) is shown without control characters, so that no request can write to
somebody's terminal as it likes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

MOST_SHOWN: Final = 200
"""Characters of a value."""


def text_line(fields: Mapping[str, Any]) -> str:
    """Return a request in one line: when, who, what, how it ended, how long, where, and why."""
    moment = _shown(fields.get("time", ""))[11:23]
    source = _shown(fields.get("source_workload") or fields.get("source", ""))
    status = _shown(fields.get("grpc_status") or fields.get("status", ""))
    took = f"{_shown(fields.get('took_ms', 0))}ms"
    endpoint = _shown(fields.get("endpoint") or "-")
    asked = [_shown(fields[name]) for name in ("method", "path") if fields.get(name)]  # else it was not read
    parts = [moment, source, *asked, status, took, endpoint, *_spent(fields)]
    why = [_shown(fields[name]) for name in ("reason", "detail", "decided") if fields.get(name)]
    return "  ".join([" ".join(parts), *(["; ".join(why)] if why else [])])


def _spent(fields: Mapping[str, Any]) -> list[str]:
    """Return where the time went, without stages that took none."""
    names = ("queue", "connect", "upstream", "backoff", "middleware")
    return [f"{name}={_shown(fields[f'{name}_ms'])}ms" for name in names if fields.get(f"{name}_ms")]


def _shown(value: object) -> str:
    text = str(value)
    text = text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
