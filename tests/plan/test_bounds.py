"""Whatever one Service's owner writes, its plan has few problems and takes little time to make."""

from __future__ import annotations

import difflib
from typing import Any

import msgspec
import pytest

from discovery.bounds import LONGEST_SENTENCE, MOST_PROBLEMS
from discovery.manifest.annotations import MAX_ANNOTATIONS
from discovery.manifest.service import MAX_PORTS
from discovery.model import Service, ServicePort
from nodeagent.plan.render import plan_document
from tests.plan.builders import compile_one, compile_services, make_service

PORTS = tuple(ServicePort(f"p{number}", number) for number in range(1, MAX_PORTS + 1))

LOUD = {
    "unknown": {f"svc.mesh/noise-{number}": "x" for number in range(MAX_ANNOTATIONS)},
    "long": {f"svc.mesh/noise-{'x' * 10_000}-{number}": "x" * 10_000 for number in range(3)},
    "ports that are none": {f"svc.mesh/protocol.no-{number}": "x" * 99 for number in range(MAX_ANNOTATIONS)},
    "ports that are none to endpoints": {
        f"svc.mesh/upstream-protocol.no-{number}": "x" * 99 for number in range(MAX_ANNOTATIONS)
    },
    "protocols that are none": {f"svc.mesh/protocol.{number}": "x" for number in range(1, MAX_PORTS + 1)},
    "a long value": {"svc.mesh/tries": "x" * 60_000},
}


@pytest.mark.parametrize("name", LOUD)
def test_the_problems_of_a_service_are_few_and_short(name: str) -> None:
    plan = compile_one(make_service(annotations=LOUD[name], ports=PORTS))
    assert 0 < len(plan.problems) <= MOST_PROBLEMS + 1
    document = plan_document(compile_services(make_service(annotations=LOUD[name])))
    problems: Any = document["services"]["default/shop"]["problems"]
    assert all(len(text) <= LONGEST_SENTENCE for problem in problems for text in problem.values())
    assert set(plan.effective) == {"svc.mesh/enabled"}


def test_only_for_what_is_told_a_similar_name_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def count(name: str, *_: Any, **__: Any) -> list[str]:
        asked.append(name)
        return []

    monkeypatch.setattr(difflib, "get_close_matches", count)
    compile_one(make_service(annotations=LOUD["unknown"]))
    assert len(asked) <= MOST_PROBLEMS


def test_what_keeps_a_service_out_of_the_mesh_is_told_whatever_else_there_is() -> None:
    plan = compile_one(make_service(annotations=LOUD["unknown"], ports=()))
    assert "spec.ports" in {problem.field for problem in plan.problems}
    first = make_service("a")
    plans = compile_services(first, make_service("b", annotations=LOUD["unknown"]))
    problems = plans.services[make_service("b").key].problems
    assert len(problems) == MOST_PROBLEMS + 2
    assert any("keeps the address" in problem.effect for problem in problems)


def overlong(service: Service, **annotations: str) -> Service:
    """Return a Service that has more annotations than are read."""
    found = msgspec.structs.replace(
        service.object,
        overlong=True,
        annotations={f"svc.mesh/{name}": value for name, value in annotations.items()},
    )
    return msgspec.structs.replace(service, object=found)


def test_annotations_that_are_not_read_leave_those_before_in_force() -> None:
    good = make_service(annotations={"svc.mesh/tries": "3", "svc.mesh/protocol": "http"})
    before = compile_services(good)
    (old,) = before.services.values()
    after = compile_services(overlong(good, enabled="true"), previous=before)
    (new,) = after.services.values()
    assert new.effective == old.effective
    assert new.listeners == old.listeners
    again = compile_one(overlong(good, enabled="true"), previous=after)
    assert again.effective == old.effective
    mended = compile_one(make_service(annotations={"svc.mesh/tries": "4"}), previous=after)
    assert mended.effective["svc.mesh/tries"] == "4"


def test_a_service_that_was_never_read_is_not_meshed_and_says_why() -> None:
    service = overlong(make_service(), enabled="true")
    said = msgspec.structs.replace(service, problems=compile_one(make_service(ports=())).problems)
    plan = compile_one(said)
    assert (plan.address, plan.listeners, plan.effective) == ("", (), {})
    assert plan.problems == said.problems


def test_it_can_still_leave_the_mesh() -> None:
    before = compile_services(make_service())
    after = compile_one(overlong(make_service(), enabled="false"), previous=before)
    assert (after.address, after.listeners) == ("", ())
