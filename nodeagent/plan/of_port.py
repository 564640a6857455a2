"""Settings of which each port may have its own: `svc.mesh/NAME` and, before it, `svc.mesh/NAME.PORT`.

The value is `VALUE key=value key=value`; the keys in any order, each at most once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from discovery.model import ServicePort
from middleware.contract import Problem
from middleware.values import InvalidValue, parse_choice, problem, quote

S = TypeVar("S")


class OfPort(msgspec.Struct, Generic[S], frozen=True):
    """What is in force for the ports of one Service; None: nothing."""

    usual: S | None = None
    of_port: Mapping[str, S | None] = {}
    """By the port's name or number."""

    def of(self, port: ServicePort) -> S | None:
        """Return what is in force for a port."""
        for selector in (port.name, str(port.port)):
            if selector and selector in self.of_port:
                return self.of_port[selector]
        return self.usual


def parse_of_port(
    annotations: Mapping[str, str], name: str, parse: Callable[[str], S | None]
) -> OfPort[S] | Problem | None:
    """Read an annotation and those of the same name for single ports; None if there is none of them."""
    found: dict[str, S | None] = {}
    prefix = f"{name}."
    for one in sorted(annotations):
        if one == name or one.startswith(prefix):
            try:
                found[one] = parse(annotations[one])
            except InvalidValue as invalid:
                return problem(one, annotations[one], invalid)
    if not found:
        return None
    usual = found.pop(name, None)
    return OfPort(usual, {one.removeprefix(prefix): setting for one, setting in found.items()})


def parse_keys(
    parts: Sequence[str], parsers: Mapping[str, Callable[[str], Any]], after: str
) -> dict[str, Any]:
    """Read the `key=value` that stand after the word `after`.

    Raises:
        InvalidValue: one is not among `parsers`, is given twice or has no value that its parser takes.
    """
    settings: dict[str, Any] = {}
    for part in parts:
        key, equals, text = part.partition("=")
        if not parsers:
            raise InvalidValue(f"{quote(part)} has no meaning after {after}", f"{after} alone")
        if not equals:
            raise InvalidValue(f"{quote(part)} is not key=value", f"one of {'=, '.join(parsers)}=")
        if parse_choice(key, tuple(parsers)) in settings:
            raise InvalidValue(f"{key} is given twice", f"{key} once")
        settings[key] = parsers[key](text)
    return settings


def parse_percent(text: str, *, least: int = 0) -> int:
    """Read `50%`, a whole number of percent from `least` to 100.

    Raises:
        InvalidValue: it is not one.
    """
    digits = text.removesuffix("%")
    if digits == text or not (digits.isascii() and digits.isdigit() and least <= int(digits[:4]) <= 100):
        raise InvalidValue(f"{quote(text)} is not a percentage", f"{least}% to 100%, such as 50%")
    return int(digits)
