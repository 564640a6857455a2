"""The pages of outlier detection, locality and failover say what is so."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
import yaml

from discovery.model import ServicePort
from middleware.contract import Problem
from middleware.values import format_duration
from nodeagent.plan.annotations import SETTINGS
from nodeagent.plan.failover import FAILOVERS
from nodeagent.plan.locality import LOCALITIES
from nodeagent.plan.model import Locality, OutlierDetection
from nodeagent.plan.of_port import OfPort
from nodeagent.plan.outlier_detection import ALL, KINDS, OUTLIER_DETECTION, OUTLIERS, parse_outlier_detection
from nodeagent.plan.setting import Setting
from tests.middleware.pages import DOCS, blocks, rows

PAGES = (OUTLIERS, LOCALITIES, FAILOVERS)
DETECTION = (DOCS / "outlier-detection.md").read_text()


def example(setting: Setting) -> list[Any]:
    """What the example of a page means, for each of its ports."""
    (block,) = blocks((DOCS / f"{setting.page}.md").read_text(), "yaml")
    service = yaml.safe_load(block)
    options = setting.parse(service["metadata"]["annotations"])
    assert isinstance(options, OfPort)
    return [options.of(ServicePort(port["name"], port["port"])) for port in service["spec"]["ports"]]


def test_the_examples() -> None:
    assert example(OUTLIERS) == [
        OutlierDetection(ALL, consecutive=3, success_rate=80, ejection=10.0),
        OutlierDetection(("5xx", "timeout")),
        None,
    ]
    assert example(LOCALITIES) == [Locality("prefer", 50), Locality("strict"), None]
    assert example(FAILOVERS) == ["catalog-standby.dr", None]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_the_examples_of_annotations(setting: Setting) -> None:
    for annotation in setting.annotations:
        assert not isinstance(setting.parse(yaml.safe_load(annotation.example)), Problem)


def test_the_kinds_of_failures() -> None:
    table = rows(DETECTION, "| word | what counts |")
    assert tuple(row[0].strip("`") for row in table) == KINDS


@pytest.mark.parametrize("row", rows(DETECTION, "| setting | default | from | to | what it is |"))
def test_the_settings_and_their_bounds(row: list[str]) -> None:
    name, default, least, most, _ = (cell.strip("`") for cell in row)
    field = name.replace("-", "_")
    said = msgspec.structs.asdict(OutlierDetection(()))[field]
    shown = {"%": f"{said}%", "s": format_duration(said), "m": format_duration(said)}
    assert default == shown.get(default[-1], str(said))
    for value, right in ((least, True), (most, True), (_beyond(most), False)):
        if value[0].isdigit():
            others = {"ejection": "longest=1h"}.get(name, "ejection=1s")
            found = parse_outlier_detection({OUTLIER_DETECTION: f"all {name}={value} {others}"})
            assert isinstance(found, OfPort) == right, (name, value, found)


def _beyond(bound: str) -> str:
    return re.sub(r"\d+", lambda number: str(int(number[0]) + 1), bound, count=1)
