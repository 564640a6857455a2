"""Capture on a node: one route and one nftables table, as `ruleset` and `route` describe them.

Two agents overlap during an upgrade, so nothing here assumes that it is alone. The table carries the name of
the agent that made it. A successor leaves its predecessor's table in place until its own first `apply`, when
it has something to serve, and then replaces it in one transaction. From then on the predecessor changes
nothing, and its exit removes only its own route. If the successor ends first, the predecessor's next `verify`
takes the table back.

Order matters for what must not be reachable: the table is there before the route, and goes after it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable

import structlog

from nodeagent.capture.contract import CaptureError
from nodeagent.capture.nft import NftError, run_nft
from nodeagent.capture.observed import judge, read_table
from nodeagent.capture.route import MeshRoute
from nodeagent.capture.ruleset import check_keys, layout_of, render_change, render_removal, render_table
from nodeagent.plan.model import ListenerKey
from nodeagent.settings import Settings

log = structlog.get_logger()


class NftablesCapture:
    """Steers mesh addresses to the workers by nftables. Needs CAP_NET_ADMIN and the program nft."""

    def __init__(self, settings: Settings) -> None:
        metric = secrets.randbelow(2**32 - 1) + 1
        self._layout = layout_of(settings, f"{metric:08x}")
        self._route = MeshRoute(settings.network, metric)
        self._applied: frozenset[ListenerKey] | None = None
        """None until the table is this agent's."""
        self._superseded = False
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Make the mesh range local and refuse all of it that is not served. Idempotent.

        Sockets can be bound on mesh addresses afterwards. A table that a predecessor of the same range left
        stays until the first `apply`.

        Raises:
            CaptureError: a privilege, the program nft or a kernel feature is missing.
        """
        async with self._lock:
            try:
                table = await asyncio.to_thread(read_table)
                if table is None or not table.owner.endswith(f"-{self._layout.mesh_range}"):
                    await run_nft(render_table(self._layout, ()))
                await asyncio.to_thread(self._route.add)
            except (NftError, OSError) as error:
                raise self._refused("set up", "nothing is captured", error) from error

    async def apply(self, keys: Iterable[ListenerKey]) -> None:
        """Make exactly these TCP addresses and ports reach the workers, in one transaction. Idempotent.

        Raises:
            CaptureError: nothing was changed.
        """
        wanted = frozenset(keys)
        async with self._lock:
            try:
                check_keys(self._layout, wanted - (self._applied or frozenset()))
                if self._applied is None:
                    await self._take_over(wanted)
                elif wanted != self._applied:
                    await self._change(self._applied, wanted)
            except (NftError, OSError, ValueError) as error:
                raise self._refused("changed", "the last map stays in force", error) from error
            self._applied = wanted

    async def verify(self) -> None:
        """Repair what somebody else removed or changed, unless a successor has taken over.

        Raises:
            CaptureError: it could not be repaired.
        """
        async with self._lock:
            if self._applied is None:
                return
            try:
                await self._mend(self._applied)
            except (NftError, OSError) as error:
                raise self._refused("mended", "mesh addresses may be unreachable", error) from error

    async def close(self) -> None:
        """Remove the table and the route, or leave the table to a successor.

        Raises:
            CaptureError: the kernel refused; the table or the route is still there.
        """
        async with self._lock:
            try:
                await asyncio.to_thread(self._route.remove)
                if await asyncio.to_thread(self._route.others):
                    log.info("capture_handed_over", reason="another agent has a route for the mesh range")
                else:
                    await self._remove_table()
            except (NftError, OSError) as error:
                raise self._refused("removed", "it stays until an agent starts again", error) from error
            self._applied = None

    async def _take_over(self, wanted: frozenset[ListenerKey]) -> None:
        await run_nft(render_table(self._layout, wanted))
        await asyncio.to_thread(self._route.remove_others)

    async def _change(self, applied: frozenset[ListenerKey], wanted: frozenset[ListenerKey]) -> None:
        try:
            await run_nft(render_change(self._layout, added=wanted - applied, removed=applied - wanted))
        except NftError as error:
            await self._mend(wanted, refusal=str(error))

    async def _mend(self, wanted: frozenset[ListenerKey], refusal: str = "") -> None:
        """Restore table and route if they are not as they should be, or if the kernel refused to change the
        map.
        """
        table = judge(await asyncio.to_thread(read_table), self._layout)
        if table == "superseded":
            if not self._superseded:
                log.warning("capture_superseded", reason="another agent has replaced the table svcmesh")
            self._superseded = True
            return
        self._superseded = False
        if table != "ours" or refusal:
            await run_nft(render_table(self._layout, wanted))
            state = f"the table svcmesh was {table}" if table != "ours" else "the map was altered"
            log.warning("capture_healed", reason=state, refusal=refusal)
        if await asyncio.to_thread(self._route.add):
            log.warning("capture_healed", reason="the route of the mesh range was missing", refusal=refusal)

    async def _remove_table(self) -> None:
        try:
            await run_nft(render_removal(self._layout))
        except NftError:
            table = await asyncio.to_thread(read_table)
            if table is not None and table.owner == self._layout.owner:
                raise

    def _refused(self, action: str, in_force: str, error: Exception) -> CaptureError:
        return CaptureError(
            f"capture of {self._layout.mesh_range} by nftables was not {action}: {error}; {in_force}"
        )
