"""What a real agent exposes is what docs/metrics.md declares."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families

from hack.metrics import families
from tests.agent.harness import Agent


def test_a_real_agent_exposes_the_declared_families(agent: Agent) -> None:
    text = agent.admin("/metrics")[1]
    declared = {family.name: family for family in families() if family.shown != "with `--traces`"}
    kinds = dict(re.findall(r"^# TYPE (svcmesh_\w+) (\w+)$", text, re.MULTILINE))
    assert kinds == {name: family.kind for name, family in declared.items()}
    for family in text_string_to_metric_families(text):
        if family.name.startswith("svcmesh_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            for sample in family.samples:
                assert set(sample.labels) - {"le"} == set(declared[name].labels), sample
            assert family.samples or declared[name].shown != "always", name
