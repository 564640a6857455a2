"""Which annotations of a Service are in force: the values that its owner wrote, or the last good ones where
these are bad.

A bad value affects only its own setting: the annotation falls back to the value that was last in force, or
else counts as absent. A `Problem` says what is wrong and what is in force instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from discovery.annotations import ANNOTATIONS, ENABLED, OF_PORT, check_annotations, is_enabled
from discovery.bounds import LONGEST, MOST_PROBLEMS, shorten
from discovery.model import Problem, ServiceObject, ServicePort
from middleware import contract
from middleware.values import nearest
from nodeagent.plan.access_log import ACCESS_LOG_OF_PORT, ACCESS_LOGS
from nodeagent.plan.annotations import CONNECTIONS, CUSTOM, SETTINGS, Connections
from nodeagent.plan.balancing import BALANCING, Balancing
from nodeagent.plan.balancing import OF_PORT as BALANCING_OF_PORT
from nodeagent.plan.failover import FAILOVER_OF_PORT, FAILOVERS
from nodeagent.plan.health_check import HEALTH_CHECK_OF_PORT, HEALTH_CHECKS, HealthChecks
from nodeagent.plan.locality import LOCALITIES, LOCALITY_OF_PORT
from nodeagent.plan.model import LayerSpec, LineChoice, Locality, Objective, OutlierDetection
from nodeagent.plan.objective import OBJECTIVE_OF_PORT, OBJECTIVES
from nodeagent.plan.of_port import OfPort
from nodeagent.plan.outlier_detection import OUTLIER_DETECTION_OF_PORT, OUTLIERS
from nodeagent.plan.policy import Governor
from nodeagent.plan.port_layers import PortLayers, annotation_for_all, read_port_layers
from nodeagent.plan.problems import service_problem
from nodeagent.plan.setting import Reader, Setting, parse_safely

_OF_PORT_HERE = (
    HEALTH_CHECK_OF_PORT,
    *BALANCING_OF_PORT,
    OUTLIER_DETECTION_OF_PORT,
    LOCALITY_OF_PORT,
    FAILOVER_OF_PORT,
    ACCESS_LOG_OF_PORT,
    OBJECTIVE_OF_PORT,
)
"""The prefixes of annotations for a single port that are checked here, as against those of `discovery`."""
_OF_PORT = (*OF_PORT, *_OF_PORT_HERE)
"""The prefixes of annotations for a single port."""


class Resolution(msgspec.Struct, frozen=True):
    """The annotations in force and what they ask for. `layers` are in the order of the middlewares given."""

    enabled: bool
    annotations: Mapping[str, str]
    layers: tuple[LayerSpec, ...]
    asked_by: tuple[tuple[str, str], ...]
    """For each layer its name and the first annotation, in force, that asks for it."""
    problems: tuple[Problem, ...]
    connections: Connections = Connections()
    health_checks: HealthChecks = OfPort()
    balancing: Balancing = Balancing()
    outlier_detection: OfPort[OutlierDetection] = OfPort()
    locality: OfPort[Locality] = OfPort()
    failover: OfPort[str] = OfPort()
    origins: Mapping[str, str] = {}
    """Where those of `annotations` come from that the owner has not written, or not so."""
    port_layers: PortLayers = {}
    """Of the ports that have annotations of their own; the others have `layers`."""
    access_log: OfPort[LineChoice] = OfPort()
    objective: OfPort[Objective] = OfPort()

    def layers_of(self, port: ServicePort) -> tuple[LayerSpec, ...]:
        """Return the layers of one port."""
        return self.port_layers.get(port.port, self.layers)


def resolve_annotations(
    service: ServiceObject,
    last_good: Mapping[str, str],
    middlewares: Sequence[contract.Middleware],
    governor: Governor | None = None,
) -> Resolution:
    """Return what is in force for a Service; `last_good` is what was in force before.

    Of a Service that does not opt in nothing but `svc.mesh/enabled` is looked at. One whose annotations are
    more than are read counts as if its owner had written what was in force before. A bad value without a last
    good one falls back to the default that `governor` has, if any; defaults that go with nothing else here do
    nothing.
    """
    if service.overlong and service.annotations.get(ENABLED) != "false":
        service = msgspec.structs.replace(service, annotations=last_good)
    in_force = dict(service.annotations)
    problems = [
        _mend_discovery(problem, service, in_force, last_good) for problem in check_annotations(service)
    ]
    if not is_enabled(in_force):
        return Resolution(False, {}, (), (), tuple(p for p in problems if p.field == ENABLED))
    problems += _drop_unknown(service, in_force, middlewares)
    for unread in service.unread:
        if unread.ours in last_good:
            in_force[unread.ours] = last_good[unread.ours]
    origins: Mapping[str, str] = {}
    if governor is not None:
        applied = governor.apply(service, in_force)
        in_force, origins = dict(applied.annotations), applied.origins
        problems += applied.problems
        last_good = governor.apply(service, last_good).annotations
    connections, faults = _read_options(CONNECTIONS, in_force, last_good)
    problems += [_reader_problem(service, CONNECTIONS, f, connections, in_force) for f in faults]
    problems += _drop_portless(service, in_force)
    health_checks, faults = _read_options(HEALTH_CHECKS, in_force, last_good)
    problems += [_reader_problem(service, HEALTH_CHECKS, f, health_checks, in_force) for f in faults]
    balancing, faults = _read_options(BALANCING, in_force, last_good)
    problems += [_reader_problem(service, BALANCING, f, balancing, in_force) for f in faults]
    others: dict[str, Any] = {}
    for setting in (OUTLIERS, LOCALITIES, FAILOVERS, ACCESS_LOGS, OBJECTIVES):
        others[setting.name], faults = _read_options(setting, in_force, last_good)
        problems += [_reader_problem(service, setting, f, others[setting.name], in_force) for f in faults]
    chosen, faults = _read_options(CUSTOM, in_force, last_good)
    problems += [_reader_problem(service, CUSTOM, f, chosen, in_force) for f in faults]
    problems += _unknown_names(service, chosen.names if chosen is not None else (), middlewares)
    layers = []
    asked_by = []
    for middleware in middlewares:
        options, faults = _read_options(middleware, in_force, last_good)
        problems += [_reader_problem(service, middleware, f, options, in_force) for f in faults]
        problems += _unread_problems(service, middleware, options, in_force)
        if options is not None:
            layers.append(LayerSpec(middleware.name, options))
            present = [a.name for a in middleware.annotations if a.name in in_force]
            asked = CUSTOM.annotations[0].name if middleware.custom else ENABLED
            asked_by.append((middleware.name, present[0] if present else asked))
    port_layers, faulty = read_port_layers(service, in_force, last_good, middlewares, parse_safely)
    problems += faulty
    if origins:
        # What a policy says is right by itself: it goes with nothing that this Service has.
        problems = [one for one in problems if one.field not in origins or one.field in service.annotations]
        origins = {name: where for name, where in origins.items() if name in in_force}
    if governor is not None:
        origins = governor.explain(service, in_force, origins)
    return Resolution(
        True,
        in_force,
        tuple(layers),
        tuple(asked_by),
        tuple(problems),
        connections or Connections(),
        health_checks or OfPort(),
        balancing or Balancing(),
        others[OUTLIERS.name] or OfPort(),
        others[LOCALITIES.name] or OfPort(),
        others[FAILOVERS.name] or OfPort(),
        origins=origins,
        port_layers=port_layers,
        access_log=others[ACCESS_LOGS.name] or OfPort(),
        objective=others[OBJECTIVES.name] or OfPort(),
    )


def _mend_discovery(
    problem: Problem, service: ServiceObject, in_force: dict[str, str], last_good: Mapping[str, str]
) -> Problem:
    """Correct in `in_force` what `problem` is about; return the problem with its effect."""
    name = problem.field
    written, value = service.written_as(name)
    if problem.severity == "info":
        return msgspec.structs.replace(problem, field=written, value=value)
    good = last_good.get(name)
    if good is not None and not _still_bad(service, name, good):
        in_force[name] = good
        effect = f"{name}={good} stays in force"
    else:
        del in_force[name]
        effect = "the Service is not meshed" if name == ENABLED else "it is ignored"
    return msgspec.structs.replace(problem, field=written, value=value, effect=effect)


def _still_bad(service: ServiceObject, name: str, value: str) -> bool:
    alone = msgspec.structs.replace(service, annotations={name: value})
    return any(problem.severity == "error" for problem in check_annotations(alone))


def known_annotations(middlewares: Sequence[contract.Middleware]) -> list[str]:
    """Return the full names of all annotations; those for a single port end in a placeholder."""
    readers: list[Reader] = [*SETTINGS, *middlewares]
    return [a.name for a in ANNOTATIONS] + [a.name for reader in readers for a in reader.annotations]


def _drop_unknown(
    service: ServiceObject, in_force: dict[str, str], middlewares: Sequence[contract.Middleware]
) -> list[Problem]:
    known = known_annotations(middlewares)
    readable = {annotation.name for middleware in middlewares for annotation in middleware.annotations}
    names = [
        n
        for n in sorted(in_force)
        if n not in known and not n.startswith(_OF_PORT) and annotation_for_all(n) not in readable
    ]
    problems = []
    for number, name in enumerate(names):
        # Finding a similar name costs a millisecond, and of further problems only the number is reported.
        close = "" if number >= MOST_PROBLEMS or len(name) > LONGEST else nearest(name, known)
        expected = f"did you mean {close}?" if close else "one of docs/annotations.md"
        reason = "is not an annotation that the mesh knows"
        problems.append(service_problem(service, name, in_force.pop(name), reason, expected, "it is ignored"))
    return problems


def _unknown_names(
    service: ServiceObject, names: Sequence[str], middlewares: Sequence[contract.Middleware]
) -> Iterator[Problem]:
    """Yield what is wrong with the names of middlewares that a Service chooses."""
    field = CUSTOM.annotations[0].name
    known = {middleware.name: middleware.custom for middleware in middlewares}
    own = [name for name, custom in known.items() if custom]
    for name in names:
        if known.get(name):
            continue
        shown = shorten(name)
        if name in known:
            reason, expected = f"{name} is the mesh's own", "its annotations, which turn it on"
            effect = f"{field} does nothing about {name}"
        else:
            close = nearest(shown, own)
            reason = f"no middleware here is called {shown}"
            known_ones = f"one of {', '.join(own)}" if own else "none: no middleware of your own is installed"
            expected = f"did you mean {close}?" if close else known_ones
            effect = f"requests pass without {shown}"
        yield service_problem(service, field, service.annotations.get(field, name), reason, expected, effect)


def _drop_portless(service: ServiceObject, in_force: dict[str, str]) -> list[Problem]:
    """Remove the settings of ports that do not exist."""
    selectors = {one for port in service.ports for one in (port.name, str(port.port)) if one}
    problems = []
    for name in sorted(in_force):
        prefix = next((one for one in _OF_PORT_HERE if name.startswith(one)), "")
        selector = name.removeprefix(prefix)
        if prefix and selector not in selectors:
            known = ", ".join(port.name or str(port.port) for port in service.ports[:MOST_PROBLEMS]) or "none"
            reason = f"the Service has no port {shorten(selector)!r}"
            expected = f"a port of this Service: {known}"
            problems.append(
                service_problem(service, name, in_force.pop(name), reason, expected, "it is ignored")
            )
    return problems


def _read_options(
    reader: Reader, in_force: dict[str, str], last_good: Mapping[str, str]
) -> tuple[Any, list[contract.Problem]]:
    """Parse until nothing is wrong: a bad annotation gets its last good value, and if that is bad, it is
    removed.

    Every round takes one value out of `in_force` or ends, so the loop is bounded.
    """
    faults: dict[str, contract.Problem] = {}
    while True:
        result = parse_safely(reader, in_force)
        if not isinstance(result, contract.Problem):
            return result, list(faults.values())
        name = result.annotation
        good = last_good.get(name)
        seen = name in faults
        faults.setdefault(name, result)
        if name not in in_force or _is_foreign(reader, name):
            return None, list(faults.values())
        if seen or good is None or good == in_force[name]:
            del in_force[name]
        else:
            in_force[name] = good


def _is_foreign(reader: Reader, name: str) -> bool:
    """Whether a user's middleware speaks of an annotation that others read too, and may not take away."""
    if isinstance(reader, Setting) or not reader.custom:
        return False
    return all(name != annotation.name for annotation in reader.annotations)


def _reader_problem(
    service: ServiceObject,
    reader: Reader,
    fault: contract.Problem,
    options: Any,
    in_force: Mapping[str, str],
) -> Problem:
    effect = _effect(reader, fault.annotation, options, in_force)
    return service_problem(service, fault.annotation, fault.value, fault.reason, fault.expected, effect)


def _unread_problems(
    service: ServiceObject,
    middleware: contract.Middleware,
    options: Any,
    in_force: Mapping[str, str],
) -> Iterator[Problem]:
    """Yield what is wrong with another mesh's annotations that would have become those of a middleware."""
    names = {annotation.name for annotation in middleware.annotations}
    for unread in service.unread:
        if unread.ours in names:
            effect = _effect(middleware, unread.ours, options, in_force)
            yield service_problem(
                service, unread.annotation, unread.value, unread.reason, unread.expected, effect
            )


def _effect(reader: Reader, name: str, options: Any, in_force: Mapping[str, str]) -> str:
    """Return what is in force in place of a bad value of the annotation `name`."""
    if _is_foreign(reader, name):
        return f"{reader.name} is off"
    if name in in_force:
        return f"{name}={in_force[name]} stays in force"
    if options is None and not isinstance(reader, Setting):
        return f"{reader.name} is off"
    default = next((a.default for a in reader.annotations if a.name == name), "")
    return f"the default is in force: {default}" if default else "it is ignored"
