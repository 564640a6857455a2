"""Limits that all nodes share, in a Redis or Valkey: an implementation of `middleware.contract.TokenStore`.

It speaks RESP2 (https://redis.io/docs/latest/develop/reference/protocol-spec/) on one connection, with a
command for each `take` and any number of them under way. That is a hundred lines, and a client library would
bring its own pool, its own retries and an object for each command into the data path.

The connection is made when it is first needed. While there is none, and for `PAUSE` after one failed, every
`take` is answered at once with None. An answer that takes longer than `PATIENCE` ends the connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Final, cast

import structlog

from middleware.contract import Grant
from nodeagent.settings import StoreAddress

log = structlog.get_logger()

PATIENCE: Final = 0.25
"""Seconds until an answer, or a connection, must be there."""
PAUSE: Final = 1.0
MOST_PENDING: Final = 4096
LONGEST_ANSWER: Final = 65_536

SCRIPT: Final = """\
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local tolerance = interval * (burst - 1)
local tat = tonumber(redis.call('GET', KEYS[1]) or '0')
tat = math.min(math.max(tat, now), now + tolerance + interval)
local count = math.min(math.floor((now + tolerance - tat) / interval) + 1, most)
if count < 1 then
  return {0, math.ceil(tat - tolerance - now)}
end
tat = tat + count * interval
redis.call('SET', KEYS[1], string.format('%.3f', tat), 'PX', math.ceil((tat - now) / 1000) + 1000)
return {count, 0}
"""
"""`middleware.rate_limit.decide` for several tokens at once, in microseconds of the store's clock."""

Answered = Callable[[Grant | None], None]


def command(*words: str) -> bytes:
    """Write a command."""
    parts = [f"*{len(words)}\r\n".encode()]
    for word in words:
        data = word.encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


class StoreConnection(asyncio.Protocol):
    """One connection. What is answered is a line, or two integers; anything else ends it."""

    def __init__(self, greetings: list[bytes], lost: Callable[[str], None]) -> None:
        self.pending: deque[tuple[Answered, float]] = deque()
        """Those that wait for an answer, and since when."""
        self._greetings = greetings
        self._lost = lost
        self._greeted = 0
        self._buffer = b""
        self._reason = "the store closed the connection"
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio calls this once."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        self._transport.write(b"".join(self._greetings))

    def ask(self, words: bytes, answered: Answered, now: float) -> None:
        """Send a command that is answered by two integers."""
        assert self._transport is not None
        self.pending.append((answered, now))
        self._transport.write(words)

    def data_received(self, data: bytes) -> None:
        """Read answers."""
        self._buffer += data
        while (answer := self._next()) is not None:
            if isinstance(answer, str):
                self.end(answer)
                return
            if self.pending:
                self.pending.popleft()[0](answer)
        if len(self._buffer) > LONGEST_ANSWER:
            self.end("the store answered something that is not RESP")

    def _next(self) -> Grant | str | None:
        """Return the next answer, why the connection is of no use, or None if there is none yet."""
        while True:
            line, end, rest = self._buffer.partition(b"\r\n")
            if not end:
                return None
            if line.startswith(b"-"):
                return f"the store answered {line[1:200].decode('ascii', 'replace')}"
            if self._greeted < len(self._greetings):
                self._greeted += 1
                self._buffer = rest
                continue
            lines = self._buffer.split(b"\r\n", 3)
            if len(lines) < 4:
                return None
            if lines[0] != b"*2" or not (lines[1][:1] == lines[2][:1] == b":"):
                return "the store answered something else than the script does"
            self._buffer = lines[3]
            return Grant(int(lines[1][1:]), int(lines[2][1:]) / 1e6)

    def end(self, reason: str) -> None:
        """Close it, and say why."""
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone: nobody gets an answer any more."""
        self._lost(str(exc) if exc is not None else self._reason)
        while self.pending:
            self.pending.popleft()[0](None)


class RedisTokens:
    """The store as one worker sees it. Implements `middleware.contract.TokenStore`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, address: StoreAddress) -> None:
        self._loop = loop
        self._address = address
        self._connection: StoreConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._early: list[tuple[bytes, Answered]] = []
        """What was asked while the connection is made."""
        self._not_before = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._known_lost = False

    def take(self, key: str, interval: float, burst: int, most: int, answered: Answered) -> None:
        """Take up to `most` tokens; see the contract."""
        words = command("EVAL", SCRIPT, "1", key, f"{interval * 1e6:.3f}", str(burst), str(most))
        connection = self._connection
        if connection is not None:
            if len(connection.pending) >= MOST_PENDING:
                answered(None)
                return
            connection.ask(words, answered, self._loop.time())
            self._watch_over()
        elif self._connecting is not None and len(self._early) < MOST_PENDING:
            self._early.append((words, answered))
        elif self._connecting is None and self._loop.time() >= self._not_before:
            self._early.append((words, answered))
            self._connecting = self._loop.create_task(self._connect())
        else:
            answered(None)

    def close(self) -> None:
        """Leave the store, which is then no loss to tell of."""
        self._known_lost = True
        if self._watch is not None:
            self._watch.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.end("")

    async def _connect(self) -> None:
        address = self._address
        try:
            greetings = self._greetings()
            async with asyncio.timeout(PATIENCE):
                _, connection = await self._loop.create_connection(
                    lambda: StoreConnection(greetings, self._lost), address.host, address.port
                )
        except (OSError, UnicodeDecodeError) as error:  # TimeoutError is an OSError
            self._connecting = None
            self._lost(str(error) or f"no connection within {ceil(PATIENCE * 1000)}ms")
            self._answer_early(None)
            return
        self._connecting = None
        self._connection = connection
        if self._known_lost:
            self._known_lost = False
            log.info("token_store_back", store=f"{address.host}:{address.port}")
        self._answer_early(connection)

    def _answer_early(self, connection: StoreConnection | None) -> None:
        early, self._early = self._early, []
        for words, answered in early:
            if connection is None:
                answered(None)
            else:
                connection.ask(words, answered, self._loop.time())
        if connection is not None:
            self._watch_over()

    def _greetings(self) -> list[bytes]:
        """Return the commands that a connection begins with. The password is read anew for each."""
        address = self._address
        greetings = []
        if address.password_file:
            password = Path(address.password_file).read_text("utf-8").strip()
            greetings.append(command("AUTH", *((address.user,) if address.user else ()), password))
        if address.database:
            greetings.append(command("SELECT", str(address.database)))
        return greetings

    def _lost(self, reason: str) -> None:
        self._connection = None
        self._not_before = self._loop.time() + PAUSE
        if not self._known_lost:
            self._known_lost = True
            log.warning("token_store_lost", store=f"{self._address.host}:{self._address.port}", reason=reason)

    def _watch_over(self) -> None:
        """See to it that the oldest question is answered in time."""
        if self._watch is None:
            self._watch = self._loop.call_later(PATIENCE, self._look)

    def _look(self) -> None:
        self._watch = None
        connection = self._connection
        if connection is None or not connection.pending:
            return
        if self._loop.time() - connection.pending[0][1] >= PATIENCE:
            connection.end(f"the store did not answer within {ceil(PATIENCE * 1000)}ms")
        else:
            self._watch_over()
