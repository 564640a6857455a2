"""The queries of `manifests/autoscaling`, as prometheus-adapter and KEDA send them for shop/web."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.manifests.objects import MANIFESTS

FOLDER = MANIFESTS / "autoscaling"


def adapter_rules() -> list[dict[str, Any]]:
    """Return the rules of prometheus-adapter's configuration."""
    rules: list[dict[str, Any]] = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"][
        "custom"
    ]
    return rules


def adapter_queries() -> dict[str, str]:
    """Return what prometheus-adapter asks, by the name of the metric."""
    queries = {}
    for rule in adapter_rules():
        (series,) = re.findall(r"^\w+", rule["seriesQuery"])
        query = rule["metricsQuery"]
        for placeholder, text in (
            ("<<.Series>>", series),
            ("<<.LabelMatchers>>", 'namespace="shop",service="web"'),
            ("<<.GroupBy>>", "service"),
        ):
            query = query.replace(placeholder, text)
        queries[rule["name"]["as"]] = query
    return queries


def keda_queries() -> list[str]:
    """Return what KEDA asks, one a trigger."""
    triggers = yaml.safe_load((FOLDER / "keda.yaml").read_text())["spec"]["triggers"]
    return [trigger["metadata"]["query"] for trigger in triggers]
