"""`svc.mesh/load-balancing`, `svc.mesh/session-affinity` and `svc.mesh/slow-start`.

They say to which endpoint a request goes: `consistent-hash header=x-user`, say. Each has a form for single
ports.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from discovery.model import ServiceKey, ServicePort
from middleware.contract import Annotation, Problem, check_field
from middleware.cookies import COOKIE_NAME
from middleware.values import (
    InvalidValue,
    format_duration,
    parse_choice,
    parse_duration,
    parse_integer,
    problem,
    quote,
    split_settings,
)
from nodeagent.plan.model import Affinity, Balance, HashKey
from nodeagent.plan.setting import Setting

LOAD_BALANCING: Final = "svc.mesh/load-balancing"
SESSION_AFFINITY: Final = "svc.mesh/session-affinity"
SLOW_START: Final = "svc.mesh/slow-start"
OF_PORT: Final = tuple(f"{name}." for name in (LOAD_BALANCING, SESSION_AFFINITY, SLOW_START))
CONSISTENT_HASH: Final = "consistent-hash"
POLICIES: Final = ("round-robin", "least-request", "ewma", "random", CONSISTENT_HASH)
OFF: Final = "off"
LONGEST_DECAY: Final = 600.0
LONGEST_SLOW_START: Final = 3600.0
LONGEST_AGE: Final = 31_536_000.0
"""Seconds: 365 days."""
LEAST_FACTOR: Final = 105
MOST_FACTOR: Final = 1000

_PARAMETER: Final = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_PLACES: Final = ("header", "cookie", "query", "source")
T = TypeVar("T")


class WarmUp(msgspec.Struct, frozen=True):
    """What is said of slow start."""

    seconds: float = 0.0
    recovered: bool = False
    """Whether it is also for endpoints that are healthy again."""


class Balancing(msgspec.Struct, frozen=True):
    """What is said of the choice of endpoints: for all ports under "", for one under its name or number."""

    balance: Mapping[str, Balance] = {}
    slow_start: Mapping[str, WarmUp] = {}
    affinity: Mapping[str, Affinity | None] = {}

    def balance_of(self, port: ServicePort) -> Balance:
        """Return how the endpoints of a port are chosen."""
        balance = _of(self.balance, port, Balance())
        warm_up = _of(self.slow_start, port, WarmUp())
        if balance.policy == CONSISTENT_HASH or not warm_up.seconds:
            return balance
        return msgspec.structs.replace(
            balance, slow_start=warm_up.seconds, slow_start_recovered=warm_up.recovered
        )

    def affinity_of(self, service: ServiceKey, port: ServicePort, salt: str) -> Affinity | None:
        """Return the cookie of a port."""
        affinity = _of(self.affinity, port, None)
        if affinity is None:
            return None
        name = affinity.name or default_cookie(service, port.port)
        return msgspec.structs.replace(affinity, name=name, salt=salt)


def _of(said: Mapping[str, T], port: ServicePort, default: T) -> T:
    for selector in (port.name, str(port.port), ""):
        if selector in said:
            return said[selector]
    return default


def default_cookie(service: ServiceKey, port: int) -> str:
    """Return a cookie's name of its own: behind one gateway a browser has those of many Services."""
    return f"svcmesh-affinity-{hashlib.sha256(f'{service}:{port}'.encode()).hexdigest()[:8]}"


def parse_balancing(annotations: Mapping[str, str]) -> Balancing | Problem | None:
    """Read all three, and those of single ports."""
    found: dict[str, dict[str, Any]] = {}
    for setting, parse in _PARSERS.items():
        values = found[setting] = {}
        for name in sorted(annotations):
            if name != setting and not name.startswith(f"{setting}."):
                continue
            try:
                values[name.removeprefix(setting).removeprefix(".")] = parse(annotations[name])
            except InvalidValue as invalid:
                return problem(name, annotations[name], invalid)
    balance, affinity, slow_start = found.values()
    for selector, warm_up in slow_start.items():
        said = balance.get(selector, balance.get("", Balance()))
        if warm_up.seconds and said.policy == CONSISTENT_HASH:
            name = f"{SLOW_START}.{selector}" if selector else SLOW_START
            reason = f"has no effect with {LOAD_BALANCING}: {CONSISTENT_HASH}"
            return Problem(name, annotations[name], reason, f"another balancer, or {name}: {OFF}")
    return Balancing(balance, slow_start, affinity) if any(found.values()) else None


def _parse_balance(text: str) -> Balance:
    of_hash = (*_PLACES, "balance-factor")
    policy, settings = split_settings(text, (*of_hash, "decay"))
    parse_choice(policy, POLICIES)
    allowed = {CONSISTENT_HASH: of_hash, "ewma": ("decay",)}
    for name in settings:
        if name not in allowed.get(policy, ()):
            owner = next(one for one, names in allowed.items() if name in names)
            raise InvalidValue(f"{name} has no meaning with {policy}", f"{name}= after {owner} alone")
    if policy == "ewma" and "decay" in settings:
        return Balance(policy, decay=parse_duration(settings["decay"], least=0.1, most=LONGEST_DECAY))
    if policy != CONSISTENT_HASH:
        return Balance(policy)
    keys = [HashKey(place, settings[place]) for place in _PLACES if place in settings]
    if len(keys) != 1:
        raise InvalidValue(
            f"{CONSISTENT_HASH} has {'several keys' if keys else 'no key'}",
            "exactly one of header=NAME, cookie=NAME, query=NAME and source=address",
        )
    factor = settings.get("balance-factor")
    bound = 0
    if factor is not None:
        bound = parse_integer(factor.removesuffix("%"), least=LEAST_FACTOR, most=MOST_FACTOR)
    return Balance(policy, _check_key(keys[0]), bound)


def _check_key(key: HashKey) -> HashKey:
    name = key.name
    if key.place == "source":
        parse_choice(name, ("address",))
        return HashKey("source")
    if key.place == "header":
        try:
            check_field(name, "")
        except ValueError as error:
            raise InvalidValue(str(error), "a header field of requests, such as x-user") from None
    elif key.place == "cookie" and not COOKIE_NAME.fullmatch(name):
        raise InvalidValue(f"{quote(name)} is not the name of a cookie", "a name such as session")
    elif key.place == "query" and not _PARAMETER.fullmatch(name):
        raise InvalidValue(
            f"{quote(name)} is not the name of a parameter",
            "a name such as user, of letters, digits, dots, underscores, tildes and dashes",
        )
    return key


def _parse_affinity(text: str) -> Affinity | None:
    kind, settings = split_settings(text, ("name", "max-age"))
    if parse_choice(kind, ("cookie", OFF)) == OFF:
        if settings:
            raise InvalidValue(f"{next(iter(settings))} has no meaning after {OFF}", f"{OFF} alone")
        return None
    name, age = settings.get("name", ""), settings.get("max-age")
    if "name" in settings and not COOKIE_NAME.fullmatch(name):
        raise InvalidValue(f"{quote(name)} is not the name of a cookie", "a name such as shop-endpoint")
    return Affinity(name, parse_duration(age, least=1.0, most=LONGEST_AGE) if age is not None else 0.0)


def _parse_slow_start(text: str) -> WarmUp:
    word, settings = split_settings(text, ("recovered",))
    if word == OFF:
        if settings:
            raise InvalidValue(f"{next(iter(settings))} has no meaning after {OFF}", f"{OFF} alone")
        return WarmUp()
    recovered = parse_choice(settings.get("recovered", OFF), ("on", OFF)) == "on"
    try:
        return WarmUp(parse_duration(word, least=1.0, most=LONGEST_SLOW_START), recovered)
    except InvalidValue as invalid:
        raise InvalidValue(invalid.reason, f"{OFF}, or {invalid.expected}") from None


_PARSERS: Final[Mapping[str, Callable[[str], Any]]] = {
    LOAD_BALANCING: _parse_balance,
    SESSION_AFFINITY: _parse_affinity,
    SLOW_START: _parse_slow_start,
}


def written_slow_start(balance: Balance) -> str:
    """Return slow start as its owner would write it."""
    if not balance.slow_start:
        return OFF
    return format_duration(balance.slow_start) + (" recovered=on" if balance.slow_start_recovered else "")


def written(balance: Balance) -> str:
    """Return it as its owner would write it, without what is the default."""
    words = [balance.policy]
    if balance.key is not None:
        words.append(f"{balance.key.place}={balance.key.name or 'address'}")
    if balance.factor:
        words.append(f"balance-factor={balance.factor}")
    if balance.decay != Balance().decay:
        words.append(f"decay={format_duration(balance.decay)}")
    return " ".join(words)


def _annotations() -> tuple[Annotation, ...]:
    usual = (
        Annotation(
            name=LOAD_BALANCING,
            values=(
                "round-robin, least-request, ewma [decay=10s], random, or consistent-hash with one of"
                " header=NAME, cookie=NAME, query=NAME and source=address, and [balance-factor=PERCENT]"
            ),
            default="round-robin",
            summary=(
                "How the endpoint of a request, or of a tcp connection, is chosen: in turn; the one of two"
                " with fewer requests under way; the one of two with the lower latency; by lot; the same one"
                " for the same key."
            ),
            example="svc.mesh/load-balancing: least-request",
        ),
        Annotation(
            name=SESSION_AFFINITY,
            values="cookie [name=NAME] [max-age=DURATION], or off",
            default="off",
            summary=(
                "Whether a client stays with the endpoint that answered it first, by a cookie that the mesh"
                " sets: as long as its browser runs, or for max-age. On http ports."
            ),
            example="svc.mesh/session-affinity: cookie max-age=1h",
        ),
        Annotation(
            name=SLOW_START,
            values="off, or a duration from 1s to 1h, then perhaps recovered=on",
            default="off",
            summary=(
                "How long a new endpoint takes to get its whole share of the requests; it begins with a"
                " tenth. With recovered=on this is also for endpoints that are healthy again, or whose"
                " ejection is over. Not with consistent-hash."
            ),
            example="svc.mesh/slow-start: 30s",
        ),
    )
    examples = (
        "load-balancing.http: ewma decay=5s",
        'session-affinity.http: "off"',
        'slow-start.http: "off"',
    )
    of_port = (
        Annotation(
            name=f"{one.name}.<port name or number>",
            values=f"as {one.name}",
            default=one.name,
            summary=f"The same for this port; takes precedence over {one.name}.",
            example=f"svc.mesh/{example}",
        )
        for one, example in zip(usual, examples, strict=True)
    )
    return tuple(one for pair in zip(usual, of_port, strict=True) for one in pair)


BALANCING: Final = Setting(
    name="load balancing", annotations=_annotations(), parse=parse_balancing, page="load-balancing"
)
