"""Well-behaved clients: each request has a living endpoint, so every failure needs an excuse."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence

import aiohttp
import dns.exception

from hack.demo.exchange import resolve
from hack.soak.chance import chance
from hack.soak.clients import OK, Clients, Judged, judge
from hack.soak.ledger import Break, Result
from hack.soak.pod import PIECE, expected
from hack.soak.services import PORT, SERVICES
from hack.soak.wire import Broken, Wire

BETWEEN = 0.03
"""Seconds between two requests on it, on average."""
KEPT = 100
"""Requests on one kept connection at most."""
PIPELINED = 5
SECRET = "x-secret: soak"
"""What the Service `headers` has removed."""


class Traffic(Clients):
    """Starts them all with `start`."""

    def start(self) -> None:
        """Let them go."""
        for name in ("plain", "retry", "split", "split-a"):
            self.go_round(7, 0.5, lambda name=name: self._keep_alive(name))  # type: ignore[misc]
        for name in ("breaker", "limited", "fault"):
            self.go_round(2, 1.0, lambda name=name: self._keep_alive(name, name == "breaker"))  # type: ignore[misc]
        self.go_round(12, 0.2, lambda: self._keep_alive("crowded"))
        self.go_round(2, 0.2, self._changed_headers)
        self.go_round(2, 0.2, self._timed)
        self.go_round(6, 0.1, self._narrow)
        self.go_round(3, 0.3, lambda: self._post(self._some("plain", "split-b")))
        self.go_round(1, 0.5, lambda: self._post("retry"))
        self.go_round(2, 0.8, self._download)
        self.go_round(3, 0.15, lambda: self._new_connection(self._some("plain", "retry", "split-b")))
        self.go_round(2, 0.4, self._pipeline)
        self.go_round(2, 1.5, self._tunnel)
        self.go_round(3, 0.4, self._stream)
        self.go_round(2, 0.2, self._names)

    def _some(self, *names: str) -> str:
        return chance().choice(names)

    async def _keep_alive(self, name: str, errors: bool = False) -> None:
        """One request after another on a connection that is kept."""
        left = chance().randint(1, KEPT)
        try:
            async with self.connect(name) as wire:
                while left and wire.usable and not self.stopped:
                    left -= 1
                    status = 500 if errors and chance().random() < 0.2 else 200
                    if not await self.measured("keep-alive", name, self._get(wire, name, status)):
                        break
                    await self.rest(BETWEEN)
        except OSError as error:
            await self.measured("connect", name, _raise(error))

    async def _get(self, wire: Wire, name: str, status: int = 200) -> Judged:
        answer = await wire.ask("GET", "/" if status == 200 else f"/status/{status}")
        return judge(name, answer, status)

    async def _new_connection(self, name: str) -> None:
        """A request on a connection of its own."""

        async def work() -> Judged:
            async with self.connect(name) as wire:
                return judge(name, await wire.ask("GET", "/", "Connection: close"))

        await self.measured("new connection", name, work())

    async def _changed_headers(self) -> None:
        """The annotations about header fields are in force, the old ones or the new ones."""

        async def work() -> Judged:
            async with self.connect("headers") as wire:
                answer = await wire.ask("GET", "/", SECRET, "x-soak: mine")
            judged = judge("headers", answer)
            seen = json.loads(answer.body)["headers"]
            if (
                seen.get("x-soak") not in ("1", "2", "3")
                or "x-secret" in seen
                or "x-mesh" not in answer.fields
            ):
                raise Broken(Break.ANSWER, f"fields not changed as asked: {seen}, {dict(answer.fields)}")
            return judged

        await self.measured("headers", "headers", work())

    async def _timed(self) -> None:
        """One request that is in time, now and then one that is not."""
        late = chance().random() < 0.05

        async def work() -> Judged:
            async with self.connect("timed") as wire:
                answer = await wire.ask("GET", "/delay/7" if late else "/delay/0.02")
            if late and (answer.status, answer.reason) in ((504, "request_timeout"), (504, "try_timeout")):
                return Result.MEANT, answer.reason
            return judge("timed", answer, 504 if late else 200)

        await self.measured("timed", "timed", work())

    async def _narrow(self) -> None:
        """More at once than there are connections for: everybody's turn comes."""

        async def work() -> Judged:
            async with self.connect("narrow") as wire:
                return judge("narrow", await wire.ask("GET", "/delay/0.05"))

        await self.measured("narrow", "narrow", work())

    async def _post(self, name: str) -> None:
        """A body, with a length or in chunks; the endpoint answers with what it got."""
        size = chance().choice((0, 1, 1000, 70_000, 300_000))
        chunked = chance().random() < 0.5

        async def work() -> Judged:
            bite = chance().randint(500, PIECE)
            pieces = [expected(at, min(bite, size - at)) for at in range(0, size, bite)]
            async with self.connect(name) as wire:
                answer = await wire.post("/sum", pieces, None if chunked else size)
            judged = judge(name, answer)
            told = json.loads(answer.body)
            if (told["bytes"], told["crc"]) != (size, _crc(pieces)):
                raise Broken(Break.ANSWER, f"the endpoint got {told} instead of {size} bytes")
            return judged

        await self.measured("post chunked" if chunked else "post", name, work(), unsafe=True)

    async def _download(self) -> None:
        """Some megabytes, every byte checked."""
        name = self._some("plain", "split-b")
        size = chance().randint(500_000, 4_000_000)
        kind = self._some("bytes", "chunked")

        async def work() -> Judged:
            async with self.connect(name) as wire:
                wire.send(wire.head("GET", f"/{kind}/{size}"))
                answer = await wire.receive(pattern=True)
            if answer.status == 200 and answer.size != size:
                raise Broken(Break.ANSWER, f"{answer.size} bytes instead of {size}")
            return judge(name, answer)

        await self.measured("download", name, work())

    async def _pipeline(self) -> None:
        """Several requests at once on one connection, answered in order."""
        name = self._some("plain", "split-a")
        sizes = [chance().randint(1, 20_000) for _ in range(PIPELINED)]

        async def work() -> Judged:
            async with self.connect(name) as wire:
                wire.send(b"".join(wire.head("GET", f"/bytes/{size}") for size in sizes))
                for size in sizes:
                    answer = await wire.receive(pattern=True)
                    if answer.status == 200 and answer.size != size:
                        raise Broken(Break.ANSWER, f"{answer.size} bytes instead of {size}: out of order")
                    judge(name, answer)
            return OK

        await self.measured("pipeline", name, work())

    async def _tunnel(self) -> None:
        """A WebSocket: what is said is said back."""
        doing = "connecting"

        async def work() -> Judged:
            nonlocal doing
            connector = aiohttp.TCPConnector(force_close=True)  # no second try behind our back
            url = f"http://{self.stage.mesh_address('plain')}:{PORT}/tunnel"
            try:
                async with (
                    aiohttp.ClientSession(connector=connector) as session,
                    session.ws_connect(url, max_msg_size=0) as socket,
                ):
                    for number in range(chance().randint(1, 20)):
                        said = expected(chance().randrange(1000), chance().randint(1, PIECE))
                        doing = f"message {number} of {len(said)} bytes"
                        await socket.send_bytes(said)
                        if await socket.receive_bytes() != said:
                            raise Broken(Break.ANSWER, "the tunnel said something else back")
                        await self.rest(0.1)
                    doing = "closing"
            except (aiohttp.ClientError, TypeError) as error:  # TypeError: closed instead of a message
                how = Break.ANSWER if isinstance(error, aiohttp.WSServerHandshakeError) else Break.CONNECTION
                raise Broken(how, f"the tunnel: {error}") from error
            return OK

        await self.measured("tunnel", "plain", work(), unsafe=True, note=lambda: doing)

    async def _stream(self) -> None:
        """A tcp connection: a greeting, then what is said is said back, then both ends in turn."""

        async def work() -> Judged:
            async with self.connect("stream") as wire:
                if not (await wire.reader.readuntil(b"\n")).startswith(b"220 "):
                    raise Broken(Break.ANSWER, "another greeting")
                for _ in range(chance().randint(1, 5)):
                    said = expected(chance().randrange(1000), chance().randint(1, PIECE))
                    wire.send(said)
                    if await wire.reader.readexactly(len(said)) != said:
                        raise Broken(Break.ANSWER, "something else was said back")
                    await self.rest(0.1)
                wire.send_end()
                if await wire.reader.read(1):
                    raise Broken(Break.ANSWER, "more than was said came back")
            return OK

        await self.measured("tcp", "stream", work(), unsafe=True)

    async def _names(self) -> None:
        """A name resolves to its address, or does not exist, over UDP and over TCP."""
        one = chance().choice(SERVICES)
        over = "tcp" if chance().random() < 0.3 else "udp"

        async def work() -> Judged:
            try:
                found = await resolve(self.stage.dns_port, one.mesh_name, over=over)  # type: ignore[arg-type]
                other = await resolve(self.stage.dns_port, f"nobody.{one.mesh_name}", over=over)  # type: ignore[arg-type]
            except dns.exception.Timeout as error:
                raise Broken(Break.TIMEOUT, "no answer") from error
            if other.code != "NXDOMAIN":
                raise Broken(Break.ANSWER, f"a name that nobody has: {other}")
            wanted = ("NOERROR", (self.stage.mesh_address(one.name),))
            if (found.code, found.answers) != wanted and not (one.may_leave and found.code == "NXDOMAIN"):
                raise Broken(Break.ANSWER, f"{one.mesh_name} is {found}")
            return OK

        await self.measured(f"dns {over}", one.name, work())


async def _raise(error: OSError) -> Judged:
    raise error


def _crc(pieces: Sequence[bytes]) -> int:
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    return crc
