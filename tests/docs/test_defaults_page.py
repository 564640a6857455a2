"""The page of defaults and limits says what is so."""

from __future__ import annotations

import math
import re

import yaml

from discovery.annotations import ANNOTATIONS
from discovery.manifest import read_object
from discovery.model import NamespaceObject
from middleware.registry import MIDDLEWARES
from nodeagent.plan.effective import known_annotations
from nodeagent.plan.policy import Rules, read_annotations
from tests.middleware.pages import DOCS, blocks, rows

PAGE = (DOCS / "defaults.md").read_text()
RULES = Rules(MIDDLEWARES)


def test_the_example() -> None:
    found, problems = read_object(yaml.safe_load(blocks(PAGE, "yaml")[0]), "")
    assert problems == ()
    assert isinstance(found, NamespaceObject)
    policy, faults = read_annotations(RULES, found)
    assert faults == []
    assert (len(policy.defaults), len(policy.limits)) == (2, 2)


def test_what_can_have_no_default() -> None:
    (section,) = re.findall(r"## What can have a default\n(.*?)\n## ", PAGE, re.DOTALL)
    named = {f"svc.mesh/{name.removeprefix('svc.mesh/')}" for name in re.findall(r"`([\w/.-]+)`", section)}
    known = {name for name in known_annotations(MIDDLEWARES) if "<" not in name}
    assert known - set(RULES.defaultable) == named
    assert {one.name for one in ANNOTATIONS if "<" not in one.name} <= named


def test_what_can_have_a_limit() -> None:
    table = {
        row[0].strip("`"): row[2]
        for row in rows(PAGE, "| annotation | the limit is for | without a value counts |")
    }
    assert table.keys() == RULES.limitable.keys()
    for name, limit in RULES.limitable.items():
        said = table[name]
        if said == "no limit":
            assert limit.absent == math.inf
        else:
            assert limit.absent == (0 if said == "no cache" else limit.read(said))
