"""The Services of a soak use all there is, and are what they say."""

from __future__ import annotations

from collections.abc import Mapping

from discovery import annotations as discovery_annotations
from hack.soak.clients import MEANT
from hack.soak.pod import PATTERN, PERIOD, PIECE, expected
from hack.soak.services import BY_NAME, SERVICES
from middleware.contract import Problem
from middleware.registry import MIDDLEWARES
from nodeagent.plan.annotations import SETTINGS


def documented() -> set[str]:
    """Every annotation; of those with a part to choose, what is before it."""
    names = {one.name for one in discovery_annotations.ANNOTATIONS}
    names |= {one.name for setting in SETTINGS for one in setting.annotations}
    names |= {one.name for middleware in MIDDLEWARES for one in middleware.annotations}
    return {name.partition("<")[0] for name in names}


def test_every_annotation_is_used() -> None:
    used = {name for one in SERVICES for variant in one.variants for name in variant}
    unused = {
        name
        for name in documented()
        if not any(one == name or (name.endswith(".") and one.startswith(name)) for one in used)
    }
    assert not unused


def is_bad(annotations: Mapping[str, str]) -> bool:
    parsed = [middleware.parse(annotations) for middleware in MIDDLEWARES]
    return any(isinstance(one, Problem) for one in parsed)


def test_every_middleware_gets_bad_annotations_too() -> None:
    for name in ("retry", "breaker", "limited", "timed", "headers", "fault", "split", "routes", "crowded"):
        one = BY_NAME[name]
        assert not is_bad(one.annotations), name
        assert any(is_bad(variant) for variant in one.variants), name
        assert any(not is_bad(variant) for variant in one.variants[1:]), name


def test_addresses_are_different() -> None:
    assert len({one.cluster_ip for one in SERVICES}) == len(SERVICES)
    assert MEANT.keys() <= BY_NAME.keys()


def test_the_pattern_goes_on_from_piece_to_piece() -> None:
    whole = (bytes(range(PERIOD)) * 1000)[: 3 * PIECE]
    for offset in (0, 1, PERIOD - 1, PERIOD, PIECE - 1, PIECE):
        assert expected(offset, PIECE) == whole[offset : offset + PIECE]
    assert len(PATTERN) < 2 * PIECE
