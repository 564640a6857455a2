"""`meshctl check --cluster` and `meshctl migrate --cluster`, with an ordinary kubeconfig."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hack.kit.ports import free_port
from nodeagent.meshctl.main import main
from nodeagent.meshctl.migrate import REMINDER
from tests.discovery.kube.fake_api import Document, FakeApi, answer, status
from tests.discovery.kube.objects import endpoint_slice, service


def meshctl(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.stdout, result.stderr


def test_check(api: FakeApi, tmp_path: Path) -> None:
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    api.put(service("cart"))
    api.put(endpoint_slice("cart-1"))
    assert meshctl("check", "--cluster", "--services", "--kubeconfig", kubeconfig) == (
        0,
        "1 Service checked, 1 in the mesh, 0 problems\n",
        "",
    )
    api.put(service("till", "10.96.0.11", **{"svc.mesh/retry-attempts": "many"}))
    code, output, _ = meshctl(
        "check", "--cluster", "--services", "--kubeconfig", kubeconfig, "--context", "test"
    )
    assert code == 1
    assert output == (
        "error: Service shop/till: svc.mesh/retry-attempts: many\n"
        '    wrong:  "many" is not a whole number\n'
        "    right:  a whole number from 0 to 10\n"
        "    effect: retry is off\n"
        "2 Services checked, 2 in the mesh, 1 problem\n"
    )
    code, output, _ = meshctl(
        "check", "--cluster", "--kubeconfig", kubeconfig, "-n", "pay", "--format", "json"
    )
    assert (code, json.loads(output)["services"]) == (0, 0)


def test_the_installation_comes_first(api: FakeApi, tmp_path: Path) -> None:
    """Of a cluster where the mesh is not, and of one namespace, of which nobody asks that."""
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    api.put(service("cart"))
    api.put(endpoint_slice("cart-1"))
    code, output, _ = meshctl("check", "--cluster", "--kubeconfig", kubeconfig)
    assert code == 1
    assert "there is no agent: install the mesh" in output
    assert output.endswith("\nservices\n--------\n1 Service checked, 1 in the mesh, 0 problems\n")
    code, output, _ = meshctl("check", "--cluster", "--kubeconfig", kubeconfig, "-o", "json")
    document = json.loads(output)
    assert (code, document["errors"], document["installation"]["mode"]) == (1, 0, "installed")
    assert meshctl("check", "--cluster", "--kubeconfig", kubeconfig, "-n", "shop")[0] == 0
    code, output, _ = meshctl("check", "--cluster", "--installed", "--kubeconfig", kubeconfig, "-o", "json")
    assert (code, json.loads(output)["mode"]) == (1, "installed")


@pytest.mark.parametrize("mode", ["--pre", "--installed"])
def test_a_server_that_is_not_there(mode: str, tmp_path: Path) -> None:
    api = FakeApi()
    api.port = free_port()
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    code, output, _ = meshctl("check", "--cluster", mode, "--kubeconfig", kubeconfig, "-o", "json")
    document = json.loads(output)
    assert (code, document["complete"]) == (2, False)
    assert [(one["id"], one["result"]) for one in document["checks"]] == [("api-reachable", "failed")]
    assert meshctl("check", "--cluster", "--kubeconfig", kubeconfig)[0] == 2


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--pre", "--installed"), "give one of --pre, --installed"),
        (("--probe-nodes", "--image", "x"), "need --pre"),
        (("--pre", "--probe-nodes"), "need each other"),
        (("--pre", "--image", "x"), "need each other"),
        (("--mesh-range", "10.0.0.0/30"), "must be a /4 to a /16"),
        (("--zone", "-"), "zone"),
    ],
)
def test_options_that_do_not_go_together(words: tuple[str, ...], complaint: str) -> None:
    code, _, errors = meshctl("check", "--cluster", *words)
    assert code == 2
    assert complaint in " ".join(errors.split())


def test_files_have_no_installation(tmp_path: Path) -> None:
    code, _, errors = meshctl("check", str(tmp_path), "--pre")
    assert code == 2
    assert "need --cluster" in errors


def test_kubeconfig_from_the_environment(api: FakeApi, tmp_path: Path) -> None:
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    result = CliRunner().invoke(main, ["check", "--cluster", "--services"], env={"KUBECONFIG": kubeconfig})
    assert (result.exit_code, result.stdout) == (0, "0 Services checked, 0 in the mesh, 0 problems\n")


def test_a_cluster_that_cannot_be_read(api: FakeApi, tmp_path: Path) -> None:
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    api.script("list", "Service", answer(403, status(403, "Forbidden", "services is forbidden")))
    code, output, errors = meshctl("check", "--cluster", "--services", "--kubeconfig", kubeconfig)
    assert (code, output) == (2, "")
    assert "cannot list Services: status 403: services is forbidden" in errors
    code, _, errors = meshctl(
        "check", "--cluster", "--services", "--kubeconfig", kubeconfig, "--context", "other"
    )
    assert code == 2
    assert "other" in errors


def test_migrate(api: FakeApi, tmp_path: Path) -> None:
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    api.put(service("cart", **{"mesh.traefik.io/retry-attempts": "3"}))
    api.put(service("till", "10.96.0.11"))
    code, output, _ = meshctl("migrate", "--cluster", "--kubeconfig", kubeconfig, "--context", "test")
    assert (code, output) == (
        0,
        (
            f"{REMINDER}\n"
            f"kubectl --kubeconfig {kubeconfig} --context test annotate service --overwrite -n shop cart "
            "svc.mesh/enabled=true svc.mesh/retry-attempts=2\n"
        ),
    )


def smi(kind: str, group: str, namespace: str, name: str, **spec: Any) -> Document:
    metadata = {"namespace": namespace, "name": name, "resourceVersion": "1"}
    return {"apiVersion": f"{group}/v1alpha3", "kind": kind, "metadata": metadata, "spec": spec}


TARGET = smi(
    "TrafficTarget",
    "access.smi-spec.io",
    "shop",
    "cart",
    destination={"kind": "ServiceAccount", "name": "cart"},
    sources=[{"kind": "ServiceAccount", "name": "web", "namespace": "front"}],
)
SPLIT = smi(
    "TrafficSplit",
    "split.smi-spec.io",
    "shop",
    "canary",
    service="cart",
    backends=[{"service": "v1", "weight": 9}, {"service": "v2", "weight": 1}],
)
CHECK = ("check", "--cluster", "--services", "--compat", "traefik-mesh", "--kubeconfig")


def test_smi_objects_of_a_cluster(api: FakeApi, tmp_path: Path) -> None:
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    api.install("access.smi-spec.io", "v1alpha1", "v1alpha2")
    api.install("split.smi-spec.io", "v1alpha3")
    api.resources["/apis/access.smi-spec.io/v1alpha2/traffictargets"] = [TARGET]
    api.resources["/apis/split.smi-spec.io/v1alpha3/trafficsplits"] = [SPLIT]
    code, output, _ = meshctl(*CHECK, kubeconfig)
    assert code == 1
    assert "error: TrafficTarget shop/cart: spec.sources: front/web\n" in output
    assert "error: TrafficSplit shop/canary: spec.backends: v1=9 v2=1\n" in output
    assert output.splitlines()[-1] == "0 Services checked, 0 in the mesh, 2 problems"
    assert meshctl(*CHECK, kubeconfig, "-n", "shop")[1].count("error: ") == 2
    assert meshctl(*CHECK, kubeconfig, "-n", "pay")[1].count("error: ") == 0
    assert meshctl("check", "--cluster", "--services", "--kubeconfig", kubeconfig)[0] == 0, (
        "nobody asked for them"
    )
    code, output, _ = meshctl("migrate", "--cluster", "--kubeconfig", kubeconfig, "--accept-open")
    assert (code, "# TrafficTarget shop/cart" in output) == (1, True)
    api.resources["/apis/split.smi-spec.io/v1alpha3/trafficsplits"] = []
    assert meshctl("migrate", "--cluster", "--kubeconfig", kubeconfig, "--accept-open")[0] == 0
    assert meshctl("migrate", "--cluster", "--kubeconfig", kubeconfig)[0] == 1


def test_where_the_kinds_are_not_installed(api: FakeApi, tmp_path: Path) -> None:
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    assert meshctl(*CHECK, kubeconfig) == (0, "0 Services checked, 0 in the mesh, 0 problems\n", "")
    api.install("specs.smi-spec.io", "v1alpha3")
    api.resources["/apis/specs.smi-spec.io/v1alpha3/tcproutes"] = []
    forbidden = answer(403, status(403, "Forbidden", "as is said of what is not there, too"))
    api.answers["/apis/specs.smi-spec.io/v1alpha3/httproutegroups"] = forbidden
    assert meshctl(*CHECK, kubeconfig)[0] == 0, "the group, and of its kinds only one"


@pytest.mark.parametrize(
    "path", ["/apis/access.smi-spec.io", "/apis/access.smi-spec.io/v1alpha3/traffictargets"]
)
def test_what_may_not_be_looked_at_counts_as_lost(api: FakeApi, tmp_path: Path, path: str) -> None:
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    api.install("access.smi-spec.io", "v1alpha3")
    api.resources["/apis/access.smi-spec.io/v1alpha3/traffictargets"] = []
    api.answers[path] = answer(403, status(403, "Forbidden", "not for you"))
    code, output, _ = meshctl(*CHECK, kubeconfig)
    assert code == 1
    assert output.splitlines()[:2] == [
        "error: TrafficTarget *",
        "    wrong:  could not be looked at: status 403: not for you",
    ]
    assert "a kubeconfig that may `list` traffictargets.access.smi-spec.io" in output
    code, output, _ = meshctl("migrate", "--cluster", "--kubeconfig", kubeconfig, "--accept-open")
    assert (code, "could not be looked at" in output) == (1, True)


def test_an_api_server_that_fails_is_no_empty_list(api: FakeApi, tmp_path: Path) -> None:
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    api.install("access.smi-spec.io", "v1alpha3")
    api.resources["/apis/access.smi-spec.io/v1alpha3/traffictargets"] = []
    api.answers["/apis/access.smi-spec.io/v1alpha3/traffictargets"] = answer(
        503, status(503, "ServiceUnavailable", "later")
    )
    code, output, errors = meshctl(*CHECK, kubeconfig)
    assert (code, output) == (2, "")
    assert "cannot list TrafficTargets: status 503: later" in errors
