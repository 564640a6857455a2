"""Which requests endpoints have served: each that may not be sent twice has a number of its own.

Endpoints add a line for each as soon as they have it; the file is shared by all of them, and read at the end.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path


class ServedLog:
    """Where an endpoint writes down what it has served: one write a line, so that lines stay whole."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def add(self, number: str) -> None:
        """Note one request."""
        if number:
            os.write(self._file, f"{number}\n".encode())


def read(path: Path) -> Counter[str]:
    """Return how often each request was served."""
    return Counter(path.read_text().split()) if path.exists() else Counter()


def complaints(served: Counter[str], answered: Iterable[str]) -> list[str]:
    """Return what may not be: a request that was served twice, or answered and never served."""
    twice = [f"request {number} was served {times} times" for number, times in served.items() if times > 1]
    never = [
        f"request {number} was answered, and no endpoint has had it"
        for number in answered
        if not served[number]
    ]
    return twice + never
