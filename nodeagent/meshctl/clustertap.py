"""The page `/tap` of a whole cluster: live requests from all agents, for `meshctl dashboard`.

A line has the node that it comes from. `{"node": ..., "error": ...}` says why an agent is not watched.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Final

import msgspec

from discovery.kube.commands.agents import wanted
from discovery.kube.failure import ApiError
from discovery.source import SourceError
from middleware.values import InvalidValue
from nodeagent.admin.tap_page import TapRefused
from nodeagent.control.tap import TooManyWatches, Watch, Watchers, Watching, read_filter
from nodeagent.meshctl.watching import Line

Follow = Callable[[str, str], AsyncGenerator[Line, None]]
"""Yields the lines of agents for a path, of all or of one: `nodeagent.meshctl.watching.watch_agents`."""

PARAMETERS: Final = ("service", "from", "status", "path", "method")
NONE_LEFT: Final = "no agent can be watched any more"


class ClusterTap:
    """Implements `nodeagent.admin.tap_page.Tap`. Agents are watched as long as somebody watches here."""

    def __init__(self, follow: Follow) -> None:
        self._follow = follow
        self._watchers = Watchers(self._changed)
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def open(self, values: Mapping[str, str]) -> Watching:
        """Begin to watch.

        Raises:
            TapRefused: the parameters say nothing that can be watched, or too many watch already.
        """
        try:
            watching = self._watchers.open(read_filter(values))
        except InvalidValue as error:
            raise TapRefused(400, str(error)) from error
        except TooManyWatches as error:
            raise TapRefused(503, "too many windows watch requests; close some of them") from error
        asked = {name: values[name] for name in PARAMETERS if values.get(name)}
        lines = self._follow(wanted("/tap", asked).target, values.get("agent", ""))
        self._tasks[watching.watch.number] = asyncio.create_task(_pump(lines, watching))
        return watching

    def _changed(self, watches: tuple[Watch, ...]) -> None:
        """Leave the agents that nobody watches any more."""
        left = {watch.number for watch in watches}
        for number in [number for number in self._tasks if number not in left]:
            self._tasks.pop(number).cancel()


async def _pump(lines: AsyncGenerator[Line, None], watching: Watching) -> None:
    """Give lines to one who watches, and say why there are no more."""
    why = NONE_LEFT
    try:
        async with contextlib.aclosing(lines):
            async for line in lines:
                if line.error:
                    _add(watching, {"node": line.node, "error": line.error})
                elif "dropped" in line.fields:
                    watching.miss(line.fields["dropped"])
                else:
                    _add(watching, {**line.fields, "node": line.node})
    except ApiError as error:
        why = error.failure.reason
    except SourceError as error:
        why = str(error)
    _add(watching, {"ended": why})


def _add(watching: Watching, fields: Mapping[str, object]) -> None:
    watching.add(msgspec.json.encode(fields))
