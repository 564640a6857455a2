"""Which pages everybody may read, and that every other page is for the node itself."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hack.kit.ports import free_port
from nodeagent.admin.access import LOOPBACK, OPEN, Asker, refusal, wants_loopback
from nodeagent.admin.server import PAGES, AdminListenError, AdminServer
from tests.admin.test_server import Agent

HERE = Asker("127.0.0.1", "127.0.0.1", "127.0.0.1:15000")


def own_address() -> str:
    """Return an address of this machine that is no loopback address; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address besides loopback")
        return str(probe.getsockname()[0])


class Page:
    """A server of all pages, at another address than `Agent` has."""

    def __init__(self, listen: tuple[str, int]) -> None:
        self.server = AdminServer(listen, Agent().view)

    @property
    def paths(self) -> set[str]:
        """All that the server has a handler for, by the path that it is registered with."""
        runner = self.server._runner
        assert runner is not None
        return {resource.canonical for resource in runner.app.router.resources()}


@pytest.fixture
async def everywhere() -> AsyncIterator[Page]:
    page = Page(("0.0.0.0", 0))
    await page.server.start()
    yield page
    await page.server.close()


async def fetch(host: str, port: int, path: str, **headers: str) -> tuple[int, str]:
    url = f"http://{host}:{port}{path}"
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as got:
        return got.status, await got.text()


async def test_each_page_is_known_and_only_these_are_open(everywhere: Page) -> None:
    assert {"/", "/healthz", "/readyz", "/metrics"} == OPEN
    of_page = {path for path in everywhere.paths if path.startswith("/ui")}
    assert everywhere.paths - of_page == PAGES.keys() - {"/ui/"} | {"/", "/{path}"}, (
        "a page has a line in PAGES"
    )
    assert of_page == {"/ui", "/ui/live", "/ui/{name}"}
    assert PAGES.keys() >= OPEN - {"/"}


async def test_from_elsewhere_every_page_is_guarded_unless_it_is_open(everywhere: Page) -> None:
    host, port = own_address(), everywhere.server.address[1]
    for path in {*everywhere.paths - {"/{path}"}, "/debug", "/plan/", "/%70lan", "//plan", "/metrics/x"}:
        status, text = await fetch(host, port, path)
        assert (status == 403) == (path not in OPEN), path
        if status == 403:
            assert "kubectl port-forward" in text
            assert "pods/portforward" in text


async def test_on_the_node_every_page_is_shown(everywhere: Page) -> None:
    port = everywhere.server.address[1]
    for path in PAGES.keys() - {"/resolve"}:
        # There are no workers here whose requests could be watched, and no URL that is to be explained.
        shown = {"/tap": 404, "/explain": 400}.get(path, 200)
        assert (await fetch("127.0.0.1", port, path))[0] == shown, path
    assert (await fetch("127.0.0.1", port, "/resolve?name=cart.svc.mesh"))[0] == 200
    assert (await fetch("127.0.0.1", port, "/plan", Host="localhost:1"))[0] == 200


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"X-Forwarded-For": "10.0.0.1"}, "field of a proxy"),
        ({"Forwarded": "for=10.0.0.1"}, "field of a proxy"),
        ({"Via": "1.1 gateway"}, "field of a proxy"),
        ({"Host": "evil.example"}, "Host is 'evil.example'"),
        ({"Host": "127.0.0.1.evil.example:15000"}, "Host is '127.0.0.1.evil.example:15000'"),
    ],
)
async def test_a_request_that_somebody_else_makes_through_this_node(
    everywhere: Page, headers: dict[str, str], why: str
) -> None:
    port = everywhere.server.address[1]
    status, text = await fetch("127.0.0.1", port, "/plan", **headers)
    assert status == 403
    assert why in text
    assert (await fetch("127.0.0.1", port, "/metrics", **headers))[0] == 200


async def test_beside_another_address_it_answers_at_loopback_for_port_forwarding() -> None:
    page = Page((own_address(), free_port()))
    await page.server.start()
    host, port = page.server.address
    try:
        assert (await fetch(host, port, "/plan"))[0] == 403
        assert (await fetch(host, port, "/readyz"))[0] == 200
        assert await fetch(LOOPBACK, port, "/plan") == (200, '{\n  "version": 7\n}\n')
    finally:
        await page.server.close()
    with pytest.raises(aiohttp.ClientConnectionError):
        await fetch(LOOPBACK, port, "/healthz")


async def test_a_loopback_port_that_is_taken_leaves_nothing_behind() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        page = Page((own_address(), port))
        with pytest.raises(AdminListenError, match=rf"127\.0\.0\.1:{port} .*--admin-listen"):
            await page.server.start()
    with pytest.raises(aiohttp.ClientConnectionError):
        await fetch(own_address(), port, "/healthz")


@pytest.mark.parametrize(
    ("peer", "local", "shown"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.9", "127.0.0.1", True),
        ("::1", "::1", True),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", True),
        ("10.0.0.7", "10.0.0.7", False),  # a worker of this node that dials the node's own address
        ("240.0.0.1", "240.0.0.1", False),  # a process that uses a mesh address
        ("10.0.0.7", "127.0.0.1", False),  # what the kernel lets in where route_localnet is set
        ("127.0.0.1", "10.0.0.7", False),
        ("::ffff:10.0.0.7", "::1", False),
        ("", "", False),
    ],
)
def test_both_ends_must_be_loopback(peer: str, local: str, shown: bool) -> None:
    assert (refusal("/plan", Asker(peer, local, "localhost")) == "") is shown
    assert refusal("/metrics", Asker(peer, local, "localhost")) == ""


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "[::1]:15000", "[::1]", "::1", "10.0.0.1", "1.2.3.4:1"]
)
def test_hosts_that_are_addresses(host: str) -> None:
    assert refusal("/plan", Asker("127.0.0.1", "127.0.0.1", host)) == ""


@given(st.text(max_size=30), st.text(max_size=30))
def test_nothing_that_is_said_opens_a_page(peer: str, host: str) -> None:
    assert refusal("/plan", Asker(f"x{peer}", "127.0.0.1", "localhost"))
    assert refusal("/plan", Asker("127.0.0.1", "127.0.0.1", f"{host}.example"))


@given(st.text(max_size=20).filter(lambda path: path not in OPEN))
def test_a_page_that_nobody_has_thought_of_is_guarded(page: str) -> None:
    assert refusal(page, Asker("10.0.0.7", "10.0.0.8", "10.0.0.8"))
    assert refusal(page, HERE) == ""


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("0.0.0.0", False),
        ("127.0.0.1", False),
        ("127.0.0.2", False),
        ("10.0.0.7", True),
        ("::", True),
        ("::1", True),
    ],
)
def test_where_port_forwarding_needs_another_listener(host: str, wanted: bool) -> None:
    assert wants_loopback(host) is wanted
