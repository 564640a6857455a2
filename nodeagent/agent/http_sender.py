"""Sends lots of spans by POST: OTLP over HTTP, or Zipkin's JSON."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from typing import Final

import aiohttp

from nodeagent.agent.delivery import Verdict

BUSY: Final = frozenset({429, 502, 503, 504})
"""Statuses after which the same is to be sent again (OTLP, "Retryable Response Codes")."""
MOST_ANSWER: Final = 64 * 1024
"""Bytes of an answer that are read; the connection of one that has more is closed."""

_SECONDS: Final = re.compile("[0-9]{1,9}")

ReadAnswer = Callable[[bytes], Verdict]
ReadError = Callable[[bytes], str]


class HttpSender:
    """`taken` says what an answer of success means, and `error_message` what the body of another one says."""

    def __init__(
        self, url: str, content_type: str, user_agent: str, taken: ReadAnswer, error_message: ReadError
    ) -> None:
        self._url = url
        self._fields = {
            "Content-Type": content_type,
            "User-Agent": user_agent,
            "Accept-Encoding": "identity",
        }
        self._taken = taken
        self._error_message = error_message
        self._session: aiohttp.ClientSession | None = None

    async def send(self, body: bytes) -> Verdict:
        """Send a lot.

        Raises:
            OSError: the collector cannot be reached, or the connection broke.
        """
        if self._session is None:
            # Of its own: aiohttp's knows the CAs that were there when it was loaded.
            tls = ssl.create_default_context() if self._url.startswith("https:") else True
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=tls),
                timeout=aiohttp.ClientTimeout(total=None),
                headers=self._fields,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # a few bytes could become many
            )
        try:
            async with self._session.post(self._url, data=body) as response:
                answer = await _read(response)
        except aiohttp.ClientError as error:
            raise OSError(str(error) or type(error).__name__) from error
        status = response.status
        if status < 300:
            return self._taken(answer)
        said = self._error_message(answer)
        words = f"it answered {status}" + (f": {said}" if said else "")
        if status not in BUSY:
            return Verdict("refused", words)
        return Verdict("later", words, pause=_seconds(response.headers.get("Retry-After", "")))

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Return the body of a response; empty: it has too much."""
    body = b""
    while len(body) <= MOST_ANSWER:
        piece = await response.content.read(MOST_ANSWER)
        if not piece:
            return body
        body += piece
    response.close()
    return b""


def _seconds(retry_after: str) -> float:
    """Return the seconds of a Retry-After; 0: it has none, for example because it is a date."""
    return float(retry_after) if _SECONDS.fullmatch(retry_after) else 0.0
