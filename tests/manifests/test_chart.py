"""The Helm chart: the same objects as kustomize's, and values that do what they say."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from discovery.compat import ZONES
from hack.manifests import dashboard, values
from nodeagent.cli.flagvalues import COLLECTORS, MAX_DRAIN, parse_collector, parse_drain_timeout, parse_listen
from nodeagent.control.supervisor import EXIT_TIME
from tests.manifests.objects import BASE, MANIFESTS, Object, by_identity, only, parse
from tests.manifests.test_base import LABELS, VERSION, agent_flags
from tests.manifests.tools import invoke, run

CHART = MANIFESTS / "charts" / "svcmesh"
MONITORING = MANIFESTS / "monitoring"
HOME = ("--namespace", "svcmesh")
ALL_VALUES = (
    "monitoring.enabled=true",
    "agent.aliasZones={old.mesh,older.mesh}",
    "agent.serviceSelector=mesh=yes",
    "agent.compat=traefik-mesh",
    "agent.adminListen=$(HOST_IP):15900",
    "agent.extraArgs={--dns-listen=127.0.0.1:10053}",
    "agent.extraEnv[0].name=TZ",
    "agent.extraEnv[0].value=UTC",
    "agent.traces=otlp+grpcs://10.96.0.50",
    "agent.tracesCaConfigMap=collector-ca",
    "agent.tracesHeadersSecret=collector-token",
    "agent.middlewareConfigMap=middlewares",
    "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields=null",
    "image.pullSecrets[0].name=registry",
    "nodeSelector.mesh=yes",
    "tolerations[0].key=gpu",
    "tolerations[0].operator=Exists",
    "priorityClassName=high",
    "resources.limits.memory=2Gi",
    "podLabels.team=net",
    "podAnnotations.team=network",
    "monitoring.podMonitorLabels.release=prometheus",
    "monitoring.rules.labels.release=rules",
    "monitoring.rules.runbookUrl=https://wiki.example/alerts",
)
ZONE_OPTIONS = [f"--zone {zone}" for zone in ("svc.mesh", "old.mesh", *ZONES)]
OF_HELM = {"app.kubernetes.io/managed-by": "Helm", "helm.sh/chart": f"svcmesh-{VERSION}"}
"""Labels that only objects made by Helm have."""

Render = Callable[..., list[Object]]


@pytest.fixture
def render(helm: Path) -> Render:
    def template(*settings: str, name: str = "svcmesh", home: str = "svcmesh") -> list[Object]:
        options = [option for setting in settings for option in ("--set", setting)]
        return parse(run(helm, "template", name, CHART, "--namespace", home, *options))

    return template


Refusal = Callable[..., str]


@pytest.fixture
def refusal(helm: Path) -> Refusal:
    """What Helm says instead of rendering."""

    def template(*settings: str, home: str = "svcmesh") -> str:
        options = [option for setting in settings for option in ("--set", setting)]
        done = invoke(helm, "template", "svcmesh", CHART, "--namespace", home, *options)
        assert done.returncode != 0
        return done.stderr

    return template


def pod_template(objects: list[Object]) -> Object:
    found: Object = only(objects, "DaemonSet")["spec"]["template"]
    return found


def container(objects: list[Object]) -> Object:
    (found,) = pod_template(objects)["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def environment(objects: list[Object]) -> dict[str, Any]:
    return {one["name"]: one.get("value") for one in container(objects)["env"]}


def without_labels_of_helm(objects: list[Object]) -> list[Object]:
    """Return the objects without these labels; fails if one of them does not have them."""
    for one in objects:
        labels = one["metadata"]["labels"]
        assert {name: labels.pop(name, None) for name in OF_HELM} == OF_HELM, one["kind"]
    return objects


def without_namespace(objects: list[Object]) -> list[Object]:
    """Return what the chart makes of these: the namespace of a release is not the chart's."""
    return [one for one in objects if one["kind"] != "Namespace"]


def test_the_chart_renders_the_objects_of_the_base(render: Render, base: list[Object]) -> None:
    assert by_identity(without_labels_of_helm(render())) == by_identity(without_namespace(base))


def test_with_monitoring_it_renders_the_objects_of_both_folders(render: Render, kustomize: Path) -> None:
    both = parse(run(kustomize, "build", BASE)) + parse(run(kustomize, "build", MONITORING))
    rendered = without_labels_of_helm(render("monitoring.enabled=true"))
    assert by_identity(rendered) == by_identity(without_namespace(both))


def test_everything_is_in_the_namespace_of_the_release(render: Render) -> None:
    objects = render("monitoring.enabled=true", home="mesh-system")
    kinds = {one["kind"] for one in objects if "namespace" not in one["metadata"]}
    assert kinds == {"ClusterRole", "ClusterRoleBinding"}
    assert {one["metadata"].get("namespace", "mesh-system") for one in objects} == {"mesh-system"}
    assert only(objects, "ClusterRoleBinding")["subjects"][0]["namespace"] == "mesh-system"


def test_the_namespace_default_is_refused(refusal: Refusal) -> None:
    assert "add --namespace svcmesh --create-namespace" in refusal(home="default")


def test_labels_are_those_that_helm_recommends(render: Render) -> None:
    objects = render("monitoring.enabled=true", name="mesh")
    wanted = {**LABELS, **OF_HELM, "app.kubernetes.io/instance": "mesh"}
    for one in objects:
        labels = one["metadata"]["labels"]
        assert {name: labels.get(name) for name in wanted} == wanted, one["kind"]


def test_pods_do_not_change_with_the_version_of_the_chart(render: Render) -> None:
    """A change of the chart alone must not replace the agent of every node."""
    assert pod_template(render())["metadata"]["labels"] == LABELS


def test_selectors_have_name_and_instance_alone(render: Render) -> None:
    objects = render("monitoring.enabled=true", name="mesh")
    selectors = [only(objects, kind)["spec"]["selector"] for kind in ("DaemonSet", "PodMonitor")]
    wanted = {"app.kubernetes.io/name": "svcmesh", "app.kubernetes.io/instance": "mesh"}
    assert selectors == [{"matchLabels": wanted}] * 2


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
    found = environment(render(*ALL_VALUES))
    assert set(found) - set(flags) == {"HOST_IP", "SSL_CERT_FILE", "TZ"}
    assert found["SVCMESH_ALIAS_ZONE"] == "old.mesh older.mesh"
    assert found["SVCMESH_SERVICE_SELECTOR"] == "mesh=yes"
    assert found["SVCMESH_COMPAT"] == "traefik-mesh"


def test_what_goes_to_the_pod(render: Render) -> None:
    objects = render(*ALL_VALUES)
    metadata, spec = pod_template(objects)["metadata"], pod_template(objects)["spec"]
    assert metadata["labels"] == {**LABELS, "team": "net"}
    assert metadata["annotations"]["team"] == "network"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    terms = [{"matchFields": None}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    assert spec["affinity"] == {"nodeAffinity": required}
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux", "mesh": "yes"}
    assert spec["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert spec["priorityClassName"] == "high"
    assert container(objects)["resources"]["limits"] == {"memory": "2Gi"}
    assert container(objects)["args"] == ["run", "--dns-listen=127.0.0.1:10053"]
    assert container(objects)["env"][-1] == {"name": "TZ", "value": "UTC"}
    assert "priorityClassName" not in pod_template(render("priorityClassName="))["spec"]


def test_what_goes_to_the_monitoring(render: Render) -> None:
    objects = render(*ALL_VALUES)
    assert only(objects, "PodMonitor")["metadata"]["labels"]["release"] == "prometheus"
    rule = only(objects, "PrometheusRule")
    assert rule["metadata"]["labels"]["release"] == "rules"
    alerts = [one for group in rule["spec"]["groups"] for one in group["rules"] if "alert" in one]
    pages = [(alert["alert"], alert["annotations"]["runbook_url"]) for alert in alerts]
    assert pages == [(name, f"https://wiki.example/alerts#{name.lower()}") for name, _ in pages]
    less = render("monitoring.enabled=true", "monitoring.rules.enabled=false")
    assert {"PodMonitor", "ConfigMap"} < {one["kind"] for one in less}
    assert "PrometheusRule" not in {one["kind"] for one in less}


@pytest.mark.parametrize(
    ("listen", "host"),
    [
        ("0.0.0.0:15900", None),
        ("[::]:15900", None),
        ("$(HOST_IP):15900", None),
        ("[$(HOST_IP)]:15900", None),
        ("127.0.0.1:15900", "127.0.0.1"),
        ("169.254.20.10:15900", "169.254.20.10"),
        ("[::1]:15900", "::1"),
    ],
)
def test_probes_follow_the_admin_page(render: Render, listen: str, host: str | None) -> None:
    objects = render(f"agent.adminListen={listen}")
    assert environment(objects)["SVCMESH_ADMIN_LISTEN"] == listen
    parse_listen(listen.replace("[$(HOST_IP)]", "[fd00::1]").replace("$(HOST_IP)", "192.0.2.1"))
    asked = {"path": "/healthz", "port": 15900, **({} if host is None else {"host": host})}
    for probe in ("startupProbe", "livenessProbe"):
        assert container(objects)[probe]["httpGet"] == asked
    names = [one["name"] for one in container(objects)["env"]]
    if "HOST_IP" in listen:
        assert names.index("HOST_IP") < names.index("SVCMESH_ADMIN_LISTEN"), (
            "Kubernetes expands what came before"
        )
        (address,) = [one for one in container(objects)["env"] if one["name"] == "HOST_IP"]
        assert address["valueFrom"] == {"fieldRef": {"fieldPath": "status.hostIP"}}
    else:
        assert "HOST_IP" not in names


def test_prometheus_asks_at_the_port_of_the_admin_page(render: Render) -> None:
    monitor = only(render(*ALL_VALUES), "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert "$1:15900" in [one.get("replacement") for one in endpoint["relabelings"]]


def test_prometheus_must_be_able_to_reach_the_admin_page(refusal: Refusal) -> None:
    said = refusal("monitoring.enabled=true", "agent.adminListen=127.0.0.1:15900")
    assert "agent.adminListen is 127.0.0.1:15900: make it 0.0.0.0:15900, or $(HOST_IP):15900" in said


@pytest.mark.parametrize(
    ("drain", "grace", "least"),
    [("36s", 45, 46), ("1m30s", 99, 100), ("1h", 3609, 3610), ("1500ms", 10, 11), ("0.5m", 39, 40)],
)
def test_a_pod_must_have_time_to_drain(
    render: Render, refusal: Refusal, drain: str, grace: int, least: int
) -> None:
    settings = (f"agent.drainTimeout={drain}", f"terminationGracePeriodSeconds={grace}")
    assert f"Add --set terminationGracePeriodSeconds={least}," in refusal(*settings)
    objects = render(f"agent.drainTimeout={drain}", f"terminationGracePeriodSeconds={least}")
    given = environment(objects)["SVCMESH_DRAIN_TIMEOUT"]
    assert (
        parse_drain_timeout(given) + EXIT_TIME + 5
        < pod_template(objects)["spec"]["terminationGracePeriodSeconds"]
    )


def test_a_drain_timeout_is_no_longer_than_the_agent_takes(refusal: Refusal) -> None:
    said = refusal(f"agent.drainTimeout={MAX_DRAIN + 1:.0f}s", "terminationGracePeriodSeconds=9999")
    assert "the agent takes an hour at most" in said


def test_what_the_chart_sets_cannot_be_set_a_second_time(render: Render, refusal: Refusal) -> None:
    values_of = {"SVCMESH_NODE_NAME": "", **environment(render(*ALL_VALUES))}
    for name in set(values_of) - {"TZ"}:
        said = refusal(f"agent.extraEnv[0].name={name}", "agent.extraEnv[0].value=x")
        assert f"agent.extraEnv has {name}, which the chart sets itself" in said
        if name in agent_flags():
            flag = agent_flags()[name].opts[0]
            for given in (f"{flag}=x", flag):
                said = refusal(f"agent.extraArgs={{{given}}}")
                assert f"agent.extraArgs has {flag}, which the chart sets itself" in said
    assert "use the value agent.drainTimeout" in refusal("agent.extraArgs={--drain-timeout=1h}")
    for value in (
        "podLabels",
        "monitoring.podMonitorLabels",
        "monitoring.dashboardLabels",
        "monitoring.rules.labels",
    ):
        said = refusal(rf"{value}.app\.kubernetes\.io/name=x")
        assert f"{value} has app.kubernetes.io/name, which the chart sets itself" in said
    annotation = r"podAnnotations.kubectl\.kubernetes\.io/default-container=x"
    assert "podAnnotations has kubectl.kubernetes.io/default-container, which" in refusal(annotation)


@pytest.mark.parametrize(
    "setting",
    [
        "agent.workers=0",
        "agent.workers=many",
        "agent.wrokers=2",
        "agent.meshRange=240.0.0.0/3",
        "agent.accessLog=some",
        "agent.drainTimeout=30",
        "agent.drainTimeout=1..5s",
        "agent.adminListen=15000",
        "agent.adminListen=localhost:15000",
        "agent.adminListen=$(NODE_IP):15000",
        "agent.extraArgs=--dns-listen=127.0.0.1:10053",
        "agent.extraEnv.TZ=UTC",
        "affinity.podAfinity.x=y",
        "podLabels.team=1",
        "priorityClassName=1",
        "terminationGracePeriodSeconds=45s",
        "image.pullPolicy=Sometimes",
        "image.pullSecrets={registry}",
        "image.digest=sha256:1",
        "updateStrategy.maxSurge=0",
        "monitoring.rules.enabled=maybe",
        "monitoring.rules.runbookUrl=alerts.md",
        "namespace=mesh",
        "unknown=1",
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(refusal: Refusal, setting: str) -> None:
    said = refusal(setting)
    assert "values don't meet the specifications of the schema" in said
    path = setting.partition("=")[0]
    assert any(name in said for name in path.split(".")[1:] or [path])


@pytest.mark.parametrize(
    ("settings", "command"),
    [
        ((), "meshctl dns install"),
        (("agent.zone=mesh.test",), "meshctl dns install --zone mesh.test"),
        (
            ("agent.aliasZones={old.mesh}", "agent.compat=traefik-mesh", "agent.meshRange=241.7.0.0/16"),
            " ".join(["meshctl dns install", *ZONE_OPTIONS, "--address 241.7.0.53"]),
        ),
        (("agent.meshRange=248.0.0.0/5",), "meshctl dns install --address 248.0.0.53"),
    ],
)
def test_the_notes_say_how_to_install_dns(
    helm: Path, tmp_path: Path, settings: tuple[str, ...], command: str
) -> None:
    """`helm template` does not show notes: the same text in the place of an object."""
    chart = tmp_path / "svcmesh"
    shutil.copytree(CHART, chart)
    notes = (CHART / "templates" / "NOTES.txt").read_text()
    (chart / "templates" / "_notes.tpl").write_text(f'{{{{- define "notes" }}}}{notes}{{{{- end }}}}')
    (chart / "templates" / "notes.yaml").write_text('notes: {{ include "notes" . | quote }}')
    options = [option for setting in settings for option in ("--set", setting)]
    shown = parse(run(helm, "template", "svcmesh", chart, *HOME, "-s", "templates/notes.yaml", *options))
    assert f"\n  {command}\n" in shown[0]["notes"]


def test_helm_finds_nothing_to_say_against_it(helm: Path) -> None:
    said = run(helm, "lint", "--strict", CHART, *HOME)
    assert "0 chart(s) failed" in said
    assert [line for line in said.splitlines() if line.startswith("[")] == []


def test_the_icon_is_in_the_chart_itself() -> None:
    (chart,) = parse((CHART / "Chart.yaml").read_text())
    kind, _, encoded = chart["icon"].partition(";base64,")
    assert kind == "data:image/svg+xml"
    assert base64.b64decode(encoded) == (CHART / "icon.svg").read_bytes()


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
    assert unused(schema["properties"], given) == ["global"]


def unused(properties: dict[str, Any], given: dict[str, Any], prefix: str = "") -> list[str]:
    """Return what a schema knows by name and values.yaml does not have; not of maps that are empty there."""
    found = [prefix + name for name in properties if name not in given]
    for name, part in given.items():
        if isinstance(part, dict) and part and "properties" in properties[name]:
            found += unused(properties[name]["properties"], part, f"{prefix}{name}.")
    return found


def test_a_value_without_a_comment_is_noticed() -> None:
    with pytest.raises(ValueError, match=r"one\.three"):
        list(values.documented_values("one:\n  # said\n  two: 2\n  three: 3\n"))


def test_the_chart_has_every_board(render: Render) -> None:
    (boards,) = [
        one for one in render("monitoring.enabled=true") if one["metadata"]["name"] == "svcmesh-dashboard"
    ]
    assert {name: json.loads(text) for name, text in boards["data"].items()} == {
        name: json.loads(text) for name, text in dashboard.files().items()
    }


@pytest.mark.parametrize("scheme", COLLECTORS)
def test_the_collector_of_traces(render: Render, scheme: str) -> None:
    url = environment(render(f"agent.traces={scheme}://10.96.0.50"))["SVCMESH_TRACES"]
    assert parse_collector(url).url.startswith(("http://10.96.0.50:", "https://10.96.0.50:"))


def test_the_ca_of_the_collector_is_the_one_that_tls_uses(render: Render) -> None:
    objects = render("agent.traces=otlp+grpcs://10.96.0.50", "agent.tracesCaConfigMap=collector-ca")
    (mount,) = (one for one in container(objects)["volumeMounts"] if one["name"] == "traces-ca")
    assert environment(objects)["SSL_CERT_FILE"] == f"{mount['mountPath']}/ca.crt"
    (volume,) = (one for one in pod_template(objects)["spec"]["volumes"] if one["name"] == "traces-ca")
    assert volume["configMap"] == {"name": "collector-ca", "optional": True}


def test_the_collector_s_token_is_one_key_of_one_secret_and_nobody_may_ask_for_it(render: Render) -> None:
    objects = render("agent.traces=otlp+grpcs://10.96.0.50", "agent.tracesHeadersSecret=collector-token")
    (mount,) = (one for one in container(objects)["volumeMounts"] if one["name"] == "traces-headers")
    assert mount["readOnly"] is True
    assert "subPath" not in mount, "the kubelet would not change the file"
    assert environment(objects)["SVCMESH_TRACES_HEADERS_FILE"] == f"{mount['mountPath']}/headers"
    pod = pod_template(objects)["spec"]
    (volume,) = (one for one in pod["volumes"] if one["name"] == "traces-headers")
    assert volume["secret"] == {
        "secretName": "collector-token",
        "defaultMode": 0o440,  # the file is root's: the agent reads it by its group
        "items": [{"key": "headers", "path": "headers"}],
        "optional": True,
    }
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
    rules = [rule for one in objects if one["kind"] in ("ClusterRole", "Role") for rule in one["rules"]]
    assert rules
    assert not any("secrets" in rule["resources"] for rule in rules)


def test_a_token_without_a_collector_is_refused(refusal: Refusal) -> None:
    assert "agent.tracesHeadersSecret has no meaning without agent.traces" in refusal(
        "agent.tracesHeadersSecret=collector-token"
    )


@pytest.mark.parametrize("url", ["10.96.0.50:4317", "grpc://10.96.0.50", "zipkin+grpc://10.96.0.50"])
def test_what_is_no_collector_is_refused(refusal: Refusal, url: str) -> None:
    assert "traces" in refusal(f"agent.traces={url}")
