"""A user's own middleware: chosen by name, and whatever it does wrong costs as little as can be."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from middleware import custom, registry
from middleware.contract import (
    Annotation,
    Connection,
    Context,
    Handler,
    Layer,
    Middleware,
    Problem,
    Request,
    Response,
)
from middleware.custom import MIDDLEWARE, Broken, Chosen, guard, parse_chosen
from middleware.testing import FakeConnection, FakeContext, FakeRequest, handler_of, run, status_of
from middleware.watch import PAUSE, SECOND, Overrun, Place, Watch, watched

OWN = "svc.mesh/own"


class Options(msgspec.Struct, frozen=True):
    word: str = ""


class Unlike(msgspec.Struct, frozen=True):
    """Does not come back as it was sent."""

    anything: Any = ()


def parse(annotations: Mapping[str, str]) -> Any:
    return Options(annotations[OWN]) if OWN in annotations else None


def build(_options: Options, _context: Context) -> Layer:
    return lambda handler: handler


def own(**changes: Any) -> Middleware:
    annotation = Annotation(OWN, "a word", "", "A user's own.", f"{OWN}: word")
    middleware = Middleware("own", (annotation,), Options, parse, build)
    return guard(msgspec.structs.replace(middleware, **changes))


class Clock:
    """A clock that layers of tests move, as if they computed for so long."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)


@pytest.mark.parametrize(
    ("text", "names"), [("own", ("own",)), (" own\n other ", ("own", "other")), ("", None), ("a a", None)]
)
def test_names(text: str, names: tuple[str, ...] | None) -> None:
    found = parse_chosen({MIDDLEWARE: text})
    assert found == Chosen(names) if names else isinstance(found, Problem)


def test_too_many_and_too_long() -> None:
    for text in (" ".join(map(str, range(17))), "x" * 1025):
        assert isinstance(parse_chosen({MIDDLEWARE: text}), Problem)


@given(st.text())
def test_any_text_is_names_or_a_problem(text: str) -> None:
    found = parse_chosen({MIDDLEWARE: text})
    assert isinstance(found, Problem) or list(found.names) == text.split()  # type: ignore[union-attr]


def test_it_takes_part_where_it_is_named() -> None:
    middleware = own()
    assert middleware.custom
    assert middleware.parse({}) is None
    assert middleware.parse({MIDDLEWARE: "others owner"}) is None
    assert middleware.parse({MIDDLEWARE: "other own", OWN: "x"}) == Options("x")


def test_its_annotations_alone_are_a_problem() -> None:
    found = own().parse({OWN: "x"})
    assert (found.annotation, found.expected) == (OWN, "svc.mesh/middleware: own beside it")


def test_a_name_alone_that_turns_nothing_on_is_a_problem() -> None:
    found = own().parse({MIDDLEWARE: "own"})
    assert (found.annotation, found.expected) == (MIDDLEWARE, "svc.mesh/own beside it")


@pytest.mark.parametrize(
    "result", [7, Unlike(), Problem("svc.mesh/enabled", "", "", ""), SystemExit(1), Unlike(object())]
)
def test_what_parse_may_not_return_is_raised(result: object) -> None:
    def bad(_annotations: Mapping[str, str]) -> object:
        if isinstance(result, BaseException):
            raise result
        return result

    options = Unlike if isinstance(result, Unlike) else Options
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        own(parse=bad, options=options).parse({MIDDLEWARE: "own"})


def layered(serve: Callable[[Request, Handler], Any], watch: Watch, name: str = "own") -> Layer:
    """Return the layer of a guarded middleware that runs `serve`."""

    def build(_options: Options, _context: Context) -> Layer:
        def layer(handler: Handler) -> Handler:
            async def run(request: Request) -> Response:
                response: Response = await serve(request, handler)
                return response

            return run

        return layer

    middleware = guard(Middleware(name, (), Options, parse, build), watch)
    layer: Layer = middleware.build(Options(), FakeContext())
    return layer


def test_a_bug_is_named() -> None:
    async def divide(_request: Request, _handler: Handler) -> Any:
        return 1 / 0

    handler, _ = handler_of(layered(divide, Watch(list[Overrun]().append)))
    with pytest.raises(ZeroDivisionError) as caught:
        run(handler(FakeRequest()))
    assert caught.value.__notes__ == ["It passed through the middleware own."]


def test_it_cannot_end_the_worker() -> None:
    async def leave(_request: Request, _handler: Handler) -> Any:
        sys.exit(3)

    handler, _ = handler_of(layered(leave, Watch(list[Overrun]().append)))
    with pytest.raises(RuntimeError, match=r"the middleware own raised SystemExit\(3\)"):
        run(handler(FakeRequest()))


def test_a_gate_cannot_end_the_worker() -> None:
    def leave(_connection: Connection) -> None:
        sys.exit(3)

    gate = own(scope="connection", build=lambda _options, _context: leave).build(Options(), FakeContext())
    with pytest.raises(RuntimeError, match="SystemExit"):
        gate(FakeConnection())


def test_what_sees_requests_is_named_in_its_errors_and_cannot_end_the_worker() -> None:
    errors: list[BaseException] = [ValueError("a bug"), SystemExit(3)]

    def fail(_request: Request) -> None:
        raise errors.pop(0)

    call = own(scope="request", build=lambda _options, _context: fail).build(Options(), FakeContext())
    with pytest.raises(ValueError, match="a bug") as caught:
        call(FakeRequest())
    assert caught.value.__notes__ == ["It passed through the middleware own."]
    with pytest.raises(RuntimeError, match="SystemExit"):
        call(FakeRequest())


def test_what_sees_requests_and_cannot_be_built_refuses_them() -> None:
    def fail(*_: object) -> Any:
        raise ValueError

    with structlog.testing.capture_logs() as logs:
        call = own(scope="request", build=fail).build(Options(), FakeContext())
    with pytest.raises(Broken):
        call(FakeRequest())
    assert [(line["event"], line["middleware"]) for line in logs] == [("middleware_broken", "own")]


@pytest.mark.parametrize("broken", ["build", "layer"])
def test_what_cannot_be_built_refuses_its_port(broken: str) -> None:
    def fail(*_: object) -> Any:
        raise SystemExit

    with structlog.testing.capture_logs() as logs:
        built = own(build=fail if broken == "build" else lambda *_: fail).build(Options(), FakeContext())
        handler, scripted = handler_of(built)
    assert status_of(handler(FakeRequest())) == "middleware_broken"
    assert scripted.requests == []
    assert [(line["event"], line["middleware"]) for line in logs] == [("middleware_broken", "own")]


def test_a_stretch_over_its_budget_is_reported_with_its_name() -> None:
    clock, seen = Clock(), list[Overrun]()
    watch = Watch(seen.append, clock)

    async def compute(request: Request, handler: Handler) -> Any:
        clock.spend(0.03)
        response = await handler(request)
        clock.spend(0.07)
        return response

    handler, _ = handler_of(layered(compute, watch))
    run(handler(FakeRequest()))
    assert [(one.place.middleware, one.place.service, one.place.port) for one in seen] == [
        ("own", "default/whoami", 80)
    ]
    assert seen[0].seconds == pytest.approx(0.1)
    assert watch.held() is None


def test_what_another_one_inside_does_is_not_its_time() -> None:
    clock, seen = Clock(), list[Overrun]()
    watch = Watch(seen.append, clock)

    async def quick(request: Request, handler: Handler) -> Any:
        return await handler(request)

    async def slow(request: Request, handler: Handler) -> Any:
        clock.spend(1)
        return await handler(request)

    inner = layered(slow, watch, "inner")
    outer = layered(quick, watch, "outer")
    handler, _ = handler_of(lambda handler: outer(inner(handler)))
    run(handler(FakeRequest()))
    assert [one.place.middleware for one in seen] == ["inner"]


class Waits:
    """Gives the loop back once; what is sent or raised then comes out."""

    def __await__(self) -> Any:
        sent = yield "a future"
        return sent


def test_waiting_is_not_its_time_and_what_is_awaited_passes() -> None:
    clock, seen = Clock(), list[Overrun]()
    watch = Watch(seen.append, clock)

    async def wait(_argument: object) -> Any:
        return await Waits()

    place = Place("own", "default/web", 80, 0.05)
    for outcome in ("value", ValueError("raised")):
        steps = watched(watch, place, wait)(None)
        assert steps.send(None) == "a future"
        assert watch.held() is None
        clock.spend(60)
        if isinstance(outcome, str):
            with pytest.raises(StopIteration) as stop:
                steps.send(outcome)
            assert stop.value.value == outcome
        else:
            with pytest.raises(ValueError, match="raised"):
                steps.throw(outcome)
    assert seen == []


def test_a_request_that_is_given_up_runs_its_finally() -> None:
    done = []

    async def wait(_argument: object) -> Any:
        try:
            return await Waits()
        finally:
            done.append(True)

    steps = watched(Watch(list[Overrun]().append), Place("own", "default/web", 80, 0.05), wait)(None)
    steps.send(None)
    steps.close()
    assert done == [True]


def test_few_reports_and_none_is_forgotten() -> None:
    clock, seen = Clock(), list[Overrun]()
    watch = Watch(seen.append, clock)
    place = Place("own", "default/web", 80, 0.05)
    for _ in range(5):
        watch.enter(place)
        clock.spend(0.1)
        watch.leave(place, None)
    clock.spend(PAUSE)
    watch.enter(place)
    clock.spend(0.1)
    watch.leave(place, None)
    assert [one.left_out for one in seen] == [0, 4]


def test_it_is_reported_in_the_log() -> None:
    with structlog.testing.capture_logs() as logs:
        custom.report(Overrun(Place("own", "default/web", 80, 0.05), 0.25, 3))
    (line,) = logs
    assert (line["event"], line["middleware"], line["held_ms"], line["budget_ms"], line["not_logged"]) == (
        "middleware_slow",
        "own",
        250,
        50,
        3,
    )


def test_files_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(
        "import msgspec\n"
        "from middleware.contract import Middleware\n"
        "class Options(msgspec.Struct, frozen=True):\n    word: str = ''\n"
        "def build(options, context):\n    return lambda handler: handler\n"
        "MIDDLEWARE = Middleware('own', (), Options, lambda _: Options(), build)\n"
    )
    (tmp_path / "worse.py").write_text("certainly no Python")
    (tmp_path / "README.md").write_text("nor is this")
    monkeypatch.setenv(registry.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(registry, "found_here", registry.found_here.__wrapped__)
    with structlog.testing.capture_logs() as logs:
        found = registry.installed.__wrapped__()
    assert {one.name for one in found.middlewares if one.custom} == {"own", "worse"}
    (line,) = logs
    assert line["entry_point"] == f"worse = {tmp_path}/worse.py:MIDDLEWARE"
    assert "SyntaxError" in line["reason"]
