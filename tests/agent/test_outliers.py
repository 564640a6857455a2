"""Outlier detection as an owner has it: an agent shows what its workers have ejected, and for how long."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from hack.kit.ports import LOCALHOST
from hack.kit.waiting import until
from tests.agent.harness import Agent
from tests.agent.test_health_checks import PORT, Web, serving

DETECTION = {"svc.mesh/outlier-detection": "5xx consecutive=2 ejection=2s"}


class Failing(Web):
    """Answers everything with 503."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.well = False


def shown(agent: Agent) -> dict[str, str]:
    """The endpoints of the plan that are ejected, with the reason."""
    (backend,) = json.loads(agent.admin("/plan")[1])["services"]["shop/web"]["backends"]
    return {one["address"]: one["ejected"] for one in backend["endpoints"] if "ejected" in one}


def ask(agent: Agent) -> int:
    connection = agent.connect()
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status
    finally:
        connection.close()


def test_an_ejection_is_shown_until_its_end(tmp_path: Path) -> None:
    bad, good = Failing("bad"), Web("good")
    with serving(tmp_path, DETECTION, [bad, good]) as agent:
        until(lambda: ask(agent) and agent.events("endpoint_ejected"))
        until(lambda: agent.events("endpoint_returned"))
        until(lambda: shown(agent) == {})
        ejection, *_ = agent.events("endpoint_ejected")
        assert (ejection["service"], ejection["port"]) == ("shop/web", 18080)
        assert ejection["endpoint"] == f"{LOCALHOST}:{bad.port}"
        assert (ejection["ejection_ms"], ejection["times"], ejection["left"]) == (2000, 1, 1)
        (end, *_) = agent.events("endpoint_returned")
        assert (end["endpoint"], end["left"]) == (f"{LOCALHOST}:{bad.port}", 2)
        assert (
            agent.metric('svcmesh_outlier_ejections_total{service="web",namespace="shop",port="18080"}') == 1
        )


def test_what_a_dead_worker_had_ejected_is_not_shown(tmp_path: Path) -> None:
    detection = {"svc.mesh/outlier-detection": "5xx consecutive=2 ejection=1h longest=1h"}
    bad, good = Failing("bad"), Web("good")
    with serving(tmp_path, detection, [bad, good]) as agent:
        until(lambda: ask(agent) and shown(agent))
        assert shown(agent) == {f"{LOCALHOST}:{bad.port}": "2 failures in a row, the last one 503"}
        assert agent.metric(f"svcmesh_endpoints_ejected{{{PORT}}}") == 1
        (pid,) = agent.workers()
        os.kill(pid, signal.SIGKILL)
        until(lambda: shown(agent) == {})
        assert agent.metric(f"svcmesh_endpoints_ejected{{{PORT}}}") == 0
