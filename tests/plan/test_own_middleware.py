"""`svc.mesh/middleware` in plans: what is chosen takes part, and what is wrong is said."""

from __future__ import annotations

import msgspec

from discovery.model import Problem
from middleware.contract import Annotation, Middleware
from middleware.custom import guard
from middleware.registry import MIDDLEWARES
from nodeagent.plan.effective import Resolution, resolve_annotations
from tests.plan.builders import make_service


class Options(msgspec.Struct, frozen=True):
    word: str = ""


def custom(name: str, parse: object = None) -> Middleware:
    annotation = Annotation(f"svc.mesh/{name}", "", "", "", "")
    return guard(
        Middleware(
            name,
            (annotation,),
            Options,
            parse or (lambda annotations: Options(annotations.get(annotation.name, ""))),  # type: ignore[arg-type]
            lambda _options, _context: lambda handler: handler,
        )
    )


def resolve(
    annotations: dict[str, str], *own: Middleware, before: dict[str, str] | None = None
) -> Resolution:
    service = make_service(annotations={f"svc.mesh/{name}": value for name, value in annotations.items()})
    return resolve_annotations(service.object, before or {}, (*MIDDLEWARES, *own))


def said(problem: Problem) -> tuple[str, str, str]:
    return problem.reason, problem.expected, problem.effect


def test_what_is_chosen_takes_part() -> None:
    found = resolve({"middleware": "audit", "audit": "x"}, custom("audit"), custom("other"))
    assert [(layer.name, layer.options) for layer in found.layers] == [("audit", Options("x"))]
    assert found.problems == ()


def test_what_asks_for_it_is_the_choice_if_it_has_no_annotation_of_its_own() -> None:
    found = resolve({"middleware": "audit"}, custom("audit"))
    assert found.asked_by == (("audit", "svc.mesh/middleware"),)


def test_an_annotation_without_the_choice() -> None:
    found = resolve({"audit": "x"}, custom("audit"))
    assert found.layers == ()
    (problem,) = found.problems
    assert said(problem) == (
        "has no effect without svc.mesh/middleware",
        "svc.mesh/middleware: audit beside it",
        "audit is off",
    )


def test_a_name_that_is_not_there_harms_no_other() -> None:
    found = resolve({"middleware": "adit audit"}, custom("audit"))
    assert [layer.name for layer in found.layers] == ["audit"]
    (problem,) = found.problems
    assert said(problem) == (
        "no middleware here is called adit",
        "did you mean audit?",
        "requests pass without adit",
    )


def test_none_is_installed() -> None:
    (problem,) = resolve({"middleware": "audit"}).problems
    assert problem.expected == "none: no middleware of your own is installed"


def test_the_meshs_own_is_not_chosen_so() -> None:
    (problem,) = resolve({"middleware": "retry"}, custom("audit")).problems
    assert said(problem) == (
        "retry is the mesh's own",
        "its annotations, which turn it on",
        "svc.mesh/middleware does nothing about retry",
    )


def test_a_parse_that_fails_is_off_and_harms_no_other() -> None:
    def fail(_annotations: object) -> Options:
        raise LookupError("a bug")

    nameless = msgspec.structs.replace(custom("nameless", fail), annotations=())
    found = resolve(
        {"middleware": "broken nameless audit"}, custom("broken", fail), nameless, custom("audit")
    )
    assert [layer.name for layer in found.layers] == ["audit"]
    assert [problem.effect for problem in found.problems] == ["broken is off", "nameless is off"]
    assert found.annotations["svc.mesh/middleware"] == "broken nameless audit"


def test_a_bad_value_leaves_the_last_good_one() -> None:
    found = resolve({"middleware": "a a"}, custom("a"), before={"svc.mesh/middleware": "a"})
    assert [layer.name for layer in found.layers] == ["a"]
    (problem,) = found.problems
    assert problem.effect == "svc.mesh/middleware=a stays in force"
