"""`meshctl graph`: callers by their Services, and names that would end a label of DOT or Mermaid."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.meshctl.graph import dot_lines, graph_lines, mermaid_lines
from nodeagent.meshctl.plans import read_backing
from nodeagent.stats.overview import Overview, merge_nodes
from tests.cli.stats import counted, node_stats
from tests.cli.test_stat import ONE, meshctl, put_stats
from tests.discovery.kube.fake_api import FakeApi, raw

ENDPOINT = {"address": "10.1.0.1:80", "pod": "cart-5d8f9c-abcde"}
PLAN = json.dumps({"version": 1, "services": {"shop/cart": {"backends": [{"endpoints": [ENDPOINT]}]}}})


def overview() -> Overview:
    return merge_nodes([ONE], read_backing(PLAN))


def test_callers_have_the_names_of_their_services(api: FakeApi, tmp_path: Path) -> None:
    put_stats(api, "agent-0", "node-0", None)
    put_stats(api, "agent-1", "node-1", ONE)
    api.pages["agent-1:15000", "plan"] = raw(200, PLAN.encode(), "application/json")
    code, output, errors = meshctl(api, tmp_path, "graph", "cart")
    lines = output.splitlines()
    assert (code, errors) == (1, "")
    assert [line.split() for line in lines[:3]] == [
        ["CALLER", "SERVICE", "RATE", "SUCCESS", "P50", "P95", "P99"],
        ["cart.shop", "pay.shop", "1.0/s", "50.00%", "375ms", "488ms", "498ms"],
        ["deployment/web.shop", "cart.shop", "100/s", "99.00%", "0.75ms", "0.97ms", "0.99ms"],
    ]
    assert lines[-1] == "1 Service used in the last 10 s; 1 of 2 agents have answered"
    code, output, errors = meshctl(api, tmp_path, "graph", "-o", "json")
    edges = json.loads(output)["edges"]
    assert [(edge["source_service"], edge["service"]) for edge in edges] == [("cart", "pay"), ("", "cart")]
    code, output, errors = meshctl(api, tmp_path, "graph", "-o", "dot")
    assert output == "".join(f"{line}\n" for line in dot_lines(overview()))
    assert "agents have answered" in errors


def test_dot() -> None:
    lines = list(dot_lines(overview()))
    assert '  "deployment/web.shop" [shape=ellipse];' in lines
    assert (
        '  "cart.shop" -> "pay.shop" [label="✖ 1.0/s 50.00% p95 488ms", color="#a83200", style=dotted];'
    ) in lines


def test_mermaid() -> None:
    assert list(mermaid_lines(overview())) == [
        "flowchart LR",
        '  n0["cart.shop"]',
        '  n1(["deployment/web.shop"])',
        '  n2["pay.shop"]',
        '  n0 -.->|"✖ 1.0/s 50.00% p95 488ms"| n2',
        "  linkStyle 0 stroke:#a83200",
        '  n1 -->|"✓ 100/s 99.00% p95 0.97ms"| n0',
        "  linkStyle 1 stroke:#005a8c",
    ]


def test_nothing_was_asked() -> None:
    empty = merge_nodes([])
    assert list(graph_lines(empty)) == []
    assert list(dot_lines(empty))[-1] == "}"


@given(st.text(min_size=1))
def test_no_name_ends_its_label(name: str) -> None:
    one = merge_nodes([node_stats("n", {"shop/cart:80": {f"shop/{name}": counted(1)}})])
    for line in mermaid_lines(one):
        assert len(line.splitlines()) == 1
        assert line.count('"') in (0, 2)
    strings = re.compile(r'"(?:[^"\\\n]|\\.)*"', re.DOTALL)
    for line in dot_lines(one):
        assert '"' not in strings.sub("", line)


@given(st.text())
def test_any_page_is_a_plan_or_tells_nothing(text: str) -> None:
    assert read_backing(text).service_of("shop", "deployment/web") == ""
    assert read_backing(json.dumps({"services": {text: {}}})).service_of("shop", "deployment/web") == ""
