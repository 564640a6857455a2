"""All middleware, in the one order in which requests pass through it: outermost first.

A middleware is added by one line in `MIDDLEWARES`, among those of its scope. A user's own middleware is an
installed package with an entry point in the group `svcmesh.middleware` that names a `Middleware` value, or a
file of a folder (`FOLDER_VARIABLE`), which has one as `MIDDLEWARE`. It comes after ours of the same scope, in
the order of the entry points' names. If it cannot be used, that is reported, and Services that choose it
refuse their requests; it never stops an agent.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Protocol, get_args

import msgspec
import structlog

from middleware import (
    cache,
    circuit_breaker,
    cors,
    fault,
    headers,
    max_requests,
    mirror,
    rate_limit,
    redirect,
    retry,
    rewrite,
    server_timing,
    split,
    timeout,
    tracing,
)
from middleware.contract import Middleware, Scope
from middleware.custom import guard, unloaded

log = structlog.get_logger()

MIDDLEWARES: Final[tuple[Middleware, ...]] = (
    # The times of a connection hold for all that travels on it.
    timeout.CONNECTION_TIMES,
    # Around everything, so that what is refused is recorded as well, and with all of its time.
    tracing.MIDDLEWARE,
    # Around all that may answer or hold up a request, so that all of its time is told, and why it is refused.
    server_timing.MIDDLEWARE,
    # Around all that may refuse, so that a page may read why; a browser's preflight is no request of its own,
    # and no limit counts it.
    cors.MIDDLEWARE,
    # Counts what clients send, each request once however often it is retried; refusing is cheapest here, and
    # what is refused says nothing about the endpoints, so the breaker must not see it.
    rate_limit.MIDDLEWARE,
    # Its limit covers everything below: all tries of a request, and everything that delays it. What is
    # refused above needs no limit.
    timeout.MIDDLEWARE,
    # Waiting for others to end is part of the time that a request may take. Once for all tries; above all
    # that delays or answers, which is in progress, too; what it refuses says nothing about the endpoints.
    max_requests.MIDDLEWARE,
    # Goes by what the client sent, so before that is changed, and once: tries of a request are not spread.
    split.MIDDLEWARE,
    # Above retry, so that each request is changed once; outside of what may answer in an endpoint's place, so
    # that such answers look like those of the Service.
    headers.MIDDLEWARE,
    # Goes by the URL that the client sees, so before that is rewritten; below headers, like all that answers.
    redirect.MIDDLEWARE,
    # Once for each request, and before what looks at the endpoints alone.
    rewrite.MIDDLEWARE,
    # Copies what endpoints see, each request once; above all that stands for them.
    mirror.MIDDLEWARE,
    # For clients to see: above the breaker, which would open, and retry, which would make up for it.
    fault.MIDDLEWARE,
    # What it answers by itself costs no try and counts for no breaker, and while that is open it may answer
    # with what is stale. Below headers, so that its answers are changed like those of endpoints; below fault,
    # which would not be seen if it were kept.
    cache.MIDDLEWARE,
    # Sees outcomes after retries, as clients do: one bad endpoint of ten that retries make up for is no
    # reason to cut off the Service. While it is open nothing is retried. (In Traefik users choose the order.)
    circuit_breaker.MIDDLEWARE,
    # Calls what is below it again: what is to happen for every single try comes after it.
    retry.MIDDLEWARE,
    # Below retry: each try has this time for itself.
    timeout.PER_TRY,
)

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
"""From the outside in."""
ENTRY_POINT_GROUP: Final = "svcmesh.middleware"
FOLDER_VARIABLE: Final = "SVCMESH_MIDDLEWARE_PATH"
"""The variable that names a folder of modules. Workers get it from their agent, as they get all variables."""
ANNOTATION_PREFIX: Final = "svc.mesh/"
METRIC_PREFIX: Final = "svcmesh_"


class EntryPoint(Protocol):
    """What is used of `importlib.metadata.EntryPoint`."""

    @property
    def name(self) -> str:
        """The left side of the entry point."""
        ...

    @property
    def value(self) -> str:
        """The right side: `package.module:ATTRIBUTE`."""
        ...

    def load(self) -> Any:
        """Import the module and return the attribute."""
        ...


class FileEntry(msgspec.Struct, frozen=True):
    """A module in a file, which stands for an entry point. Implements `EntryPoint`."""

    path: Path

    @property
    def name(self) -> str:
        """The file's name without its end."""
        return self.path.stem

    @property
    def value(self) -> str:
        """Where the middleware is."""
        return f"{self.path}:MIDDLEWARE"

    def load(self) -> Any:
        """Run the file as a module of its own, and return its `MIDDLEWARE`."""
        name = f"svcmesh_middleware_{self.path.stem}"
        spec = importlib.util.spec_from_file_location(name, self.path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # msgspec looks up the annotations of Structs there
        spec.loader.exec_module(module)
        return module.MIDDLEWARE


def modules_in(folder: Path) -> list[FileEntry]:
    """Return the modules of a folder, in the order of their names."""
    return [FileEntry(path) for path in sorted(folder.glob("*.py"))]


class LoadProblem(msgspec.Struct, frozen=True):
    """An entry point that is left out, and why."""

    entry_point: str
    """`name = package.module:ATTRIBUTE`."""
    reason: str


class Installed(msgspec.Struct, frozen=True):
    """All middleware that can be used here, outermost first, and what could not be loaded."""

    middlewares: tuple[Middleware, ...]
    problems: tuple[LoadProblem, ...] = ()


@functools.cache
def found_here() -> Installed:
    """Return our middleware and the users', loaded once for each process."""
    folder = os.environ.get(FOLDER_VARIABLE, "")
    files = modules_in(Path(folder)) if folder else []
    return load([*importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), *files])


@functools.cache
def installed() -> Installed:
    """Return the same; problems are also logged, once."""
    found = found_here()
    for problem in found.problems:
        log.error("middleware_not_loaded", entry_point=problem.entry_point, reason=problem.reason)
    return found


def by_name(name: str) -> Middleware:
    """Return the middleware of this name, ours or a user's.

    Raises:
        LookupError: there is none.
    """
    for middleware in installed().middlewares:
        if middleware.name == name:
            return middleware
    known = ", ".join(middleware.name for middleware in installed().middlewares)
    raise LookupError(f"no middleware is called {name!r}; known are {known}")


def load(entry_points: Iterable[EntryPoint]) -> Installed:
    """Return `MIDDLEWARES` and, after those of the same scope, what the entry points name, in that order."""
    middlewares, problems = list(MIDDLEWARES), []
    for entry_point in sorted(entry_points, key=lambda entry: (entry.name, entry.value)):
        loaded = None
        try:
            loaded = entry_point.load()
            reason = unusable(loaded, middlewares)
        except (Exception, SystemExit) as error:  # a foreign module may do anything when it is imported
            reason = f"cannot be loaded: {type(error).__name__}: {error}"
        if loaded is None or reason:
            problems.append(LoadProblem(f"{entry_point.name} = {entry_point.value}", reason))
            if all(entry_point.name != other.name for other in middlewares):
                middlewares.append(unloaded(entry_point.name))
        else:
            middlewares.append(guard(loaded))
    middlewares.sort(key=lambda middleware: SCOPES.index(middleware.scope))
    return Installed(tuple(middlewares), tuple(problems))


def unusable(loaded: object, beside: Iterable[Middleware]) -> str:
    """Return why this object cannot be used beside these middlewares; empty if it can."""
    if not isinstance(loaded, Middleware):
        return f"is a {type(loaded).__name__}, not a middleware.contract.Middleware"
    options: object = loaded.options
    if not (isinstance(options, type) and issubclass(options, msgspec.Struct)):
        return "its options are not a msgspec.Struct"
    if not options.__struct_config__.frozen:
        return "its options are not frozen"
    if loaded.scope not in SCOPES:
        return f"its scope is {loaded.scope!r}, which is not one of {', '.join(SCOPES)}"
    for annotation in loaded.annotations:
        if not annotation.name.startswith(ANNOTATION_PREFIX):
            return f"its annotation {annotation.name} does not start with {ANNOTATION_PREFIX}"
    for metric in loaded.metrics:
        if not metric.name.startswith(METRIC_PREFIX):
            return f"its metric {metric.name} does not start with {METRIC_PREFIX}"
    for other in beside:
        taken = names(loaded) & names(other)
        if taken:
            return f"{', '.join(sorted(taken))} is taken by {other.name}"
    return ""


def names(middleware: Middleware) -> set[str]:
    """Return the names that no two middlewares may share: its own, its annotations', its metrics'."""
    own = {f"the name {middleware.name}"}
    own.update(f"the annotation {annotation.name}" for annotation in middleware.annotations)
    own.update(f"the metric {metric.name}" for metric in middleware.metrics)
    return own
