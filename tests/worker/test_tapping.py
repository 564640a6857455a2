"""Lines for those who watch: which, what they say and do not say, and what is counted instead of sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nodeagent.control.messages import SourcePod, Sources, Tap, Tapped
from nodeagent.control.tap import TapFilter, Watch
from nodeagent.worker.access_log import AccessLogger
from nodeagent.worker.sources import SourcePods
from nodeagent.worker.tapping import MOST_LINES, MOST_PENDING, Tapper, Tellers
from tests.worker.test_access_log import TCP, Written, ended, refusal, refused


class Agent:
    """Takes what a tapper sends. `pending` is what it has not taken."""

    pending = 0

    def __init__(self) -> None:
        self.sent: list[Tapped] = []
        sources = SourcePods(lambda _: False)
        sources.change(Sources({"10.1.0.9": SourcePod("shop", "web-x", "deployment/web")}))
        self.tapper = Tapper(sources, 3, self.sent.append, lambda: self.pending, wall=lambda: 0.0)

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
    assert line["time"] == "1970-01-01T00:00:00Z"
    assert (line["source_pod"], line["source_workload"]) == ("shop/web-x", "shop/deployment/web")
    assert (line["status"], line["reason"], line["worker"]) == (503, "no_endpoint", 3)
    assert "secret" not in json.dumps(line)


def test_only_what_is_watched(agent: Agent) -> None:
    agent.watch(workload="web", status="5xx")
    agent.tapper.ended(ended("10.1.0.9"))
    agent.tapper.ended(ended("10.9.9.9", refusal()))
    agent.tapper.ended(ended("10.1.0.9", refusal(), service="shop/other"))
    assert agent.lines() == []
    agent.tapper.ended(ended("10.1.0.9", refusal()))
    assert len(agent.lines()) == 1


def test_what_is_too_much_is_counted(agent: Agent) -> None:
    agent.watch()
    for _ in range(MOST_LINES + 4):
        agent.tapper.ended(ended("10.1.0.9"))
    agent.tapper.flush()
    (tapped,) = agent.sent
    assert (len(tapped.lines), tapped.dropped) == (MOST_LINES, ((1, 4),))
    agent.tapper.flush()
    assert len(agent.sent) == 1


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
