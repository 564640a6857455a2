"""What layers see of the heads of messages, and the responses that they make themselves.

Part of `middleware.contract`, where authors import it from.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from middleware.grpc import GrpcStatus

_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
OWN_FIELDS: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Header fields that are the data plane's, in lower case."""


@functools.lru_cache(maxsize=4096)
def check_field(name: str, value: str) -> None:
    """Check that a layer may put this field into a head.

    Raises:
        ValueError: it says why not.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name[:64]!r} is not the name of a header field (RFC 9110 section 5.1)")
    if name.lower() in OWN_FIELDS:
        raise ValueError(
            f"{name} is set by the mesh alone: it frames the message, or is for one connection only"
        )
    if not _VALUE.fullmatch(value):
        raise ValueError(f"{value[:64]!r} cannot be the value of a header field (RFC 9110 section 5.5)")


class Headers(Protocol):
    """The end-to-end header fields of a message; names are compared without regard to case.

    What is changed here is what goes on. Fields that frame the message or end at this hop (`Connection`,
    `Content-Length`, `Transfer-Encoding`, ...) are the data plane's: changing one raises ValueError, and so
    does a name or value that cannot stand in a head.
    """

    def get(self, name: str) -> str | None:
        """Return the first value of this name, or None."""
        ...

    def get_all(self, name: str) -> list[str]:
        """Return all values of this name, in order."""
        ...

    def set(self, name: str, value: str) -> None:
        """Replace all fields of this name by one."""
        ...

    def add(self, name: str, value: str) -> None:
        """Add one more field."""
        ...

    def remove(self, name: str) -> None:
        """Remove all fields of this name."""
        ...

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Go through all fields in order: their names, as they were sent, and values."""
        ...

    def has_any(self, names: frozenset[str]) -> bool:
        """Return whether a field of one of these names, in lower case, is there, by one search for all."""
        ...


class ReplyHeaders:
    """The header fields of a `Reply`. Implements `Headers`."""

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        self._fields = list(fields)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._fields)

    def get(self, name: str) -> str | None:
        """Return the first value of this name, or None."""
        return next(iter(self.get_all(name)), None)

    def get_all(self, name: str) -> list[str]:
        """Return all values of this name, in order."""
        return [value for known, value in self._fields if known.lower() == name.lower()]

    def set(self, name: str, value: str) -> None:
        """Replace all fields of this name by one."""
        self.remove(name)
        self.add(name, value)

    def add(self, name: str, value: str) -> None:
        """Add one more field."""
        check_field(name, value)
        self._fields.append((name, value))

    def has_any(self, names: frozenset[str]) -> bool:
        """Return whether a field of one of these names is there."""
        return any(name.lower() in names for name, _ in self._fields)

    def remove(self, name: str) -> None:
        """Remove all fields of this name."""
        self._fields = [field for field in self._fields if field[0].lower() != name.lower()]


class Reply:
    """A complete response that a layer makes itself. Implements `Response`.

    `Content-Length` is added. The data plane says who answered in `Proxy-Status` (RFC 9209), with `reason`.
    """

    def __init__(
        self, status: int, fields: Iterable[tuple[str, str]] = (), body: bytes = b"", reason: str = "reply"
    ) -> None:
        if not 200 <= status <= 599:
            raise ValueError(f"a reply's status is 200 to 599, not {status}")
        self.status = status
        self.headers = ReplyHeaders(fields)
        self.body = body
        self.reason = reason

    @property
    def length(self) -> int:
        """The size of the body."""
        return len(self.body)

    @property
    def grpc_status(self) -> GrpcStatus | None:
        """The status for callers of gRPC; None: the one that corresponds to `status`."""
        return None

    def trailer(self, name: str) -> str | None:
        """Return None: its fields are its head's."""
        return None

    async def early_status(self, seconds: float) -> GrpcStatus | None:
        """Return None."""
        return None

    def discard(self) -> None:
        """Nothing is kept anywhere."""

    async def read(self, limit: int) -> bytes | None:
        """Return the body."""
        return self.body if len(self.body) <= limit else None

    def collect(self, limit: int, done: Callable[[bytes | None], None]) -> None:
        """Give the body at once: it is there."""
        done(self.body if len(self.body) <= limit else None)
