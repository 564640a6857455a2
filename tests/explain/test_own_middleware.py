"""A user's own middleware whose `explain` fails, or says what means nothing: all else is explained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from middleware import registry
from middleware.contract import AskedHere, Decision, Middleware
from nodeagent.explain.choosing import Node
from nodeagent.explain.explain import explain
from nodeagent.explain.model import Explanation, Question
from nodeagent.explain.text import text_lines
from nodeagent.plan.compile import compile_plan
from nodeagent.plan.model import EMPTY_PLAN
from nodeagent.plan.render import InForce
from tests.plan.builders import SETTINGS, make_service, snapshot_of


class Options(msgspec.Struct, frozen=True):
    """It has none."""


def fails(_: Options, asked: AskedHere) -> Decision:
    asked.headers.set("x-half", "done")
    raise KeyError("region")


def is_no_decision(_: Options, __: AskedHere) -> Any:
    return None


def names_no_status(_: Options, __: AskedHere) -> Decision:
    return Decision("answers", 42)


def weighs_nothing(_: Options, __: AskedHere) -> Decision:
    return Decision("chooses", shares=(("", 0), ("v2", 0)))


def explained(monkeypatch: pytest.MonkeyPatch, own: Callable[..., Any]) -> Explanation:
    middleware = Middleware(
        name="region",
        annotations=(),
        options=Options,
        parse=lambda _: Options(),
        build=lambda _, __: lambda handler: handler,
        explain=own,
    )
    installed = registry.Installed((middleware, *registry.MIDDLEWARES), ())
    monkeypatch.setattr(registry, "installed", lambda: installed)
    service = make_service("web", annotations={"svc.mesh/request-headers": "set x-env=prod"})
    plan = compile_plan(snapshot_of(service), EMPTY_PLAN, SETTINGS, installed.middlewares)
    return explain(Node(InForce(plan)), SETTINGS, Question("http://web.default.svc.mesh/"))


@pytest.mark.parametrize(
    ("own", "why"),
    [
        (fails, "KeyError('region')"),
        (is_no_decision, "it returns NoneType, not a Decision"),
        (names_no_status, "a status is 200 to 599, not 42"),
        (weighs_nothing, "the weight of '' is 0"),
    ],
)
def test_a_layer_that_cannot_explain_itself_takes_nothing_else_away(
    monkeypatch: pytest.MonkeyPatch, own: Callable[..., Any], why: str
) -> None:
    said = explained(monkeypatch, own)
    assert said.unknown == ("region",)
    (line,) = [line for line in text_lines(said) if line.startswith("layer     region:")]
    assert "cannot say what it would do: its `explain` failed" in line
    assert why in line
    assert said.answer is None
    assert said.sent is not None
    assert ("x-env", "prod") in said.sent.fields, "the layers after it are explained"
    assert "x-half" not in dict(said.sent.fields), "what it has half done is undone"
    assert said.backends[0].chosen == "10.1.0.1:8080"
