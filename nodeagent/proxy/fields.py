"""Header fields as layers see them: taken apart only when somebody asks."""

from __future__ import annotations


class Fields:
    """The fields of a validated head: lines with their CRLF. Implements `middleware.contract.Headers`."""

    __slots__ = ("_lines", "_raw")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._lines: list[tuple[str, str]] | None = None

    def items(self) -> list[tuple[str, str]]:
        """Return all fields in order, names in lower case, values without surrounding white space."""
        if self._lines is None:
            lines = []
            for line in self._raw.decode("latin-1").split("\r\n"):
                name, colon, value = line.partition(":")
                if colon:
                    lines.append((name.lower(), value.strip(" \t")))
            self._lines = lines
        return self._lines

    def get(self, name: str) -> str | None:
        """Return the first value of this name, or None."""
        wanted = name.lower()
        for key, value in self.items():
            if key == wanted:
                return value
        return None

    def get_all(self, name: str) -> list[str]:
        """Return all values of this name, in order."""
        wanted = name.lower()
        return [value for key, value in self.items() if key == wanted]
