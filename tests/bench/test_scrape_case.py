"""The ceiling on series holds for 5,000 busy Services that use every middleware."""

from __future__ import annotations

import re

from hack.bench.report import COLUMNS
from hack.bench.scrape_case import ALL, OPEN, SOME, BusyNode, measure
from nodeagent.settings import MOST_SERIES


def test_5000_services_with_every_label_are_below_the_ceiling_at_each_scrape() -> None:
    node = BusyNode(5000)
    for every in (1, 7, 3):
        node.ask(every)
        text = b"".join(node.page.render()).decode()
        series = sum(not line.startswith("#") for line in text.splitlines())
        assert 0.9 * MOST_SERIES < series <= MOST_SERIES
        assert f"\nsvcmesh_series {series}\n" in text, "the page knows how many it shows"
        assert re.search(r"^svcmesh_series_folded [1-9]", text, re.MULTILINE)
        assert 'svcmesh_requests_total{service="other",namespace="",port="",source_' in text


def test_what_is_much_busier_than_the_rest_gets_series_down_to_its_sources() -> None:
    node = BusyNode(5000)
    node.ask(1)
    list(node.page.render())
    for _ in range(100):
        node.ask(1000)
    list(node.page.render())
    node.ask(1000)
    text = b"".join(node.page.render()).decode()
    assert text.count("\n") <= MOST_SERIES * 2
    assert re.search(
        r'^svcmesh_requests_total{service="service-00000",.*,source_workload="deployment/client-0"',
        text,
        re.MULTILINE,
    )


def test_every_figure_of_the_case_is_shown() -> None:
    samples = list(measure(1, lambda _line: None, services=50))
    assert [sample.case for sample in samples] == [SOME, ALL, OPEN]
    for sample in samples:
        assert {figure for _, figure, _ in COLUMNS[sample.case]} == set(sample.values)
