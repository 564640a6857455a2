"""Compares a board with Grafana's published types, those of the Grafana Foundation SDK.

The SDK reads any JSON and forgets what it has no field for. So a board is read and written again: what is
lost is unknown to Grafana. The SDK does not look at values either: the annotations of its classes say what
they must be.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

with warnings.catch_warnings():
    # It recommends a newer format of boards, which Grafana 10 and 11 do not read.
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.cog.runtime import Runtime
    from grafana_foundation_sdk.models import units
    from grafana_foundation_sdk.models.dashboard import Dashboard, FieldConfig

register_default_plugins()

UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}
FIELD_OPTIONS = {
    "unit",
    "displayName",
    "decimals",
    "min",
    "max",
    "links",
    "mappings",
    "thresholds",
    "noValue",
    "color",
}
"""What an override can set in Grafana of any panel, of what `FieldConfig` has."""
TRANSFORMATIONS = {"merge", "organize", "renameByRegex"}
"""The SDK does not list them; these are those that the boards need."""
BUILT_IN = {"__all", "__rate_interval", "__field", "__data", "__url_time_range"}
"""Variables that Grafana itself fills in, of those that it has."""

Json = dict[str, Any]


def problems(board: Json) -> list[str]:
    """Return what Grafana would not understand as it is meant, each with its place."""
    try:
        parsed = Dashboard.from_json(board)
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        return [f"board: {error!r}"]
    return [
        *_lost(board, _written(parsed), "board"),
        *_mistyped(parsed, Dashboard, "board"),
        *_of_panels(board),
        *_dangling(board),
    ]


def _written(value: Any) -> Any:
    return json.loads(json.dumps(value, cls=JSONEncoder))


def _lost(before: Any, after: Any, place: str) -> Iterator[str]:
    """Yield what is in `before` and has gone from `after`; what was added are defaults."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key in after:
                yield from _lost(value, after[key], f"{place}.{key}")
            elif value is not None:
                yield f"{place}.{key}: no such field"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _lost(one, other, f"{place}[{index}]")
    elif before != after:
        yield f"{place}: {before!r} was read as {after!r}"


def _mistyped(value: Any, hint: Any, place: str) -> Iterator[str]:
    """Yield the values that are not of the type that the SDK's annotations give."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hasattr(value, "to_json"):
        for name, of_field in get_type_hints(type(value)).items():
            yield from _mistyped(getattr(value, name), of_field, f"{place}.{name.removesuffix('_val')}")
    elif origin in (Union, UnionType):
        found = [list(_mistyped(value, one, place)) for one in arguments]
        if all(found):
            yield from min(found, key=len)
    elif origin is list and isinstance(value, list):
        for index, one in enumerate(value):
            yield from _mistyped(one, arguments[0], f"{place}[{index}]")
    elif origin is dict and isinstance(value, dict):
        for key, one in value.items():
            yield from _mistyped(one, arguments[1], f"{place}.{key}")
    elif isinstance(value, dict) and hasattr(hint, "from_json"):
        # The SDK left it as it was.
        parsed = hint.from_json(value)
        yield from _lost(value, _written(parsed), place)
        yield from _mistyped(parsed, hint, place)
    elif not _is_a(value, hint):
        yield f"{place}: {value!r} is no {getattr(hint, '__name__', hint)}"


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a value without parts is of a type; True is no number."""
    if hint is Any or hint is object:
        return True
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint is NoneType:
        return value is None
    if isinstance(hint, type) and issubclass(hint, Enum):
        return any(value == one.value and type(value) is type(one.value) for one in hint) or isinstance(
            value, hint
        )
    if hint in (int, float):
        return isinstance(value, int if hint is int else (int, float)) and not isinstance(value, bool)
    return isinstance(hint, type) and isinstance(value, hint)


def _of_panels(board: Json) -> Iterator[str]:
    """Yield what is wrong where the SDK takes any text: types of panels and queries, units, options."""
    config: Any = FieldConfig
    assert set(_written(config(**dict.fromkeys(get_type_hints(FieldConfig), "any")))) >= FIELD_OPTIONS
    known = Runtime()
    for index, panel in enumerate(board["panels"]):
        place = f"board.panels[{index}]"
        if panel["type"] == "row":
            continue
        if panel["type"] not in known.panelcfg_variants:
            yield f"{place}.type: no panel is a {panel['type']!r}"
        for target in panel["targets"]:
            if target["datasource"]["type"] not in known.dataquery_variants:
                yield f"{place}.targets: no source is a {target['datasource']['type']!r}"
        yield from (
            f"{place}.transformations: {one['id']!r} is not known"
            for one in panel["transformations"]
            if one["id"] not in TRANSFORMATIONS
        )
        shown = [panel["fieldConfig"]["defaults"].get("unit")]
        for override in panel["fieldConfig"]["overrides"]:
            for change in override["properties"]:
                if change["id"] not in FIELD_OPTIONS:
                    yield f"{place}.fieldConfig.overrides: no option is called {change['id']!r}"
                shown += [change["value"]] if change["id"] == "unit" else []
        yield from (f"{place}: no unit is called {unit!r}" for unit in shown if unit not in UNITS)


def _dangling(board: Json) -> Iterator[str]:
    """Yield the variables that the board does not have."""
    known = BUILT_IN | {one["name"] for one in board["templating"]["list"]}
    asked = re.findall(r"\$\{?([A-Za-z_]\w*)", json.dumps(board))
    yield from (f"board: there is no variable ${name}" for name in sorted(set(asked) - known))
