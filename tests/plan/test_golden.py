"""Whole plans: `tests/golden/<case>/cluster.yaml` in, `plan.json` out.

A case may have a `before.yaml`, which is compiled first; one whose name starts with `laptop-` is compiled for
loopback capture without privileges, the others for nftables; `compat-` is read with `--compat traefik-mesh`.
`UPDATE_GOLDEN=1 pytest tests/plan` writes the plans anew; read the difference before you commit it.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from discovery.compat import Compat
from discovery.files.reading import read_once
from discovery.registry import Registry
from nodeagent.plan.compile import compile_plan
from nodeagent.plan.model import EMPTY_PLAN, NodePlan
from nodeagent.plan.render import plan_document
from nodeagent.settings import Settings
from tests.plan.builders import LAPTOP, SETTINGS, delta_of

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = sorted(path.name for path in GOLDEN.iterdir() if (path / "cluster.yaml").is_file())


def compat_of(case: str) -> Compat | None:
    return "traefik-mesh" if case.startswith("compat-") else None


def compile_case(settings: Settings, compat: Compat | None) -> NodePlan:
    registry, plan = Registry(), EMPTY_PLAN
    for file in ("before.yaml", "cluster.yaml"):
        if Path(file).exists():
            registry.fold(read_once(file, compat=compat))
            plan = compile_plan(registry.snapshot(), plan, settings)
    return plan


@pytest.mark.parametrize("case", CASES)
def test_plan(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN / case)
    settings = LAPTOP if case.startswith("laptop-") else SETTINGS
    plan = compile_case(settings, compat_of(case))
    written = msgspec.json.format(msgspec.json.encode(plan_document(plan)), indent=2).decode() + "\n"
    golden = Path("plan.json")
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(written)
    assert written == golden.read_text(), "UPDATE_GOLDEN=1 writes it anew"


@pytest.mark.parametrize("case", CASES)
def test_compiled_again_nothing_changes(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same snapshot the same objects come out, whatever was bad in it."""
    monkeypatch.chdir(GOLDEN / case)
    registry = Registry()
    registry.fold(read_once("cluster.yaml", compat=compat_of(case)))
    first = compile_plan(registry.snapshot(), EMPTY_PLAN, SETTINGS)
    second = compile_plan(registry.snapshot(), first, SETTINGS)
    assert all(second.services[key] is plan for key, plan in first.services.items())
    assert not delta_of(first, second)


def test_there_are_cases() -> None:
    assert len(CASES) >= 15
