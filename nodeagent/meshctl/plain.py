"""Text of others (annotations, names, reasons) as it may be written to somebody's terminal. Pure.

An escape sequence in an annotation could clear the screen of whoever looks at it, hide a line, or write
another one.
"""

from __future__ import annotations

import re
from typing import Final

_OURS: Final = re.compile(r"(\x1b\[(?:0|1|2|3[1-7])m)")
"""What `click.style` makes for our lines: none of it hides text."""
_RESET: Final = "\x1b[0m"
_BLANKS: Final = re.compile(r"[\t\n\r\f\v ]+")


def plain(text: str) -> str:
    """Return a text as one line that has no control characters: whitespace becomes a blank."""
    if text.isprintable():
        return text
    return _replaced(_BLANKS.sub(" ", text))


def harmless(line: str) -> str:
    """Return a line of ours that may hold text of others: it keeps line breaks, and colours up to its end."""
    if line.isprintable():
        return line
    parts = _OURS.split(line)
    kept = [part if number % 2 else _lines(part) for number, part in enumerate(parts)]
    coloured = len(parts) > 1 and not line.endswith(_RESET)
    return "".join(kept) + (_RESET if coloured else "")


def _lines(text: str) -> str:
    return "\n".join(_replaced(line.expandtabs()) for line in text.split("\n"))


def _replaced(text: str) -> str:
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
