"""Bytes that the parts of a process may have together. Pure."""

from __future__ import annotations


class Budget:
    """A number of bytes, given out in the order of the requests for them."""

    __slots__ = ("left",)

    def __init__(self, size: int) -> None:
        self.left = size

    def borrow(self, size: int) -> bool:
        """Take this many bytes, if they are left."""
        if size > self.left:
            return False
        self.left -= size
        return True

    def give_back(self, size: int) -> None:
        """Return what was borrowed."""
        self.left += size
