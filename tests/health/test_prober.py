"""What the agent says of its health checks: to the workers, to metrics, and in the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from discovery.model import Endpoint, ServiceKey
from nodeagent.control.messages import BackendCondition, Conditions
from nodeagent.health.prober import OF_SERVICE, Prober
from nodeagent.plan.model import BackendKey, BackendSpec, HealthCheck

WEB, OTHER = (BackendKey(ServiceKey("shop", name), 80) for name in ("web", "other"))
CHECK = HealthCheck("tcp", interval=10.0, unhealthy=1)


def spec(key: BackendKey, count: int) -> BackendSpec:
    endpoints = tuple(Endpoint(f"10.1.{key == WEB:d}.{number}", 80) for number in range(count))
    return BackendSpec(key, endpoints, health_check=CHECK)


class Rig:
    """A prober whose probes a test answers, and all that it says."""

    def __init__(self) -> None:
        self.told: list[Conditions] = []
        self.now = 0.0
        self.prober = Prober(self.told.append, lambda: self.now)
        self.lines: list[Any] = []

    def answers(self, failure: str | None, count: int = 1) -> None:
        """Answer the probes that are due next; they take no time."""
        for _ in range(count):
            self.now += self.prober._book.wait(self.now) or 0.0
            probed = self.prober._book.take(self.now)
            assert probed is not None
            self.prober._done(probed, failure)


@pytest.fixture
def rig() -> Iterator[Rig]:
    structlog.reset_defaults()
    rig = Rig()
    with capture_logs() as lines:
        rig.lines = lines
        yield rig


def test_workers_are_told_all_that_is_unhealthy_of_the_backend_that_changed(rig: Rig) -> None:
    rig.prober.follow([spec(WEB, 2)], ())
    assert not rig.told
    rig.answers("refused", 2)
    first, second = (message.backends[0].unhealthy for message in rig.told)
    assert len(first) == 1
    assert second == (("10.1.1.0", 80), ("10.1.1.1", 80))
    rig.answers("", 2)
    assert rig.told[-1] == Conditions((BackendCondition(WEB, ()),))
    assert rig.prober.unhealthy == {}


def test_what_does_not_change_is_not_told(rig: Rig) -> None:
    rig.prober.follow([spec(WEB, 2)], ())
    rig.answers("", 2)
    rig.answers(None, 2)
    assert not rig.told
    assert not rig.lines
    state = rig.prober.state
    assert (state.endpoints, state.passed, state.failed, state.unasked) == (2, 2, 0, 2)


def test_metrics_and_log(rig: Rig) -> None:
    rig.prober.follow([spec(WEB, 2)], ())
    rig.answers("refused", 2)
    state = rig.prober.state
    assert (state.ejections, state.unhealthy) == ({WEB: 2}, {WEB: 2})
    first, second = rig.lines
    assert (first["event"], first["log_level"], first["service"]) == (
        "endpoint_unhealthy",
        "warning",
        "shop/web",
    )
    assert (first["effect"], second["effect"]) == ("it is not used", "all are used, as none is healthy")
    assert [line["healthy"] for line in rig.lines] == [1, 0]
    rig.answers("", 1)
    assert (rig.lines[-1]["event"], rig.lines[-1]["log_level"]) == ("endpoint_healthy", "info")


def test_a_service_that_goes_takes_its_numbers_with_it(rig: Rig) -> None:
    rig.prober.follow([spec(WEB, 1)], ())
    rig.answers("refused")
    rig.prober.follow((), (WEB,))
    state = rig.prober.state
    assert (state.endpoints, state.ejections, state.unhealthy) == (0, {}, {})
    assert rig.told[-1] == Conditions((BackendCondition(WEB, ()),))


def test_one_service_does_not_fill_the_log(rig: Rig) -> None:
    """What is left out is counted in the next line that is written."""
    most, _ = OF_SERVICE
    rig.prober.follow([spec(WEB, most + 20)], ())
    rig.answers("refused", most + 20)
    written, changes = len(rig.lines), len(rig.told)
    assert most <= written < most + 5  # some more may come as time passes
    rig.prober.follow([spec(OTHER, 1)], (WEB,))
    rig.answers("refused")
    assert rig.lines[-1]["service"] == "shop/other"
    assert sum(line.get("not_logged", 0) for line in rig.lines) == changes - written
