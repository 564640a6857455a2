"""The probes themselves, each on a connection of its own that is closed afterwards."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Final

import aiohttp

from nodeagent.health.book import Address, Probe
from nodeagent.health.failure import ProbeFailed, describe_failure
from nodeagent.health.grpc_health import PATH, failure_of, health_request
from nodeagent.health.http2_question import ask_http2
from nodeagent.plan.model import HealthCheck
from nodeagent.proxy.http2.grpc_timeout import SECOND, render_timeout, rounded

USER_AGENT: Final = "svc.mesh-health-check"


class Asker:
    """Probes endpoints; made by `asking`."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def ask(self, probe: Probe) -> str | None:
        """Return why an endpoint is unhealthy; empty if it is healthy; None if it could not be probed."""
        check = probe.check
        try:
            async with asyncio.timeout(check.timeout):
                if check.kind == "grpc":
                    return await _ask_grpc(probe.address, check)
                if check.kind == "tcp":
                    return await _ask_tcp(probe.address)
                if probe.protocol == "http2":
                    return await _ask_over_http2(probe.address, check)
                return await self._ask_http(probe.address, check)
        except (OSError, aiohttp.ClientError, ProbeFailed) as error:
            return describe_failure(error, check.timeout)

    async def _ask_http(self, address: Address, check: HealthCheck) -> str:
        url = f"http://{address[0]}:{address[1]}{check.path}"
        async with self._session.get(url, allow_redirects=False) as response:
            return _failure_of(response.status)


@contextlib.asynccontextmanager
async def asking() -> AsyncIterator[Asker]:
    """Yield what probes endpoints."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": USER_AGENT, "Accept": "*/*"},
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
    ) as session:
        yield Asker(session)


def _failure_of(status: int) -> str:
    """Return what is wrong with a status: as for the kubelet, nothing from 200 to 399."""
    if HTTPStatus.OK <= status < HTTPStatus.BAD_REQUEST:
        return ""
    return f"status {status}"


async def _ask_over_http2(address: Address, check: HealthCheck) -> str:
    fields = [(b"user-agent", USER_AGENT.encode()), (b"accept", b"*/*")]
    answer = await ask_http2(address, b"GET", check.path.encode("ascii"), fields)
    return _failure_of(answer.status)


async def _ask_grpc(address: Address, check: HealthCheck) -> str:
    fields = [
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"user-agent", USER_AGENT.encode()),
        (b"grpc-timeout", render_timeout(rounded(int(check.timeout * SECOND)))),
    ]
    answer = await ask_http2(address, b"POST", PATH, fields, health_request(check.service))
    if answer.status != HTTPStatus.OK:
        return f"status {answer.status}"
    return failure_of(
        answer.fields.get("grpc-status", ""), answer.fields.get("grpc-message", ""), answer.body
    )


async def _ask_tcp(address: Address) -> str:
    _, writer = await asyncio.open_connection(*address)
    writer.close()
    return ""
