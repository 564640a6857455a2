"""`svc.mesh/outlier-detection: all consecutive=3`: endpoints that do worse than others are ejected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from middleware.contract import Annotation, Problem
from middleware.values import InvalidValue, format_duration, parse_choice, parse_duration, parse_integer
from nodeagent.plan.model import OutlierDetection
from nodeagent.plan.of_port import OfPort, parse_keys, parse_of_port, parse_percent
from nodeagent.plan.setting import Setting

OUTLIER_DETECTION: Final = "svc.mesh/outlier-detection"
OUTLIER_DETECTION_OF_PORT: Final = "svc.mesh/outlier-detection."
NONE: Final = "none"
ALL: Final = ("connect-failure", "reset", "timeout", "5xx")
"""What `all` stands for."""
KINDS: Final = (*ALL, "gateway-error")
MOST_IN_A_ROW: Final = 1000
MOST_REQUESTS: Final = 1_000_000
LONGEST: Final = 3600.0
"""Seconds, of everything that lasts."""


def parse_outlier_detection(annotations: Mapping[str, str]) -> OfPort[OutlierDetection] | Problem | None:
    """Read `svc.mesh/outlier-detection` and those of single ports."""
    return parse_of_port(annotations, OUTLIER_DETECTION, _parse)


def _parse(value: str) -> OutlierDetection | None:
    first, *parts = value.split() or [""]
    if first == NONE:
        parse_keys(parts, {}, NONE)
        return None
    failures = ALL if first == "all" else _parse_kinds(first)
    detection = OutlierDetection(failures, **_renamed(parse_keys(parts, _PARSERS, first)))
    if detection.longest < detection.ejection:
        reason = (
            f"longest={format_duration(detection.longest)} is shorter than "
            f"ejection={format_duration(detection.ejection)}"
        )
        raise InvalidValue(reason, "a longest ejection of at least the first one")
    return detection


def _parse_kinds(text: str) -> tuple[str, ...]:
    words = text.split(",")
    if len(words) == 1:
        return (parse_choice(text, (*KINDS, "all", NONE)),)
    return tuple(dict.fromkeys(parse_choice(word, KINDS) for word in words))


def _renamed(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("-", "_"): setting for key, setting in settings.items()}


def _duration(least: float) -> Callable[[str], float]:
    return lambda text: parse_duration(text, least=least, most=LONGEST)


_PARSERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "consecutive": lambda text: parse_integer(text, least=1, most=MOST_IN_A_ROW),
    "success-rate": parse_percent,
    "requests": lambda text: parse_integer(text, least=1, most=MOST_REQUESTS),
    "interval": _duration(1.0),
    "ejection": _duration(1.0),
    "longest": _duration(1.0),
    "share": parse_percent,
}

OUTLIERS: Final = Setting(
    name="outlier detection",
    annotations=(
        Annotation(
            name=OUTLIER_DETECTION,
            values=(
                "all, none, or some of connect-failure, reset, timeout, 5xx and gateway-error with commas"
                " between them; then [consecutive=5] [success-rate=50%] [requests=20] [interval=10s]"
                " [ejection=30s] [longest=5m] [share=50%]"
            ),
            default="none",
            summary=(
                "Which failures of an endpoint count, and when it is ejected, that is, not used for a while:"
                " after `consecutive` failures in a row, or if of at least `requests` requests in an"
                " `interval` fewer than `success-rate` succeeded while those of the others did. Each"
                " ejection in a row is longer, from `ejection` to `longest`; at most `share` of the"
                " endpoints are ejected. What stands in brackets is the default."
            ),
            example="svc.mesh/outlier-detection: all consecutive=3 ejection=10s",
        ),
        Annotation(
            name=f"{OUTLIER_DETECTION_OF_PORT}<port name or number>",
            values="as svc.mesh/outlier-detection",
            default="svc.mesh/outlier-detection",
            summary="The same for this port's endpoints; takes precedence over svc.mesh/outlier-detection.",
            example="svc.mesh/outlier-detection.grpc: 5xx,timeout",
        ),
    ),
    parse=parse_outlier_detection,
    page="outlier-detection",
)
