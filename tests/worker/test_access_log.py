"""The access log says who a client is where that is known, and asks only for lines that it writes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from middleware.contract import Ended, ExchangeError, NoEndpoint
from middleware.grpc import GrpcStatus
from nodeagent.control.messages import SourcePod, Sources
from nodeagent.worker.access_log import LINES_PER_SECOND, AccessLogger
from nodeagent.worker.sources import SourcePods

WEB = {"source": "10.1.0.9", "source_pod": "shop/web-x", "source_workload": "shop/deployment/web"}


class Asked(SourcePods):
    """Counts how often it is asked."""

    times = 0

    def find(self, address: str) -> SourcePod | None:
        self.times += 1
        return super().find(address)


@pytest.fixture
def sources() -> Asked:
    known = Asked()
    known.change(Sources({"10.1.0.9": SourcePod("shop", "web-x", "deployment/web")}))
    return known


@pytest.fixture
def logger(sources: Asked) -> AccessLogger:
    return AccessLogger("all", 0, sources, now=lambda: 7.0)


def ended(source: str, error: ExchangeError | None = None) -> Ended:
    status = 200 if error is None else 503
    return Ended("shop/cart", 80, source, "GET", "/?q", status, "10.1.0.1:8080", 0.1, 1, 2, error)


def refusal() -> ExchangeError:
    return NoEndpoint("nobody is ready")


def keys(line: Any) -> dict[str, str]:
    return {key: value for key, value in line.items() if key.startswith("source")}


def test_all_three_lines_name_the_pod_and_its_workload(logger: AccessLogger) -> None:
    with capture_logs() as logs:
        logger.ended(ended("10.1.0.9"))
        logger.ended(ended("10.1.0.9", refusal()))
        logger.refused("shop/cart", 80, "10.1.0.9", refusal())
    assert [line["event"] for line in logs] == ["request", "request_failed", "request_refused"]
    assert [keys(line) for line in logs] == [WEB, WEB, WEB]


def test_a_client_that_is_no_pod_of_this_node_has_an_address(logger: AccessLogger) -> None:
    with capture_logs() as logs:
        logger.ended(ended("10.1.0.8"))
        logger.refused("shop/cart", 80, "10.1.0.8", refusal())
    assert [keys(line) for line in logs] == [{"source": "10.1.0.8"}] * 2


def test_a_pod_that_has_gone_is_not_named(logger: AccessLogger, sources: Asked) -> None:
    sources.change(Sources({}, ("10.1.0.9", "10.1.0.7")))
    with capture_logs() as logs:
        logger.ended(ended("10.1.0.9"))
    assert keys(logs[0]) == {"source": "10.1.0.9"}


def test_nobody_is_looked_up_for_a_line_that_is_left_out(logger: AccessLogger, sources: Asked) -> None:
    with capture_logs() as logs:
        for _ in range(LINES_PER_SECOND * 2):
            logger.ended(ended("10.1.0.9"))
            logger.refused("shop/cart", 80, "10.1.0.9", refusal())
    assert len(logs) == sources.times == LINES_PER_SECOND


def test_a_call_of_grpc_has_its_status(logger: AccessLogger) -> None:
    plain = ended("10.1.0.7")
    call = msgspec.structs.replace(plain, grpc_status=GrpcStatus.RESOURCE_EXHAUSTED)
    with capture_logs() as lines:
        logger.ended(plain)
        logger.ended(call)
    assert [line.get("grpc_status") for line in lines] == [None, "RESOURCE_EXHAUSTED"]
