"""Several nodes as one: sums, percentiles of the histograms together, and which Service a source is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.stats.columns import DURATION_BOUNDS, EDGE_COLUMNS
from nodeagent.stats.overview import Backing, ServiceName, makes_pod, merge_nodes, sum_signals
from nodeagent.stats.signals import signals
from tests.cli.stats import counted, node_stats

columns = st.lists(st.integers(0, 10**6), min_size=EDGE_COLUMNS, max_size=EDGE_COLUMNS)


@given(st.lists(columns, min_size=1, max_size=4))
def test_nodes_together_are_as_one_that_has_counted_all(parts: list[list[int]]) -> None:
    together = signals([sum(each) for each in zip(*parts, strict=True)], 10.0)
    merged = sum_signals([signals(part, 10.0) for part in parts])
    for field in ("requests", "p50", "p95", "p99", "durations", "mesh_responses", "connections"):
        assert getattr(merged, field) == getattr(together, field), field
    assert merged.rate == pytest.approx(together.rate)
    assert merged.received_rate == pytest.approx(together.received_rate)
    assert sorted(merged.classes.items()) == sorted(together.classes.items())
    assert sorted(merged.grpc.items()) == sorted(together.grpc.items())
    assert merged.failed <= together.failed, "calls that failed are bounded by requests, on each node"


def test_percentiles_are_no_means_of_percentiles() -> None:
    quick = node_stats("node-1", {"shop/cart:80": {"shop/deployment/web": counted(good=990, bucket=0)}})
    slow = node_stats("node-2", {"shop/cart:80": {"shop/deployment/web": counted(bad=10, bucket=12)}})
    (row,) = merge_nodes([quick, slow]).services
    assert (row.nodes, row.ports, row.signals.requests) == (2, [80], 1000)
    assert row.signals.success == pytest.approx(0.99)
    assert row.signals.p95 is not None
    assert row.signals.p95 < DURATION_BOUNDS[0], "the mean of both would be over a second"


def test_ports_of_a_service_are_one_row_and_edges_are_by_source() -> None:
    overview = merge_nodes(
        [
            node_stats(
                "node-1",
                {
                    "shop/cart:80": {"shop/deployment/web": counted(5), "/node": counted(1)},
                    "shop/cart:8080": {"shop/deployment/web": counted(7)},
                    "bank/cart:80": {"/unknown": counted(1)},
                },
                left_out=3,
            ),
            node_stats("node-2", {"shop/cart:80": {"shop/deployment/web": counted(8)}}, window=4.0),
        ],
        Backing({ServiceName("shop", "front"): ["web-5d8f9-abcde"]}),
    )
    assert [(row.namespace, row.service, row.ports, row.signals.requests) for row in overview.services] == [
        ("bank", "cart", [80], 1),
        ("shop", "cart", [80, 8080], 21),
    ]
    assert [
        (edge.source, edge.source_service, edge.service, edge.signals.requests) for edge in overview.edges
    ] == [
        ("node", "", "cart", 1),
        ("unknown", "", "cart", 1),
        ("deployment/web", "front", "cart", 20),
    ]
    assert (overview.window, overview.left_out) == (10.0, 3)
    assert merge_nodes([]).services == []


@pytest.mark.parametrize(
    ("workload", "pod", "made"),
    [
        ("deployment/web", "web-5d8f9c-abcde", True),
        ("deployment/web", "web-api-5d8f9c-abcde", False),
        ("deployment/web", "web-abcde", False),
        ("deployment/web", "web", False),
        ("statefulset/db", "db-0", True),
        ("statefulset/db", "db-12", True),
        ("statefulset/db", "db-abcde", False),
        ("daemonset/log", "log-x7k2p", True),
        ("daemonset/log", "log-x7k2p-1", False),
        ("job/copy", "copy-x7k2p", True),
        ("job/copy", "copy-3-x7k2p", True),
        ("pod/one", "one", True),
        ("pod/one", "one-x7k2p", False),
        ("node", "node", False),
        ("unknown", "unknown-x7k2p", False),
    ],
)
def test_which_pods_a_workload_makes(workload: str, pod: str, made: bool) -> None:
    assert makes_pod(workload, pod) is made
    backing = Backing({ServiceName("shop", "any"): [pod]})
    assert backing.service_of("shop", workload) == ("any" if made else "")
    assert backing.service_of("bank", workload) == ""


def test_a_workload_of_several_services_is_the_one_with_its_name() -> None:
    pods = ["web-5d8f9c-abcde"]
    services = {ServiceName("shop", name): pods for name in ("admin", "web", "zoo")}
    assert Backing(services).service_of("shop", "deployment/web") == "web"
    del services[ServiceName("shop", "web")]
    assert Backing(services).service_of("shop", "deployment/web") == "admin"
