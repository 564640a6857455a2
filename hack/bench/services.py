"""A data plane with Services of one endpoint each, without an agent: for measuring it alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from discovery.model import Endpoint, ServiceKey
from middleware.contract import TracedRequest
from middleware.registry import MIDDLEWARES
from nodeagent.control.messages import Traces, encode
from nodeagent.plan.model import BackendKey, BackendSpec, LayerSpec, Listener, Rule, Weighted
from nodeagent.plan.of_port import OfPort
from nodeagent.plan.outlier_detection import parse_outlier_detection
from nodeagent.proxy.data_plane import DataPlane
from nodeagent.settings import Limits
from nodeagent.stats import edges
from nodeagent.stats.columns import FIRST_SLOT, REFUSALS, Layout
from nodeagent.stats.edges import EdgeRows
from nodeagent.stats.windows import SharedWindows


class LocalTable:
    """A shared table that is used by one process only."""

    def update(self, key: bytes, change: Callable[[int], int | None]) -> None:
        """As `middleware.contract.SharedTable`, of numbers that are always 0."""
        change(0)


class NowhereSink:
    """Takes what is recorded, as a worker does, and makes a message of it; the message goes nowhere."""

    def keep(self, request: TracedRequest) -> None:
        """As `middleware.contract.TraceSink`."""
        encode(Traces((request,), 0))


def start_data_plane(
    loop: asyncio.AbstractEventLoop, address: str, endpoint: Endpoint, services: Sequence[Service]
) -> DataPlane:
    """Return a data plane that serves these at `address`, all of them by this endpoint."""
    layout = Layout(MIDDLEWARES, REFUSALS)
    slots = (FIRST_SLOT + len(services)) * layout.slot_columns
    cells = memoryview(bytearray(8 * (slots + edges.CELLS))).cast("q")
    data_plane = DataPlane(
        loop,
        Limits(),
        layout,
        cells,
        LocalTable(),
        SharedWindows.create(workers=1),
        edges=EdgeRows(cells, slots),
        traces=NowhereSink(),
    )
    for index, (port, asked) in enumerate(services):
        key = BackendKey(ServiceKey("bench", f"service-{index}"), port)
        outer, inner = layers_of(asked)
        rule = Rule("all", (Weighted(key),), layers=inner)
        listener = Listener(key.service, "http", address, port, port, "http", (rule,), outer)
        slot = FIRST_SLOT + index
        outliers = parse_outlier_detection(asked)
        detection = outliers.usual if isinstance(outliers, OfPort) else None
        backend = BackendSpec(key, (endpoint,), outlier_detection=detection)
        data_plane.apply([(listener, slot)], (), [(backend, slot)])
    return data_plane


def layers_of(annotations: Mapping[str, str]) -> tuple[tuple[LayerSpec, ...], tuple[LayerSpec, ...]]:
    """Return the layers that these annotations ask for: those of the listener, and those of a rule."""
    outer: list[LayerSpec] = []
    inner: list[LayerSpec] = []
    for middleware in MIDDLEWARES:
        options = middleware.parse(annotations)
        if isinstance(options, middleware.options):
            layers = outer if middleware.scope in ("connection", "request", "listener") else inner
            layers.append(LayerSpec(middleware.name, options))
    return tuple(outer), tuple(inner)


Service = tuple[int, Mapping[str, str]]
"""A port and annotations."""
