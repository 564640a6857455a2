"""`/tap` of a whole agent: requests as they end, from its workers to whoever asks."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from hack.kit.manifests import ENABLED
from hack.kit.waiting import until
from nodeagent.control.tap import MOST_WATCHES
from tests.agent.harness import Agent, Whoami, endpoints, service
from tests.agent.test_access_log import ask, running


def watch(agent: Agent, query: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", agent.admin_port, timeout=20)
    connection.request("GET", f"/tap?{query}")
    return connection, connection.getresponse()


@contextlib.contextmanager
def asking(agent: Agent) -> Iterator[None]:
    """Send requests all the time: workers learn of a watch a moment after its page has begun."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(0.02):
            ask(agent, "web.shop", 2)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def lines(response: http.client.HTTPResponse, number: int) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    while len(found) < number:
        line = response.readline()
        assert line, "the page has ended"
        if line.strip():
            found.append(json.loads(line))
    return found


def test_requests_are_shown_as_they_end(tmp_path: Path, start_whoami: Callable[[str], Whoami]) -> None:
    web = service("web", ENABLED) + endpoints("web", [start_whoami("a").port])
    with running(tmp_path / "cluster", web=web) as agent:
        connection, response = watch(agent, "service=shop/web&path=/1")
        with contextlib.closing(connection), asking(agent):
            assert response.status == 200
            shown = lines(response, 3)
            assert {line["path"] for line in shown} == {"/1"}
            assert shown[0]["service"] == "shop/web"
            assert shown[0]["tries"] == 1
            *_, last = cast("list[dict[str, object]]", shown[-1]["stages"])
            assert (last["kind"], last["try"], last["outcome"]) == ("try", 1, "200")
            assert not agent.events("request"), "the access log is as it was"


def test_what_cannot_be_watched(tmp_path: Path, start_whoami: Callable[[str], Whoami]) -> None:
    web = service("web", ENABLED) + endpoints("web", [start_whoami("a").port])
    with running(tmp_path / "cluster", web=web) as agent, contextlib.ExitStack() as stack:
        assert agent.admin("/tap?service=shop/none")[0] == 404
        status, text = agent.admin("/tap?service=web")
        assert (status, text) == (400, 'service "web" names no Service; expected namespace/name\n')
        for _ in range(MOST_WATCHES):
            connection, response = watch(agent, "service=shop/web")
            stack.callback(connection.close)
            assert response.status == 200
        assert agent.admin("/tap?service=shop/web")[0] == 503
        stack.close()

        def free() -> bool:
            connection, response = watch(agent, "service=shop/web")
            connection.close()
            return response.status == 200

        until(free)
