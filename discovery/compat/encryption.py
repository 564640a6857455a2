"""Whether requests to a Service's endpoints may have to be encrypted. Pure.

The mesh does not use TLS to endpoints. What another mesh encrypted, or may have encrypted, must not be sent
in plain text because an annotation was misspelt; so where that is not known, the Service stays out of the
mesh. It is unknown which of the two meshes read the annotations, Traefik Mesh (the newer prefix first) or
Maesh (only the older one), so everything that one of them would read counts.

With `traffic-type: tcp` both meshes pass on the client's own bytes, as we do, and `https` has no meaning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from discovery.annotations import ENABLED, PROTOCOL, PROTOCOL_OF_PORT
from discovery.compat.note import NOT_MESHED, Note
from discovery.compat.options import OPTIONS, PREFIXES, option_of

_NEWER, _OLDER = PREFIXES
_PLAIN: Final = ("http", "h2c")
_TRAFFIC_TYPES: Final = ("http", "tcp", "udp")
_SPEAKS_OF_IT: Final = frozenset({"https", "tls", "ssl", "mtls"})
"""Values of unknown options that only somebody writes who wants encryption."""


def encryption_notes(foreign: Mapping[str, str], own: Mapping[str, str]) -> Iterator[Note]:
    """Yield why the Service must stay out; nothing if its requests may be sent in plain text.

    `foreign` has every annotation of Traefik Mesh and Maesh, `own` those of ours.
    """
    schemes = _given(foreign, "scheme")
    traffic = _given(foreign, "traffic-type")
    for name, value in schemes.items():
        if value not in (*_PLAIN, "https"):
            yield _excluded(
                name,
                value,
                "is not a scheme of Traefik Mesh, so it is not known whether requests must be encrypted",
                "http, https or h2c, in lower case and without spaces",
            )
    if "https" in schemes.values() and not _passes_bytes(traffic, own):
        yield from _https(schemes, traffic)
    for name, value in foreign.items():
        if _means_encryption(name, value):
            yield _excluded(
                name,
                value,
                "is not an option of Traefik Mesh, and seems to ask for encryption",
                f"{_NEWER}scheme with http, https or h2c",
            )


def _https(schemes: Mapping[str, str], traffic: Mapping[str, str]) -> Iterator[Note]:
    name = next(name for name, value in schemes.items() if value == "https")
    if set(schemes.values()) == {"https"}:
        reason = (
            "has no equivalent: the mesh does not use TLS to endpoints, and must not send in plain text "
            "what was encrypted"
        )
        expected = f"clients that speak https themselves, with {ENABLED}: true and {PROTOCOL}: tcp"
    else:
        other = _OLDER if name.startswith(_NEWER) else _NEWER
        reason = (
            f"is not what {other}scheme says, and Traefik Mesh and Maesh do not read the same one, so it "
            f"is not known whether requests must be encrypted"
        )
        expected = "the same under both prefixes, or only one of them"
    yield _excluded(name, "https", reason, expected)
    for name, value in traffic.items():
        if value not in _TRAFFIC_TYPES:
            reason = "is not a traffic type of Traefik Mesh, so it is not known whether scheme has an effect"
            yield _excluded(name, value, reason, "http, tcp or udp, in lower case and without spaces")


def _passes_bytes(traffic: Mapping[str, str], own: Mapping[str, str]) -> bool:
    """Return whether every annotation that says what the ports speak says tcp."""
    protocols = [
        value for name, value in own.items() if name == PROTOCOL or name.startswith(PROTOCOL_OF_PORT)
    ]
    return bool(traffic) and {*traffic.values(), *protocols} == {"tcp"}


def _means_encryption(name: str, value: str) -> bool:
    option = option_of(name)
    if any(option == known.name for known in OPTIONS):
        return False
    return option.strip().lower() == "scheme" or value.strip().lower() in _SPEAKS_OF_IT


def _given(foreign: Mapping[str, str], option: str) -> dict[str, str]:
    """Return an option's values by their full names, the one that goes first at the front."""
    names = (prefix + option for prefix in PREFIXES)
    return {name: foreign[name] for name in names if name in foreign}


def _excluded(name: str, value: str, reason: str, expected: str) -> Note:
    return Note(name, value, reason, expected, NOT_MESHED, excludes=True)
