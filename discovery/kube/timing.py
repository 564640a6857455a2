"""The times of the Kubernetes source, all in seconds; tests make them small."""

from __future__ import annotations

import msgspec


class Timing(msgspec.Struct, frozen=True):
    """When to give up, to try again and to say that contact is lost. Seconds."""

    backoff_first: float = 0.25
    backoff_limit: float = 30.0
    """Between lists that fail, which are heavy for a server in distress."""
    light_limit: float = 2.0
    """Between attempts that cost the server next to nothing: see `Reflection`. Short, because the plan is to
    be right 2 seconds after the server is."""
    unreached_limit: float = 1.0
    """Between attempts that do not reach a server."""
    forbidden_optional: float = 60.0
    """Until what may not be read, and need not be, is tried again."""
    watch_shortest: float = 240.0
    """A watch asks the server to end it after a random time between this and `watch_longest`, so that the
    nodes of a cluster do not renew their watches together."""
    watch_longest: float = 360.0
    watch_grace: float = 15.0
    """How much longer than it asked for a watch may last before it counts as hanging."""
    max_silence: float = 90.0
    """Without a byte, on a watch that has brought a bookmark: servers that send them do so every minute."""
    silent_watch: float = 120.0
    """A watch that lasted this long and brought nothing, not even a bookmark, is followed by a list."""
    short_watch: float = 1.0
    """A watch that ended sooner and brought nothing is a failure: something between cuts it off."""
    good_watch: float = 5.0
    """A watch that lasted this long ends the count of failures."""
    connect: float = 5.0
    answer: float = 30.0
    """To the head of a response, and between two reads of a list."""
    stale_after: float = 3.0
    """Contact lost for longer is reported as `Stale`."""
    credentials_age: float = 60.0
    """After this the token and the certificates are read again: they are rotated on disk."""
