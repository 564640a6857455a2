"""Huffman decoding of header strings (RFC 7541 section 5.2 and appendix B).

A byte of code at a time: each state (how far into a symbol the byte before has led) has a row, which says for
each byte what symbols it completes and in which row the next byte is looked up. Rows are filled as strings
need them, so that a worker holds what its traffic uses, at most 65,536 entries. Measured against the decoder
of the `hpack` library, which goes by half bytes: a quarter of its time.
"""

from __future__ import annotations

from typing import Any, Final

_LENGTHS: Final = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c"
    "060a0a0c0d06080b0a0a080b080606060505050606060606060607080f060c0a"
    "0d06070707070707070707070707070707070707070707070807080d130d0e06"
    "0f05060506050606060507070606060506070605050607070707070f0b0e0d1c"
    "1416141416161617161717171717181718181617181717171715161716171718"
    "1615141616171715171616181516171715151615171617171416161617161617"
    "1a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b"
    "14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a"
    "1e"
)
"""Of each symbol's code, in bits. The code is canonical: of one length, they count up with the symbols."""
_END: Final = 256
"""The symbol of the end of a string, which is only ever the beginning of the padding."""

_Row = list[Any]
"""By byte (symbols, next row), or None where it is not known yet; then what is behind these names."""
_NODE: Final = 256
_MAY_END: Final = 257
"""Whether a string may end in this state: all that has come of the next symbol could be padding."""
_Node = list[Any]
"""[left, right, row]: how codes go on; leaves are symbols."""


class HuffmanError(Exception):
    """The string is not well formed."""


def _tree() -> _Node:
    root: _Node = [None, None, None]
    code, length = 0, 0
    for symbol in sorted(range(len(_LENGTHS)), key=lambda symbol: (_LENGTHS[symbol], symbol)):
        code <<= _LENGTHS[symbol] - length
        length = _LENGTHS[symbol]
        node = root
        for bit in range(length - 1, 0, -1):
            branch = code >> bit & 1
            if node[branch] is None:
                node[branch] = [None, None, None]
            node = node[branch]
        node[code & 1] = symbol
        code += 1
    return root


def _row(node: _Node | None, may_end: bool = False) -> _Row:
    return [*[None] * 256, node, may_end]


_ROOT: Final = _tree()
_START: Final = _row(_ROOT, may_end=True)
_ROOT[2] = _START
_BROKEN: Final = _row(None)
"""Where a string goes that has the end within; it stays there."""


def _padding() -> None:
    """Make the rows in which a string may end: behind up to seven bits of the end's code (all ones)."""
    node = _ROOT
    for _ in range(7):
        node = node[1]
        node[2] = _row(node, may_end=True)


_padding()


def _fill(row: _Row, byte: int) -> tuple[bytes, _Row]:
    """Find out what a byte means in this state."""
    node: Any = row[_NODE]
    symbols = bytearray()
    for bit in range(7, -1, -1):
        if node is None:
            break
        node = node[byte >> bit & 1]
        if node == _END:
            node = None
        elif isinstance(node, int):
            symbols.append(node)
            node = _ROOT
    if node is None:
        following = _BROKEN
    else:
        following = node[2]
        if following is None:
            following = node[2] = _row(node)
    entry = row[byte] = (bytes(symbols), following)
    return entry


def decode(data: bytes) -> bytes:
    """Return the string.

    Raises:
        HuffmanError: it has the end's symbol within, or is padded with something else than up to seven ones.
    """
    row = _START
    found = []
    for byte in data:
        symbols, row = row[byte] or _fill(row, byte)
        found.append(symbols)
    if not row[_MAY_END]:
        raise HuffmanError("a Huffman string is badly padded, or has the end's symbol within")
    return b"".join(found)
