"""The Helm chart: the same objects as kustomize's, and values that do what they say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.manifests import values
from tests.manifests.objects import BASE, MANIFESTS, Object, by_identity, only, parse
from tests.manifests.test_base import VERSION, agent_flags
from tests.manifests.tools import invoke, run

CHART = MANIFESTS / "charts" / "svcmesh"
MONITORING = MANIFESTS / "monitoring"
ALL_VALUES = (
    "monitoring.enabled=true",
    "agent.aliasZones={old.mesh,older.mesh}",
    "agent.serviceSelector=mesh=yes",
    "agent.compat=traefik-mesh",
    "image.pullSecrets[0].name=registry",
    "podAnnotations.team=net",
    "monitoring.podMonitorLabels.release=prometheus",
)

Render = Callable[..., list[Object]]


@pytest.fixture
def render(helm: Path, tmp_path: Path) -> Render:
    def template(*settings: str, name: str = "svcmesh") -> list[Object]:
        options = [option for setting in settings for option in ("--set", setting)]
        return parse(run(helm, "template", name, CHART, "--kube-version", "1.33.0", *options))

    return template


def container(objects: list[Object]) -> Object:
    (found,) = only(objects, "DaemonSet")["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def test_the_chart_renders_the_objects_of_the_base(render: Render, base: list[Object]) -> None:
    assert by_identity(render()) == by_identity(base)


def test_with_monitoring_it_renders_the_objects_of_both_folders(render: Render, kustomize: Path) -> None:
    both = parse(run(kustomize, "build", BASE)) + parse(run(kustomize, "build", MONITORING))
    assert by_identity(render("monitoring.enabled=true")) == by_identity(both)


def test_a_namespace_that_is_there_already_is_left_alone(render: Render) -> None:
    objects = render("namespace.create=false", "namespace.name=mesh-system")
    assert [one for one in objects if one["kind"] == "Namespace"] == []
    assert {one["metadata"].get("namespace", "mesh-system") for one in objects} == {"mesh-system"}
    assert only(objects, "ClusterRoleBinding")["subjects"][0]["namespace"] == "mesh-system"


@pytest.mark.parametrize(
    ("settings", "image"),
    [
        ((), f"svcmesh-agent:{VERSION}"),
        (("image.repository=r.example/a", "image.tag=t"), "r.example/a:t"),
        (("image.tag=t", f"image.digest=sha256:{'0' * 64}"), f"svcmesh-agent@sha256:{'0' * 64}"),
    ],
)
def test_the_image(render: Render, settings: tuple[str, ...], image: str) -> None:
    assert container(render(*settings))["image"] == image


def test_every_setting_the_chart_can_make_is_one_of_the_agent(render: Render) -> None:
    flags = agent_flags()
    environment = {one["name"]: one.get("value") for one in container(render(*ALL_VALUES))["env"]}
    assert set(environment) <= set(flags)
    assert environment["SVCMESH_ALIAS_ZONE"] == "old.mesh older.mesh"
    assert environment["SVCMESH_SERVICE_SELECTOR"] == "mesh=yes"
    assert environment["SVCMESH_COMPAT"] == "traefik-mesh"


def test_lists_and_maps_arrive_where_they_belong(render: Render) -> None:
    objects = render(*ALL_VALUES)
    template = only(objects, "DaemonSet")["spec"]["template"]
    assert template["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert template["metadata"]["annotations"]["team"] == "net"
    assert only(objects, "PodMonitor")["metadata"]["labels"]["release"] == "prometheus"


@pytest.mark.parametrize(
    "setting",
    [
        "agent.workers=0",
        "agent.wrokers=2",
        "agent.meshRange=240.0.0.0/3",
        "agent.accessLog=some",
        "agent.drainTimeout=30",
        "image.pullPolicy=Sometimes",
        "image.digest=sha256:1",
        "updateStrategy.maxSurge=0",
        "unknown=1",
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(helm: Path, setting: str) -> None:
    done = invoke(helm, "template", "svcmesh", CHART, "--kube-version", "1.33.0", "--set", setting)
    assert done.returncode != 0
    assert setting.partition("=")[0].rpartition(".")[2] in done.stderr


def test_helm_finds_nothing_to_say_against_it(helm: Path) -> None:
    assert "0 chart(s) failed" in run(helm, "lint", CHART)


def test_the_chart_has_the_version_of_the_program() -> None:
    (chart,) = parse((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)


def test_the_table_of_values_is_up_to_date() -> None:
    assert (CHART / "README.md").read_text() == values.render(), "run `make docs`"


def described(schema: dict[str, Any], value: Any) -> bool:
    """Return whether a schema knows every key of a value that it does not leave open."""
    if "properties" not in schema or not isinstance(value, dict):
        return True
    known = schema["properties"]
    return all(key in known and described(known[key], inner) for key, inner in value.items())


def test_the_schema_describes_every_value_and_only_those() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    given = yaml.safe_load((CHART / "values.yaml").read_text())
    assert described(schema, given)
    assert set(schema["properties"]) - {"global"} == set(given)
    for name, part in given.items():
        if "properties" in schema["properties"][name]:
            assert set(schema["properties"][name]["properties"]) == set(part), name


def test_a_value_without_a_comment_is_noticed() -> None:
    with pytest.raises(ValueError, match=r"one\.three"):
        list(values.documented_values("one:\n  # said\n  two: 2\n  three: 3\n"))
