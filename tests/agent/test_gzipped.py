"""Lots made smaller, and what of an answer is made large again."""

from __future__ import annotations

import gzip
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.agent import gzipped
from nodeagent.agent.gzipped import compressed, decompressed


@pytest.mark.parametrize("size", [1000, gzipped.ASIDE + 1])
async def test_what_is_smaller_as_gzip(size: int) -> None:
    packed = await compressed(bytes(size))
    assert packed is not None
    assert len(packed) < size
    assert gzip.decompress(packed) == bytes(size)


@pytest.mark.parametrize("body", [b"", b"spans", random.Random(1).randbytes(10_000)], ids=len)
async def test_what_would_not_be_smaller(body: bytes) -> None:
    assert await compressed(body) is None


@given(st.binary(max_size=100))
def test_what_was_compressed_comes_back(body: bytes) -> None:
    assert decompressed(gzip.compress(body), 100) == body


@given(st.binary(max_size=100))
def test_what_is_no_gzip_is_nothing(body: bytes) -> None:
    assert decompressed(b"\0" + body, 100) == b""


@given(st.integers(1, 1000))
def test_not_more_than_asked_for(most: int) -> None:
    assert decompressed(gzip.compress(bytes(1000)), most) == (bytes(1000) if most == 1000 else b"")
