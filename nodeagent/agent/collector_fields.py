"""Header fields that a collector wants, such as a token: read from a file, and never shown.

A fault says which line of the file is wrong, and never what stands in it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from middleware.contract import OWN_FIELDS

MOST_BYTES: Final = 16 * 1024
"""Of the file: servers do not take larger heads."""
SHORTEST_SECRET: Final = 8
"""Characters; what is shorter is left in what a collector says."""

_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_METADATA_NAME: Final = re.compile(rb"[0-9A-Za-z_.-]+")
_VALUE: Final = re.compile(rb"[ -~]+")
_OURS: Final = OWN_FIELDS | {"accept-encoding", "content-encoding", "content-type", "host", "user-agent"}
"""Fields that the sender writes itself, and those that belong to the connection."""

Fields = tuple[tuple[str, str], ...]
"""Names in lower case, with their values."""


class FieldsFault(Exception):
    """The file of header fields cannot be used. The message has nothing of what stands in it."""


def read_fields(path: str, of_grpc: bool) -> Fields:
    """Return the fields in a file.

    It is read for each lot: it is small, and in memory if it is mounted from a Secret.

    Raises:
        FieldsFault: it cannot be used.
    """
    try:
        if not Path(path).is_file():
            raise FieldsFault(f"{path} is not there, or is not a file")
        with Path(path).open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise FieldsFault(f"{path} cannot be read: {error.strerror}") from error
    try:
        return parse_fields(text, of_grpc)
    except FieldsFault as fault:
        raise FieldsFault(f"{path}: {fault}") from None


def parse_fields(text: bytes, of_grpc: bool) -> Fields:
    """Read lines of `Name: value`. Empty lines, and those that begin with `#`, mean nothing.

    Raises:
        FieldsFault: a line is something else, or there is none.
    """
    if len(text) > MOST_BYTES:
        raise FieldsFault(f"it has more than {MOST_BYTES} bytes")
    fields: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        name, value = _field(line, number, of_grpc)
        if name in fields:
            raise FieldsFault(f"line {number} has the name of a line above")
        fields[name] = value
    if not fields:
        raise FieldsFault("it has no line `Name: value`")
    return tuple(fields.items())


def _field(line: bytes, number: int, of_grpc: bool) -> tuple[str, str]:
    spelled, colon, value = line.partition(b":")
    if not colon or _NAME.fullmatch(spelled) is None:
        raise FieldsFault(f"line {number} is not `Name: value`")
    name = spelled.decode("ascii").lower()
    if name in _OURS:
        raise FieldsFault(f"line {number} has the name {name}, which the agent sets itself")
    if of_grpc:
        if name.startswith("grpc-"):
            raise FieldsFault(f"line {number} has a name with grpc-, which gRPC keeps for itself")
        if name.endswith("-bin"):
            raise FieldsFault(f"line {number} has a name with -bin, of which gRPC wants binary values")
        if _METADATA_NAME.fullmatch(spelled) is None:
            raise FieldsFault(f"line {number} has a name that gRPC does not take: a-z 0-9 _ . -")
    stripped = value.strip(b" \t")
    if not stripped:
        raise FieldsFault(f"line {number} has no value")
    if _VALUE.fullmatch(stripped) is None:
        raise FieldsFault(f"line {number} has a value with other characters than printable ASCII")
    return name, stripped.decode("ascii")


def without_secrets(text: str, fields: Fields) -> str:
    """Return what a collector says, without the values that it was sent."""
    secrets = {part for _, value in fields for part in (value, *value.split())}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return text
