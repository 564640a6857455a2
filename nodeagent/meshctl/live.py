"""What agents say of the last seconds, put together: what `stat`, `top`, `graph` and `dashboard` show."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from nodeagent.meshctl.asking import Agents, Answer
from nodeagent.meshctl.said import read_answers
from nodeagent.stats.columns import DURATION_BOUNDS
from nodeagent.stats.overview import Backing, Edge, Live, ServiceRow, merge_nodes
from nodeagent.stats.signals import NodeStats

_BUCKETS: Final = len(DURATION_BOUNDS) + 1
_decoder = msgspec.json.Decoder(NodeStats)


def read_stats(text: str) -> NodeStats:
    """Read the page `/stats`.

    Raises:
        ValueError: it is no such page, or that of an agent with other histograms.
    """
    try:
        stats = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise ValueError(f"no page of this version of svc.mesh: {error}") from None
    for port in stats.ports:
        for one in (port.signals, *(source.signals for source in port.sources)):
            if len(one.durations) != _BUCKETS:
                raise ValueError("its histograms have other bounds: it is an agent of another version")
    return stats


def merge_answers(answers: Iterable[Answer], backing: Backing | None = None) -> Live:
    """Return what all agents say together."""
    stats, said = read_answers(answers, read_stats)
    return Live(merge_nodes(stats, backing), said)


async def ask_live(agents: Agents, window: str, one: str = "", backing: Backing | None = None) -> Live:
    """Ask agents for the last seconds; `one` is as in `Agents.ask`.

    Raises:
        SourceError: it is not known which agents there are.
    """
    return merge_answers(await agents.ask("/stats", {"window": window}, one), backing)


def only(live: Live, namespace: str, service: str) -> Live:
    """Return what concerns the Services of a namespace, or one of them; empty stands for any."""
    overview = live.overview

    def meant(one: ServiceRow | Edge) -> bool:
        return one.namespace == (namespace or one.namespace) and one.service == (service or one.service)

    def asks(edge: Edge) -> bool:
        if not (namespace or service) or edge.source_namespace != (namespace or edge.source_namespace):
            return False
        return edge.source_service == (service or edge.source_service)

    kept = msgspec.structs.replace(
        overview,
        services=[one for one in overview.services if meant(one)],
        edges=[one for one in overview.edges if meant(one) or asks(one)],
    )
    return msgspec.structs.replace(live, overview=kept)
