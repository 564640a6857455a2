"""Load balancing as an owner has it: an annotation is edited, and all workers of an agent follow."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from hack.kit.waiting import until
from tests.agent.harness import Agent, Whoami
from tests.agent.test_file_endpoints import annotated, running


def asked(agent: Agent, user: int, cookie: str = "") -> tuple[str, str]:
    """Ask on a new connection, which any worker may accept; return who answered, and the cookie set."""
    with closing(agent.connect()) as connection:
        fields = {"X-User": str(user)} | ({"Cookie": cookie} if cookie else {})
        connection.request("GET", "/", headers=fields)
        response = connection.getresponse()
        given = (response.getheader("Set-Cookie") or "").partition(";")[0]
        return str(json.loads(response.read())["name"]), given


def test_annotations_are_followed_by_all_workers(
    tmp_path: Path, start_whoami: Callable[[str], Whoami]
) -> None:
    servers = [start_whoami(name) for name in ("one", "two", "three")]
    places = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    where = f"svc.mesh/endpoints: {places}"
    with running(tmp_path / "cluster", "--workers", "2") as agent:

        def balance() -> dict[str, object]:
            (backend,) = json.loads(agent.admin("/plan")[1])["services"]["shop/web"]["backends"]
            return dict(backend)

        def alike(user: int) -> bool:
            return len({asked(agent, user)[0] for _ in range(8)}) == 1

        agent.write("web.yaml", annotated(where, "svc.mesh/load-balancing: consistent-hash header=x-user"))
        until(lambda: asked(agent, 0))
        assert balance()["balance"] == "consistent-hash header=x-user"
        until(lambda: all(map(alike, range(12))))
        assert {asked(agent, user)[0] for user in range(40)} == {"one", "two", "three"}

        agent.write("web.yaml", annotated(where, "svc.mesh/session-affinity: cookie name=shop"))
        until(lambda: asked(agent, 0)[1].startswith("shop="))
        until(lambda: all(asked(agent, 0)[1] for _ in range(8)))  # the other worker has it, too
        assert balance()["session_affinity"] == {"cookie": "shop"}
        name, cookie = asked(agent, 0)
        assert {asked(agent, 0, cookie) for _ in range(12)} == {(name, "")}
