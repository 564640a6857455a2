"""Print docs/metrics.md: every family of /metrics, from where each is declared (`make docs`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from hack.annotations import cell
from middleware.grpc import GrpcStatus
from middleware.registry import MIDDLEWARES
from nodeagent.admin.families import DURATION, METHODS, PortFamily, port_families
from nodeagent.admin.family import PORT_LABELS, Family, Group
from nodeagent.admin.objectives import OBJECTIVE_FAMILIES, SLI
from nodeagent.admin.own_families import BUILD_INFO, OWN_FAMILIES
from nodeagent.stats.columns import DURATION_BOUNDS, Layout
from nodeagent.stats.methods import MOST_METHODS

HEADER: Final = """\
# Metrics

Each agent serves its own metrics and those of its workers at `/metrics` on its admin address (port 15000), as
OpenMetrics or Prometheus' text ([formats](#formats)). `manifests/monitoring` has a PodMonitor and Grafana
boards ([install](install.md)).
Generated from the code by `make docs`.

- A node counts the requests of **its own pods**, whatever node the endpoint is on. For a Service as a whole,
  sum over the nodes.
- The labels `service`, `namespace` and `port` are those of the Service that the client asked.
- `source_namespace` and `source_workload` name the client, such as `shop` and `deployment/web`. The mesh
  takes them from the address of the connection, never from what the client says. With an empty
  `source_namespace`, `source_workload` is `node` for the node itself and Pods on its network, `unknown` for a
  client that is no Pod of this node (or one that is not known yet), and `other` for sources that are counted
  together. The ServiceAccount is not a label: it would add series and tell nothing that the workload does
  not.
- A family of ports has no samples of a port until there is something to count (column “shown”). From then on
  the usual values of its labels are there, at 0 too; unusual ones appear with the first count.
- Counters begin again at 0 when the agent is replaced, as `rate()` expects. They outlive a worker.
- Durations are histograms with 14 bounds. These are round numbers, so that objectives can name them.

## Formats

A scraper chooses by its header field `Accept`, in which quality values count. Prometheus asks for OpenMetrics
by itself.

| `Accept` prefers | format |
|---|---|
| `application/openmetrics-text`, version 1.0.0 or none | OpenMetrics 1.0 |
| anything else; or it is missing, malformed, or above 1,024 characters | Prometheus' text format 0.0.4 |

Both have the same series. OpenMetrics has units and exemplars besides, and no `_created` samples.

An [exemplar](tracing.md#from-a-latency-panel-to-the-trace) is the last request of a bucket whose trace went
to the collector of `--traces`. The agent keeps those of the 1,024 edges (port and source) that were traced
last. Without tracing there are none, and they cost nothing.

Prometheus 3 makes **native histograms** of either format, if the scrape configuration says so:

```yaml
scrape_native_histograms: true
convert_classic_histograms_to_nhcb: true
always_scrape_classic_histograms: true   # the boards and rules of manifests/monitoring need them
```

Then a duration is one series with all its buckets, and
`histogram_quantile(0.99, sum(rate(svcmesh_request_duration_seconds[5m])))` gives what the classic query gives
(tried with Prometheus 3.14). The bounds stay the 14 above.

Finer, exponential buckets are not offered. They need Prometheus' protobuf format, and workers would have to
count in about ten times as many buckets. With 118 more bounds (8 for each doubling) a scrape of 10,000
Services took 159 ms of CPU in place of 99 with one in ten of them busy, and 446 in place of 212 with all
busy; the memory of two workers' counters and the agent grew by 62 MiB. With half as many bounds it was 123
and 327 ms, and 29 MiB. Everybody would pay for it, also without using it.

## The ceiling on series

An agent shows at most 3,000 time series (`--max-series`), the mesh's own figures included, however many
Services there are. `svcmesh_series` says how many it shows, `svcmesh_series_folded` how many ports and
sources had to be counted together.

- A port, and each source of a port, gets series of its own as soon as it is active, while there is room. All
  other ports together are `service="other"` with empty `namespace` and `port`; all other sources of a port
  are `source_workload="other"`.
- When the room is used up, places go to the most active by exact counts of requests and connections, in which
  what is 5 minutes old counts half. One that has a place loses it only to one that is twice as active, or
  after an hour without traffic.
- Each request is counted in exactly one series of each family, so the sum of `rate()` over all labels is the
  rate of all requests. A series never decreases. When it gets its place it begins at 0: what was counted
  before stays in `other`. When it loses the place it leaves the page, and its value is not added to `other`,
  where `rate()` would take it for traffic.
- Objectives come first, up to half of the ceiling ([objectives](objectives.md#metrics-and-budgets)). What is
  left is for ports and sources.
- Calls of a port in `other` are in `svcmesh_grpc_calls_total`, and in `svcmesh_grpc_method_calls_total` not.

To see every port and source, however many there are, ask the agent for `/stats?window=10s` (1s to 1m), by
`meshctl page` or on the node: JSON
with requests, rate, success, percentiles and bytes of each port and source in that time. The agent looks at
them once a second while somebody asks, so the first answer takes a second.

## The agent's process

Prometheus' client adds figures of the agent's process alone: `process_cpu_seconds_total`,
`process_resident_memory_bytes`, `process_virtual_memory_bytes`, `process_open_fds`, `process_max_fds` and
`process_start_time_seconds`. They do not contain the workers, so watch memory and CPU of the pod instead.
The families of Python itself (`python_gc_*`, `python_info`) are not shown.
"""

GROUPS: Final[Mapping[Group, str]] = {
    "requests": "Requests",
    "connections": "Connections",
    "grpc": "gRPC",
    "objectives": "Objectives",
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
            yield msgspec.structs.replace(family, use=f"See [{page}](middleware/{page}.md).")
        else:
            yield family
    yield from (DURATION, METHODS, *OBJECTIVE_FAMILIES, *OWN_FAMILIES)


def unit(family: Family) -> str:
    """Return the unit that the family's name tells."""
    return "Unix time" if family.name.endswith("_timestamp_seconds") else family.unit


def cardinality(family: Family) -> str:
    """Return how many series the family has at most, and of what."""
    if isinstance(family, PortFamily):
        return f"{len(family.series)} a {'source' if family.by_source else 'port'}"
    if family is DURATION:
        return f"{len(DURATION_BOUNDS) + 3} a source"
    if family is METHODS:
        return f"{(MOST_METHODS + 1) * len(GrpcStatus)} a port and worker"
    if family.labels[: len(PORT_LABELS)] == PORT_LABELS:
        return "2 a port" if SLI in family.labels else "1 a port"
    return f"1 a {family.labels[0]}" if family.labels and family is not BUILD_INFO else "1"


def section(group: Group) -> str:
    """Return one part of the page."""
    lines = [
        f"## {GROUPS[group]}",
        "",
        "| metric | type | labels | unit | series | what it counts | shown | what to do with it |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for family in families():
        if family.group == group:
            labels = ", ".join(f"`{label}`" for label in family.labels)
            cells = (
                family.kind,
                labels,
                unit(family),
                cardinality(family),
                family.help,
                family.shown,
                family.use,
            )
            lines.append(f"| `{family.name}` | {' | '.join(map(cell, cells))} |")
    return "\n".join([*lines, ""])


def render() -> str:
    """Return the page."""
    return "\n".join([HEADER, *map(section, GROUPS)])


if __name__ == "__main__":
    print(render(), end="")
