"""The server on loopback sockets, on uvloop and on asyncio's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import dns.asyncquery
import dns.message
import dns.rcode
import msgspec
import pytest
import structlog
import uvloop

from discovery.dns.server import DnsServer
from discovery.dns.zone import Zone
from hack.kit.waiting import until_async

LOCALHOST = "127.0.0.1"
EXPECTED = ["whoami.default.svc.mesh. 5 IN A 250.96.0.10"]


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def on_each_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on every kind of loop that an agent may use."""

    @functools.wraps(test)
    def run(loop_kind: str, **arguments: Any) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop_kind]) as runner:
            runner.run(test(**arguments))

    signature = inspect.signature(test)
    loop_kind = inspect.Parameter("loop_kind", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), loop_kind]
    )
    parametrized: Callable[..., None] = pytest.mark.parametrize("loop_kind", LOOPS)(run)
    return parametrized


@contextlib.asynccontextmanager
async def serving(server: DnsServer) -> AsyncIterator[int]:
    try:
        yield await server.start(LOCALHOST, 0)
    finally:
        await server.close()


def query(name: str = "whoami.default.svc.mesh", rtype: str = "A") -> dns.message.Message:
    return dns.message.make_query(name, rtype)


def framed(*queries: dns.message.Message) -> bytes:
    wires = [q.to_wire() for q in queries]
    return b"".join(len(wire).to_bytes(2, "big") + wire for wire in wires)


async def read_reply(reader: asyncio.StreamReader) -> dns.message.Message:
    length = int.from_bytes(await reader.readexactly(2), "big")
    return dns.message.from_wire(await reader.readexactly(length))


def answers(reply: dns.message.Message) -> list[str]:
    return [rrset.to_text() for rrset in reply.answer]


async def send_for_ever(writer: asyncio.StreamWriter, data: bytes) -> None:
    async with asyncio.timeout(30):
        while True:
            writer.write(data)
            await writer.drain()


@on_each_loop
async def test_udp(zone: Zone) -> None:
    server = DnsServer(zone)
    async with serving(server) as port:
        for _ in range(3):
            reply = await dns.asyncquery.udp(query(), LOCALHOST, timeout=5, port=port)
            assert answers(reply) == EXPECTED
        reply = await dns.asyncquery.udp(query("nobody.default.svc.mesh"), LOCALHOST, timeout=5, port=port)
        assert reply.rcode() == dns.rcode.NXDOMAIN
        assert server.counters.by_transport() == {"udp": 4, "tcp": 0}
        assert {k: v for k, v in server.counters.by_result().items() if v} == {"noerror": 3, "nxdomain": 1}


@on_each_loop
async def test_many_datagrams_at_once(zone: Zone) -> None:
    server = DnsServer(zone)
    async with serving(server) as port:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect((LOCALHOST, port))
            for _ in range(150):
                client.send(query().to_wire())
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(10):
                for _ in range(150):
                    assert answers(dns.message.from_wire(await loop.sock_recv(client, 2048))) == EXPECTED
        assert server.counters.udp == 150


@on_each_loop
async def test_clients_that_are_gone_do_not_matter(zone: Zone) -> None:
    """Their kernel answers with ICMP port unreachable."""
    server = DnsServer(zone)
    async with serving(server) as port:
        for _ in range(20):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(query().to_wire(), (LOCALHOST, port))
        await until_async(lambda: server.counters.udp == 20)
        reply = await dns.asyncquery.udp(query(), LOCALHOST, timeout=5, port=port)
        assert answers(reply) == EXPECTED


@on_each_loop
async def test_garbage_is_counted_and_reported_once(zone: Zone) -> None:
    server = DnsServer(zone)
    with structlog.testing.capture_logs() as logs:
        async with serving(server) as port:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                for garbage in (b"", b"\0", b"GET / HTTP/1.1\r\n\r\n", bytes(12), b"\xff" * 5000):
                    client.sendto(garbage, (LOCALHOST, port))
                await until_async(
                    lambda: server.counters.dropped + server.counters.formerr + server.counters.notimp == 5
                )
            reply = await dns.asyncquery.udp(query(), LOCALHOST, timeout=5, port=port)
            assert answers(reply) == EXPECTED
            await until_async(lambda: any(line["event"] == "dns_malformed_query" for line in logs))
    (line,) = [line for line in logs if line["event"] == "dns_malformed_query"]
    assert line["source"] == LOCALHOST
    assert line["count"] == server.counters.dropped + server.counters.formerr


@on_each_loop
async def test_tcp_byte_by_byte(zone: Zone) -> None:
    server = DnsServer(zone)
    async with serving(server) as port:
        reader, writer = await asyncio.open_connection(LOCALHOST, port)
        for byte in framed(query()):
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)
        assert answers(await read_reply(reader)) == EXPECTED
        writer.close()
        await writer.wait_closed()


@on_each_loop
async def test_tcp_pipelined_in_order_and_half_closed(zone: Zone) -> None:
    server = DnsServer(zone)
    async with serving(server) as port:
        reader, writer = await asyncio.open_connection(LOCALHOST, port)
        queries = [query(rtype=rtype) for rtype in ("A", "AAAA", "SRV")] * 200
        writer.write(framed(*queries))
        writer.write_eof()
        for sent in queries:
            assert sent.is_response(await read_reply(reader))
        assert await reader.read() == b""
        assert server.counters.tcp == 600
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "bad", [b"\0\0", b"\0\x05hello", b"\xff\xff" + bytes(100), b"\0\x0c" + b"\x12\x34\x80" + bytes(9)]
)
@on_each_loop
async def test_tcp_stream_that_is_no_dns_is_closed_after_what_was_sound(zone: Zone, bad: bytes) -> None:
    server = DnsServer(zone)
    async with serving(server) as port:
        reader, writer = await asyncio.open_connection(LOCALHOST, port)
        writer.write(framed(query()) + bad)
        assert answers(await read_reply(reader)) == EXPECTED
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        assert server.counters.dropped == 1
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()


@on_each_loop
async def test_idle_tcp_connections_are_closed(zone: Zone) -> None:
    async with serving(DnsServer(zone, tcp_idle_time=0.01)) as port:
        reader, writer = await asyncio.open_connection(LOCALHOST, port)
        writer.write(b"\0")
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()


@on_each_loop
async def test_tcp_client_that_never_reads_is_paused_then_closed(zone: Zone) -> None:
    server = DnsServer(zone, tcp_idle_time=0.5)
    async with serving(server) as port:
        _, writer = await asyncio.open_connection(LOCALHOST, port, limit=1)
        flood = framed(*[query("_http._tcp.whoami.default.svc.mesh", "SRV")] * 100)
        with pytest.raises(ConnectionError):
            await send_for_ever(writer, flood)
        reply = await dns.asyncquery.tcp(query(), LOCALHOST, timeout=5, port=port)
        assert answers(reply) == EXPECTED
        writer.transport.abort()


@on_each_loop
async def test_the_idlest_tcp_connection_makes_room(zone: Zone) -> None:
    async with serving(DnsServer(zone, tcp_max_connections=2)) as port:
        streams = [await asyncio.open_connection(LOCALHOST, port) for _ in range(2)]
        for number in (0, 1, 0):
            streams[number][1].write(framed(query()))
            await read_reply(streams[number][0])
        reply = await dns.asyncquery.tcp(query(), LOCALHOST, timeout=5, port=port)
        assert answers(reply) == EXPECTED
        with contextlib.suppress(ConnectionResetError):
            assert await streams[1][0].read() == b""
        streams[0][1].write(framed(query()))
        assert answers(await read_reply(streams[0][0])) == EXPECTED
        for _, writer in streams:
            writer.close()
            with contextlib.suppress(ConnectionResetError):
                await writer.wait_closed()


@on_each_loop
async def test_set_zone(zone: Zone) -> None:
    server = DnsServer(zone)
    async with serving(server) as port:
        services = {k: v for k, v in zone.services.items() if k[1] != "whoami"}
        for value, rcode in (
            (msgspec.structs.replace(zone, services=services, serial=8), dns.rcode.NXDOMAIN),
            (zone, 0),
        ):
            server.set_zone(value)
            for ask in (dns.asyncquery.udp, dns.asyncquery.tcp):
                reply = await ask(query(), LOCALHOST, timeout=5, port=port)
                assert reply.rcode() == rcode


@on_each_loop
async def test_a_zone_that_differs_in_one_service(zone: Zone) -> None:
    server = DnsServer(zone)
    async with serving(server) as port:
        services = {k: v for k, v in zone.services.items() if k[1] != "whoami"}
        server.set_zone(msgspec.structs.replace(zone, services=services, serial=8), {("default", "whoami")})
        reply = await dns.asyncquery.udp(query(), LOCALHOST, timeout=5, port=port)
        assert reply.rcode() == dns.rcode.NXDOMAIN
        server.set_zone(msgspec.structs.replace(zone, serial=9), {("default", "whoami")})
        assert answers(await dns.asyncquery.udp(query(), LOCALHOST, timeout=5, port=port)) == EXPECTED


@on_each_loop
async def test_an_impossible_zone_leaves_the_old_one_in_force(zone: Zone) -> None:
    server = DnsServer(zone)
    async with serving(server) as port:
        with pytest.raises(ValueError, match="nowhere"):
            server.set_zone(msgspec.structs.replace(zone, nameserver="nowhere"))
        assert answers(await dns.asyncquery.udp(query(), LOCALHOST, timeout=5, port=port)) == EXPECTED


@on_each_loop
async def test_two_servers_overlap_and_the_first_leaves(zone: Zone) -> None:
    first, second = DnsServer(zone), DnsServer(zone)
    async with serving(first) as port:
        assert await second.start(LOCALHOST, port) == port
        await first.close()
        for ask in (dns.asyncquery.udp, dns.asyncquery.tcp):
            assert answers(await ask(query(), LOCALHOST, timeout=5, port=port)) == EXPECTED
        await second.close()


@on_each_loop
async def test_further_addresses_and_ipv6(zone: Zone) -> None:
    server = DnsServer(zone)
    async with serving(server) as port:
        for address in ("127.0.0.2", "::1"):
            await server.start(address, port)
            assert answers(await dns.asyncquery.udp(query(), address, timeout=5, port=port)) == EXPECTED


@on_each_loop
async def test_address_that_is_not_ours(zone: Zone) -> None:
    server = DnsServer(zone)
    with pytest.raises(OSError, match=r"DNS cannot listen on 192\.0\.2\.1 port 5353 \(TCP\)"):
        await server.start("192.0.2.1", 5353)
    await server.close()


@pytest.mark.parametrize(
    ("taken", "other"), [(socket.SOCK_STREAM, socket.SOCK_DGRAM), (socket.SOCK_DGRAM, socket.SOCK_STREAM)]
)
@on_each_loop
async def test_port_in_use_leaves_nothing_open(
    zone: Zone, taken: socket.SocketKind, other: socket.SocketKind
) -> None:
    with socket.socket(socket.AF_INET, taken) as occupant:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((LOCALHOST, 0))
            port = probe.getsockname()[1]
        occupant.bind((LOCALHOST, port))
        server = DnsServer(zone)
        with pytest.raises(OSError, match="DNS cannot listen on"):
            await server.start(LOCALHOST, port)
        with socket.socket(socket.AF_INET, other) as free:
            free.bind((LOCALHOST, port))
        await server.close()


@on_each_loop
async def test_close_answers_what_has_arrived(zone: Zone) -> None:
    server = DnsServer(zone)
    async with serving(server) as port:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            for _ in range(100):
                client.sendto(query().to_wire(), (LOCALHOST, port))
            await server.close()
            for _ in range(100):
                assert answers(dns.message.from_wire(client.recv(2048))) == EXPECTED


async def resolve_as_people_do(port: int, *, tcp: bool) -> str:
    """Ask with dig where there is one, else with dnspython's client."""
    if dig := shutil.which("dig"):
        arguments = [
            "+short",
            "+tcp" if tcp else "+notcp",
            "-p",
            str(port),
            f"@{LOCALHOST}",
            "WhoAmI.default.svc.mesh",
        ]
        process = await asyncio.create_subprocess_exec(dig, *arguments, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        return output.decode().strip()
    ask = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    reply = await ask(query("WhoAmI.default.svc.mesh"), LOCALHOST, timeout=5, port=port)
    return str(reply.answer[0][0])


@pytest.mark.parametrize("tcp", [False, True])
@on_each_loop
async def test_dig(zone: Zone, tcp: bool) -> None:
    async with serving(DnsServer(zone)) as port:
        assert await resolve_as_people_do(port, tcp=tcp) == "250.96.0.10"
