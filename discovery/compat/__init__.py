"""Annotations of another mesh, in ours: what `--compat traefik-mesh` reads. Pure, and never fails."""

from discovery.compat.note import Note
from discovery.compat.options import (
    CIRCUIT_BREAKER,
    FASTEST,
    LARGEST_BURST,
    MOST_RETRIES,
    OPTIONS,
    PREFIXES,
    RATE_LIMIT,
    RETRY_ATTEMPTS,
    ZONES,
    Compat,
    is_foreign,
)
from discovery.compat.translation import Translation, translate

__all__ = [
    "CIRCUIT_BREAKER",
    "FASTEST",
    "LARGEST_BURST",
    "MOST_RETRIES",
    "OPTIONS",
    "PREFIXES",
    "RATE_LIMIT",
    "RETRY_ATTEMPTS",
    "ZONES",
    "Compat",
    "Note",
    "Translation",
    "is_foreign",
    "translate",
]
