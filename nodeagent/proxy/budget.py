"""Bytes that the parts of a process may have together. Pure."""

from __future__ import annotations


class Budget:
    """A number of bytes; the parts take from it in the order in which they ask."""

    __slots__ = ("left",)

    def __init__(self, size: int) -> None:
        self.left = size

    def borrow(self, size: int) -> bool:
        """Take so many bytes, if they are there."""
        if size > self.left:
            return False
        self.left -= size
        return True

    def give_back(self, size: int) -> None:
        """Return what was borrowed."""
        self.left += size
