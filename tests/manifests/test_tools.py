"""The programs of `make manifest-tools`: Helm knows its own version, and that of Kubernetes."""

from __future__ import annotations

from pathlib import Path

import pytest

from hack.manifests.link_flags import CLIENT, GO_MOD, HELM, kubernetes_version, link_flags, required
from tests.manifests.tools import invoke, run

GIVEN = f"module x\n\nrequire (\n\t{HELM} v3.99.1\n)\n\nrequire (\n\t{CLIENT} v0.77.3 // indirect\n)\n"
KUBERNETES = ".".join(kubernetes_version(GO_MOD.read_text()))


def test_flags_come_from_go_mod() -> None:
    flags = list(link_flags(GIVEN))
    assert f"-X={HELM}/internal/version.version=v3.99.1" in flags
    assert [flag for flag in flags if "Minor" in flag] == [
        f"-X={HELM}/pkg/lint/rules.k8sVersionMinor=77",
        f"-X={HELM}/pkg/chartutil.k8sVersionMinor=77",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GIVEN.replace(CLIENT, "k8s.io/other"), f"does not require {CLIENT}"),
        (GIVEN.replace("v0.77.3", "v12.0.0+incompatible"), f"{CLIENT} v12.0.0\\+incompatible does not tell"),
    ],
)
def test_a_go_mod_without_the_version_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        list(link_flags(text))


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """A chart that says which Kubernetes Helm assumes, and has a kind that 1.25 took away."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text(
        'apiVersion: v2\nname: x\nversion: 0.1.0\nkubeVersion: ">=1.25.0-0"\n'
    )
    (tmp_path / "templates" / "a.yaml").write_text(
        "apiVersion: policy/v1beta1\nkind: PodDisruptionBudget\nmetadata:\n"
        '  name: {{ .Capabilities.KubeVersion.Version | replace "." "-" }}\n'
    )
    return tmp_path


def test_helm_says_its_version(helm: Path) -> None:
    assert run(helm, "version", "--template", "{{.Version}}") == required(GO_MOD.read_text(), HELM)


def test_helm_assumes_the_kubernetes_of_its_client(helm: Path, chart: Path) -> None:
    assert f"name: v{KUBERNETES.replace('.', '-')}-0\n" in run(helm, "template", "x", chart)


def test_helm_lint_judges_by_it_too(helm: Path, chart: Path) -> None:
    assert "deprecated in v1.21+, unavailable in v1.25+" in invoke(helm, "lint", chart).stdout
