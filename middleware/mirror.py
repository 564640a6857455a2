"""`svc.mesh/mirror: catalog-next 10%`: send a copy of a share of the requests to another Service.

A copy is sent when the request itself has its answer, so it takes nothing from it, and its own answer is
thrown away. Requests whose body is not kept whole are not copied, and neither are those beyond a number at
once.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from middleware.contract import (
    Annotation,
    Asked,
    Context,
    Decision,
    ExchangeError,
    Handler,
    Layer,
    Metric,
    Middleware,
    Problem,
    Request,
    Response,
)
from middleware.values import WHOLE, InvalidValue, parse_annotation, parse_percentage, quote

MIRROR: Final = "svc.mesh/mirror"
LONGEST_TIME: Final = 15.0
"""Seconds after which a copy is given up."""
MOST_AT_ONCE: Final = 100
"""Copies under way, of one port and worker."""

MIRRORED: Final = Metric("svcmesh_mirrored_requests", "Copies of requests that were sent to another Service.")
FAILED: Final = Metric("svcmesh_mirror_failures", "Copies that got no response in time.")
LEFT_OUT: Final = Metric(
    "svcmesh_mirror_left_out",
    "Requests that were not copied: their body is too large, or too many are under way.",
)

_NAME: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)?")


class Options(msgspec.Struct, frozen=True):
    """To which Service, `name` or `name.namespace`, and how many hundredths of a per cent."""

    backend: str
    share: int = WHOLE


def parse(annotations: Mapping[str, str]) -> Options | Problem | None:
    """Read `svc.mesh/mirror`."""
    return parse_annotation(annotations, MIRROR, parse_mirror)


def parse_mirror(text: str) -> Options:
    """Read a Service and a share.

    Raises:
        InvalidValue: it says what is wrong, and why.
    """
    words = text[:1024].split()
    if not 1 <= len(words) <= 2:
        raise InvalidValue(f"{quote(text.strip())} is not a Service and a share", "NAME[.NAMESPACE] 10%")
    if not _NAME.fullmatch(words[0]):
        raise InvalidValue(f"{quote(words[0])} is not the name of a Service", "NAME or NAME.NAMESPACE")
    return Options(words[0], parse_percentage(words[1]) if len(words) == 2 else WHOLE)


class Share:
    """Which requests are copied: exactly the share, evenly; `fraction` of a cycle is over at the start."""

    def __init__(self, share: int, fraction: float) -> None:
        self._share = share
        self._due = int(WHOLE * fraction)
        self.under_way = 0

    def due(self) -> bool:
        """Whether the next request is copied."""
        self._due += self._share
        if self._due < WHOLE:
            return False
        self._due -= WHOLE
        return True


def explain(options: Options, _asked: Asked) -> Decision:
    """Say how many requests are copied, and to which Service."""
    share = options.share / WHOLE
    return Decision(f"copies {share:.2%} of the requests to {options.backend}; nobody waits for the copy")


def build(options: Options, context: Context, *, fraction: Callable[[], float] = random.random) -> Layer:
    """Return the layer for one port of a Service; tests give `fraction`."""
    policy = Share(options.share, fraction())
    mirrored, failed, left_out = (context.counter(metric) for metric in (MIRRORED, FAILED, LEFT_OUT))

    def ended(status: int) -> None:
        policy.under_way -= 1
        if not status:
            failed(1)

    def copy(request: Request) -> None:
        if policy.under_way < MOST_AT_ONCE and request.aside(options.backend, LONGEST_TIME, ended):
            policy.under_way += 1
            mirrored(1)
        else:
            left_out(1)

    def layer(handler: Handler) -> Handler:
        async def mirror(request: Request) -> Response:
            if not policy.due():
                return await handler(request)
            try:
                response = await handler(request)
            except ExchangeError:
                copy(request)
                raise
            copy(request)
            return response

        return mirror

    return layer


MIDDLEWARE = Middleware(
    name="mirror",
    annotations=(
        Annotation(
            name=MIRROR,
            values="NAME[.NAMESPACE] [PERCENTAGE]; 0.01% to 100%",
            default="no copies; without a percentage every request is copied",
            summary=(
                "To which other Service a copy of a share of the requests is sent, whose answers are thrown "
                "away."
            ),
            example="svc.mesh/mirror: catalog-next 10%",
            individual=True,
        ),
    ),
    options=Options,
    parse=parse,
    build=build,
    explain=explain,
    metrics=(MIRRORED, FAILED, LEFT_OUT),
    backends=lambda options: (options.backend,),
)
