"""Regular clients, which must not notice what others do at the same time."""

from __future__ import annotations

import http.client

from tests.http2.blocks import request_of
from tests.interop.raw import RawClient, headers


class Victims:
    """Honest clients beside the attacker: one of HTTP/1.1 and one of HTTP/2, on connections that stay."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._first = http.client.HTTPConnection(*address, timeout=20)
        self._second = RawClient(address)
        self._stream = -1

    def check(self, marker: str) -> None:
        """Have both ask, and get what they have asked for."""
        self._first.request("GET", f"/one/{marker}", headers={"X-Marker": "honest"})
        response = self._first.getresponse()
        assert (response.status, response.read().decode()) == (200, f"hello /one/{marker}\n")
        self._stream += 2
        self._second.send(honest(self._stream, f"/two/{marker}"))
        check_honest(self._second, self._stream, f"/two/{marker}")

    def close(self) -> None:
        """Leave."""
        self._first.close()
        self._second.__exit__()


def honest(stream: int, path: str) -> bytes:
    """Write a request that nobody can object to."""
    return headers(stream, request_of(b"GET", path.encode(), (b"x-marker", b"honest")), True)


def check_honest(client: RawClient, stream: int, path: str) -> None:
    """Check that it was answered, and by the answer to it."""
    answer = client.answer(stream)
    assert (answer.ending, answer.status, answer.body.decode()) == ("end", 200, f"hello {path}\n")
