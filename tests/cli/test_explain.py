"""`meshctl explain`, `routes` and `endpoints`: an agent is asked, or files; and what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from click.testing import CliRunner

from discovery.model import Endpoint, PodKey, PodObject
from nodeagent.admin.server import NoExplanation
from nodeagent.agent.explain_page import ExplainPage
from nodeagent.meshctl.main import main
from nodeagent.plan.compile import compile_plan
from nodeagent.plan.model import EMPTY_PLAN, BackendKey
from nodeagent.plan.render import InForce, plan_document, service_document
from tests.cli.test_status import put_agent
from tests.discovery.kube.fake_api import FakeApi, answer, raw
from tests.plan.builders import SETTINGS, make_service, snapshot_of

ENDPOINTS = {"http": [Endpoint("10.1.0.1", 8080), Endpoint("10.1.0.2", 8080)]}
SERVICE = make_service("web", annotations={"svc.mesh/rate-limit": "9/s per=workload"}, endpoints=ENDPOINTS)
PLAN = compile_plan(snapshot_of(SERVICE), EMPTY_PLAN, SETTINGS)
KEY = BackendKey(SERVICE.key, 80)
SHOWN = InForce(PLAN, {KEY: {("10.1.0.1", 8080): "refused"}})
PODS = {"10.9.0.1": PodObject(PodKey("default", "cart-1"), "deployment/cart", ("10.9.0.1",))}


@pytest.fixture
def cluster(api: FakeApi) -> FakeApi:
    """Two agents, and a client's pod on the second node; only that node's agent explains."""
    page = ExplainPage(lambda: SHOWN, lambda: PODS, SETTINGS)

    async def send(request: web.Request) -> web.StreamResponse:
        query = {name: request.query.getall(name) for name in request.query}
        try:
            return web.Response(body=await page.body(query), content_type="application/json")
        except NoExplanation as error:
            return web.Response(status=400, text=f"{error}\n")

    for number in (1, 2):
        put_agent(api, f"agent-{number}", f"node-{number}")
    api.pages["agent-2:15000", "explain"] = send
    document = json.loads(json.dumps(plan_document(SHOWN.plan, {}, {})))
    place = document["services"]["default/web"]["backends"][0]["endpoints"][0]
    place["unhealthy"] = "refused"
    api.pages["agent-1:15000", "plan"] = answer(200, document)
    api.put(
        {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {"namespace": "default", "name": "cart-1"},
            "spec": {"nodeName": "node-2"},
            "status": {"podIP": "10.9.0.1"},
        }
    )
    return api


def meshctl(api: FakeApi, tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    result = CliRunner().invoke(main, [*arguments, "--kubeconfig", kubeconfig])
    return result.exit_code, result.stdout, result.stderr


URL = "http://web.default.svc.mesh/a"
CALL = ("-X", "POST", "-H", "content-type: application/grpc")


def test_the_agent_of_the_clients_node_is_asked(cluster: FakeApi, tmp_path: Path) -> None:
    code, output, errors = meshctl(
        cluster, tmp_path, "explain", URL, "--from", "cart-1", "-H", "a: b", "-H", "c:d", "-o", "json"
    )
    assert (code, errors) == (0, "")
    document = json.loads(output)
    assert document["source"] == "10.9.0.1"
    assert "the workload default/deployment/cart" in document["steps"][0]["says"]
    assert document["sent"]["fields"] == [["Host", "web.default.svc.mesh"], ["a", "b"], ["c", "d"]]
    (backend,) = document["backends"]
    assert backend["chosen"] == "10.1.0.2:8080"
    assert [one["state"] for one in backend["endpoints"]] == ["unhealthy: refused", "in use"]
    assert document["perhaps"] == [429]
    code, output, _ = meshctl(cluster, tmp_path, "explain", URL, "--node", "node-2")
    assert code == 0
    assert "→  10.1.0.2:8080  100.0%  in use" in output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("http://web.default.svc.cluster.local/",), 1, "is not a name of the mesh"),
        (("http://cart.default.svc.mesh/",), 1, "default/cart is not in the mesh"),
        (("http://web.default.svc.mesh:81/",), 1, "default/web has no port 81 in the mesh; it has 80"),
        (("https://web.default.svc.mesh:80/",), 1, "is http"),
        (("http://10.96.0.10/",), 1, "10.96.0.10 is no mesh address"),
        (("http://web.default.svc.mesh:x/",), 1, "is no URL"),
        ((URL, "-H", "nonsense"), 1, "'nonsense' is no header field"),
        ((URL, "--from", "shop/none"), 1, "pod shop/none does not exist"),
        ((URL, "--node", "node-9"), 2, "no agents: no pod in any namespace on node-9 matches"),
        ((URL, "--zone", "a"), 2, "need --files"),
    ],
)
def test_what_is_wrong_is_named(
    cluster: FakeApi, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    node = () if "--node" in arguments or "--from" in arguments else ("--node", "node-2")
    found, output, errors = meshctl(cluster, tmp_path, "explain", *arguments, *node)
    assert (found, output) == (code, "")
    assert said in errors


def test_endpoints_and_routes_of_an_agent(cluster: FakeApi, tmp_path: Path) -> None:
    code, output, errors = meshctl(cluster, tmp_path, "endpoints", "web", "--node", "node-1")
    assert (code, errors) == (0, "")
    assert [line.split()[2:] for line in output.splitlines()[1:-1]] == [
        ["10.1.0.1:8080", "-", "unhealthy:", "refused"],
        ["10.1.0.2:8080", "-", "in", "use"],
    ]
    assert output.splitlines()[-1] == "health and ejections of node-1"
    code, output, _ = meshctl(cluster, tmp_path, "routes", "default/web", "-o", "yaml", "--node", "node-1")
    assert code == 0
    assert yaml.safe_load(output)["settings"][1] == {
        "annotation": "svc.mesh/rate-limit",
        "value": "9/s per=workload",
        "from": "Service default/web",
    }
    assert yaml.safe_load(output)["nodes"] == [], "no port has a circuit breaker: nobody is asked"
    code, _, errors = meshctl(cluster, tmp_path, "routes", "cart")
    assert code == 1
    assert "default/cart is not in the mesh" in errors


BREAKING = make_service(
    "web", annotations={"svc.mesh/circuit-breaker": "NetworkErrorRatio() > 0.5"}, endpoints=ENDPOINTS
)


@pytest.fixture
def nodes(api: FakeApi) -> FakeApi:
    """Three nodes that know different things of the same plan, and one whose agent has no such page."""
    plan = compile_plan(snapshot_of(BREAKING), EMPTY_PLAN, SETTINGS)
    ejected = {KEY: {("10.1.0.1", 8080): "5 failures in a row"}}
    for number, out, state in ((1, {}, 0), (2, ejected, 2), (3, {}, 0)):
        put_agent(api, f"agent-{number}", f"node-{number}")
        document = service_document(InForce(plan, {}, out), "default/web")
        api.pages[f"agent-{number}:15000", "plan"] = answer(200, json.loads(json.dumps(document)))
        metrics = (
            "# TYPE svcmesh_circuit_breaker_state gauge\n"
            f'svcmesh_circuit_breaker_state{{service="web",namespace="default",port="80"}} {state}\n'
            'svcmesh_circuit_breaker_state{service="other",namespace="default",port="80"} 2\n'
        )
        api.pages[f"agent-{number}:15000", "metrics"] = raw(200, metrics.encode(), "text/plain")
    put_agent(api, "agent-4", "node-4")
    for page in ("plan", "metrics", "explain"):
        api.pages["agent-4:15000", page] = raw(404, f"there is no /{page} here\n".encode(), "text/plain")
    return api


def test_what_nodes_know_is_said_with_their_names(nodes: FakeApi, tmp_path: Path) -> None:
    code, output, errors = meshctl(nodes, tmp_path, "routes", "web")
    assert code == 0
    assert [line.split() for line in output.split("\n\n")[1].splitlines()] == [
        ["PORT", "BREAKER", "NODES"],
        ["80", "closed", "node-1,", "node-3"],
        ["80", "open", "node-2"],
    ]
    assert errors == "node-4 (agent-4): it has no page /metrics: it is of another version\n"
    code, output, errors = meshctl(nodes, tmp_path, "endpoints", "web")
    assert code == 0
    first, second = output.splitlines()[1:3]
    assert first.endswith(
        "10.1.0.1:8080  -    ejected: 5 failures in a row (node-2), in use (node-1, node-3)"
    )
    assert second.endswith("10.1.0.2:8080  -    in use")
    assert output.splitlines()[-1] == "health and ejections of node-1, node-2, node-3"
    assert errors == "node-4 (agent-4): it has no page /plan: it is of another version\n"


def test_what_nodes_know_is_there_for_programs(nodes: FakeApi, tmp_path: Path) -> None:
    _, output, _ = meshctl(nodes, tmp_path, "routes", "web", "-o", "json")
    assert [(one["node"], one["breakers"]) for one in json.loads(output)["nodes"]] == [
        ("node-1", [{"port": 80, "state": "closed"}]),
        ("node-2", [{"port": 80, "state": "open"}]),
        ("node-3", [{"port": 80, "state": "closed"}]),
        ("node-4", []),
    ]
    _, output, _ = meshctl(nodes, tmp_path, "endpoints", "web", "-o", "json", "--node", "node-2")
    document = json.loads(output)
    out = {"backend": "default/web:80", "address": "10.1.0.1:8080", "ejected": "5 failures in a row"}
    assert document["nodes"] == [{"node": "node-2", "agent": "agent-2", "reason": "", "endpoints": [out]}]


def test_an_agent_of_another_version_is_named(nodes: FakeApi, tmp_path: Path) -> None:
    for command in (("endpoints", "web"), ("explain", URL), ("routes", "web")):
        code, output, errors = meshctl(nodes, tmp_path, *command, "--node", "node-4")
        assert (code, output) == (2, ""), command
        assert "agent-4 on node-4: it has no page" in errors
        assert "it is of another version" in errors
    nodes.pages["agent-4:15000", "explain"] = answer(200, {"url": URL})
    nodes.pages["agent-4:15000", "plan"] = raw(200, b"<html>", "text/html")
    for command in (("endpoints", "web"), ("explain", URL), ("routes", "web")):
        code, output, errors = meshctl(nodes, tmp_path, *command, "--node", "node-4")
        assert (code, output) == (2, ""), command
        assert "of this version" in errors


GRPC_FILE = """
kind: Service
apiVersion: v1
metadata:
  name: cart
  namespace: shop
  annotations:
    svc.mesh/enabled: "true"
    svc.mesh/rate-limit: 9/s
    svc.mesh/retry-attempts: "2"
    svc.mesh/retry-on: 5xx,unavailable
    svc.mesh/circuit-breaker: NetworkErrorRatio() > 0.5
    svc.mesh/circuit-breaker-fallback: standby
spec:
  clusterIP: 10.96.0.10
  ports: [{name: grpc, port: 80}]
---
kind: Service
apiVersion: v1
metadata: {name: standby, namespace: shop}
spec:
  clusterIP: 10.96.0.11
  ports: [{name: grpc, port: 80}]
"""


def explain_call(tmp_path: Path, *fields: str) -> tuple[int, str]:
    path = tmp_path / "cart.yaml"
    path.write_text(GRPC_FILE, encoding="utf-8")
    headers = [word for field in fields for word in ("-H", field)]
    url = "http://cart.shop.svc.mesh/shop.Cart/Add"
    result = CliRunner().invoke(main, ["explain", "--files", str(path), *CALL, *headers, url])
    return result.exit_code, result.output


def test_a_call_of_grpc_is_explained_in_its_own_statuses(tmp_path: Path) -> None:
    code, output = explain_call(tmp_path, "grpc-timeout: 5S")
    assert code == 0
    assert "grpc-timeout: the caller waits 5S for the complete response" in output
    assert "sent again up to 2 times on connect-failure, unavailable" in output
    assert "backend   shop/standby:80, only as described above" in output
    assert "RESOURCE_EXHAUSTED" not in output, "no backend has an endpoint: that is certain"
    assert "answer    UNAVAILABLE of the mesh (no_endpoint)" in output


def test_a_call_that_http2_does_not_carry_has_no_explanation(tmp_path: Path) -> None:
    code, output = explain_call(tmp_path, "Connection: close")
    assert code == 1
    assert "breaks such a call off, with RST_STREAM and no answer: connection is not a field" in output
