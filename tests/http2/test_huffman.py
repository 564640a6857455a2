"""Huffman codes: as the `hpack` library writes and reads them, and strict about what ends them."""

from __future__ import annotations

import pytest
from hpack.exceptions import HPACKDecodingError
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hypothesis import example, given
from hypothesis import strategies as st

from nodeagent.proxy.http2.huffman import HuffmanError, decode

ENCODER = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


def code(symbols: list[int], padding: str = "1") -> bytes:
    """Return the codes of symbols, 256 (the end) among them, padded with `padding` again and again."""
    bits = "".join(f"{REQUEST_CODES[s]:0{REQUEST_CODES_LENGTH[s]}b}" for s in symbols)
    while len(bits) % 8:
        bits += padding
    return int(bits or "0", 2).to_bytes(len(bits) // 8, "big")


@pytest.mark.parametrize("symbol", range(256))
def test_every_symbol(symbol: int) -> None:
    for text in (bytes([symbol]), bytes([symbol, symbol]), b"a" + bytes([symbol]) + b"z"):
        assert decode(ENCODER.encode(text)) == text


@given(st.binary(max_size=80))
def test_what_the_library_writes(text: bytes) -> None:
    assert decode(ENCODER.encode(text)) == text


@given(st.binary(max_size=40))
@example(b"\xff")
@example(b"\xff\xff\xff\xff")
@example(code([97]) + b"\xff")
def test_what_the_library_reads_and_refuses(data: bytes) -> None:
    try:
        theirs = bytes(decode_huffman(data))
    except HPACKDecodingError:
        with pytest.raises(HuffmanError):
            decode(data)
    else:
        assert decode(data) == theirs


BROKEN = {
    "padded with zeros": code([97], padding="0"),
    "a byte of padding": code([97]) + b"\xff",
    "only padding": b"\xff",
    "the end's symbol": code([97, 256]),
    "the end's symbol, then more": code([97, 256, 97]),
    "the end's symbol first": code([256]),
    "half a symbol": code([0])[:1],
    "half a symbol of ones, as long as padding may not be": code([97, 97, 97, 97, 97, 97, 97, 97]) + b"\xff",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_string_that_does_not_end_well(name: str) -> None:
    with pytest.raises(HuffmanError):
        decode(BROKEN[name])


def test_seven_bits_of_padding_are_allowed() -> None:
    assert decode(code([ord("&"), ord("0"), ord("0")])) == b"&00"  # 8 and 5 and 5 bits
    assert decode(b"") == b""


@pytest.mark.parametrize("size", [126, 127, 128, 300, 5000, 60_000])
def test_long_strings(size: int) -> None:
    text = bytes(range(32, 127)) * (size // 95 + 1)
    assert decode(ENCODER.encode(text[:size])) == text[:size]


def test_a_string_longer_than_any_field() -> None:
    with pytest.raises(HuffmanError, match="too long"):
        decode(ENCODER.encode(b"a" * 65_536))
