"""`/failures` of a whole agent: what failed and what was refused, with reasons and stages."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hack.kit.manifests import ENABLED
from hack.kit.waiting import until
from tests.agent.harness import Agent, Whoami, endpoints, service
from tests.agent.test_access_log import ask, running


def failures(agent: Agent, query: str = "") -> dict[str, Any]:
    status, text = agent.admin(f"/failures?{query}")
    assert status == 200
    page: dict[str, Any] = json.loads(text)
    return page


def test_what_failed_and_what_was_refused(tmp_path: Path, start_whoami: Callable[[str], Whoami]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = unused.getsockname()[1]
    quiet = {**ENABLED, "svc.mesh/access-log": "off", "svc.mesh/rate-limit": "1/h"}
    told = {**ENABLED, "svc.mesh/access-log": "errors"}
    limited = service("limited", quiet).replace("10.96.7.10", "10.96.7.11") + endpoints(
        "limited", [start_whoami("a").port]
    )
    broken = service("broken", told) + endpoints("broken", [closed])
    with running(tmp_path / "cluster", limited=limited, broken=broken) as agent:
        for _ in range(3):
            ask(agent, "limited.shop", 2)
        ask(agent, "broken.shop", 1)
        until(lambda: failures(agent)["seen"] >= 4 or None)
        page = failures(agent, "service=shop/broken")
        (failure,) = page["failures"]
        assert (failure["status"], failure["reason"], failure["by"]) == (503, "connect_failed", "endpoint")
        assert failure["path"] == "/0"
        assert [one["kind"] for one in failure["stages"] if one["kind"] != "middleware"] == ["connect"]
        refused = failures(agent, "service=shop/limited")["failures"]
        assert {(one["status"], one["layer"], one["by"]) for one in refused} == {(429, "rate-limit", "mesh")}
        assert "stages" not in refused[0], "its journeys are not kept"
        assert {one["service"] for one in failures(agent)["services"]} == {"shop/broken", "shop/limited"}
        assert failures(agent, "service=shop/none")["failures"] == []
