"""The options of Traefik Mesh: their names, and what each of them becomes here."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from discovery.model import ANNOTATION_PREFIX

Compat = Literal["traefik-mesh"]

PREFIXES: Final = ("mesh.traefik.io/", "maesh.containo.us/")
"""The first takes precedence over the second."""
ZONES: Final = ("traefik.mesh", "maesh")
"""The DNS zones of Traefik Mesh and of Maesh."""

RETRY_ATTEMPTS: Final = f"{ANNOTATION_PREFIX}retry-attempts"
CIRCUIT_BREAKER: Final = f"{ANNOTATION_PREFIX}circuit-breaker"
RATE_LIMIT: Final = f"{ANNOTATION_PREFIX}rate-limit"
MOST_RETRIES: Final = 10
"""The most that `svc.mesh/retry-attempts` takes; a test holds these against the middleware."""
FASTEST: Final = 1_000_000
"""Requests per second, the most that `svc.mesh/rate-limit` takes."""
LARGEST_BURST: Final = 1_000_000
"""The largest `burst=` that it takes."""


class Option(msgspec.Struct, frozen=True):
    """The documentation of one option; `docs/migrate-traefik-mesh.md` shows it."""

    name: str
    """Below either prefix."""
    values: str
    meaning: str
    """There."""
    ours: str
    changes: str
    """What is different here."""


OPTIONS: Final[tuple[Option, ...]] = (
    Option(
        name="traffic-type",
        values="`http`, `tcp` or `udp`; absent: the mode the mesh was installed with, by default `http`",
        meaning="what the Service's ports speak",
        ours="`svc.mesh/protocol: http` or `tcp`",
        changes="absent: each port's `appProtocol`, else the prefix of its name, else http; `udp` has no"
        " equivalent yet: such a Service is not meshed",
    ),
    Option(
        name="scheme",
        values="`http`, `https` or `h2c`; absent: `http`",
        meaning="how the mesh speaks to the endpoints of an http Service",
        ours="`http`: nothing to set; `h2c`: `svc.mesh/protocol: h2c`",
        changes="`https` has no equivalent: rather than send in plain text what was encrypted,"
        " such a Service is not meshed, nor one with a value that is none of these (below)",
    ),
    Option(
        name="retry-attempts",
        values="a number of 1 or more",
        meaning="how often a request is tried in all, if an endpoint does not answer",
        ours="`svc.mesh/retry-attempts`, one less: the tries after the first",
        changes=f"each further try goes to another endpoint, at most {MOST_RETRIES} of them, and only what"
        " cannot have been processed or has an idempotent method is sent again",
    ),
    Option(
        name="circuit-breaker-expression",
        values="an expression of `NetworkErrorRatio()`, `ResponseCodeRatio()`, `LatencyAtQuantileMS()`",
        meaning="when requests are answered with 503 at once",
        ours="`svc.mesh/circuit-breaker`, the same expression",
        changes="the same language, checked before it is in force; one that can never hold is an error",
    ),
    Option(
        name="ratelimit-average",
        values="requests per second, 1 or more; needs `ratelimit-burst`",
        meaning="how many requests per second a client address may send through one proxy",
        ours="`svc.mesh/rate-limit: <average>/s burst=<burst> per=source`",
        changes="one annotation in place of two; counted for the whole node; what comes faster is refused at"
        f" once, never held back; at most {FASTEST}",
    ),
    Option(
        name="ratelimit-burst",
        values="requests, 1 or more; needs `ratelimit-average`",
        meaning="how many of them may come at once",
        ours="`burst=` of `svc.mesh/rate-limit`",
        changes=f"as above; at most {LARGEST_BURST}",
    ),
)


def is_foreign(name: str) -> bool:
    """Return whether an annotation is one of Traefik Mesh or Maesh."""
    return name.startswith(PREFIXES)


def option_of(name: str) -> str:
    """Return an annotation's name without the prefix of Traefik Mesh or Maesh."""
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name
