from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.kube.lines import LineBuffer, LineTooLong


@given(st.lists(st.binary(max_size=8).filter(lambda line: b"\n" not in line and line.strip())), st.data())
def test_lines_come_out_whole_however_they_are_cut(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    buffer = LineBuffer(limit=100)
    found: list[bytes] = []
    at = 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        found += buffer.feed(stream[at : at + size])
        at += size
    assert found == lines
    assert not buffer.partial


def test_what_is_left_is_partial() -> None:
    buffer = LineBuffer(limit=100)
    assert buffer.feed(b"a\n\n\r\nb") == [b"a"]
    assert buffer.partial


def test_a_line_has_a_limit() -> None:
    buffer = LineBuffer(limit=10)
    assert buffer.feed(b"0123456789") == []
    with pytest.raises(LineTooLong):
        buffer.feed(b"0")
