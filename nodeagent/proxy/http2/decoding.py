"""Header blocks taken apart into fields (RFC 7541 section 6), each of which is checked once.

A literal whose name does not depend on the dynamic table always means the same. It is looked up by its bytes,
so that it is decoded and checked only once. Secret fields are not remembered: connections share the memory,
and the time that a look-up takes would reveal them.
"""

from __future__ import annotations

import re
from typing import Final

from nodeagent.proxy.http2.field import Field
from nodeagent.proxy.http2.huffman import HuffmanError, decode
from nodeagent.proxy.http2.integers import IntegerError, read_integer
from nodeagent.proxy.http2.static_table import ENTRIES
from nodeagent.proxy.http2.table import TableLog
from nodeagent.proxy.memory import Memory
from nodeagent.proxy.message import UNIQUE

LAST_STATIC: Final = len(ENTRIES)
_STATIC: Final = (None, *(Field(name, value) for name, value in ENTRIES))
_READ_ON: Final = 2
"""A head is read up to this many times its limit, so that its sender can get an answer. No regular client
sends a larger one in a block that is not too large itself: it would have to repeat fields of the table again
and again."""
_MOST_RESIZES: Final = 2
"""In one block, at its beginning (RFC 7541 section 4.2)."""
_IN_BYTE, _IN_NEXT, _SPELLED = range(3)
_NAMING: Final = bytes(
    _SPELLED if byte in (0x00, 0x10, 0x40) else _IN_NEXT if byte in (0x0F, 0x1F, 0x7F) else _IN_BYTE
    for byte in range(256)
)
"""How a literal's name is given, by its first byte."""


_BEFORE_PATH: Final = re.compile(rb"[\x81-\xfe]{0,8}+[\x04\x05\x14\x15][^\x7f\xff]", re.DOTALL)
"""Indexed fields, and the beginning of a path that is not to be indexed."""


class CompressionFault(Exception):
    """A header block that cannot be followed, so the connection must end.

    `excessive`: not because it is malformed, but because it is far too large (ENHANCE_YOUR_CALM).
    """

    def __init__(self, detail: str, excessive: bool = False) -> None:
        super().__init__(detail)
        self.detail = detail
        self.excessive = excessive


def cut_path(block: bytes) -> tuple[bytes, bytes, bool] | None:
    """Return a block without its path, the path as it is in it, and whether that is Huffman-coded.

    None where the path is not there as a literal that stays out of the table, behind nothing but indexed
    fields: the name's byte, which is kept, then cannot be taken for anything else.
    """
    match = _BEFORE_PATH.match(block)
    if match is None:
        return None
    start = match.end()
    length = block[start - 1]
    end = start + (length & 0x7F)
    if end > len(block):
        return None
    return block[: start - 1] + block[end:], block[start:end], length >= 0x80


class BlockReader:
    """Reads the header blocks of one direction of a connection, and owns its dynamic table.

    What is said of a block is that of the one that was read last.
    """

    __slots__ = ("_literals", "_most_bytes", "_table_size", "added", "lasting", "resized", "size", "table")

    def __init__(self, literals: Memory[bytes, Field], most_bytes: int, table_size: int) -> None:
        self.table = TableLog()
        self.added: list[Field] = []
        """The fields that the block has put into the table."""
        self.resized = False
        """It has resized the table."""
        self.lasting = True
        """It means the same whatever is in the table."""
        self.size = 0
        """Of its fields, as SETTINGS_MAX_HEADER_LIST_SIZE counts."""
        self._literals = literals
        self._most_bytes = most_bytes
        self._table_size = table_size

    def read(self, block: bytes) -> list[Field]:
        """Return the fields of a block.

        Raises:
            CompressionFault: it cannot be followed.
        """
        if len(block) > self._most_bytes:
            raise CompressionFault(f"a header block of more than {self._most_bytes} bytes", excessive=True)
        self.lasting, self.resized, self.added = True, False, []
        try:
            return self._read(block)
        except IndexError:
            raise CompressionFault("a header block is cut short") from None
        except (IntegerError, HuffmanError) as error:
            raise CompressionFault(str(error)) from None

    def _read(self, block: bytes) -> list[Field]:
        table, literals = self.table, self._literals.young
        entries = table.fields
        fields: list[Field] = []
        lasting = True
        total, most = 0, _READ_ON * self._most_bytes
        position, end = 0, len(block)
        if end and block[0] & 0xE0 == 0x20:
            position = self._resize(block)
            self.resized, lasting = True, False
        while position < end:
            byte = block[position]
            field: Field | None
            if byte & 0x80:
                index = byte & 0x7F
                position += 1
                if index <= LAST_STATIC:
                    field = _STATIC[index]
                else:
                    if index == 0x7F:
                        index, position = read_integer(block, position - 1, 0x7F)
                    place = len(entries) - (index - LAST_STATIC)
                    field = entries[place] if place >= table.first else None
                    lasting = False
                if field is None:
                    raise CompressionFault(f"a header block refers to field {index}, which does not exist")
            else:
                # Where it ends if its lengths are the short ones that are usual; if they are not, nothing
                # is found by what is up to there, for a literal tells its length.
                after = position + 1
                naming = _NAMING[byte]
                if naming:
                    after += 1 if naming == _IN_NEXT else 1 + (block[after] & 0x7F)
                after += 1 + (block[after] & 0x7F)
                literal = block[position:after]
                field = literals.get(literal)
                if field is None:
                    field, after = self._literal(block, position, literal)
                position = after
                if byte & 0x40:
                    table.add(field)
                    self.added.append(field)
            fields.append(field)
            total += field.size
            if total > most:
                raise CompressionFault(f"a head of more than {most} bytes", excessive=True)
        self.size = total
        self.lasting = lasting and self.lasting
        return fields

    def _literal(self, block: bytes, position: int, guess: bytes) -> tuple[Field, int]:
        """Return the literal at `position`, which may be as long as the guess, and where it ends."""
        first = block[position]
        if first & 0xE0 == 0x20:
            raise CompressionFault("the dynamic table is resized more than twice, or after a field")
        guessed = position + len(guess)
        mask = 0x3F if first & 0x40 else 0x0F
        index, at = first & mask, position + 1
        if index == mask:
            index, at = read_integer(block, position, mask)
        never_indexed = first & 0xF0 == 0x10
        if index > LAST_STATIC:
            namesake = self.table.at(index - LAST_STATIC)
            if namesake is None:
                raise CompressionFault(f"a header block names a field by field {index}, which does not exist")
            self.lasting = False
            value, at = self._string(block, at)
            return Field(namesake.name, value, never_indexed), at
        known = self._literals.older(guess)
        if known is not None:
            return known, guessed
        if index:
            name = ENTRIES[index - 1][0]
        else:
            name, at = self._string(block, at)
        value, at = self._string(block, at)
        field = Field(name, value, never_indexed)
        worth_it = not field.secret and at == guessed and name not in UNIQUE
        if worth_it and self._literals.again(guess):
            self._literals.keep(guess, field)
        return field, at

    def _string(self, block: bytes, position: int) -> tuple[bytes, int]:
        """Return the string at `position` (RFC 7541 section 5.2), and where it ends."""
        first = block[position]
        if first & 0x7F < 0x7F:  # the usual case
            start = position + 1
            end = start + (first & 0x7F)
        else:
            length, start = read_integer(block, position, 0x7F)
            end = start + length
        if end > len(block):
            raise CompressionFault("a header block is cut short")
        string = block[start:end]
        return (decode(string) if first & 0x80 else string), end

    def _resize(self, block: bytes) -> int:
        """Follow the resizing of the table with which the block begins; return where that ends."""
        position = 0
        for _ in range(_MOST_RESIZES):
            size, position = read_integer(block, position, 0x1F)
            if size > self._table_size:
                raise CompressionFault(f"a dynamic table of {size} bytes, of {self._table_size} allowed")
            self.table.resize(size)
            if position == len(block) or block[position] & 0xE0 != 0x20:
                break
        return position
