"""`meshctl dns` as a person runs it, against a small API server: what is changed, said and undone."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from discovery.kube.commands.objects import open_objects
from nodeagent.meshctl.clusterdns import cluster as effects
from nodeagent.meshctl.clusterdns.change import plan_install, stub_zones
from nodeagent.meshctl.clusterdns.question import find_respondents
from nodeagent.meshctl.clusterdns.stub import Stub
from nodeagent.meshctl.main import main
from tests.dns_install.fake_cluster import FakeCluster
from tests.dns_install.samples import read

Meshctl = Callable[..., Result]
FOLDER = "/etc/coredns"


def loaded(texts: str) -> list[str]:
    return ["svc.mesh"] if "svc.mesh:53 {" in texts else []


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(effects, "PAUSE", 0.01)
    with FakeCluster(tmp_path) as server:
        server.served_zones = loaded
        server.workload("deployments", "coredns", {FOLDER: "coredns"})
        yield server


@pytest.fixture
def meshctl(fake: FakeCluster) -> Meshctl:
    def run(*arguments: str, answer: str | None = None) -> Result:
        kubeconfig = () if "--kubeconfig" in arguments else ("--kubeconfig", fake.kubeconfig())
        return CliRunner().invoke(main, ["dns", *arguments, *kubeconfig], input=answer)

    return run


def content(fake: FakeCluster) -> object:
    """All objects without what the API server counts."""
    found = copy.deepcopy(fake.configmaps)
    for document in found.values():
        del document["metadata"]["resourceVersion"]
    return found


def layout(fake: FakeCluster, name: str) -> None:
    labels = {"eks.amazonaws.com/component": "coredns"} if name == "eks" else {}
    fake.put("coredns", {"Corefile": read("kubeadm" if name == "nodelocal" else name)}, labels=labels)
    if name in ("k3s", "aks"):
        fake.workload("deployments", "coredns", {FOLDER: "coredns", f"{FOLDER}/custom": "coredns-custom"})
    if name == "aks":
        fake.put("coredns-custom", {})
    if name == "nodelocal":
        fake.put("node-local-dns", {"Corefile": read("nodelocal")})
        fake.workload("daemonsets", "node-local-dns", {FOLDER: "node-local-dns"})


LAYOUTS = ["kubeadm", "eks", "k3s", "aks", "nodelocal", "minikube", "no-line-feed-at-the-end"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_installing_twice_and_removing_leaves_every_byte_as_it_was(
    fake: FakeCluster, meshctl: Meshctl, name: str
) -> None:
    layout(fake, name)
    before = content(fake)

    first = meshctl("install", "--yes")
    assert (first.exit_code, "Done" in first.output) == (0, True), first.output
    assert "+svc.mesh:53 {" in first.output
    writes = list(fake.writes)
    assert meshctl("status").exit_code == 0
    again = meshctl("install", "--yes")
    assert (again.exit_code, again.output.splitlines()[-1]) == (
        0,
        "Nothing to do: the cluster's DNS has the stub.",
    )
    assert fake.writes == writes

    assert meshctl("remove", "--yes").exit_code == 0
    assert content(fake) == before
    last = meshctl("remove", "--yes")
    assert (last.exit_code, "Nothing to do" in last.output) == (0, True)


@pytest.mark.parametrize("name", LAYOUTS)
def test_where_the_stub_goes(fake: FakeCluster, meshctl: Meshctl, name: str) -> None:
    layout(fake, name)
    meshctl("install", "--yes")
    own_file = name in ("k3s", "aks")
    corefile = (fake.data("coredns") or {})["Corefile"]
    assert stub_zones(corefile) == (() if own_file else ("svc.mesh",))
    assert set(fake.data("coredns-custom") or {}) == ({"svcmesh.server"} if own_file else set())
    if name == "nodelocal":
        assert (
            "bind 169.254.20.10 10.96.0.10"
            in (fake.data("node-local-dns") or {})["Corefile"].split("# svcmesh")[1]
        )
    backup = fake.data("svcmesh-dns-backup") or {}
    assert backup.get("coredns.Corefile.before") == (
        None if own_file else read("kubeadm" if name == "nodelocal" else name)
    )


def test_an_eks_add_on_may_overwrite_and_this_is_said(fake: FakeCluster, meshctl: Meshctl) -> None:
    layout(fake, "eks")
    assert "EKS add-on" in meshctl("install", "--dry-run").output


@pytest.mark.parametrize("arguments", [("--dry-run",), ()])
def test_without_consent_nothing_is_written(
    fake: FakeCluster, meshctl: Meshctl, arguments: tuple[str, ...]
) -> None:
    layout(fake, "kubeadm")
    result = meshctl("install", *arguments, answer="n\n")
    assert "+    forward . 240.0.0.53" in result.output
    assert result.exit_code == (0 if arguments else 1)
    assert fake.writes == []


def test_a_difference_at_a_missing_line_feed_is_shown_as_diff_shows_it(
    fake: FakeCluster, meshctl: Meshctl
) -> None:
    layout(fake, "no-line-feed-at-the-end")
    assert "\\ No newline at end of file" in meshctl("install", "--dry-run").output


def test_cluster_names_that_get_lost_roll_back(fake: FakeCluster, meshctl: Meshctl) -> None:
    layout(fake, "kubeadm")
    before = content(fake)
    fake.after_write = lambda: setattr(fake, "resolves_cluster", "svc.mesh" not in fake.texts())
    result = meshctl("install", "--yes")
    assert result.exit_code == 1
    assert "got worse" in result.output
    assert "everything is as it was before" in result.output
    assert content(fake) == before


@pytest.mark.parametrize("name", ["kubeadm", "k3s", "nodelocal"])
def test_a_stub_that_is_never_in_force_rolls_back(fake: FakeCluster, meshctl: Meshctl, name: str) -> None:
    layout(fake, name)
    before = content(fake)
    fake.served_zones = lambda texts: []
    result = meshctl("install", "--yes", "--timeout", "1")
    assert (result.exit_code, "not in force in time" in result.output) == (1, True)
    assert content(fake) == before


def test_a_cluster_whose_dns_is_ill_already_is_not_touched(fake: FakeCluster, meshctl: Meshctl) -> None:
    layout(fake, "kubeadm")
    fake.resolves_cluster = False
    result = meshctl("install", "--yes")
    assert (result.exit_code, "before any change" in result.output, fake.writes) == (1, True, [])


def test_a_roll_back_leaves_what_somebody_else_wrote_meanwhile(fake: FakeCluster, meshctl: Meshctl) -> None:
    layout(fake, "kubeadm")

    def somebody_writes() -> None:
        fake.after_write = lambda: None
        fake.put("coredns", {"Corefile": read("eks")})

    fake.after_write = somebody_writes
    result = meshctl("install", "--yes", "--timeout", "1")
    assert (result.exit_code, "by somebody else" in result.output) == (1, True)
    assert fake.data("coredns") == {"Corefile": read("eks")}


def test_removing_keeps_what_others_changed_since(fake: FakeCluster, meshctl: Meshctl) -> None:
    layout(fake, "kubeadm")
    assert meshctl("install", "--yes").exit_code == 0
    others = "corp.example.com:53 {\n    forward . 10.0.0.2\n}\n"
    fake.put("coredns", {"Corefile": (fake.data("coredns") or {})["Corefile"] + others})
    assert meshctl("remove", "--yes").exit_code == 0
    assert fake.data("coredns") == {"Corefile": read("kubeadm") + others}


def test_another_address_replaces_the_stub_and_removing_still_gives_the_first_bytes(
    fake: FakeCluster, meshctl: Meshctl
) -> None:
    layout(fake, "kubeadm")
    before = content(fake)
    assert meshctl("install", "--yes").exit_code == 0
    assert meshctl("install", "--yes", "--address", "250.0.0.53").exit_code == 0
    assert "240.0.0.53" not in fake.texts()
    assert meshctl("remove", "--yes").exit_code == 0
    assert content(fake) == before


def test_removing_works_without_the_backup(fake: FakeCluster, meshctl: Meshctl) -> None:
    layout(fake, "kubeadm")
    assert meshctl("install", "--yes").exit_code == 0
    del fake.configmaps[("kube-system", "svcmesh-dns-backup")]
    assert meshctl("remove", "--yes").exit_code == 0
    assert fake.data("coredns") == {"Corefile": read("kubeadm")}


def test_an_interruption_rolls_back(fake: FakeCluster) -> None:
    layout(fake, "kubeadm")
    fake.served_zones = lambda texts: []

    async def interrupt() -> str:
        # It comes while the answer to the write is still on its way.
        written, loop = asyncio.Event(), asyncio.get_running_loop()
        fake.after_write = partial(loop.call_soon_threadsafe, written.set)
        async with open_objects(fake.kubeconfig()) as client:
            found = await effects.read_dns(client)
            plan = plan_install(found, Stub(("svc.mesh",), "240.0.0.53"))
            pods = await find_respondents(client, found, plan.places)
            watching = effects.change_and_watch(client, plan.changes, pods, ("svc.mesh",), 60)
            task = asyncio.create_task(watching)
            async with asyncio.timeout(20):
                await written.wait()
            task.cancel()
            with pytest.raises(effects.NotDone) as caught:
                await task
            return str(caught.value)

    assert asyncio.run(interrupt()) == "interrupted; everything is as it was before"
    assert fake.data("coredns") == {"Corefile": read("kubeadm")}


def test_a_change_in_between_is_a_conflict_and_stays(fake: FakeCluster) -> None:
    layout(fake, "kubeadm")

    async def collide() -> str:
        async with open_objects(fake.kubeconfig()) as client:
            plan = plan_install(await effects.read_dns(client), Stub(("svc.mesh",), "240.0.0.53"))
            fake.put("coredns", {"Corefile": read("eks")})
            with pytest.raises(effects.NotDone) as caught:
                await effects.change_and_watch(client, plan.changes, [], ("svc.mesh",), 60)
            return str(caught.value)

    assert "modified" in asyncio.run(collide())
    assert fake.data("coredns") == {"Corefile": read("eks")}


BY_HAND = "svc.mesh:53 {\n    forward . %s\n}\n"


def test_a_stub_made_by_hand_is_left_alone(fake: FakeCluster, meshctl: Meshctl) -> None:
    fake.put("coredns", {"Corefile": read("kubeadm") + BY_HAND % "240.0.0.53"})
    result = meshctl("install", "--yes")
    assert (result.exit_code, "made by hand" in result.output, fake.writes) == (0, True, [])
    assert "made by hand" in meshctl("status").output


@pytest.mark.parametrize(
    ("corefile", "reason"),
    [
        (read("kubeadm") + BY_HAND % "10.0.0.9", "that we did not make"),
        (read("kubeadm").replace("    reload\n", ""), "reload"),
        (read("kubeadm") + "}", "not understood"),
        ("", "no server block"),
        (read("k3s"), "no ConfigMap is mounted"),
    ],
)
def test_what_is_not_understood_is_not_edited(
    fake: FakeCluster, meshctl: Meshctl, corefile: str, reason: str
) -> None:
    fake.put("coredns", {"Corefile": corefile})
    result = meshctl("install", "--yes")
    assert result.exit_code == 1
    assert reason in result.output
    assert "By hand" in result.output
    assert 'stubDomains: \'{"svc.mesh":["240.0.0.53"]}\'' in result.output
    assert fake.writes == []


def test_a_corefile_that_k3s_writes_anew_is_not_edited(fake: FakeCluster, meshctl: Meshctl) -> None:
    fake.put("coredns", {"Corefile": read("eks")}, annotations={"objectset.rio.cattle.io/id": ""})
    result = meshctl("install", "--yes")
    assert (result.exit_code, "k3s writes this Corefile" in result.output, fake.writes) == (1, True, [])


def test_marks_that_somebody_edited_are_not_guessed_at(fake: FakeCluster, meshctl: Meshctl) -> None:
    layout(fake, "kubeadm")
    assert meshctl("install", "--yes").exit_code == 0
    fake.put("coredns", {"Corefile": (fake.data("coredns") or {})["Corefile"].replace("# svcmesh end", "")})
    writes = list(fake.writes)
    for command in ("install", "remove"):
        result = meshctl(command, "--yes")
        assert (result.exit_code, "not one pair" in result.output) == (1, True)
    assert fake.writes == writes


def test_a_cluster_without_coredns(fake: FakeCluster, meshctl: Meshctl) -> None:
    result = meshctl("install", "--yes")
    assert (result.exit_code, "there is no ConfigMap kube-system/coredns" in result.output) == (1, True)


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("get configmaps", "cannot get resource"),
        ("patch configmaps", "cannot patch resource"),
        ("create configmaps", "cannot create resource"),
        ("create pods/portforward", "`get` and `create` on pods/portforward"),
    ],
)
def test_a_missing_permission_is_named_and_nothing_stays(
    fake: FakeCluster, meshctl: Meshctl, verb: str, said: str
) -> None:
    layout(fake, "kubeadm")
    before = content(fake)
    fake.forbidden.add(verb)
    result = meshctl("install", "--yes")
    assert (result.exit_code, said in result.output) == (1, True), result.output
    assert content(fake) == before


def test_without_agents_nothing_is_changed(fake: FakeCluster, meshctl: Meshctl) -> None:
    layout(fake, "kubeadm")
    fake.agents.clear()
    result = meshctl("install", "--yes")
    assert (result.exit_code, "install the mesh first" in result.output, fake.writes) == (1, True, [])


def test_whoever_may_not_look_for_agents_may_install(fake: FakeCluster, meshctl: Meshctl) -> None:
    layout(fake, "kubeadm")
    fake.forbidden.add("list pods everywhere")
    result = meshctl("install", "--yes")
    assert result.exit_code == 0, result.output


def test_kubeconfigs_that_lead_nowhere(fake: FakeCluster, meshctl: Meshctl) -> None:
    for kubeconfig in ("/nowhere/kubeconfig", fake.kubeconfig("http://127.0.0.1:1")):
        result = meshctl("status", "--kubeconfig", kubeconfig)
        assert result.exit_code == 2
        assert "Error: " in result.output


@pytest.mark.parametrize(
    "option", [("--zone", "-"), ("--address", "::1"), ("--address", "1.2.3.4:0"), ("--timeout", "0")]
)
def test_wrong_options_are_usage_errors(meshctl: Meshctl, option: tuple[str, str]) -> None:
    assert meshctl("install", *option).exit_code == 2


def test_status_says_what_is_missing(fake: FakeCluster, meshctl: Meshctl) -> None:
    layout(fake, "kubeadm")
    result = meshctl("status")
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "ConfigMap kube-system/coredns Corefile: missing or different",
        "pod coredns-running: svc.mesh. SOA: NXDOMAIN",
    ]


def test_json_of_the_whole_way(fake: FakeCluster, meshctl: Meshctl) -> None:
    layout(fake, "kubeadm")
    before = content(fake)
    assert meshctl("install", "-o", "json").exit_code == 2, "a program cannot be asked"
    planned = json.loads(meshctl("install", "--dry-run", "-o", "json").stdout)
    (change,) = planned["changes"]
    assert (planned["changed"], planned["by_hand"], planned["notices"]) == (False, [], [])
    assert (change["namespace"], change["configmap"], change["key"]) == ("kube-system", "coredns", "Corefile")
    assert change["after"].startswith(change["before"])
    assert content(fake) == before
    found = meshctl("status", "-o", "json")
    assert found.exit_code == 1
    document = json.loads(found.stdout)
    place = {"namespace": "kube-system", "configmap": "coredns", "key": "Corefile"}
    assert document["places"] == [{**place, "state": "missing or different"}]
    assert document["good"] is False
    done = meshctl("install", "--yes", "-o", "json")
    assert (done.exit_code, json.loads(done.stdout)["changed"]) == (0, True)
    found = meshctl("status", "-o", "json")
    document = json.loads(found.stdout)
    assert (found.exit_code, document["good"]) == (0, True)
    assert document["places"] == [{**place, "state": "installed"}]
    assert {(pod["cluster"], pod["mesh"], pod["good"]) for pod in document["pods"]} == {("", "", True)}
    again = json.loads(meshctl("install", "--yes", "-o", "json").stdout)
    assert (again["changed"], again["changes"]) == (False, [])
    done = meshctl("remove", "--yes", "-o", "json")
    assert json.loads(done.stdout)["changed"] is True
    assert content(fake) == before
    assert json.loads(meshctl("remove", "--yes", "-o", "json").stdout) == {"changed": False, "changes": []}
