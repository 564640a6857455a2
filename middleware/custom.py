"""`svc.mesh/middleware: audit delay`: a user's own middleware, chosen by name, and kept apart from all else.

It takes part only in Services that name it. What it may do wrong costs as little as can be. A `parse` that
fails, or returns what cannot be sent to the workers, is reported and switches it off for that Service. A
layer that cannot be built refuses the requests to its port, since it may be there to protect. An exception
costs the request that it was raised for. A layer that holds the loop is named (`middleware.watch`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import structlog

from middleware.contract import (
    Annotation,
    Context,
    ExchangeError,
    Handler,
    Layer,
    Middleware,
    Problem,
    Rejected,
    Request,
    Response,
)
from middleware.values import InvalidValue, problem, quote
from middleware.watch import Overrun, Place, Watch, watched

log = structlog.get_logger()

MIDDLEWARE: Final = "svc.mesh/middleware"
MOST_NAMES: Final = 16
LONGEST_VALUE: Final = 1024

ANNOTATION: Final = Annotation(
    name=MIDDLEWARE,
    values=f"names of middlewares of your own, up to {MOST_NAMES}, separated by white space",
    default="none",
    summary="Which middlewares that are not the mesh's own take part; see the page for how to write one.",
    example="svc.mesh/middleware: delay",
)


class Chosen(msgspec.Struct, frozen=True):
    """The names that `svc.mesh/middleware` has."""

    names: tuple[str, ...] = ()


class NoOptions(msgspec.Struct, frozen=True):
    """The options of a middleware that cannot be used."""


class Broken(Rejected):
    """A user's middleware could not be built for a port: all is refused, it may be there to protect (500)."""

    status = 500
    proxy_error = "proxy_configuration_error"
    reason = "middleware_broken"


def parse_chosen(annotations: Mapping[str, str]) -> Chosen | Problem | None:
    """Read `svc.mesh/middleware`."""
    text = annotations.get(MIDDLEWARE)
    if text is None:
        return None
    try:
        return Chosen(_names(text))
    except InvalidValue as invalid:
        return problem(MIDDLEWARE, text, invalid)


def _names(text: str) -> tuple[str, ...]:
    if len(text) > LONGEST_VALUE:
        raise InvalidValue(f"it has {len(text)} characters", f"at most {LONGEST_VALUE}")
    names = tuple(text.split())
    if not names:
        raise InvalidValue("it contains no name", "the names of middlewares of your own, such as delay")
    if len(names) > MOST_NAMES:
        raise InvalidValue(f"there are {len(names)} names", f"at most {MOST_NAMES}")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidValue(f"{quote(twice)} is there twice", "each name once")
    return names


def report(overrun: Overrun) -> None:
    """Log that a layer has held the loop."""
    place = overrun.place
    log.warning(
        "middleware_slow",
        middleware=place.middleware,
        service=place.service,
        port=place.port,
        held_ms=round(overrun.seconds * 1000),
        budget_ms=round(place.budget / 1e6),
        not_logged=overrun.left_out,
    )


WATCH: Final = Watch(report)
"""That of this process's only loop."""


def guard(middleware: Middleware, watch: Watch = WATCH) -> Middleware:
    """Return a user's middleware such that what it does wrong costs as little as can be."""

    def build(options: Any, context: Context) -> Any:
        gate = middleware.scope in ("connection", "request")  # a plain function, not around anything
        place = Place(middleware.name, context.service, context.port, middleware.budget)
        try:
            built = middleware.build(options, context)
        except (Exception, SystemExit) as error:
            _tell_broken(place, error)
            return _refuse_at_once(middleware.name) if gate else _refuse_requests(middleware.name)
        return _watched_call(built, place, watch) if gate else _watched_layer(built, place, watch)

    return msgspec.structs.replace(middleware, parse=_careful(middleware), build=build, custom=True)


def unloaded(name: str) -> Middleware:
    """Return what stands for a middleware that could not be loaded: where it is chosen, all is refused."""

    def build(_options: Any, _context: Context) -> Layer:
        return _refuse_requests(name)

    broken = Middleware(name, (), NoOptions, lambda _annotations: NoOptions(), build)
    return msgspec.structs.replace(broken, parse=_careful(broken), custom=True)


def _careful(middleware: Middleware) -> Callable[[Mapping[str, str]], Any]:
    """Return `parse` for the Services that name the middleware; it raises if the user's own fails."""
    own = [annotation.name for annotation in middleware.annotations]

    def parse(annotations: Mapping[str, str]) -> Any:
        text = annotations.get(MIDDLEWARE, "")
        if middleware.name not in text.split():
            idle = next((name for name in own if name in annotations), None)
            if idle is None:
                return None
            reason = f"has no effect without {MIDDLEWARE}"
            expected = f"{MIDDLEWARE}: {middleware.name} beside it"
            return Problem(idle, annotations[idle], reason, expected, incomplete=True)
        try:
            result = middleware.parse(annotations)
        except SystemExit as error:
            raise RuntimeError(f"parse raised {error!r}") from error
        if result is None:
            reason = f"names {middleware.name}, which none of its annotations turns on"
            expected = f"{', '.join(own) or 'a parse that returns options'} beside it"
            return Problem(MIDDLEWARE, text, reason, expected)
        if isinstance(result, Problem):
            if result.annotation not in own:
                raise ValueError(f"parse reported {result.annotation}, which is not an annotation of its own")
            return result
        if not isinstance(result, middleware.options):
            raise TypeError(f"parse returned a {type(result).__name__}, not its options")
        if msgspec.msgpack.decode(msgspec.msgpack.encode(result), type=middleware.options) != result:
            raise TypeError("its options do not come back as they were sent")
        return result

    return parse


def _watched_layer(layer: Layer, place: Place, watch: Watch) -> Layer:
    def around(handler: Handler) -> Handler:
        try:
            own = watched(watch, place, layer(handler))
        except (Exception, SystemExit) as error:
            _tell_broken(place, error)
            return _refuse_requests(place.middleware)(handler)

        async def run(request: Request) -> Response:
            try:
                response: Response = await own(request)
            except (ExchangeError, GeneratorExit):
                raise
            except Exception as error:
                error.add_note(f"It passed through the middleware {place.middleware}.")
                raise
            except BaseException as error:  # SystemExit would end the worker
                raise RuntimeError(f"the middleware {place.middleware} raised {error!r}") from error
            return response

        return run

    return around


def _watched_call(call: Callable[[Any], None], place: Place, watch: Watch) -> Callable[[Any], None]:
    """Return a gate, or what sees requests, kept apart as a layer is."""

    def run(shown: Any) -> None:
        before = watch.enter(place)
        try:
            call(shown)
        except ExchangeError:
            raise
        except Exception as error:
            error.add_note(f"It passed through the middleware {place.middleware}.")
            raise
        except SystemExit as error:
            raise RuntimeError(f"the middleware {place.middleware} raised {error!r}") from error
        finally:
            watch.leave(place, before)

    return run


def _tell_broken(place: Place, error: BaseException) -> None:
    log.error(
        "middleware_broken",
        middleware=place.middleware,
        service=place.service,
        port=place.port,
        exc_info=error,
    )


def _refuse_requests(name: str) -> Layer:
    def layer(_handler: Handler) -> Handler:
        async def refuse(_request: Request) -> Response:
            raise Broken(f"the middleware {name} could not be loaded or built")

        return refuse

    return layer


def _refuse_at_once(name: str) -> Callable[[Any], None]:
    def refuse(_shown: Any) -> None:
        raise Broken(f"the middleware {name} could not be loaded or built")

    return refuse
