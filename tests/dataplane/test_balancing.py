"""Balancers that go by keys, cookies, load and latency, from sockets to sockets."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Collection

import msgspec
import pytest

from discovery.model import Endpoint
from nodeagent.plan.model import Affinity, BackendKey, BackendSpec, Balance, HashKey, Listener
from nodeagent.proxy.backend import Backend, Target
from nodeagent.proxy.message import ResponseHead
from nodeagent.proxy.steering import SessionCookie, Steering
from nodeagent.proxy.streams import Source
from nodeagent.stats.columns import FIRST_SLOT
from tests.dataplane.harness import Mesh, until
from tests.dataplane.peers import client, with_reset

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
COOKIE = "shop-endpoint"


def naming(name: str, status: str = "200 OK") -> Serve:
    """A server that answers with its name."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            body = name.encode()
            writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), len(body), body))

    return serve


def holding(release: asyncio.Event, asked: Callable[[], None]) -> Serve:
    """A server that answers when it is told to."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            asked()
            await release.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nheld")

    return serve


async def resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that closes in place of an answer."""
    await reader.readuntil(b"\r\n\r\n")


class Shop:
    """A Service in the mesh whose balancing tests choose."""

    def __init__(self, mesh: Mesh, listener: Listener) -> None:
        self.mesh = mesh
        self.listener = listener

    def use(
        self,
        endpoints: tuple[Endpoint, ...],
        balance: Balance | None = None,
        affinity: Affinity | None = None,
    ) -> None:
        key = BackendKey(self.listener.service, self.listener.port)
        spec = BackendSpec(key, endpoints, balance=balance or Balance(), affinity=affinity)
        spec = msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=BackendSpec)
        self.mesh.proxy.apply(backends=[(spec, FIRST_SLOT)])

    @property
    def backend(self) -> Backend:
        running = self.mesh.proxy.listeners.get(self.listener.key)
        assert running is not None
        assert running.rule is not None
        assert running.rule.backend is not None
        return running.rule.backend

    async def get(self, fields: str = "", path: str = "/") -> tuple[str, str]:
        """Return the body, which is the endpoint's name, and the cookie that was set."""
        request = f"GET {path} HTTP/1.1\r\nHost: web\r\n{fields}Connection: close\r\n\r\n"
        head, _, body = (await self.mesh.ask(request.encode())).decode().partition("\r\n\r\n")
        match = re.search(r"^set-cookie: (.*)$", head, re.IGNORECASE | re.MULTILINE)
        return body, match[1].strip() if match else ""


@pytest.fixture
async def three(mesh: Mesh) -> tuple[Endpoint, ...]:
    return tuple([await mesh.endpoint(naming(name)) for name in "abc"])


@pytest.fixture
async def shop(mesh: Mesh, three: tuple[Endpoint, ...]) -> Shop:
    return Shop(mesh, await mesh.serve(*three))


@pytest.mark.parametrize(
    ("key", "fields", "path"),
    [
        (HashKey("header", "X-User"), "x-user: {}\r\n", "/"),
        (HashKey("cookie", "session"), "Cookie: theme=dark; session={}\r\n", "/"),
        (HashKey("query", "user"), "", "/?page=1&user={}"),
    ],
    ids=lambda value: value.place if isinstance(value, HashKey) else "",
)
async def test_equal_keys_go_to_one_endpoint(
    shop: Shop, three: tuple[Endpoint, ...], key: HashKey, fields: str, path: str
) -> None:
    shop.use(three, Balance("consistent-hash", key))
    answered = {}
    for user in range(80):
        names = {(await shop.get(fields.format(user), path.format(user)))[0] for _ in range(2)}
        (answered[user],) = names
    assert set(answered.values()) == {"a", "b", "c"}
    without = Counter([(await shop.get())[0] for _ in range(6)])
    assert without == {"a": 2, "b": 2, "c": 2}, "requests without the key go to all"


async def test_all_of_a_client_go_to_one_endpoint(shop: Shop, three: tuple[Endpoint, ...]) -> None:
    shop.use(three, Balance("consistent-hash", HashKey("source")))
    assert len({(await shop.get())[0] for _ in range(6)}) == 1


class TestAffinity:
    async def test_a_client_stays_with_its_endpoint(self, shop: Shop, three: tuple[Endpoint, ...]) -> None:
        shop.use(three, affinity=Affinity(COOKIE, 60.0, "uid"))
        for _ in range(3):
            name, cookie = await shop.get()
            pair, _, attributes = cookie.partition("; ")
            assert attributes == "Path=/; HttpOnly; SameSite=Lax; Max-Age=60"
            for _ in range(3):
                assert await shop.get(f"Cookie: {pair}\r\n") == (name, "")

    async def test_the_cookie_says_nothing_of_the_endpoint(
        self, shop: Shop, three: tuple[Endpoint, ...]
    ) -> None:
        values = set()
        for salt in ("one", "two"):
            shop.use(three, affinity=Affinity(COOKIE, salt=salt))
            for _ in three:
                _, cookie = await shop.get()
                match = re.fullmatch(rf"{COOKIE}=([0-9a-f]{{24}}); Path=/; HttpOnly; SameSite=Lax", cookie)
                assert match, cookie
                values.add(match[1])
        assert len(values) == 6, "another Service's cookies for the same endpoints are others"

    async def test_one_that_has_left_or_is_unwell_is_replaced(
        self, shop: Shop, three: tuple[Endpoint, ...]
    ) -> None:
        affinity = Affinity(COOKIE)
        shop.use(three, affinity=affinity)
        name, cookie = await shop.get()
        own = f"Cookie: {cookie.partition(';')[0]}\r\n"
        (its,) = (one for one, letter in zip(three, "abc", strict=True) if letter == name)
        shop.backend.set_condition([(its.address, its.port)])
        other, given = await shop.get(own)
        assert other != name
        assert given.startswith(f"{COOKIE}=")
        shop.backend.set_condition([])
        assert await shop.get(own) == (name, "")
        shop.use(tuple(one for one in three if one is not its), affinity=affinity)
        assert (await shop.get(own))[0] != name
        assert (await shop.get(f"Cookie: {COOKIE}=forged\r\n"))[1]

    async def test_one_that_accepts_no_connection_is_replaced(self, mesh: Mesh, shop: Shop) -> None:
        alone = await mesh.endpoint(naming("alone"))
        shop.use((alone,), affinity=Affinity(COOKIE))
        _, cookie = await shop.get()
        mesh.servers[-1].close()
        await mesh.servers[-1].wait_closed()
        shop.use((alone, await mesh.endpoint(naming("spare"))), affinity=Affinity(COOKIE))
        for upstream in mesh.upstreams:
            upstream.transport.abort()
        name, given = await shop.get(f"Cookie: {cookie.partition(';')[0]}\r\n")
        assert name == "spare"
        assert given

    async def test_an_error_binds_nobody(self, mesh: Mesh, shop: Shop) -> None:
        shop.use((await mesh.endpoint(naming("bad", "500 Oops")),), affinity=Affinity(COOKIE))
        assert await shop.get() == ("bad", "")

    async def test_it_goes_before_the_balancer(self, shop: Shop, three: tuple[Endpoint, ...]) -> None:
        shop.use(three, Balance("least-request"), Affinity(COOKIE))
        name, cookie = await shop.get()
        answered = {(await shop.get(f"Cookie: {cookie.partition(';')[0]}\r\n"))[0] for _ in range(9)}
        assert answered == {name}


class Told:
    """A balancer that notes what it is told, and picks the first."""

    watches = True

    def __init__(self) -> None:
        self.events: list[str] = []

    def pick(self, endpoints: tuple[object, ...], avoid: Collection[object], *_: object) -> object:
        return next((one for one in endpoints if one not in avoid), None)

    def keep(self, endpoints: object) -> None:
        pass

    def circulate(self, healthy: object) -> None:
        pass

    def begun(self, endpoint: object, now: float) -> None:
        self.events.append("begun")

    def answered(self, endpoint: object, took: float, now: float) -> None:
        assert took >= 0
        self.events.append("answered")

    def failed(self, endpoint: object, took: float, now: float) -> None:
        self.events.append("failed")

    def ended(self, endpoint: object, waited: float, now: float) -> None:
        self.events.append("ended" if not waited else "ended unheard")


@pytest.fixture
def told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Told:
    told = Told()
    monkeypatch.setattr("nodeagent.proxy.backend.make_balancer", lambda *_: told)
    return told


class TestWhatBalancersAreTold:
    async def test_an_answer(self, shop: Shop, three: tuple[Endpoint, ...], told: Told) -> None:
        shop.use(three, Balance("random"))
        await shop.get()
        assert told.events == ["begun", "answered", "ended"]

    async def test_an_error_of_the_endpoint(self, mesh: Mesh, shop: Shop, told: Told) -> None:
        shop.use((await mesh.endpoint(naming("bad", "503 No")),), Balance("random"))
        await shop.get()
        assert told.events == ["begun", "failed", "ended"]

    async def test_a_reset(self, mesh: Mesh, shop: Shop, told: Told) -> None:
        shop.use((await mesh.endpoint(resetting),), Balance("random"))
        await shop.get()
        assert told.events == ["begun", "failed", "ended"]

    async def test_one_that_accepts_no_connection(
        self, shop: Shop, three: tuple[Endpoint, ...], told: Told
    ) -> None:
        shop.use((Endpoint("127.0.0.1", 1), *three), Balance("random"))
        await shop.get()
        assert told.events == ["begun", "failed", "ended", "begun", "answered", "ended"]

    async def test_a_client_that_leaves(self, mesh: Mesh, shop: Shop, told: Told) -> None:
        asked: list[bool] = []
        release = asyncio.Event()
        shop.use((await mesh.endpoint(holding(release, lambda: asked.append(True))),), Balance("random"))
        async with client(mesh) as leaving:
            await leaving.send(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            await until(lambda: asked)
            assert told.events == ["begun"]
            with_reset(leaving.socket)
        await until(lambda: len(told.events) == 2)
        assert told.events == ["begun", "ended unheard"]
        release.set()


async def test_one_that_holds_its_requests_gets_no_more(
    mesh: Mesh, shop: Shop, three: tuple[Endpoint, ...]
) -> None:
    """With two endpoints, two choices are all there are: the outcome is certain."""
    asked: list[bool] = []
    release = asyncio.Event()
    held = await mesh.endpoint(holding(release, lambda: asked.append(True)))
    shop.use((held,), Balance("least-request"))
    waiting = asyncio.create_task(shop.get())
    await until(lambda: asked)
    shop.use((held, three[0]), Balance("least-request"))
    assert {(await shop.get())[0] for _ in range(20)} == {"a"}
    release.set()
    assert (await waiting)[0] == "held"
    assert {(await shop.get())[0] for _ in range(40)} == {"a", "held"}


async def test_connections_of_a_tcp_port(mesh: Mesh, told: Told) -> None:
    listener = await mesh.serve(await mesh.endpoint(naming("a")), protocol="tcp")
    shop = Shop(mesh, listener)
    shop.use((Endpoint("127.0.0.1", 1), await mesh.endpoint(naming("b"))), Balance("random"))
    reader, writer = await mesh.connect()
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(10):
        await reader.readuntil(b"\r\n\r\nb")
    assert told.events == ["begun", "failed", "ended", "begun", "answered"]
    writer.close()
    await until(lambda: told.events[5:] == ["ended"])


async def test_a_plain_backend_has_no_steering(shop: Shop, three: tuple[Endpoint, ...]) -> None:
    assert shop.backend.steering is None
    shop.use(three, Balance("ewma"))
    assert shop.backend.pick_for(None, Source("10.0.0.1"), (), 0.0) is not None
    shop.use(three, Balance("random"))
    assert Shop(shop.mesh, shop.listener).backend.steering is None


async def test_layers_do_not_see_the_cookie(mesh: Mesh, three: tuple[Endpoint, ...]) -> None:
    """Else one that keeps responses, or counts the header's fields, would take it for the endpoint's."""
    remove = {"svc.mesh/response-headers": "remove set-cookie"}
    shop = Shop(mesh, await mesh.serve(*three, annotations=remove))
    shop.use(three, affinity=Affinity(COOKIE))
    name, cookie = await shop.get()
    assert cookie.startswith(f"{COOKIE}=")
    assert await shop.get(f"Cookie: {cookie.partition(';')[0]}\r\n") == (name, "")


async def test_a_try_that_is_over_gives_no_cookie() -> None:
    """The plan may have taken the cookie away before the next try."""
    target = Target(Endpoint("10.0.0.1", 80))
    cookie: SessionCookie[Target] = SessionCookie(Affinity(COOKIE))
    cookie.keep([target])
    head = ResponseHead(200, b"1", b"200 OK", b"", 0)
    over = Steering(None, None, cookie).begin(target, None, 0.0)
    over.end(0.0)
    over.mark(head)
    assert not head.fields
    Steering(None, None, cookie).begin(target, None, 0.0).mark(head)
    assert COOKIE.encode() in head.fields


async def test_a_retry_gives_the_cookie_of_the_endpoint_that_answered(mesh: Mesh) -> None:
    retry = {"svc.mesh/retry-attempts": "2", "svc.mesh/retry-on": "5xx"}
    bad, good = await mesh.endpoint(naming("bad", "503 No")), await mesh.endpoint(naming("good"))
    shop = Shop(mesh, await mesh.serve(bad, good, annotations=retry))
    shop.use((bad, good), affinity=Affinity(COOKIE))
    for _ in range(4):
        name, cookie = await shop.get()
        assert name == "good"
        assert await shop.get(f"Cookie: {cookie.partition(';')[0]}\r\n") == ("good", "")
