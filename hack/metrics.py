"""Print docs/metrics.md: every family of /metrics, from where each is declared (`make docs`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from hack.annotations import cell
from middleware.registry import MIDDLEWARES
from nodeagent.admin.families import DURATION, METHODS, port_families
from nodeagent.admin.family import Family, Group
from nodeagent.admin.own_families import OWN_FAMILIES
from nodeagent.stats.columns import Layout

HEADER: Final = """\
# Metrics

Each agent serves its own metrics and those of its workers at `/metrics` on its admin address (port 15000), as
Prometheus text. `manifests/monitoring` has a PodMonitor and a Grafana dashboard ([install](install.md)).
Generated from the code by `make docs`.

- A node counts the requests of **its own pods**, whatever node the endpoint is on. For a Service as a whole,
  sum over the nodes.
- The labels `service`, `namespace` and `port` are those of the Service that the client asked. If a node has
  more ports than slots to count in, the remaining ports share `service="other"`, with empty `namespace` and
  `port`.
- A family of ports has no samples of a port until there is something to count (column “shown”). From then on
  the usual values of its labels are there, at 0 too; unusual ones appear with the first count.
- Counters begin again at 0 when the agent is replaced, as `rate()` expects. They outlive a worker.
- Prometheus' client adds figures of the agent's process alone: `process_cpu_seconds_total`,
  `process_resident_memory_bytes`, `process_virtual_memory_bytes`, `process_open_fds`, `process_max_fds` and
  `process_start_time_seconds`. They do not contain the workers, so watch memory and CPU of the pod instead.
  The families of Python itself (`python_gc_*`, `python_info`) are not shown.
"""

GROUPS: Final[Mapping[Group, str]] = {
    "requests": "Requests",
    "connections": "Connections",
    "grpc": "gRPC",
    "endpoints": "Endpoints",
    "middleware": "Retries, circuit breakers and other middleware",
    "refused": "What the mesh refuses",
    "dns": "DNS",
    "plan": "The plan",
    "source": "The source and its snapshot",
    "workers": "Workers",
    "agent": "The agent",
}
"""The sections in order."""


def families() -> Iterator[Family]:
    """Yield every family that an agent can show."""
    layout = Layout(MIDDLEWARES)
    pages = {
        metric.name: middleware.page or middleware.name
        for middleware in MIDDLEWARES
        for metric in middleware.metrics
    }
    for family in port_families(layout):
        if family.middleware:
            page = pages[family.name.removesuffix("_total")]
            yield Family(
                family.name,
                family.kind,
                family.help,
                family.group,
                family.labels,
                f"See [{page}](middleware/{page}.md).",
                family.shown,
            )
        else:
            yield family
    yield from (DURATION, METHODS, *OWN_FAMILIES)


def unit(family: Family) -> str:
    """Return the unit that the family's name tells."""
    name = family.name.removesuffix("_total")
    if name.endswith("_timestamp_seconds"):
        return "Unix time"
    return next((known for known in ("seconds", "bytes") if name.endswith(f"_{known}")), "")


def section(group: Group) -> str:
    """Return one part of the page."""
    lines = [
        f"## {GROUPS[group]}",
        "",
        "| metric | type | labels | unit | what it counts | shown | what to do with it |",
        "|---|---|---|---|---|---|---|",
    ]
    for family in families():
        if family.group == group:
            labels = ", ".join(f"`{label}`" for label in family.labels)
            cells = (family.kind, labels, unit(family), family.help, family.shown, family.use)
            lines.append(f"| `{family.name}` | {' | '.join(map(cell, cells))} |")
    return "\n".join([*lines, ""])


def render() -> str:
    """Return the page."""
    return "\n".join([HEADER, *map(section, GROUPS)])


if __name__ == "__main__":
    print(render(), end="")
