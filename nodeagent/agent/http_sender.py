"""Sends lots of spans by POST: OTLP over HTTP, or Zipkin's JSON."""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import aiohttp

from nodeagent.agent.collector_fields import Fields
from nodeagent.agent.delivery import Verdict
from nodeagent.agent.gzipped import compressed
from nodeagent.agent.trust import Trust

BUSY: Final = frozenset({429, 502, 503, 504})
"""Statuses after which the same is to be sent again (OTLP, "Retryable Response Codes")."""
MOST_ANSWER: Final = 64 * 1024
"""Bytes of an answer that are read; the connection of one that has more is closed."""

_SECONDS: Final = re.compile("[0-9]{1,9}")

ReadAnswer = Callable[[bytes], Verdict]
ReadError = Callable[[bytes], str]


class HttpSender:
    """`taken` says what an answer of success means, and `error_message` what the body of another one says.

    `gzip` says whether collectors of this protocol understand it.
    """

    def __init__(
        self,
        url: str,
        content_type: str,
        user_agent: str,
        taken: ReadAnswer,
        error_message: ReadError,
        gzip: bool,
    ) -> None:
        self._url = url
        self._trust = Trust() if url.startswith("https:") else None
        self._gzip = gzip
        self._fields = {
            "Content-Type": content_type,
            "User-Agent": user_agent,
            "Accept-Encoding": "identity",
        }
        self._taken = taken
        self._error_message = error_message
        self._session: aiohttp.ClientSession | None = None

    async def send(self, body: bytes, fields: Fields = ()) -> Verdict:
        """Send a lot. Who does not understand gzip says 415, and is sent the same without it.

        Raises:
            OSError: the collector cannot be reached, or the connection broke.
        """
        packed = await compressed(body) if self._gzip else None
        if packed is not None:
            verdict, status = await self._post(packed, {**dict(fields), "Content-Encoding": "gzip"})
            if status != HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
                return verdict
        verdict, _ = await self._post(body, dict(fields))
        if packed is not None and verdict.fate == "taken":
            self._gzip = False
        return verdict

    async def _post(self, body: bytes, fields: dict[str, str]) -> tuple[Verdict, int]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None),
                headers=self._fields,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # a few bytes could become many
            )
        tls = self._trust.context() if self._trust is not None else True
        try:
            # Nobody but the collector is to get the fields; and a POST that is redirected may become a GET.
            async with self._session.post(
                self._url, data=body, headers=fields, ssl=tls, allow_redirects=False
            ) as response:
                answer = await _read(response)
        except aiohttp.ClientError as error:
            raise OSError(str(error) or type(error).__name__) from error
        status = response.status
        if status < 300:
            return self._taken(answer), status
        said = self._error_message(answer)
        words = f"it answered {status}" + (f": {said}" if said else "")
        if status not in BUSY:
            return Verdict("refused", words), status
        return Verdict("later", words, pause=_seconds(response.headers.get("Retry-After", ""))), status

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
