"""Copy the alerts of `manifests/monitoring/rules.yaml` to where the Prometheus operator's users need them.

`make docs` calls it. They are written once, as Prometheus itself reads them. kustomize needs them within a
PrometheusRule, and the chart can read only files of its own folder.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

ROOT = Path(__file__).resolve().parents[2] / "manifests"
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
    app.kubernetes.io/version: "0.1.0"
spec:
"""


def copies(rules: str) -> dict[Path, str]:
    """Return what each copy holds."""
    return {
        ROOT / "monitoring" / "prometheusrule.yaml": HEAD + indent(rules, "  "),
        ROOT / "charts" / "svcmesh" / "files" / "rules.yaml": rules,
    }


if __name__ == "__main__":
    for path, text in copies(RULES.read_text()).items():
        path.write_text(text)
