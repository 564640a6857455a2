"""What the manifests hand to KEDA and prometheus-operator, on an API server that has their CRDs."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.kit.waiting import until
from hack.kube.client import Client, Refused, path_of
from hack.kube.control_plane import ControlPlane
from tests.kube.objects import namespace
from tests.manifests.objects import MANIFESTS, Object, parse
from tests.manifests.tools import BIN, run, tool

pytestmark = pytest.mark.kube

CRDS = BIN.parent / "crds"
CHART = MANIFESTS / "charts" / "svcmesh"
WITH_MONITORING = (
    *("--set", "monitoring.enabled=true", "--set", "monitoring.podMonitorLabels.release=prometheus"),
    *("--set", "monitoring.rules.runbookUrl=https://wiki.example/alerts"),
)


def published(name: str) -> Path:
    """Return a file that another project publishes, or skip."""
    path = CRDS / name
    if not path.exists():
        pytest.skip(f"{path} is not there: `make autoscaling-tools` fetches it (needs Go)")
    return path


@pytest.fixture(scope="module")
def admin() -> Iterator[Client]:
    crds = [
        yaml.safe_load(published(name).read_text())
        for name in (
            "keda.sh_scaledobjects.yaml",
            "monitoring.coreos.com_podmonitors.yaml",
            "monitoring.coreos.com_prometheusrules.yaml",
        )
    ]
    with ControlPlane(controllers=()) as cluster:
        for crd in crds:
            cluster.admin.apply(crd)
        for name in ("shop", "svcmesh"):
            cluster.admin.apply(namespace(name))
        until(lambda: all(served(cluster.admin, one) for one in SHIPPED), seconds=60)
        yield cluster.admin


def served(admin: Client, one: Object) -> bool:
    return admin.raw("GET", path_of(one).rpartition("/")[0])[0] == 200


def accepted(admin: Client, one: Object) -> Object:
    """Create it as `kubectl apply --validate=strict --dry-run=server` would."""
    collection = path_of(one).rpartition("/")[0]
    return admin.request("POST", f"{collection}?dryRun=All&fieldValidation=Strict", one)


def shipped(name: str) -> Object:
    """Return the one object of a file below `manifests`."""
    (one,) = parse((MANIFESTS / name).read_text())
    return one


SHIPPED = [
    shipped(name)
    for name in ("autoscaling/keda.yaml", "monitoring/podmonitor.yaml", "monitoring/prometheusrule.yaml")
]


@pytest.mark.parametrize("one", SHIPPED, ids=lambda one: one["kind"])
def test_the_server_takes_it_and_drops_nothing(admin: Client, one: Object) -> None:
    taken = accepted(admin, one)
    assert covers(taken["spec"], one["spec"])


def test_the_server_takes_what_the_chart_makes(admin: Client) -> None:
    chart = parse(run(tool("helm"), "template", "svcmesh", CHART, "-n", "svcmesh", *WITH_MONITORING))
    made = [one for one in chart if one["apiVersion"] == "monitoring.coreos.com/v1"]
    assert {one["kind"] for one in made} == {"PodMonitor", "PrometheusRule"}
    for one in made:
        assert covers(accepted(admin, one)["spec"], one["spec"])


def covers(whole: Any, part: Any) -> bool:
    """Whether a value has everything that another has; defaults may have been added."""
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(key in whole and covers(whole[key], value) for key, value in part.items())
    if isinstance(whole, list) and isinstance(part, list):
        return len(whole) == len(part) and all(map(covers, whole, part))
    return bool(whole == part)


MISTAKES: list[tuple[str, str, Any, str]] = [
    ("ScaledObject", "minReplicaCounts", 2, "unknown field"),
    ("ScaledObject", "minReplicaCount", "2", "must be of type integer"),
    ("ScaledObject", "triggers.0.type", None, "triggers"),
    ("ScaledObject", "triggers.0.metadata.threshold", 100, "must be of type string"),
    ("PodMonitor", "podMetricsEndpoints.0.honourLabels", True, "unknown field"),
    ("PodMonitor", "podMetricsEndpoints.0.interval", "30", "should match"),
    ("PodMonitor", "podMetricsEndpoints.0.relabelings.0.action", "replaces", "Unsupported value"),
    ("PrometheusRule", "groups.0.rules.0.labels.severity", 1, "must be of type string"),
    ("PrometheusRule", "groups.0.rules.0.for", "5 minutes", "should match"),
    ("PrometheusRule", "groups.0.rules.0.summary", "a", "unknown field"),
]


@pytest.mark.parametrize(("kind", "field", "wrong", "said"), MISTAKES, ids=[one[1] for one in MISTAKES])
def test_a_mistake_is_refused(admin: Client, kind: str, field: str, wrong: object, said: str) -> None:
    one = copy.deepcopy(next(one for one in SHIPPED if one["kind"] == kind))
    place: Any = one["spec"]
    *way, last = field.split(".")
    for step in way:
        place = place[int(step)] if isinstance(place, list) else place[step]
    place[last] = wrong
    with pytest.raises(Refused, match=said):
        accepted(admin, one)


def test_keda_knows_each_parameter_and_has_all_that_it_needs() -> None:
    """The CRD takes any metadata: what a trigger needs is in KEDA's list of scalers."""
    scalers = json.loads(published("scalers-schema.json").read_text())["scalers"]
    (parameters,) = [one["parameters"] for one in scalers if one["type"] == "prometheus"]
    known = {one["name"] for one in parameters if one.get("metadataVariableReadable")}
    needed = {one["name"] for one in parameters if not one.get("optional") and "default" not in one} & known
    assert {"serverAddress", "query", "threshold"} <= needed
    for trigger in shipped("autoscaling/keda.yaml")["spec"]["triggers"]:
        assert trigger["type"] == "prometheus"
        assert trigger["metricType"] in ("AverageValue", "Value")
        assert needed <= trigger["metadata"].keys() <= known


def test_keda_leaves_the_pods_as_they_are_if_there_is_no_figure() -> None:
    """Unless it is told otherwise it reads a missing figure as 0, and takes pods away."""
    scalers = json.loads(published("scalers-schema.json").read_text())["scalers"]
    (parameters,) = [one["parameters"] for one in scalers if one["type"] == "prometheus"]
    (ignored,) = [one for one in parameters if one["name"] == "ignoreNullValues"]
    assert ignored["default"] == "true"
    for trigger in shipped("autoscaling/keda.yaml")["spec"]["triggers"]:
        assert trigger["metadata"]["ignoreNullValues"] == "false"
