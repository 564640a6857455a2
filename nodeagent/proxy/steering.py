"""What the choice of an endpoint needs of each request and of each try, for backends that ask for it.

A key to hash, a cookie that keeps a client with its endpoint, and the load and latency that some balancers go
by. A backend with none of these has no `Steering`, and its requests pay for none of it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Final, Generic, Protocol, TypeVar
from urllib.parse import unquote_to_bytes

from discovery.model import Endpoint
from middleware.cookies import find_cookie
from nodeagent.plan.model import Affinity, HashKey
from nodeagent.proxy.balance import Balancer
from nodeagent.proxy.message import Fields, RequestHead, ResponseHead
from nodeagent.proxy.streams import Source

KeyOf = Callable[[RequestHead | None, Source], bytes]
"""Returns the key of a request, or of a tcp connection, which has no head; empty: it has none."""
FIRST_ERROR: Final = 500
"""The first status that is the endpoint's failure."""


class Steered(Protocol):
    """An endpoint of a backend."""

    endpoint: Endpoint


T = TypeVar("T", bound=Steered)


def key_reader(key: HashKey) -> KeyOf:
    """Return what reads this key."""
    if key.place == "source":
        return lambda _head, source: source.address_bytes
    name = key.name
    if key.place == "header":
        return lambda head, _: _value(Fields(head).get(name)) if head is not None else b""
    if key.place == "cookie":
        find = find_cookie(name)
        return lambda head, _: _value(find(Fields(head))) if head is not None else b""
    parameter = re.compile(rb"[?&]%b=([^&]*)" % re.escape(name.encode("ascii"))).search

    def of_query(head: RequestHead | None, _: Source) -> bytes:
        match = parameter(head.target) if head is not None else None
        return unquote_to_bytes(match[1]) if match is not None else b""

    return of_query


def _value(value: str | None) -> bytes:
    return value.encode("latin-1") if value else b""


class SessionCookie(Generic[T]):
    """Which endpoint a client's cookie means, and the cookie for each endpoint.

    A value is a hash of the endpoint's pod and address, keyed by the UID of the Service. So it means the same
    on all nodes, and without the UID nobody can find out the address from it.
    """

    __slots__ = ("_affinity", "_attributes", "_find", "_targets", "_values")

    def __init__(self, affinity: Affinity) -> None:
        self._affinity = affinity
        self._find = find_cookie(affinity.name)
        age = f"; Max-Age={int(affinity.max_age)}" if affinity.max_age else ""
        self._attributes = f"; Path=/; HttpOnly; SameSite=Lax{age}"
        self._targets: dict[str, T] = {}
        self._values: dict[T, str] = {}

    def keep(self, targets: Iterable[T]) -> None:
        """Take note of all endpoints that there are."""
        self._values = {one: self._values.get(one) or self._value_of(one.endpoint) for one in targets}
        self._targets = {value: one for one, value in self._values.items()}

    def target(self, head: RequestHead) -> T | None:
        """Return the endpoint that the client was given, if it is still there."""
        value = self._find(Fields(head))
        return self._targets.get(value) if value is not None else None

    def give(self, head: ResponseHead, target: T) -> None:
        """Have the client come back to this endpoint."""
        value = self._values.get(target)
        if value is not None:
            Fields(head).add("Set-Cookie", f"{self._affinity.name}={value}{self._attributes}")

    def _value_of(self, endpoint: Endpoint) -> str:
        key = hashlib.sha256(f"{self._affinity.name} {self._affinity.salt}".encode()).digest()
        return hashlib.blake2b(f"{endpoint.pod} {endpoint}".encode(), digest_size=12, key=key).hexdigest()


class Steering(Generic[T]):
    """What one backend asks for."""

    __slots__ = ("_balancer", "_cookie", "_key_of")

    def __init__(
        self, balancer: Balancer[T] | None, key_of: KeyOf | None, cookie: SessionCookie[T] | None
    ) -> None:
        self._balancer = balancer
        """None: it wants to know nothing of tries."""
        self._key_of = key_of
        self._cookie = cookie

    def wish(self, head: RequestHead | None) -> T | None:
        """Return the endpoint that a request's cookie asks for."""
        cookie = self._cookie
        return cookie.target(head) if cookie is not None and head is not None else None

    def key(self, head: RequestHead | None, source: Source) -> bytes:
        """Return the key to hash; empty: there is none."""
        return self._key_of(head, source) if self._key_of is not None else b""

    def begin(self, target: T, wish: T | None, now: float) -> Try[T]:
        """A try at this endpoint begins."""
        if self._balancer is not None:
            self._balancer.begun(target, now)
        return Try(self._balancer, self._cookie if wish is not target else None, target, now)

    def begin_second(self, target: T, head: RequestHead, now: float) -> Try[T]:
        """A second try at this endpoint begins beside one that is slow.

        A client that has an endpoint keeps it: that this one was faster once is no reason to move a session.
        """
        if self._balancer is not None:
            self._balancer.begun(target, now)
        return Try(self._balancer, self._cookie if self.wish(head) is None else None, target, now)


class Try(Generic[T]):
    """One try, as far as the choice of endpoints learns from it. `end` comes last, and counts once."""

    __slots__ = ("_balancer", "_began", "_cookie", "_heard", "_target")

    def __init__(
        self, balancer: Balancer[T] | None, cookie: SessionCookie[T] | None, target: T, now: float
    ) -> None:
        self._balancer = balancer
        self._cookie = cookie
        """What the client is to get with an answer that is no error; None: it has the right one."""
        self._target = target
        self._began = now
        self._heard = False

    def mark(self, head: ResponseHead) -> None:
        """Put the cookie into the head that goes to the client.

        That comes after all layers: what they keep for others, a cache say, is without it.
        """
        if self._cookie is not None and head.status < FIRST_ERROR:
            self._cookie.give(head, self._target)

    def heard(self, well: bool, now: float) -> None:
        """The endpoint has answered, or connected if that is all that is asked of it; or it has failed."""
        if self._balancer is None or self._heard:
            return
        self._heard = True
        tell = self._balancer.answered if well else self._balancer.failed
        tell(self._target, now - self._began, now)

    def end(self, now: float) -> None:
        """It is over; what goes to the client from now on is another try's."""
        self._cookie = None
        balancer, self._balancer = self._balancer, None
        if balancer is not None:
            balancer.ended(self._target, 0.0 if self._heard else now - self._began, now)
