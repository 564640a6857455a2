"""`svc.mesh/access-log: errors slow=500ms 1%`: which requests and connections of a Service have a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from middleware.contract import Annotation, Problem
from middleware.values import InvalidValue, nearest, parse_duration, parse_percentage, quote
from nodeagent.plan.model import LineChoice
from nodeagent.plan.of_port import OfPort, parse_of_port
from nodeagent.plan.setting import Setting

ACCESS_LOG: Final = "svc.mesh/access-log"
ACCESS_LOG_OF_PORT: Final = "svc.mesh/access-log."
LEAST_SLOW: Final = 0.001
MOST_SLOW: Final = 3600.0
_EXPECTED: Final = "all, off, or one or more of errors, slow=500ms and 1%, separated by spaces"
_ALONE: Final = ("all", "off")


def parse_access_log(annotations: Mapping[str, str]) -> OfPort[LineChoice] | Problem | None:
    """Read `svc.mesh/access-log` and those of single ports."""
    return parse_of_port(annotations, ACCESS_LOG, parse_choice_of_lines)


def parse_choice_of_lines(value: str) -> LineChoice:
    """Read one value: words that each choose lines, in any order.

    Raises:
        InvalidValue: a word is not known, or does not go with the others.
    """
    words = value.split()
    if not words:
        raise InvalidValue("it is empty", _EXPECTED)
    if len(words) > 1:
        for word in _ALONE:
            if word in words:
                raise InvalidValue(f"{word} goes with nothing else", f"{word} alone")
    chosen: dict[str, Any] = {}
    for word in words:
        name, setting = _parse_word(word)
        if name in chosen:
            raise InvalidValue(f"{quote(word)} says again what another word says", _EXPECTED)
        chosen[name] = setting
    chosen.pop("off", None)
    return LineChoice(**chosen)


def _parse_word(word: str) -> tuple[str, Any]:
    key, equals, setting = word.partition("=")
    if word in ("all", "errors", "off"):
        return word, True
    if key == "slow" and equals:
        return "slow", parse_duration(setting, least=LEAST_SLOW, most=MOST_SLOW)
    if word.endswith("%"):
        return "share", parse_percentage(word)
    close = nearest(word, ("all", "errors", "off", "slow="))
    raise InvalidValue(f"{quote(word)} is not known", f"did you mean {close}?" if close else _EXPECTED)


ACCESS_LOGS: Final = Setting(
    name="access log",
    annotations=(
        Annotation(
            name=ACCESS_LOG,
            values="all, off, or one or more of errors, slow=500ms and 1%",
            default="--access-log of the agent",
            summary=(
                "Which requests and connections have a line in the access log: all; those that failed; those"
                " that took at least so long; a share of them, chosen at random. The lines also say how the"
                " time was spent."
            ),
            example="svc.mesh/access-log: errors slow=500ms 1%",
        ),
        Annotation(
            name=f"{ACCESS_LOG_OF_PORT}<port name or number>",
            values="as svc.mesh/access-log",
            default="svc.mesh/access-log",
            summary="The same for this port; takes precedence over svc.mesh/access-log.",
            example='svc.mesh/access-log.metrics: "off"',
        ),
    ),
    parse=parse_access_log,
    page="access-log",
)
