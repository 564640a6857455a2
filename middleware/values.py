"""The values of annotations, as the Kubernetes ecosystem writes them, parsed strictly and with a bound.

Every parser takes the text of one value (or one part of it), allows white space around it, and raises
`InvalidValue` with what is wrong and what would be right; `problem` turns that into the contract's `Problem`.
Digits are ASCII digits: Python's own `int()` would also read `1_000` and other scripts.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Final, TypeVar

import msgspec

from middleware.contract import Problem

LONGEST: Final = 64
"""Characters of a number, duration or rate; a longer one is refused unread."""
SHORT: Final = 4
"""Characters of a word in which one wrong letter matters much."""

UNIT_NANOSECONDS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5, micro sign
    "μs": 1_000,  # U+03BC, Greek letter mu
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}

T = TypeVar("T")
INTEGER = re.compile(r"[+-]?[0-9]+")
DURATION = re.compile(r"[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+")
DURATION_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)")
RATE = re.compile(r"([0-9]+)/([smh])")
PERCENTAGE = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,2}))?%")
WHOLE: Final = 10_000
"""100 %: shares are whole numbers of hundredths of a per cent."""
SIZE = re.compile(r"([0-9]+)(Gi|Mi|Ki|)")
SIZE_BITS: Final = {"Gi": 30, "Mi": 20, "Ki": 10, "": 0}


Seconds = Annotated[float, msgspec.Meta(extra={"unit": "seconds"})]
"""The type of a time among a middleware's options: `/plan` shows it as people write it, `1m30s`."""


class InvalidValue(ValueError):
    """A value that cannot be used: `reason` says what is wrong, `expected` what would be right."""

    def __init__(self, reason: str, expected: str) -> None:
        super().__init__(f"{reason}; expected {expected}")
        self.reason = reason
        self.expected = expected


class Rate(msgspec.Struct, frozen=True):
    """So many per unit of time."""

    count: int
    unit: str
    """`s`, `m` or `h`."""

    @property
    def per_second(self) -> float:
        """As a number per second."""
        return self.count * UNIT_NANOSECONDS["s"] / UNIT_NANOSECONDS[self.unit]

    @property
    def interval(self) -> int:
        """Nanoseconds between two at an even pace, rounded down: at most 0.1 % off at the highest rate."""
        return UNIT_NANOSECONDS[self.unit] // self.count


def problem(annotation: str, value: str, invalid: InvalidValue) -> Problem:
    """Say of which annotation the value was."""
    return Problem(annotation=annotation, value=value, reason=invalid.reason, expected=invalid.expected)


def parse_annotation(
    annotations: Mapping[str, str], name: str, parse: Callable[[str], T]
) -> T | Problem | None:
    """Read one annotation with `parse`, which raises InvalidValue; None if it is not there."""
    text = annotations.get(name)
    if text is None:
        return None
    try:
        return parse(text)
    except InvalidValue as invalid:
        return problem(name, text, invalid)


def parse_integer(text: str, *, least: int, most: int) -> int:
    """Read a decimal integer of `least` to `most`.

    Raises:
        InvalidValue: it is not one, or out of these bounds.
    """
    text = text.strip()
    expected = f"a whole number from {least} to {most}"
    if len(text) > LONGEST or not INTEGER.fullmatch(text):
        raise InvalidValue(f"{quote(text)} is not a whole number", expected)
    number = int(text)
    if not least <= number <= most:
        raise InvalidValue(f"{number} is out of range", expected)
    return number


def parse_duration(text: str, *, least: float = 0.0, most: float) -> float:
    """Read a duration as Go's `time.ParseDuration` does (`250ms`, `1m30s`, `1.5h`, `0`); return seconds.

    Raises:
        InvalidValue: it is not one, or not from `least` to `most` seconds.
    """
    text = text.strip()
    expected = f"a duration from {format_duration(least)} to {format_duration(most)}, such as 250ms or 1m30s"
    if text in ("0", "+0", "-0"):
        nanoseconds = Fraction(0)
    elif len(text) > LONGEST or not DURATION.fullmatch(text):
        unit = " (the unit is missing)" if INTEGER.fullmatch(text) else ""
        raise InvalidValue(f"{quote(text)} is not a duration{unit}", expected)
    else:
        nanoseconds = sum(
            (
                Fraction(f"{whole or 0}.{fraction or 0}") * UNIT_NANOSECONDS[unit]
                for whole, fraction, unit in DURATION_PART.findall(text)
            ),
            Fraction(0),
        )
        if text.startswith("-"):
            nanoseconds = -nanoseconds
    seconds = float(nanoseconds / 1_000_000_000)
    if not least <= seconds <= most:
        raise InvalidValue(f"{text} is out of range", expected)
    return seconds


def format_duration(seconds: float) -> str:
    """Return a time as `parse_duration` reads it, in the form that people would give it: `250ms`, `1m30s`."""
    if math.isinf(seconds):
        return "for ever"
    nanoseconds = round(abs(seconds) * UNIT_NANOSECONDS["s"])
    parts = []
    for unit in ("h", "m"):
        count, nanoseconds = divmod(nanoseconds, UNIT_NANOSECONDS[unit])
        if count:
            parts.append(f"{count}{unit}")
    if nanoseconds or not parts:
        fitting = (unit for unit in ("s", "ms", "µs") if nanoseconds >= UNIT_NANOSECONDS[unit])
        unit = "s" if parts or not nanoseconds else next(fitting, "ns")
        whole, rest = divmod(nanoseconds, UNIT_NANOSECONDS[unit])
        fraction = f"{rest:0{len(str(UNIT_NANOSECONDS[unit])) - 1}d}".rstrip("0") if rest else ""
        parts.append(f"{whole}{fraction and '.'}{fraction}{unit}")
    return ("-" if seconds < 0 else "") + "".join(parts)


def parse_size(text: str, *, least: int, most: int) -> int:
    """Read a size in bytes, as Kubernetes writes it: a whole number, maybe with Ki, Mi or Gi.

    Raises:
        InvalidValue: it is not one, or not from `least` to `most` bytes.
    """
    text = text.strip()
    expected = f"a size from {format_size(least)} to {format_size(most)}, such as 512Ki or 64Mi"
    match = SIZE.fullmatch(text) if len(text) <= LONGEST else None
    if match is None:
        raise InvalidValue(f"{quote(text)} is not a size", expected)
    size = int(match[1]) << SIZE_BITS[match[2]]
    if not least <= size <= most:
        raise InvalidValue(f"{text} is out of range", expected)
    return size


def format_size(size: int) -> str:
    """Return a size as `parse_size` reads it, in the largest unit that it is a whole number of."""
    unit = next((unit for unit, bits in SIZE_BITS.items() if size and size % (1 << bits) == 0), "")
    return f"{size >> SIZE_BITS[unit]}{unit}"


def parse_rate(text: str, *, most: int) -> Rate:
    """Read a rate such as `100/s`, `600/m` or `1000/h`, of at most `most` per second.

    Raises:
        InvalidValue: it is not one, or it is zero or too high.
    """
    text = text.strip()
    expected = f"a rate of 1/h to {most}/s, such as 100/s, 600/m or 1000/h"
    match = RATE.fullmatch(text) if len(text) <= LONGEST else None
    if match is None:
        raise InvalidValue(f"{quote(text)} is not a rate", expected)
    count, unit = int(match[1]), match[2]
    if count < 1 or count * UNIT_NANOSECONDS["s"] > most * UNIT_NANOSECONDS[unit]:
        raise InvalidValue(f"{text} is out of range", expected)
    return Rate(count, unit)


def parse_choice(text: str, choices: Sequence[str], *, also: str = "") -> str:
    """Read one word of `choices`; `also` describes what else the caller would have taken.

    Raises:
        InvalidValue: it is none of them; names the nearest one.
    """
    text = text.strip()
    if text in choices:
        return text
    close = nearest(text[:LONGEST], choices)
    hint = f"; did you mean {close}?" if close else ""
    raise InvalidValue(f"{quote(text)} is not known", f"one of {', '.join(choices)}{also}{hint}")


def nearest(text: str, known: Iterable[str]) -> str:
    """Return the known word that somebody who wrote this has probably meant; empty if none is so close.

    Three quarters must be equal: with less, words of which only some letters are the same are taken for each
    other. In a short word one wrong letter is more than a quarter.
    """
    found = difflib.get_close_matches(text, known, n=1, cutoff=0.75 if len(text) > SHORT else 0.6)
    return found[0] if found else ""


def parse_percentage(text: str, *, least: int = 1) -> int:
    """Read a percentage of `least` to 100 %; return hundredths of a per cent.

    Raises:
        InvalidValue: it is none, or out of these bounds.
    """
    text = text.strip()
    match = PERCENTAGE.fullmatch(text)
    share = int(match[1]) * 100 + int((match[2] or "").ljust(2, "0")) if match else -1
    if not least <= share <= WHOLE:
        raise InvalidValue(
            f"{quote(text)} is not a percentage", f"a percentage from {least / 100:g}% to 100%"
        )
    return share


def split_settings(text: str, names: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Read `value name=setting name=setting`: return the value, and the settings by their names.

    Raises:
        InvalidValue: what follows the value is no setting of `names`, or is given twice.
    """
    value, *parts = text.split() or [""]
    settings: dict[str, str] = {}
    for part in parts:
        name, equals, setting = part.partition("=")
        if not equals:
            raise InvalidValue(f"{quote(part)} is not name=value", f"{'=, '.join(names)}= after the value")
        if parse_choice(name, names) in settings:
            raise InvalidValue(f"{name} is given twice", f"{name} once")
        settings[name] = setting
    return value, settings


def quote(text: str) -> str:
    """Show a user's text inside a message, shortened to what fits a line."""
    return f'"{text}"' if len(text) <= LONGEST else f'"{text[:LONGEST]}…"'
