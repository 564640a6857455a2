"""Layers, built: their state is kept for as long as service, port and options stay equal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from middleware.contract import (
    Gate,
    Handler,
    Layer,
    Metric,
    NodeWindow,
    OnRequest,
    SharedTable,
    TokenStore,
    TraceSink,
)
from middleware.registry import by_name
from nodeagent.plan.model import LayerSpec
from nodeagent.proxy.runtime import Runtime


class PortCounters:
    """The counters of one port of one Service: a slot of the worker's memory, which a plan may change."""

    __slots__ = ("base", "cells")

    def __init__(self, runtime: Runtime, slot: int) -> None:
        self.cells = runtime.cells
        self.base = runtime.layout.base(slot)

    def count(self, column: int, amount: int = 1) -> None:
        """Add to one of the counters."""
        self.cells[self.base + column] += amount

    def set(self, column: int, value: int) -> None:
        """Set one of the gauges."""
        self.cells[self.base + column] = value


class LayerContext:
    """What a layer gets when it is built. Implements `middleware.contract.Context`.

    `rule` is the name of the rule that it is built for, if it is built for one.
    """

    def __init__(
        self, runtime: Runtime, service: str, port: int, counters: PortCounters, rule: str = ""
    ) -> None:
        self._runtime = runtime
        self._counters = counters
        self._rule = rule
        self.service = service
        self.port = port
        self.shared: SharedTable = runtime.shared
        self.tokens: TokenStore | None = runtime.tokens
        self.traces: TraceSink | None = runtime.traces
        self.now = runtime.now

    def of_rule(self, name: str) -> LayerContext:
        """Return what the layers of a rule of this port get."""
        return LayerContext(self._runtime, self.service, self.port, self._counters, name)

    def window(self, name: str, counters: int) -> NodeWindow:
        """Return a window of so many counters that the node's workers share."""
        key = "|".join((self.service, str(self.port), self._rule, name))
        return self._runtime.windows.window(key.encode(), counters)

    def counter(self, metric: Metric) -> Callable[[int], None]:
        """Return a function that adds to this metric."""
        counters, column = self._counters, self._runtime.layout.column(metric)
        return lambda amount: counters.count(column, amount)

    def gauge(self, metric: Metric) -> Callable[[int], None]:
        """Return a function that sets this metric."""
        counters, column = self._counters, self._runtime.layout.column(metric)
        return lambda value: counters.set(column, value)


class LayerSet:
    """The built layers of one place: a listener, a rule, a backend."""

    __slots__ = ("_built", "_context", "_specs")

    def __init__(self, context: LayerContext) -> None:
        self._context = context
        self._specs: tuple[LayerSpec, ...] = ()
        self._built: dict[str, tuple[Any, Any, str]] = {}

    def update(self, specs: tuple[LayerSpec, ...]) -> bool:
        """Take other specs into use; return whether anything is different now."""
        if specs == self._specs:
            return False
        built = {}
        for spec in specs:
            options, layer, scope = self._built.get(spec.name, (None, None, ""))
            if layer is None or options != spec.options:
                middleware = by_name(spec.name)
                renew = middleware.renew
                if layer is None or renew is None or not renew(layer, spec.options):
                    layer = middleware.build(spec.options, self._context)
                scope = middleware.scope
            built[spec.name] = (spec.options, layer, scope)
        self._specs, self._built = specs, built
        return True

    def gates(self) -> tuple[Gate, ...]:
        """Return what decides on new connections."""
        return tuple(gate for _, gate, scope in self._built.values() if scope == "connection")

    def on_request(self) -> tuple[OnRequest, ...]:
        """Return what is shown each request before any layer."""
        return tuple(call for _, call, scope in self._built.values() if scope == "request")

    def of(self, *scopes: str) -> tuple[Layer, ...]:
        """Return the layers of these scopes, outermost first."""
        return tuple(layer for _, layer, scope in self._built.values() if scope in scopes)


def around(layers: Iterable[Layer], handler: Handler) -> Handler:
    """Return the handler with these layers, outermost first, around it."""
    for layer in reversed(tuple(layers)):
        handler = layer(handler)
    return handler
