"""Well-behaved clients of HTTP/2 and of gRPC: each of their requests has a living endpoint, too. A request
that must not be sent twice has its own number, so that duplicates show at the end.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import grpc
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

from hack.soak.chance import chance
from hack.soak.clients import OK, Clients, Judged, judge
from hack.soak.ledger import Break, Ledger
from hack.soak.multiplex import LAST_STREAM, Multiplex, fields_of
from hack.soak.pod import PIECE, expected
from hack.soak.pod2 import NUMBER
from hack.soak.services import BY_NAME, PORT
from hack.soak.stage import Stage
from hack.soak.wire import Answer, Broken

AT_ONCE: Final = 8
"""Requests on one connection at the same time."""
ROUNDS: Final = 20
"""Of as many requests at once, on one connection at most."""
CALLS: Final = 50
"""Of gRPC on one channel."""
_BROKEN: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
"""The status that callers of gRPC get when their connection breaks."""


class _Waiting:
    """A request that waits for its answer."""

    def __init__(self, *, pattern: bool) -> None:
        self.done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.pattern = pattern
        self.status = 0
        self.fields: dict[str, str] = {}
        self.body = bytearray()
        self.size = 0

    def fails(self, how: Break, what: str) -> None:
        """Nothing more will come."""
        if not self.done.done():
            self.done.set_exception(Broken(how, what))
            self.done.exception()  # who has asked may be gone

    def data(self, data: bytes) -> None:
        """More of the body."""
        if self.pattern and data != expected(self.size, len(data)):
            self.fails(Break.ANSWER, f"other bytes than were sent, near byte {self.size} of a body")
        self.size += len(data)
        if not self.pattern:
            self.body += data


class Http2Wire(Multiplex):
    """A client's connection."""

    def __init__(self, host: str) -> None:
        super().__init__(client=True)
        self._host = host
        self._waiting: dict[int, _Waiting] = {}

    @property
    def usable(self) -> bool:
        """Whether it takes another request, as far as one can tell."""
        return not (self.lost or self.transport.is_closing()) and self.told == LAST_STREAM

    async def ask(
        self, method: str, path: str, body: bytes = b"", number: str = "", *, pattern: bool = False
    ) -> Answer:
        """Send a request, and read its response.

        Raises:
            Broken: there is no complete response.
        """
        if not self.usable:
            raise Broken(Break.CONNECTION, "the connection ended before the request was sent")
        one = _Waiting(pattern=pattern)
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "http"), (":path", path), (":authority", self._host)]
        if number:
            head.append((NUMBER, number))
        self._waiting[stream] = one
        self.h2.send_headers(stream, head, end_stream=method == "GET")
        self.speak()
        if method != "GET":
            try:
                await self.send(stream, body, end=True)
            except (ConnectionError, ProtocolError):
                one.fails(Break.CONNECTION, "the request was broken off before all was sent")
        return await one.done

    def event(self, event: Event) -> None:
        """Take answers."""
        stream = getattr(event, "stream_id", None) or 0
        one = self._waiting.get(stream)
        if one is None:
            return
        if isinstance(event, ResponseReceived):
            one.fields = fields_of(event)
            one.status = int(one.fields[":status"])
        elif isinstance(event, DataReceived):
            one.data(event.data)
        elif isinstance(event, StreamEnded):
            del self._waiting[stream]
            if not one.done.done():
                one.done.set_result(Answer(one.status, one.fields, bytes(one.body), one.size))
        elif isinstance(event, StreamReset):
            del self._waiting[stream]
            one.fails(Break.CONNECTION, f"the stream was reset ({event.error_code})")

    def goaway(self, code: int) -> None:
        """Streams after the last one were not served."""
        for stream in [stream for stream in self._waiting if stream > self.told]:
            self._waiting.pop(stream).fails(Break.CONNECTION, f"not served: GOAWAY ({code})")

    def broken(self, error: Exception) -> None:
        """The mesh has broken the protocol, which nothing excuses."""
        for one in self._waiting.values():
            one.fails(Break.ANSWER, f"no HTTP/2: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more will come."""
        super().connection_lost(exc)
        for one in self._waiting.values():
            one.fails(Break.CONNECTION, f"the connection ended: {exc or 'closed'}")


class Traffic2(Clients):
    """Starts them all with `start`. `answered` are the numbers of requests that were."""

    def __init__(self, stage: Stage, ledger: Ledger, seed: str) -> None:
        super().__init__(stage, ledger, seed)
        self.answered: list[str] = []
        self._numbers = itertools.count(1)

    def start(self) -> None:
        """Let them go."""
        for name in ("two", "plain", "retry", "split"):
            self.go_round(1, 0.5, lambda name=name: self._many(name))  # type: ignore[misc]
        self.go_round(2, 0.5, lambda: self._many("two"))
        self.go_round(2, 0.4, lambda: self._post("two"))
        self.go_round(1, 0.8, self._download)
        self.go_round(3, 0.3, self._calls)
        self.go_round(1, 0.5, self._streams)

    @asynccontextmanager
    async def _open(self, name: str) -> AsyncIterator[Http2Wire]:
        loop = asyncio.get_running_loop()
        address = self.stage.mesh_address(name)
        _, wire = await loop.create_connection(lambda: Http2Wire(BY_NAME[name].mesh_name), address, PORT)
        try:
            yield wire
        finally:
            wire.transport.close()

    async def _many(self, name: str) -> None:
        """Many requests at once on one connection, again and again."""
        try:
            async with self._open(name) as wire:
                for _ in range(chance().randint(1, ROUNDS)):
                    if not wire.usable or self.stopped:
                        break
                    asked = [self._get(wire, name) for _ in range(chance().randint(1, AT_ONCE))]
                    if not all(await asyncio.gather(*asked)):
                        break
                    await self.rest(0.05)
        except OSError as error:
            await self.measured("connect", name, _raise(error))

    async def _get(self, wire: Http2Wire, name: str) -> bool:
        async def work() -> Judged:
            return judge(name, await wire.ask("GET", "/"))

        return await self.measured("http2", name, work())

    async def _post(self, name: str) -> None:
        """A body; the endpoint answers with what it got, and records that it did."""
        size = chance().choice((0, 1, 1000, 70_000, 300_000))
        body = b"".join(expected(at, min(PIECE, size - at)) for at in range(0, size, PIECE))
        number = self._number()

        async def work() -> Judged:
            async with self._open(name) as wire:
                answer = await wire.ask("POST", "/sum", body, number)
            judged = judge(name, answer)
            told = json.loads(answer.body)
            if (told["bytes"], told["crc"]) != (size, zlib.crc32(body)):
                raise Broken(Break.ANSWER, f"the endpoint got {told} instead of {size} bytes")
            self.answered.append(number)
            return judged

        await self.measured("http2 post", name, work(), unsafe=True)

    async def _download(self) -> None:
        """Megabytes on two streams at once, every byte checked."""
        name = chance().choice(("two", "plain"))
        sizes = [chance().randint(200_000, 2_000_000) for _ in range(2)]

        async def work() -> Judged:
            async with self._open(name) as wire:
                asked = (wire.ask("GET", f"/bytes/{size}", pattern=True) for size in sizes)
                answers = await asyncio.gather(*asked)
            for size, answer in zip(sizes, answers, strict=True):
                if answer.status == 200 and answer.size != size:
                    raise Broken(Break.ANSWER, f"{answer.size} bytes instead of {size}")
                judge(name, answer)
            return OK

        await self.measured("http2 download", name, work())

    # gRPC

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[Any]:
        options = (("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1))
        target = f"{self.stage.mesh_address('grpc')}:{PORT}"
        async with grpc.aio.insecure_channel(target, options=options) as channel:
            yield channel

    async def _calls(self) -> None:
        """Unary calls on one channel, one after another."""
        async with self._channel() as channel:
            for _ in range(chance().randint(1, CALLS)):
                if self.stopped or not await self.measured("grpc", "grpc", self._call(channel), unsafe=True):
                    break
                await self.rest(0.03)

    async def _call(self, channel: Any) -> Judged:
        said, number = expected(chance().randrange(1000), chance().randint(0, PIECE)), self._number()
        call = channel.unary_unary("/soak/Unary")(said, metadata=((NUMBER, number),), wait_for_ready=True)
        with _told():
            got = await call
        if got != said[::-1]:
            raise Broken(Break.ANSWER, f"{len(got)} bytes instead of {len(said)}, or other ones")
        self.answered.append(number)
        return OK

    async def _streams(self) -> None:
        """A stream of answers, and one in both directions, at once on one channel."""
        async with self._channel() as channel:
            works = (self._counts(channel), self._echoes(channel))
            await asyncio.gather(*(self.measured("grpc stream", "grpc", work, unsafe=True) for work in works))

    async def _counts(self, channel: Any) -> Judged:
        many, number = chance().randint(1, 500), self._number()
        call = channel.unary_stream("/soak/Counts")(
            b"%d" % many, metadata=((NUMBER, number),), wait_for_ready=True
        )
        with _told():
            got = [answer async for answer in call]
        if got != [b"%d" % one for one in range(many)]:
            raise Broken(Break.ANSWER, f"{len(got)} messages instead of {many}, or other ones")
        self.answered.append(number)
        return OK

    async def _echoes(self, channel: Any) -> Judged:
        number = self._number()
        call = channel.stream_stream("/soak/Echoes")(metadata=((NUMBER, number),), wait_for_ready=True)
        with _told():
            for _ in range(chance().randint(1, 20)):
                said = expected(chance().randrange(1000), chance().randint(0, PIECE))
                await call.write(said)
                if await call.read() != said:
                    raise Broken(Break.ANSWER, "something else was said back")
                await self.rest(0.1)
            await call.done_writing()
            if await call.read() is not grpc.aio.EOF:
                raise Broken(Break.ANSWER, "more than was said came back")
        self.answered.append(number)
        return OK

    def _number(self) -> str:
        return f"{next(self._numbers)}"


@contextmanager
def _told() -> Iterator[None]:
    """Say in the words of the ledger how a call has failed."""
    try:
        yield
    except asyncio.InvalidStateError as error:  # of a stream that is over
        raise Broken(Break.CONNECTION, "the call was over before all was said") from error
    except grpc.aio.AioRpcError as error:
        metadata = [*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())]
        reason = dict(metadata).get("proxy-status", "")
        broken = error.code() in _BROKEN and not reason
        how = Break.CONNECTION if broken else Break.ANSWER
        raise Broken(how, f"{error.code().name}: {error.details()} {reason}") from error


async def _raise(error: OSError) -> Judged:
    raise error
