"""The agent over files without EndpointSlices: flags, annotations, and its log beside `meshctl check`."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from hack.kit.waiting import until
from nodeagent.meshctl.main import main
from tests.agent.harness import Agent, Whoami

PLAIN = """\
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
  annotations:
    svc.mesh/enabled: "true"
spec:
  ports: [{name: http, port: 18080}]
"""


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Agent]:
    folder.mkdir(exist_ok=True)
    agent = Agent(folder, *arguments)
    try:
        until(agent.ready)
        yield agent
    finally:
        agent.stop()


def status(agent: Agent) -> int:
    connection: http.client.HTTPConnection = agent.connect()
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    finally:
        connection.close()


def annotated(*annotations: str) -> str:
    return PLAIN.replace("spec:\n", "".join(f"    {one}\n" for one in annotations) + "spec:\n")


def test_endpoints_from_the_command_line(tmp_path: Path, start_whoami: Callable[[str], Whoami]) -> None:
    server = start_whoami("here")
    given = ("--endpoints", f"web.shop=127.0.0.1:{server.port}", "--endpoints", "later.shop=127.0.0.1:9")
    with running(tmp_path / "cluster", *given) as agent:
        assert [line["reason"] for line in agent.events("source_empty")] == [
            "no file named *.yaml, *.yml or *.json (hidden files and folders do not count)"
        ]
        assert {line["value"].partition("=")[0] for line in agent.events("problem_found")} == {
            "web.shop",
            "later.shop",
        }
        agent.write("web.yaml", annotated("svc.mesh/endpoints: 127.0.0.1:1"))
        assert agent.ask()["name"] == "here"
        (solved,) = until(lambda: agent.events("problem_solved"))
        assert (solved["object"], solved["value"].partition("=")[0]) == ("Flag --endpoints", "web.shop")
        assert [line for line in agent.events("problem_found") if line["object"].startswith("Service")] == []


def test_annotations_are_followed_as_they_are_edited(
    tmp_path: Path, start_whoami: Callable[[str], Whoami]
) -> None:
    one, other = start_whoami("one"), start_whoami("other")
    cluster = tmp_path / "cluster"
    cluster.mkdir()
    (cluster / "web.yaml").write_text(PLAIN)
    with running(cluster) as agent:
        assert status(agent) == 503
        agent.write("web.yaml", annotated(f"svc.mesh/endpoints: 127.0.0.1:{one.port}"))
        until(lambda: status(agent) == 200)
        assert agent.ask()["name"] == "one"
        agent.write("web.yaml", annotated("svc.mesh/endpoints: localhost:1"))
        until(lambda: [e for e in agent.events("problem_found") if e["field"] == "svc.mesh/endpoints"])
        assert agent.ask()["name"] == "one", "the last good value stays in force"
        agent.write("web.yaml", annotated(f"svc.mesh/endpoints.http: 127.0.0.1:{other.port}"))
        until(lambda: agent.ask()["name"] == "other")
        agent.write("web.yaml", PLAIN)
        until(lambda: status(agent) == 503)


ALL_WRONG = f"""\
# several things are wrong here
kind: nothing
---
{PLAIN.replace("name: web", "name: bare")}---
{annotated('svc.mesh/retry-attempts: "99"', "svc.mesh/endpoints: localhost:1", "svc.mesh/timeout: 5")}---
{PLAIN}---
kind: [
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: lost, namespace: shop, labels: {{kubernetes.io/service-name: nobody}}}}
addressType: IPv4
ports: [{{name: http, port: 99999}}]
---
apiVersion: v1
kind: Endpoints
metadata: {{name: nobody}}
subsets: [{{addresses: [{{ip: nowhere}}], ports: [{{port: 1}}]}}]
"""


def places(found: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    keys = ("file", "line", "field", "value", "reason", "effect")
    return {tuple(one.get(key, "") for key in keys) for one in found}


def test_log_and_check_name_the_same_file_and_line(tmp_path: Path) -> None:
    cluster = tmp_path / "cluster"
    cluster.mkdir()
    (cluster / "all.yaml").write_text(ALL_WRONG)
    found = CliRunner().invoke(main, ["check", "--format", "json", f"{cluster}/"])
    checked = places(json.loads(found.stdout)["problems"])
    assert len(checked) >= 9
    with running(cluster) as agent:
        until(lambda: places(agent.events("problem_found")) == checked)
        assert {one["line"] for one in agent.events("problem_found")} == {line for _, line, *_ in checked}
        before = len(agent.events("problem_found"))
        agent.write("all.yaml", f"# one line more\n{ALL_WRONG}")
        until(lambda: agent.events("problem_solved"))
        agent.write("last.yaml", "kind: nothing\n")
        until(lambda: [one for one in agent.events("problem_found") if one["file"].endswith("last.yaml")])
        again = agent.events("problem_found")[before:-1]
        # What has only moved is not told again, but for two that name lines themselves.
        assert sorted(one["reason"][:10] for one in again) == ["is defined", "while pars"]
