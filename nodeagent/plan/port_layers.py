"""What annotations of middleware ask for a single port: `svc.mesh/retry-attempts.admin: "0"`.

A port's name or number behind an annotation's name makes it that port's alone; there it takes the place of
the one for all ports, and of no other. A bad one falls back to the value that was last in force for the port,
or else to that of all ports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from discovery.annotations import protocol_of
from discovery.bounds import MOST_PROBLEMS, shorten
from discovery.model import ANNOTATION_PREFIX, Problem, ServiceObject, ServicePort
from middleware.contract import Middleware
from middleware.contract import Problem as Fault
from nodeagent.plan.model import LayerSpec
from nodeagent.plan.problems import service_problem

Parse = Callable[[Middleware, Mapping[str, str]], Any]
PortLayers = Mapping[int, tuple[LayerSpec, ...]]
"""The layers of the ports that have annotations of their own, by the port's number."""


def annotation_for_all(name: str) -> str:
    """Return the annotation for all ports of which this one would be that of a single port; empty: none."""
    all_ports, dot, _ = name.removeprefix(ANNOTATION_PREFIX).partition(".")
    return f"{ANNOTATION_PREFIX}{all_ports}" if dot else ""


def read_port_layers(
    service: ServiceObject,
    in_force: dict[str, str],
    last_good: Mapping[str, str],
    middlewares: Sequence[Middleware],
    parse: Parse,
) -> tuple[PortLayers, list[Problem]]:
    """Return the layers of ports that have their own, and what was wrong.

    `in_force` has the annotations that are known, those for all ports with values that can be used; here the
    others are corrected, or removed if they cannot be used.
    """
    readers = {
        annotation.name: middleware for middleware in middlewares for annotation in middleware.annotations
    }
    found = [name for name in sorted(in_force) if name not in readers and annotation_for_all(name) in readers]
    if not found:
        return {}, []
    problems = list(_drop_unusable(service, in_force, found, readers))
    layers = {}
    for port in service.ports:
        own = {
            annotation_for_all(name): name
            for selector in (str(port.port), port.name)  # what goes by the name takes precedence
            for name in found
            if name in in_force and name == f"{annotation_for_all(name)}.{selector}"
        }
        if own and port.protocol == "TCP":
            reading = _Reading(service, port, in_force, last_good, own)
            layers[port.port] = reading.layers(middlewares, parse)
            problems += reading.problems
    return layers, problems


def _drop_unusable(
    service: ServiceObject,
    in_force: dict[str, str],
    found: Sequence[str],
    readers: Mapping[str, Middleware],
) -> Iterator[Problem]:
    """Remove what is for a port that does not exist, or to which its middleware does not apply."""
    by_selector = [(selector, port) for port in service.ports for selector in (port.name, str(port.port))]
    ports = dict(sorted(by_selector, key=lambda one: one[1].protocol == "TCP"))  # of equal numbers TCP's
    for name in found:
        all_ports = annotation_for_all(name)
        selector = name.removeprefix(f"{all_ports}.")
        port, reader = ports.get(selector), readers[all_ports]
        if port is None:
            reason = f"the Service has no port {shorten(selector)!r}"
            known = ", ".join(one.name or str(one.port) for one in service.ports[:MOST_PROBLEMS]) or "none"
            expected = f"a port of this Service: {known}"
        elif port.protocol != "TCP":
            reason, expected = f"{port.protocol} is not carried yet", "a TCP port of this Service"
        elif reader.scope != "connection" and protocol_of(port, in_force) != "http":
            reason = f"{reader.name} works on http ports, and {selector} is none"
            expected = f"svc.mesh/protocol.{selector}: http, if the port speaks HTTP"
        else:
            continue
        yield service_problem(service, name, in_force.pop(name), reason, expected, "it is ignored")


class _Reading:
    """Reads the annotations that one port has; `own` are the names of its own, by those for all ports."""

    def __init__(
        self,
        service: ServiceObject,
        port: ServicePort,
        in_force: dict[str, str],
        last_good: Mapping[str, str],
        own: dict[str, str],
    ) -> None:
        self.problems: list[Problem] = []
        self._service = service
        self._port = port
        self._in_force = in_force
        self._last_good = last_good
        self._own = own
        self._view = in_force | {all_ports: in_force[name] for all_ports, name in own.items()}
        """The annotations as if they were for all ports."""
        self._seen: set[str] = set()

    def layers(self, middlewares: Sequence[Middleware], parse: Parse) -> tuple[LayerSpec, ...]:
        layers = []
        for middleware in middlewares:
            options = parse(middleware, self._view)
            # Every round takes one value out of the view or ends.
            while isinstance(options, Fault):
                if options.annotation not in self._view:
                    options = None
                    break
                self._mend(options)
                options = parse(middleware, self._view)
            if options is not None:
                layers.append(LayerSpec(middleware.name, options))
        return tuple(layers)

    def _mend(self, fault: Fault) -> None:
        """Put in its place what was in force before, or what is for all ports; remove it if there is none."""
        all_ports = fault.annotation
        name = self._own.get(all_ports)
        if name is None:
            # It is right for all ports, but not beside what this port has of its own.
            del self._view[all_ports]
            self._report(all_ports, fault, f"it is ignored on port {self._port.name or self._port.port}")
            return
        good = self._last_good.get(name)
        if good is not None and good != self._view[all_ports] and name not in self._seen:
            self._in_force[name] = self._view[all_ports] = good
            effect = f"{name}={good} stays in force"
        else:
            del self._in_force[name], self._own[all_ports], self._view[all_ports]
            effect = "it is ignored"
            if all_ports in self._in_force:
                self._view[all_ports] = self._in_force[all_ports]
                effect = f"{all_ports}={self._in_force[all_ports]} is in force on this port too"
        self._report(name, fault, effect)

    def _report(self, name: str, fault: Fault, effect: str) -> None:
        if name not in self._seen:
            self._seen.add(name)
            self.problems.append(
                service_problem(self._service, name, fault.value, fault.reason, fault.expected, effect)
            )
