"""The admin server of an agent, with what each of its pages needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import version

from discovery.model import ServiceKey
from nodeagent.admin.backing import PlanBacking
from nodeagent.admin.live import LiveStats
from nodeagent.admin.metrics import AgentState, MetricsPage
from nodeagent.admin.plan_page import PlanPage
from nodeagent.admin.readiness import Readiness
from nodeagent.admin.resolve import Resolver
from nodeagent.admin.server import AdminServer, AdminView
from nodeagent.agent.explain_page import ExplainPage
from nodeagent.agent.tapping import TapDoor
from nodeagent.control.supervisor import Supervisor
from nodeagent.explain.question import Pods
from nodeagent.plan.render import InForce, in_force_document, service_document
from nodeagent.settings import Settings
from nodeagent.stats.exemplars import Exemplars
from nodeagent.stats.tallies import Tallies


class Pages:
    """The admin server, and what counts for its pages while they are looked at."""

    def __init__(
        self,
        settings: Settings,
        supervisor: Supervisor,
        exemplars: Exemplars,
        readiness: Readiness,
        in_force: Callable[[], InForce],
        pods: Callable[[], Pods],
        state: Callable[[], AgentState],
        notes: Callable[[], Iterable[str]],
    ) -> None:
        layout, allocator = supervisor.layout, supervisor.allocator
        tallies = Tallies(layout, allocator)
        self._live = LiveStats(
            settings.node_name,
            tallies,
            allocator,
            lambda: in_force().plan,
            lambda: supervisor.regions,
        )

        def serves(service: str) -> bool:
            namespace, _, name = service.partition("/")
            return ServiceKey(namespace, name) in in_force().plan.services

        self._server = AdminServer(
            settings.admin_listen,
            AdminView(
                readiness=readiness,
                metrics=MetricsPage(
                    layout,
                    allocator,
                    state,
                    version("svcmesh"),
                    settings.node_name,
                    settings.max_series,
                    tallies,
                    exemplars=exemplars,
                ).render,
                plan=PlanPage(in_force, in_force_document, service_document).page,
                resolve=Resolver(asked_dns(settings), (settings.zone, *settings.alias_zones)).resolve,
                stats=self._live.stats,
                tap=TapDoor(supervisor.watchers, serves),
                failures=supervisor.failures.show,
                notes=notes,
                backing=PlanBacking(lambda: in_force().plan).backing,
                explain=ExplainPage(in_force, pods, settings).body,
            ),
            share=settings.capture == "nftables",
        )

    @property
    def malformed(self) -> int:
        """Requests that were no HTTP, or broke a limit."""
        return self._server.malformed

    async def start(self) -> None:
        """Listen.

        Raises:
            AdminListenError: the address cannot be had.
        """
        await self._server.start()

    async def close(self) -> None:
        """Stop counting and listening."""
        await self._live.close()
        await self._server.close()


def asked_dns(settings: Settings) -> tuple[str, int]:
    """Return the address and port at which this node's clients ask the mesh's DNS."""
    return (settings.dns_address, 53) if settings.capture == "nftables" else settings.dns_listen
