"""Corefiles as real clusters have them: the defaults of distributions, and what people write."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "corefiles"
NAMES = sorted(path.name for path in FOLDER.iterdir())


def read(name: str) -> str:
    """Return the exact text; line ends are part of it."""
    return (FOLDER / name).read_bytes().decode()
