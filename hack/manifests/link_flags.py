"""Print the linker's flags for Helm: its own version, and the Kubernetes version that it assumes.

Without them Helm takes the cluster for Kubernetes 1.20 wherever it does not ask one (`helm template`, `helm
lint`), and refuses charts that need a newer one. Helm's own Makefile sets the same variables; here they come
from `go.mod`. `make manifest-tools` uses them before there is an environment of ours, so only Python's
library is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

GO_MOD = Path(__file__).with_name("go.mod")
HELM = "helm.sh/helm/v3"
CLIENT = "k8s.io/client-go"
ASSUMED_BY = (f"{HELM}/pkg/lint/rules", f"{HELM}/pkg/chartutil")
"""The packages of Helm that have a Kubernetes version of their own."""


def required(go_mod: str, module: str) -> str:
    """Return the version of a module that a go.mod requires.

    Raises:
        ValueError: it requires none.
    """
    found = re.search(rf"^(?:require)?\s*{re.escape(module)} (v\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise ValueError(f"{GO_MOD.name} does not require {module}")
    return found[1]


def kubernetes_version(go_mod: str) -> tuple[str, str]:
    """Return the major and minor version of Kubernetes; its client v0.34.1 belongs to Kubernetes 1.34.1.

    Raises:
        ValueError: the client is not required, or has another form of version.
    """
    version = required(go_mod, CLIENT)
    found = re.match(r"v0\.(\d+)\.", version)
    if found is None:
        raise ValueError(f"{CLIENT} {version} does not tell its Kubernetes version as v0.MINOR.PATCH does")
    return "1", found[1]


def link_flags(go_mod: str) -> Iterator[str]:
    """Yield what goes to `go build -ldflags`.

    Raises:
        ValueError: see `required` and `kubernetes_version`.
    """
    yield from ("-s", "-w")
    yield f"-X={HELM}/internal/version.version={required(go_mod, HELM)}"
    major, minor = kubernetes_version(go_mod)
    for package in ASSUMED_BY:
        yield f"-X={package}.k8sVersionMajor={major}"
        yield f"-X={package}.k8sVersionMinor={minor}"


if __name__ == "__main__":
    print(*link_flags(GO_MOD.read_text()))
