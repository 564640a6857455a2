"""`/metrics` whatever the names are, and however many scrape at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as plain_families

from nodeagent.admin.exposition import PIECE_PORTS
from nodeagent.admin.formats import OPEN_METRICS, PLAIN, TextFormat
from nodeagent.stats import columns
from tests.admin.test_metrics import NO_SOURCE, Node, service_plan

ODD_NAMES = (
    'we"b\\\n',
    "\\n",
    "line one\nsvcmesh_ready 0",
    "carriage\rreturn\x00\x1b[2J\u2028",
    "x" * 10_240,
    'a",namespace="other',
    "{}#=,",
    "svcmesh-requests-total",
    "svcmesh_requests_total",
    "le",
    "<script>alert(1)</script>",
    "ä\U0001f600",
    "half \ud83d of a pair",
    " ",
)
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(node: Node, form: TextFormat) -> Samples:
    """Return what a scraper reads; it must be able to read all."""
    text = b"".join(node.page.render(form)).decode()
    parse: Any = open_families if form is OPEN_METRICS else plain_families
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def of(name: str, labels: Mapping[str, str]) -> tuple[str, tuple[tuple[str, str], ...]]:
    return name, tuple(sorted(labels.items()))


@pytest.mark.parametrize("form", [PLAIN, OPEN_METRICS], ids=["plain", "openmetrics"])
@pytest.mark.parametrize("name", ODD_NAMES, ids=lambda name: ascii(name)[:30])
def test_any_name_of_a_service_is_read_as_it_is(name: str, form: TextFormat) -> None:
    node = Node(service_plan(name, 80), service_plan("web", 80))
    node.write(0, name, columns.REQUESTS_2XX, 5)
    node.write(0, "web", columns.REQUESTS_2XX, 7)
    found = samples(node, form)
    shown = name.encode("utf-8", "replace").decode()
    labels = {"namespace": "default", "port": "80", "code_class": "2xx", **NO_SOURCE}
    assert found[of("svcmesh_requests_total", {"service": shown, **labels})] == 5
    assert found[of("svcmesh_requests_total", {"service": "web", **labels})] == 7
    assert found[of("svcmesh_ready", {})] == 1
    node.close()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), max_size=60), st.sampled_from([150, 250, 100_000]))
def test_two_scrapes_at_once_are_as_two_one_after_the_other(turns: list[bool], most: int) -> None:
    ports = 2 * PIECE_PORTS
    node = Node(*(service_plan(f"s{number}", 80) for number in range(ports)), most_series=most)
    for number in range(ports):
        node.write(number % 2, f"s{number}", columns.REQUESTS_2XX, number + 1)
    texts = [b"", b""]
    pages = [node.page.render(), node.page.render(OPEN_METRICS)]
    for turn in turns:
        texts[turn] += next(pages[turn], b"")
    for text_number in (1, 0):
        texts[text_number] += b"".join(pages[text_number])
    for text in texts:
        lines = [line.rpartition(b" ") for line in text.splitlines() if not line.startswith(b"#")]
        series = [name for name, _, _ in lines if name.startswith(b"svcmesh_")]
        assert len(set(series)) == len(series) <= most
        requests = [int(value) for name, _, value in lines if name.startswith(b"svcmesh_requests_total{")]
        if most == 100_000:
            assert sum(requests) == sum(range(1, ports + 1)), "nothing is counted twice, nothing is lost"
    node.close()
