"""Lines for those who watch: which, what they say and do not say, and what is counted instead of sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from middleware.journey import Journey, Stage
from nodeagent.control.messages import SourcePod, Sources, Tap, Tapped
from nodeagent.control.tap import TapFilter, Watch
from nodeagent.worker.access_log import AccessLogger
from nodeagent.worker.failure_fields import MOST_STAGES
from nodeagent.worker.sources import SourcePods
from nodeagent.worker.tapping import MOST_LINES, MOST_LOOKED, MOST_PENDING, Tapper, Tellers
from tests.worker.test_access_log import TCP, Written, ended, refusal, refused


class Agent:
    """Takes what a tapper sends. `pending` is what it has not taken."""

    pending = 0

    def __init__(self) -> None:
        self.sent: list[Tapped] = []
        sources = SourcePods(lambda _: False)
        sources.change(Sources({"10.1.0.9": SourcePod("shop", "web-x", "deployment/web")}))
        self.told: list[Mapping[str, int]] = []
        self.counted: dict[str, int] = {}
        self.tapper = Tapper(
            sources, 3, self.sent.append, lambda: self.pending, lambda: self, wall=lambda: 0.0
        )

    def tap(self, services: Mapping[str, int]) -> None:
        self.told.append(services)

    def requests(self, services: frozenset[str]) -> dict[str, int]:
        return {service: self.counted.get(service, 0) for service in services}

    def watch(self, **wanted: str) -> None:
        self.tapper.follow(Tap((Watch(1, TapFilter("shop/cart", **wanted)),)))

    def lines(self) -> list[dict[str, Any]]:
        self.tapper.flush()
        return [json.loads(line.line) for tapped in self.sent for line in tapped.lines]


@pytest.fixture
def agent() -> Agent:
    return Agent()


def test_a_line_says_who_what_and_how_and_keeps_secrets(agent: Agent) -> None:
    agent.watch()
    agent.tapper.ended(ended("10.1.0.9", refusal(), target="/a?token=secret"))
    (line,) = agent.lines()
    assert line["path"] == "/a"
    assert line["time"] == "1970-01-01T00:00:00.000000Z"
    assert (line["source_pod"], line["source_workload"]) == ("shop/web-x", "shop/deployment/web")
    assert (line["status"], line["reason"], line["worker"]) == (503, "no_endpoint", 3)
    assert "secret" not in json.dumps(line)


def test_a_line_has_the_stages_of_its_journey_and_the_access_log_has_not(agent: Agent) -> None:
    agent.watch()
    endpoint = "10.1.0.1:8080"
    stages = (Stage("connect", 5.0, 5.002, endpoint, 1), Stage("try", 5.002, 5.1, endpoint, 1, "200"))
    whole = ended("10.1.0.9", journey=Journey(5.0, 5.1, stages))
    long = ended("10.1.0.9", journey=Journey(5.0, 5.1, stages * 40, 2))
    for one in (whole, long, ended("10.1.0.9")):
        agent.tapper.ended(one)
    first, second, third = agent.lines()
    assert first["stages"] == [
        {"kind": "connect", "start_ms": 0.0, "end_ms": 2.0, "endpoint": endpoint, "try": 1},
        {"kind": "try", "start_ms": 2.0, "end_ms": 100.0, "endpoint": endpoint, "try": 1, "outcome": "200"},
    ]
    assert "stages_left_out" not in first
    assert (len(second["stages"]), second["stages_left_out"]) == (MOST_STAGES, 80 - MOST_STAGES + 2)
    assert "stages" not in third
    written = Written()
    AccessLogger("all", 0, SourcePods(lambda _: False), written).ended(whole)
    assert "stages" not in next(iter(written))


def test_only_what_is_watched(agent: Agent) -> None:
    agent.watch(workload="web", status="5xx")
    agent.tapper.ended(ended("10.1.0.9"))
    agent.tapper.ended(ended("10.9.9.9", refusal()))
    agent.tapper.ended(ended("10.1.0.9", refusal(), service="shop/other"))
    assert agent.lines() == []
    agent.tapper.ended(ended("10.1.0.9", refusal()))
    assert len(agent.lines()) == 1


def test_with_enough_lines_it_is_told_of_no_more_until_the_period_is_over(agent: Agent) -> None:
    agent.watch()
    assert agent.told == [{"shop/cart": 0}]
    for number in range(MOST_LINES + 1):
        agent.counted["shop/cart"] = number + 1
        agent.tapper.ended(ended("10.1.0.9"))
    assert agent.told[1:] == [{}]
    agent.counted["shop/cart"] += 40
    agent.tapper.flush()
    (tapped,) = agent.sent
    assert (len(tapped.lines), tapped.dropped) == (MOST_LINES, ((1, 41),))
    assert agent.told[2:] == [{"shop/cart": 0}]
    agent.tapper.flush()
    assert len(agent.sent) == 1


def test_a_filter_that_takes_nothing_is_not_asked_without_end(agent: Agent) -> None:
    agent.watch(path="/rare")
    for _ in range(MOST_LOOKED):
        agent.tapper.ended(ended("10.1.0.9"))
    assert agent.told == [{"shop/cart": 0}, {}]
    agent.counted["shop/cart"] = 7
    agent.tapper.ended(ended("10.1.0.9", target="/rare"))
    assert agent.lines() == []
    assert agent.sent == [Tapped((), ((1, 7),))]
    agent.tapper.ended(ended("10.1.0.9", target="/rare"))
    assert len(agent.lines()) == 1


def test_who_comes_during_a_pause_is_told_at_once(agent: Agent) -> None:
    agent.watch(path="/rare")
    for _ in range(MOST_LOOKED):
        agent.tapper.ended(ended("10.1.0.9"))
    agent.counted["shop/cart"] = 7
    first = Watch(1, TapFilter("shop/cart", path="/rare"))
    agent.tapper.follow(Tap((first, Watch(2, TapFilter("shop/other")))))
    assert agent.told[2:] == [{"shop/cart": 0, "shop/other": 0}]
    agent.tapper.flush()
    assert agent.sent == [Tapped((), ((1, 7),))]


def test_nothing_is_sent_to_an_agent_that_does_not_take_it(agent: Agent) -> None:
    agent.watch()
    agent.pending = MOST_PENDING + 1
    agent.tapper.ended(ended("10.1.0.9"))
    agent.tapper.flush()
    assert agent.sent == []
    agent.pending = 0
    agent.tapper.flush()
    assert agent.sent == [Tapped((), ((1, 1),))]


def test_when_nobody_watches_any_more_nothing_is_kept(agent: Agent) -> None:
    agent.watch()
    agent.tapper.ended(ended("10.1.0.9"))
    agent.tapper.follow(Tap(()))
    assert not agent.tapper.watched
    assert agent.lines() == []


def test_the_data_plane_tells_of_no_status_that_nobody_wants(agent: Agent) -> None:
    filters = [TapFilter("shop/cart", status="503"), TapFilter("shop/cart", status="4xx")]
    watches = [Watch(number, one) for number, one in enumerate(filters)]
    agent.tapper.follow(Tap((watches[0],)))
    agent.tapper.follow(Tap(tuple(watches)))
    agent.tapper.follow(Tap((*watches, Watch(7, TapFilter("shop/cart")))))
    assert agent.told == [{"shop/cart": 503}, {"shop/cart": 400}, {"shop/cart": 0}]


@pytest.mark.parametrize(("mode", "told_from"), [("off", 500), ("errors", 500), ("all", 0)])
def test_failures_are_told_whatever_has_a_line(agent: Agent, mode: Any, told_from: int) -> None:
    class Recent:
        def __init__(self) -> None:
            self.told: list[object] = []

        def ended(self, ended: object) -> None:
            self.told.append(ended)

        def takes_reply(self, service: str, port: int, reason: str) -> bool:
            return reason == "cors_denied"

        closed = refused = ended

    recent: Any = Recent()
    written = Written()
    tellers = Tellers(AccessLogger(mode, 0, SourcePods(lambda _: False), written), agent.tapper, recent)
    assert tellers.from_status == told_from
    tellers.ended(ended("10.1.0.9", refusal()))
    tellers.closed(TCP)
    tellers.refused(refused("10.1.0.9"))
    assert len(recent.told) == 3
    assert tellers.takes_reply("shop/cart", 80, "cors_denied")
    assert bool(list(written)) == (mode != "off")
