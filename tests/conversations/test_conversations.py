"""Every conversation of the wire logs goes as it is written, whole and byte by byte."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conversations.wire import Case, play, read_cases, settings
from tests.exchange.http1 import Http1Stage

CASES = list(read_cases())
IN_PIECES = [case for case in CASES if case.pieces]


@pytest.mark.parametrize("case", CASES, ids=[case.label for case in CASES])
def test_at_once(wires: Callable[..., Http1Stage], case: Case) -> None:
    play(case, wires(**settings(case)), in_pieces=False)


@pytest.mark.parametrize("case", IN_PIECES, ids=[case.label for case in IN_PIECES])
def test_byte_by_byte(wires: Callable[..., Http1Stage], case: Case) -> None:
    play(case, wires(**settings(case)), in_pieces=True)
