"""`meshctl check --cluster` and `meshctl migrate --cluster`, with an ordinary kubeconfig."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from nodeagent.meshctl.main import main
from tests.discovery.kube.fake_api import FakeApi, answer, status
from tests.discovery.kube.objects import endpoint_slice, service


def meshctl(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.stdout, result.stderr


def test_check(api: FakeApi, tmp_path: Path) -> None:
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    api.put(service("cart"))
    api.put(endpoint_slice("cart-1"))
    assert meshctl("check", "--cluster", "--kubeconfig", kubeconfig) == (
        0,
        "1 Service checked, 1 in the mesh, 0 problems\n",
        "",
    )
    api.put(service("till", "10.96.0.11", **{"svc.mesh/retry-attempts": "many"}))
    code, output, _ = meshctl("check", "--cluster", "--kubeconfig", kubeconfig, "--context", "test")
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


def test_kubeconfig_from_the_environment(api: FakeApi, tmp_path: Path) -> None:
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    result = CliRunner().invoke(main, ["check", "--cluster"], env={"KUBECONFIG": kubeconfig})
    assert (result.exit_code, result.stdout) == (0, "0 Services checked, 0 in the mesh, 0 problems\n")


def test_a_cluster_that_cannot_be_read(api: FakeApi, tmp_path: Path) -> None:
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    api.script("list", "Service", answer(403, status(403, "Forbidden", "services is forbidden")))
    code, output, errors = meshctl("check", "--cluster", "--kubeconfig", kubeconfig)
    assert (code, output) == (2, "")
    assert "cannot list Services: status 403: services is forbidden" in errors
    code, _, errors = meshctl("check", "--cluster", "--kubeconfig", kubeconfig, "--context", "other")
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
            f"kubectl --kubeconfig {kubeconfig} --context test annotate service --overwrite -n shop cart "
            "svc.mesh/enabled=true svc.mesh/retry-attempts=2\n"
        ),
    )
