"""What the checks of a cluster say of facts: each good, bad and unknown, without a cluster."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from discovery.kube.commands.agents import Page
from discovery.kube.commands.daemonsets import DaemonSetState
from nodeagent.admin.resolve import Resolution
from nodeagent.capture.node_facts import Listening, NodeFacts
from nodeagent.meshctl.clustercheck import admission, names, nodes, probe, ranges, rights
from nodeagent.meshctl.clustercheck.agents import AgentFact, check_agents, read_capture, read_worker_plans
from nodeagent.meshctl.clustercheck.names import DnsFact
from nodeagent.meshctl.clustercheck.nodes import NodeFact, read_node
from nodeagent.meshctl.clustercheck.ranges import ServiceAddresses
from nodeagent.meshctl.clustercheck.result import Check, Result, Unknown
from nodeagent.meshctl.clustercheck.run import AFTER, BEFORE, not_reached
from nodeagent.meshctl.clustercheck.show import PLAIN_SIGNS, SIGNS, result_lines, signs_for, summary_line
from nodeagent.meshctl.clusterdns.verdict import Sight
from nodeagent.meshctl.status import AgentStatus

ROOT = Path(__file__).parents[2]
RANGE = "240.0.0.0/4"
NOBODY = Unknown("not for you")


def outcomes(results: Sequence[Result]) -> dict[str, str]:
    return {result.check.id: result.outcome for result in results}


def messages(results: Sequence[Result]) -> dict[str, str]:
    return {result.check.id: result.message for result in results}


# -- the API server and the nodes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "outcome"),
    [
        ("v1.34.1", "ok"),
        ("v1.25.3-gke.100", "ok"),
        ("v1.33.5+k3s1", "ok"),
        ("v2.0.0", "ok"),
        ("v1.24.17", "failed"),
        ("v0.30.0", "failed"),
        ("", "warning"),
        ("version 1.30", "warning"),
    ],
)
def test_versions_of_the_api_server(version: str, outcome: str) -> None:
    assert nodes.check_api_version(version).outcome == outcome
    assert nodes.check_api_version(NOBODY).outcome == "not-checked"


GOOD_NODE = NodeFact("n1", "v1.34.1", addresses=("10.0.0.1",), pod_ranges=("10.244.0.0/24",))


@pytest.mark.parametrize(
    ("change", "check", "outcome", "words"),
    [
        ({}, "node-versions", "ok", "v1.34.1"),
        ({"kubelet": "v1.24.0"}, "node-versions", "failed", "n2 has v1.24.0"),
        ({"kubelet": ""}, "node-versions", "failed", "n2 has none"),
        ({"architecture": "arm64"}, "node-platforms", "ok", ""),
        ({"architecture": "s390x"}, "node-platforms", "failed", "n2 has linux/s390x"),
        ({"system": "windows"}, "node-platforms", "warning", "n2 runs windows"),
        ({"ready": False}, "nodes-ready", "warning", "n2"),
    ],
)
def test_nodes(change: dict[str, Any], check: str, outcome: str, words: str) -> None:
    found = nodes.check_nodes([GOOD_NODE, msgspec.structs.replace(GOOD_NODE, name="n2", **change)])
    bad = {name: one for name, one in outcomes(found).items() if one != "ok"}
    assert bad == ({} if outcome == "ok" else {check: outcome})
    assert words in messages(found)[check]


def test_no_node_and_none_that_would_do() -> None:
    assert set(outcomes(nodes.check_nodes([])).values()) == {"not-checked"}
    assert set(outcomes(nodes.check_nodes(NOBODY)).values()) == {"not-checked"}
    windows = msgspec.structs.replace(GOOD_NODE, system="windows")
    assert outcomes(nodes.check_nodes([windows]))["node-platforms"] == "failed"


def test_reading_a_node() -> None:
    document = {
        "metadata": {"name": "n1"},
        "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24", "fd00::/64"]},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": "10.0.0.1"},
                {"type": "Hostname", "address": "n1"},
            ],
            "conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": {"kubeletVersion": "v1.34.1", "operatingSystem": "linux", "architecture": "amd64"},
        },
    }
    ranges = ("10.244.0.0/24", "fd00::/64")
    assert read_node(document) == msgspec.structs.replace(GOOD_NODE, pod_ranges=ranges)
    assert read_node({}) == NodeFact("", system="", architecture="", ready=False)


# -- rights ----------------------------------------------------------------------------------------------


def may(*lacking: str, present: bool = False) -> dict[str, str]:
    wanted = rights.wanted("svcmesh", present=present)
    return outcomes(
        rights.check_rights({one: str(one) not in lacking for one in wanted}, "svcmesh", present=present)
    )


def test_rights() -> None:
    assert set(may().values()) == {"ok"}
    assert set(outcomes(rights.check_rights(NOBODY, "svcmesh", present=False)).values()) == {"not-checked"}
    create = "create daemonsets.apps in svcmesh"
    assert may(create) == may() | {"rights-create": "failed"}
    assert may("create namespaces") == may() | {"rights-create": "failed"}
    assert set(may("create namespaces", present=True).values()) == {"ok"}, "it is there already"
    assert may("create secrets in svcmesh")["rights-helm"] == "warning"
    assert may("patch configmaps in kube-system")["rights-dns"] == "warning"


def test_whoever_grants_must_have_or_escalate() -> None:
    escalate = "escalate clusterroles.rbac.authorization.k8s.io"
    bind = "bind clusterroles.rbac.authorization.k8s.io"
    assert may("list pods")["rights-grant"] == "ok"
    assert may(escalate, bind)["rights-grant"] == "ok", "the agent's rights are theirs"
    assert may("list pods", escalate)["rights-grant"] == "failed"
    assert may("list pods", bind)["rights-grant"] == "failed"
    forwarding, there = (
        "create pods/portforward in svcmesh",
        "escalate roles.rbac.authorization.k8s.io in svcmesh",
    )
    assert may(forwarding)["rights-grant"] == may(there)["rights-grant"] == "ok"
    assert may(forwarding, there)["rights-grant"] == "failed"


def rights_in(manifest: str, namespace: str) -> set[rights.Right]:
    """Return what a role of the manifests holds."""
    role = yaml.safe_load((ROOT / "manifests" / "base" / manifest).read_text())
    return {
        rights.Right(verb, group, name, subresource, namespace)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for name, _, subresource in (resource.partition("/") for resource in rule["resources"])
        for verb in rule["verbs"]
    }


def test_the_rights_that_are_asked_for_are_those_of_the_manifests() -> None:
    assert rights_in("clusterrole.yaml", "") == set(rights.GRANTED)
    assert rights_in("viewer.yaml", "svcmesh") == set(rights.viewing("svcmesh"))


# -- the namespace ---------------------------------------------------------------------------------------


def admitted(level: str, trial: admission.Trial | Unknown, *, present: bool = True) -> Result:
    return admission.check_admission(admission.Space("mesh", present, level), trial)


def test_pod_security() -> None:
    yes, unsure = admission.Trial("admitted"), admission.Trial("unknown", "x")
    no = admission.Trial("refused", 'violates PodSecurity "baseline:latest"')
    assert admitted("", unsure, present=False).outcome == "ok", "whoever makes it labels it"
    assert admitted("", yes).outcome == "ok"
    assert admitted("baseline", yes).outcome == "ok", "what the API server says counts more than a label"
    refused = admitted("privileged", no)
    assert refused.outcome == "failed"
    assert "kubectl label --overwrite namespace mesh pod-security" in refused.message
    assert admitted("baseline", unsure).outcome == "failed"
    assert admitted("restricted", NOBODY).outcome == "failed"
    assert admitted("privileged", NOBODY).outcome == "ok"
    assert admitted("", NOBODY).outcome == "not-checked"
    assert admission.check_admission(NOBODY, yes).outcome == "not-checked"


def test_the_pod_on_trial_asks_for_what_the_agent_s_does() -> None:
    """Whatever the manifests change about privileges has to be asked for here, too."""
    daemonset = yaml.safe_load((ROOT / "manifests" / "base" / "daemonset.yaml").read_text())
    theirs = daemonset["spec"]["template"]["spec"]
    ours = admission.agent_pod("mesh", "x", "image", ["run"], {})["spec"]
    assert ours["hostNetwork"] == theirs["hostNetwork"]
    assert ours["tolerations"] == theirs["tolerations"]
    assert ours["containers"][0]["securityContext"] == theirs["containers"][0]["securityContext"]
    shared = {name: theirs["securityContext"][name] for name in ours["securityContext"]}
    assert ours["securityContext"] == shared


def test_an_earlier_installation() -> None:
    assert admission.check_not_installed([]).outcome == "ok"
    found = admission.check_not_installed(["DaemonSet mesh/svcmesh-agent"])
    assert found.outcome == "failed"
    assert found.message.startswith("DaemonSet mesh/svcmesh-agent: there already")
    assert admission.check_not_installed(NOBODY).outcome == "not-checked"


# -- addresses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mesh", "found", "outcome"),
    [
        (RANGE, ServiceAddresses(("10.96.0.0/12",)), "ok"),
        (RANGE, ServiceAddresses(("fd00::/108", "10.96.0.0/12")), "ok"),
        (RANGE, ServiceAddresses(addresses=("10.96.0.1", "fd00::1", "nonsense")), "ok"),
        (RANGE, ServiceAddresses(("fd00::/108",)), "failed"),
        (RANGE, ServiceAddresses(("241.0.0.0/16",)), "failed"),
        (RANGE, ServiceAddresses(addresses=("10.96.0.1", "250.1.1.1")), "failed"),
        (RANGE, ServiceAddresses(("192.0.0.0/24",)), "warning"),  # maps to 240.0.0.0/24, the mesh's own
        (RANGE, ServiceAddresses(("10.254.0.0/16",)), "ok"),
        (RANGE, ServiceAddresses(("30.0.0.0/16",)), "warning"),  # maps into 254.0.0.0/8, for headless ones
        ("100.64.0.0/16", ServiceAddresses(("10.96.0.0/12",)), "warning"),  # two may claim the same address
        (RANGE, ServiceAddresses(), "not-checked"),
        (RANGE, NOBODY, "not-checked"),
    ],
)
def test_ranges_of_services(mesh: str, found: ServiceAddresses | Unknown, outcome: str) -> None:
    assert ranges.check_services(mesh, found).outcome == outcome


def test_addresses_of_pods_and_nodes() -> None:
    assert ranges.check_pods(RANGE, [GOOD_NODE], NOBODY).outcome == "ok", "the nodes say it"
    inside = msgspec.structs.replace(GOOD_NODE, pod_ranges=("240.1.0.0/16",), addresses=("241.0.0.1",))
    assert ranges.check_pods(RANGE, [GOOD_NODE, inside], []).outcome == "failed"
    without = msgspec.structs.replace(GOOD_NODE, pod_ranges=())
    assert ranges.check_pods(RANGE, [without], ["10.1.1.1", "fd00::1"]).outcome == "ok"
    assert ranges.check_pods(RANGE, [without], ["250.0.0.1"]).outcome == "failed"
    assert ranges.check_pods(RANGE, [without], NOBODY).outcome == "not-checked"
    assert ranges.check_pods(RANGE, NOBODY, []).outcome == "not-checked"
    assert ranges.check_node_addresses(RANGE, [GOOD_NODE]).outcome == "ok"
    assert "241.0.0.1" in ranges.check_node_addresses(RANGE, [inside]).message
    assert ranges.check_node_addresses(RANGE, NOBODY).outcome == "not-checked"


# -- the cluster's DNS -----------------------------------------------------------------------------------

ZONES = ("svc.mesh",)
CORE = ("ConfigMap kube-system/coredns",)
SILENT = Sight("coredns-1", mesh="svc.mesh. SOA: NXDOMAIN")
ANSWERING = Sight("coredns-1")
ILL = Sight("coredns-1", cluster="no answer")


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (DnsFact(CORE, sights=(SILENT,)), ("ok", "ok", "ok")),
        (DnsFact(CORE, sights=(ANSWERING,)), ("ok", "ok", "failed")),
        (DnsFact(CORE, sights=(ILL,)), ("ok", "failed", "not-checked")),
        (DnsFact(CORE, sights=()), ("ok", "not-checked", "not-checked")),
        (DnsFact(CORE, sights=NOBODY), ("ok", "not-checked", "not-checked")),
        (DnsFact(CORE, installed=True, sights=(ANSWERING,)), ("ok", "ok", "warning")),
        (DnsFact(obstacle="no CoreDNS"), ("warning", "not-checked", "not-checked")),
        (NOBODY, ("not-checked", "not-checked", "not-checked")),
    ],
)
def test_dns_before(found: DnsFact | Unknown, wanted: tuple[str, ...]) -> None:
    assert tuple(outcomes(names.check_dns_before(found, ZONES)).values()) == wanted


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (DnsFact(CORE, installed=True, sights=(ANSWERING,)), ("ok", "ok")),
        (DnsFact(CORE, installed=True, sights=(ANSWERING, SILENT)), ("ok", "failed")),
        (DnsFact(CORE, installed=True, sights=(ILL,)), ("failed", "failed")),
        (DnsFact(CORE, installed=True, sights=NOBODY), ("not-checked", "ok")),
        (DnsFact(CORE, sights=(SILENT,)), ("ok", "warning")),
        (DnsFact(CORE, sights=(ANSWERING,)), ("ok", "ok")),
        (DnsFact(obstacle="no CoreDNS"), ("not-checked", "not-checked")),
        (NOBODY, ("not-checked", "not-checked")),
    ],
)
def test_dns_after(found: DnsFact | Unknown, wanted: tuple[str, ...]) -> None:
    assert tuple(outcomes(names.check_dns_after(found, ZONES)).values()) == wanted


# -- the nodes themselves --------------------------------------------------------------------------------

FACTS = NodeFacts("0.1.0", "6.1.0", True, "", "", (), (), (Listening("tcp", "127.0.0.1", 15001),))


@pytest.mark.parametrize(
    ("change", "bad"),
    [
        ({}, {}),
        ({"net_admin": False, "ruleset": "Operation not permitted"}, {"node-privilege": "failed"}),
        ({"ruleset": "Could not process rule"}, {"node-nftables": "failed"}),
        ({"table": "unknown"}, {"node-table": "warning"}),
        ({"table": "owner-0badcafe-240.0.0.0/4"}, {"node-table": "warning"}),
        ({"routes": ("242.0.0.0/8",)}, {"node-routes": "failed"}),
        ({"addresses": ("242.0.0.1",)}, {"node-routes": "failed"}),
        ({"listening": (Listening("tcp", "127.0.0.1", 15000),)}, {"node-ports": "failed"}),
        ({"listening": (Listening("tcp", "0.0.0.0", 15001),)}, {}),
        (
            {"listening": tuple(Listening("tcp", "::", port) for port in range(15001, 15009))},
            {"node-ports": "failed"},
        ),
        ({"listening": (Listening("udp", "0.0.0.0", 15053),)}, {"node-ports": "failed"}),
        ({"listening": (Listening("tcp", "10.0.0.1", 15053),)}, {}),
        ({"listening": (Listening("udp", "0.0.0.0", 53), Listening("tcp", "::", 53))}, {}),
    ],
)
def test_nodes_that_were_looked_at(change: dict[str, Any], bad: dict[str, str]) -> None:
    found = probe.check_probes({"n1": FACTS, "n2": msgspec.structs.replace(FACTS, **change)}, 15000)
    assert {name: one for name, one in outcomes(found).items() if one != "ok"} == bad
    assert all(messages(found)[name].startswith("n2: ") for name in bad)


def test_nodes_that_could_not_be_looked_at() -> None:
    found = probe.check_probes({"n1": FACTS, "n2": Unknown("ErrImagePull: no")}, 15000)
    assert {name: one for name, one in outcomes(found).items() if one != "ok"} == {"node-pod": "failed"}
    assert "n2: ErrImagePull: no" in messages(found)["node-pod"]
    lost = outcomes(probe.check_probes({"n1": Unknown("x")}, 15000))
    assert lost.pop("node-pod") == "failed"
    assert set(lost.values()) == {"not-checked"}
    unknown: tuple[probe.Probes | Unknown, ...] = (probe.UNASKED, {})
    for nothing in unknown:
        assert set(outcomes(probe.check_probes(nothing, 15000)).values()) == {"not-checked"}


# -- the agents ------------------------------------------------------------------------------------------

STATUS = AgentStatus("n1", "agent-1", "ready", "", "0.1.0", 7, 300.0, 0.0, 12, 0, 2)
NAME = "cart.shop.svc.mesh"
ANSWER = Resolution(NAME, "A", "240.0.0.53:53", "NOERROR", ("250.96.0.10",))
AGENT = AgentFact(STATUS, (7, 7), "nftables in place", ANSWER)
SET = DaemonSetState("mesh", "svcmesh-agent", 2, 2, 2)


def agent(resolved: Resolution | Unknown = ANSWER, **change: Any) -> AgentFact:
    fact = {name: change.pop(name) for name in ("worker_plans", "capture") if name in change}
    status = msgspec.structs.replace(STATUS, node="n2", pod="agent-2", **change)
    return msgspec.structs.replace(AGENT, status=status, resolved=resolved, **fact)


@pytest.mark.parametrize(
    ("second", "bad"),
    [
        (agent(), {}),
        (agent(state="leaving", version="0.0.9"), {}),
        (agent(state="not ready", reason="waits for source"), {"agents-ready": "failed"}),
        (agent(state="not running", reason="ErrImagePull: no"), {"agents-ready": "failed"}),
        (agent(state="stale", stale=42.0, services=11), {"agents-in-touch": "failed"}),
        (agent(version="0.2.0"), {"agents-version": "warning"}),
        (agent(worker_plans=(7, 6)), {"agents-plan": "warning"}),
        (agent(plan_version=0, worker_plans=()), {"agents-plan": "warning"}),
        (agent(services=11), {"agents-plan": "warning"}),
        (agent(plan_version=3, worker_plans=(3, 3)), {}),
        (agent(capture="failed: Operation not permitted"), {"agents-capture": "failed"}),
        (agent(capture="", resolved=Unknown("older")), {}),
        (agent(msgspec.structs.replace(ANSWER, rcode="", error="no answer")), {"agents-resolve": "failed"}),
        (agent(msgspec.structs.replace(ANSWER, rcode="NXDOMAIN")), {"agents-resolve": "failed"}),
    ],
)
def test_agents(second: AgentFact, bad: dict[str, str]) -> None:
    found = check_agents([AGENT, second], [SET], "0.1.5", NAME)
    assert {name: one for name, one in outcomes(found).items() if one != "ok"} == bad
    assert all("n2" in messages(found)[name] for name in bad)


def test_names_that_no_agent_knows_and_versions_that_do_not_fit() -> None:
    unknown = msgspec.structs.replace(AGENT, resolved=msgspec.structs.replace(ANSWER, rcode="NXDOMAIN"))
    assert outcomes(check_agents([unknown], [SET], "0.1.0", NAME))["agents-resolve"] == "warning"
    assert outcomes(check_agents([AGENT], [SET], "0.2.0", NAME))["agents-version"] == "warning"
    assert outcomes(check_agents([AGENT], [SET], "1.1.0", NAME))["agents-version"] == "warning"


def test_no_agents_and_pods_that_are_missing() -> None:
    none = outcomes(check_agents([], [], "0.1.0", NAME))
    assert (none.pop("agents-everywhere"), none.pop("agents-ready")) == ("failed", "failed")
    assert set(none.values()) == {"not-checked"}
    assert set(outcomes(check_agents(NOBODY, NOBODY, "0.1.0", NAME)).values()) == {"not-checked"}
    missing = msgspec.structs.replace(SET, present=1, refusal="violates PodSecurity")
    found = check_agents([AGENT], [missing], "0.1.0", NAME)
    assert outcomes(found)["agents-everywhere"] == "failed"
    assert (
        "1 of 2 pods of mesh/svcmesh-agent do not exist: violates PodSecurity"
        in messages(found)["agents-everywhere"]
    )
    two = check_agents([AGENT], [SET, msgspec.structs.replace(SET, namespace="other")], "0.1.0", NAME)
    assert "mesh/svcmesh-agent; other/svcmesh-agent" in messages(two)["agents-everywhere"]


def test_agents_that_cannot_be_asked() -> None:
    silent = AgentFact(AgentStatus("n1", "agent-1", "unreachable", "forbidden"), resolved=NOBODY)
    found = outcomes(check_agents([silent], [SET], "0.1.0", NAME))
    assert (found.pop("agents-everywhere"), found.pop("agents-ready")) == ("ok", "failed")
    assert set(found.values()) == {"not-checked"}


def test_reading_the_pages() -> None:
    assert read_capture(Page(200, "[+] dns\ncapture: nftables in place\nready\n")) == "nftables in place"
    assert read_capture(Page(200, "ready\n")) == ""
    metrics = 'svcmesh_worker_plan_version{worker="0"} 7.0\nsvcmesh_worker_plan_version{worker="1"} 6.0\n'
    assert read_worker_plans(Page(200, metrics)) == (7, 6)
    assert read_worker_plans(Page(200, metrics[:-5], whole=False)) == (7,)
    assert read_worker_plans(Page(200, "<html>")) == ()


# -- all of them -----------------------------------------------------------------------------------------


def every_check() -> list[Check]:
    return [check for group in (*BEFORE, *AFTER) for check in group.checks]


def test_ids_are_stable_words_and_pages_exist() -> None:
    for check in every_check():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", check.id)
        page, _, section = check.see.partition("#")
        headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
        assert not section or section in anchors, check.see


def test_the_page_lists_every_check() -> None:
    text = (ROOT / "docs" / "meshctl.md").read_text()
    rows = set(re.findall(r"^\| `([a-z-]+)` \| (.*?) \|", text, re.MULTILINE))
    assert {(check.id, check.title) for check in every_check()} <= rows


def test_checks_that_were_not_reached() -> None:
    done = [nodes.API_REACHABLE.ok()]
    left = not_reached(BEFORE, done, "too late")
    total = sum(len(group.checks) for group in BEFORE)
    assert len(left) == total - 1
    assert {one.message for one in left} == {"too late"}


def test_how_results_are_shown() -> None:
    assert signs_for("utf-8") is SIGNS
    assert signs_for("ascii") is PLAIN_SIGNS
    assert signs_for(None) is PLAIN_SIGNS
    check = Check("x-y", "all is well", "docs/page.md")
    shown = [
        "\n".join(result_lines(result, PLAIN_SIGNS, before))
        for result, before in (
            (check.ok("3 of 3"), ""),
            (check.failed("it is not"), ""),
            (check.not_checked("who knows"), ""),
            (check.not_checked("who knows"), "who knows"),
        )
    ]
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", text) for text in shown]
    assert plain == [
        "ok all is well (3 of 3)",
        "xx all is well\n     it is not\n     see docs/page.md",
        "-- all is well\n     not checked: who knows",
        "-- all is well",
    ]
    line = summary_line([check.ok(), check.ok(), check.failed("x"), check.warning("y")])
    assert re.sub(r"\x1b\[[0-9;]*m", "", line) == "4 checks: 2 good, 1 warning, 1 failed"
