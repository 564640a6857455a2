"""Copy the alerts of `manifests/monitoring/rules.yaml` to where the Prometheus operator's users need them.

`make docs` calls it. They are written once, as Prometheus itself reads them. kustomize needs them within a
PrometheusRule, and the chart can read only files of its own folder.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from textwrap import indent

TREE = Path(__file__).resolve().parents[2]
ROOT = TREE / "manifests"
RULES = ROOT / "monitoring" / "rules.yaml"

HEAD = """\
# Made by `make docs` from rules.yaml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: svcmesh-agent
  namespace: svcmesh
  labels:
    app.kubernetes.io/name: svcmesh
    app.kubernetes.io/instance: svcmesh
    app.kubernetes.io/component: agent
    app.kubernetes.io/part-of: svcmesh
    app.kubernetes.io/version: "{version}"
spec:
"""


def copies(rules: str) -> dict[Path, str]:
    """Return what each copy holds."""
    version = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]["version"]
    return {
        ROOT / "monitoring" / "prometheusrule.yaml": HEAD.format(version=version) + indent(rules, "  "),
        ROOT / "charts" / "svcmesh" / "files" / "rules.yaml": rules,
    }


if __name__ == "__main__":
    for path, text in copies(RULES.read_text()).items():
        path.write_text(text)
