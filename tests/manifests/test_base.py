"""The kustomize base: what it says agrees with the code, with itself, and with what Kubernetes demands."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import click
import pytest

from discovery.kube.resource import watched_resources
from hack.manifests.confine import USER
from middleware.values import parse_duration
from nodeagent.cli import main as cli
from nodeagent.cli.flagvalues import parse_listen
from nodeagent.control.supervisor import EXIT_TIME
from tests.manifests.objects import BASE, ROOT, Object, by_identity, only, parse, resources
from tests.manifests.tools import run

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
LABELS = {
    "app.kubernetes.io/name": "svcmesh",
    "app.kubernetes.io/instance": "svcmesh",
    "app.kubernetes.io/component": "agent",
    "app.kubernetes.io/part-of": "svcmesh",
    "app.kubernetes.io/version": VERSION,
}


def agent_flags() -> dict[str, click.Option]:
    """Return the options of `nodeagent run` by their name in the environment."""
    options = [one for one in cli.run.params if isinstance(one, click.Option)]
    return {str(option.envvar): option for option in options}


def values(container: Object) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in container["env"]}


def test_every_object_has_the_recommended_labels_of_this_version(base: list[Object]) -> None:
    labels = [one["metadata"]["labels"] for one in base]
    labels.append(only(base, "DaemonSet")["spec"]["template"]["metadata"]["labels"])
    assert [{key: found.get(key) for key in LABELS} for found in labels] == [LABELS] * len(labels)


def test_the_selector_has_nothing_that_changes_with_a_version(
    base: list[Object],
) -> None:
    spec = only(base, "DaemonSet")["spec"]
    selector = spec["selector"]["matchLabels"]
    assert selector.items() <= spec["template"]["metadata"]["labels"].items()
    assert set(selector) == {"app.kubernetes.io/name", "app.kubernetes.io/instance"}


def test_everything_is_in_the_one_namespace(base: list[Object]) -> None:
    name = only(base, "Namespace")["metadata"]["name"]
    clusterwide = {"Namespace", "ClusterRole", "ClusterRoleBinding"}
    assert {one["metadata"].get("namespace") for one in base if one["kind"] not in clusterwide} == {name}
    (subject,) = only(base, "ClusterRoleBinding")["subjects"]
    assert subject["namespace"] == name


def test_the_pod_uses_the_account_that_the_role_is_bound_to(base: list[Object], agent_pod: Object) -> None:
    account, role = (
        only(base, "ServiceAccount")["metadata"]["name"],
        only(base, "ClusterRole")["metadata"]["name"],
    )
    binding = only(base, "ClusterRoleBinding")
    assert agent_pod["serviceAccountName"] == binding["subjects"][0]["name"] == account
    assert binding["roleRef"]["name"] == role


def test_every_setting_in_the_environment_is_one_of_the_agent(
    agent_container: Object,
) -> None:
    flags = agent_flags()
    for name, value in values(agent_container).items():
        assert name in flags, f"{name} is not read by nodeagent run"
        if value:
            context = click.Context(cli.run)
            flags[name].type_cast_value(context, (value,) if flags[name].multiple else value)


def test_the_role_allows_what_the_agent_watches_and_events_and_nothing_else(base: list[Object]) -> None:
    allowed = {
        (group, resource): set(rule["verbs"])
        for rule in only(base, "ClusterRole")["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    watched = {
        (one.api_version.rpartition("/")[0], one.path.rpartition("/")[2]): {"list", "watch"}
        for one in watched_resources("a-node", "")
    }
    assert allowed == {**watched, ("events.k8s.io", "events"): {"create"}}


@pytest.mark.parametrize("name", ["clusterrole.yaml", "viewer.yaml"])
def test_a_role_names_the_reason_of_every_verb(name: str) -> None:
    lines = (BASE / name).read_text().splitlines()
    verbs = [line for line in lines if re.match(r" {6}- ", line)]
    rules = parse((BASE / name).read_text())[0]["rules"]
    assert len(verbs) == sum(len(rule["verbs"]) for rule in rules)
    assert [line for line in verbs if len(line.partition(" # ")[2]) < 20] == []


def test_the_role_for_people_is_of_the_mesh_s_namespace_and_nobody_s(base: list[Object]) -> None:
    role = only(base, "Role")
    assert role["metadata"]["namespace"] == only(base, "Namespace")["metadata"]["name"]
    assert not any(label.startswith("rbac.authorization") for label in role["metadata"]["labels"])
    assert [one for one in base if one["kind"] == "RoleBinding"] == []


def test_the_container_is_confined(agent_pod: Object, agent_container: Object) -> None:
    assert agent_container["securityContext"] == {
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
    }
    context = agent_pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {context[key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {USER}
    assert not {"hostPID", "hostIPC"} & set(agent_pod)
    assert [volume for volume in agent_pod["volumes"] if "hostPath" in volume] == []


def test_a_successor_can_start_beside_its_predecessor(base: list[Object], agent_container: Object) -> None:
    strategy = only(base, "DaemonSet")["spec"]["updateStrategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert "ports" not in agent_container, (
        "with hostNetwork a port is a host port, which only one pod can have"
    )


def test_the_pod_is_given_longer_to_leave_than_it_takes(agent_pod: Object, agent_container: Object) -> None:
    drain = parse_duration(values(agent_container)["SVCMESH_DRAIN_TIMEOUT"], most=3600.0)
    assert agent_pod["terminationGracePeriodSeconds"] > drain + EXIT_TIME + 5


def test_probes_ask_what_the_agent_answers(agent_container: Object) -> None:
    _, port = parse_listen(values(agent_container)["SVCMESH_ADMIN_LISTEN"])
    for probe in ("startupProbe", "livenessProbe"):
        assert agent_container[probe]["httpGet"] == {"path": "/healthz", "port": port}
    ready_file = values(agent_container)["SVCMESH_READY_FILE"]
    assert agent_container["readinessProbe"]["exec"]["command"] == ["test", "-e", ready_file]


def test_what_the_agent_writes_lies_on_volumes_and_the_snapshot_not_in_memory(
    agent_pod: Object, agent_container: Object
) -> None:
    mounts = {mount["mountPath"]: mount["name"] for mount in agent_container["volumeMounts"]}
    media = {volume["name"]: volume["emptyDir"].get("medium", "disk") for volume in agent_pod["volumes"]}
    settings = values(agent_container)
    assert media[mounts[str(Path(settings["SVCMESH_READY_FILE"]).parent)]] == "Memory"
    assert media[mounts[settings["SVCMESH_STATE_DIR"]]] == "disk"


def test_every_mount_has_its_volume(agent_pod: Object, agent_container: Object) -> None:
    volumes = {volume["name"] for volume in agent_pod["volumes"]}
    assert {mount["name"] for mount in agent_container["volumeMounts"]} == volumes


def test_kustomize_renders_what_the_files_say(kustomize: Path, base: list[Object]) -> None:
    rendered = parse(run(kustomize, "build", BASE))
    assert by_identity(rendered) == by_identity(base)


@pytest.mark.parametrize("folder", [BASE], ids=lambda folder: folder.name)
def test_every_file_of_a_kustomization_is_listed(folder: Path) -> None:
    (kustomization,) = parse((folder / "kustomization.yaml").read_text())
    files = {path.name for path in folder.iterdir()} - {"kustomization.yaml"}
    assert files == set(kustomization["resources"])
    assert resources(folder)
