"""The agent's question to its own DNS: answered, refused, silent, strange, and only about its own zones."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from discovery.dns.server import DnsServer
from discovery.dns.zone import Zone, ZoneService
from hack.kit.ports import free_port
from nodeagent.admin import resolve as resolve_module
from nodeagent.admin.resolve import AT_ONCE, NotOurs, Resolution, Resolver

ZONES = ("svc.mesh", "traefik.mesh")
SERVICES = {("shop", "cart"): ZoneService("shop", "cart", "250.96.0.10")}


async def test_names_and_zones() -> None:
    server = DnsServer(Zone("svc.mesh", ("traefik.mesh",), 1, "240.0.0.0/4", "240.0.0.53", SERVICES))
    port = await server.start("127.0.0.1", 0)
    resolver = Resolver(("127.0.0.1", port), ZONES)
    try:
        where = f"127.0.0.1:{port}"
        assert await resolver.resolve() == Resolution("svc.mesh", "SOA", where, "NOERROR")
        assert await resolver.resolve("Cart.shop.svc.mesh.") == Resolution(
            "cart.shop.svc.mesh", "A", where, "NOERROR", ("250.96.0.10",)
        )
        assert (await resolver.resolve("cart.shop.traefik.mesh")).addresses == ("250.96.0.10",)
        assert (await resolver.resolve("till.shop.svc.mesh")).rcode == "NXDOMAIN"
    finally:
        await server.close()


@pytest.mark.parametrize(
    "name",
    [
        "example.com",
        "mesh",
        "notsvc.mesh",
        "svc.mesh.example",
        f"{'a' * 64}.svc.mesh",
        "a..svc.mesh",
        f"{'x.' * 200}svc.mesh",
        "\udcff.svc.mesh",
    ],
)
async def test_names_of_others_and_what_is_no_name_are_not_asked_for(name: str) -> None:
    with pytest.raises(NotOurs):
        await Resolver(("127.0.0.1", free_port()), ZONES).resolve(name)


async def test_a_refusal_is_told() -> None:
    found = await Resolver(("127.0.0.1", free_port()), ZONES).resolve()
    assert (found.rcode, found.error) == ("", "Connection refused")


@contextmanager
def answering(reply: Callable[[bytes], bytes]) -> Iterator[int]:
    """Answer every datagram on a port in this way; an empty answer is none."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.setblocking(False)

        def answer() -> None:
            data, source = listening.recvfrom(4096)
            if said := reply(data):
                listening.sendto(said, source)

        loop.add_reader(listening, answer)
        try:
            yield listening.getsockname()[1]
        finally:
            loop.remove_reader(listening)


async def test_silence_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve_module, "PATIENCE", 0.05)
    with answering(lambda _: b"") as port:
        resolver = Resolver(("127.0.0.1", port), ZONES)
        found = await asyncio.gather(*(resolver.resolve() for _ in range(AT_ONCE + 2)))
    assert {one.error for one in found} == {"no answer in 0.05 s"}


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (lambda _: b"\x00", "the answer is no DNS message"),
        (lambda data: b"\x00" * len(data), "the answer is"),
        (lambda data: bytes([data[0] ^ 1]) + data[1:], "the answer is not to this question"),
    ],
)
async def test_a_strange_answer_is_told(reply: Callable[[bytes], bytes], error: str) -> None:
    with answering(reply) as port:
        found = await Resolver(("127.0.0.1", port), ZONES).resolve()
    assert found.rcode == ""
    assert error in found.error
