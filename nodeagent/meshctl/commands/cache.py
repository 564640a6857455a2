"""`meshctl cache`: purging the caches of a Service on all nodes, and what caches do.

A purge is a change of the Service (`middleware.cache_purge`), so it needs a right that owners of Services
have, and agents need no way in that changes anything.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import click
import msgspec

from discovery.kube.commands.objects import Conflict, open_objects
from discovery.kube.failure import ApiError
from discovery.source import SourceError
from middleware.cache_purge import Purge, check_path
from middleware.values import InvalidValue
from nodeagent.meshctl.asking import Answer, WhichAgents, open_agents
from nodeagent.meshctl.cachestat import AgentCaches, read_counts, stat_document, stat_lines
from nodeagent.meshctl.commands.agents import agents_options
from nodeagent.meshctl.commands.cluster import (
    Unreadable,
    cluster_options,
    parse_service_namespace,
    reading,
    service_argument,
    service_namespace_option,
)
from nodeagent.meshctl.commands.output import Output, output_option, print_answer
from nodeagent.meshctl.purge import PurgePatch, plan_purge

TRIES: Final = 5
"""Of writing the annotation, while others change the Service at the same time."""


class NotPurged(Exception):
    """The Service could not be changed; the message names it and says why."""


def _parse_path(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        return check_path(value) if value else ""
    except InvalidValue as invalid:
        raise click.BadParameter(str(invalid)) from None


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@click.group(short_help="Purge the caches of a Service, and see what caches do.")
def cache() -> None:
    """Purge the caches of a Service on all nodes, and see what caches do."""


@cache.command(short_help="Have all caches of a Service forget what they keep.")
@service_argument()
@cluster_options
@service_namespace_option
@click.option(
    "--path",
    default="",
    metavar="/PREFIX",
    callback=_parse_path,
    help="Only responses whose paths, as endpoints get them, begin like this.  [default: all]",
)
@output_option()
def purge(
    service: str,
    kubeconfig: str,
    context: str,
    namespace: str,
    path: str,
    output: Output,
) -> None:
    """Have all caches of a Service forget what they keep, in all workers of all nodes.

    Sets the annotation svc.mesh/cache-purge of the Service; agents that are in touch with the API server
    follow at once, others when they are again. Needs `get` and `patch` on services in the namespace.

    Exits with 0 if the annotation is set, with 1 if there is no such Service or it may not be changed, with 2
    if the cluster cannot be reached.
    """
    wanted = Purge(_now(), path)
    try:
        patch = asyncio.run(_purge(kubeconfig, context, namespace, service, wanted))
    except SourceError as error:
        raise Unreadable(str(error)) from None
    except NotPurged as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    name = f"{service}.{namespace}"
    for doubt in patch.doubts:
        click.echo(f"Warning: Service {namespace}/{service} may have no cache: {doubt}", err=True)
    which = f"the responses whose paths begin with {path}" if path else "all responses"
    document = {
        "namespace": namespace,
        "service": service,
        "path": path,
        "mark": wanted.mark,
        "annotations": patch.annotations,
        "doubts": patch.doubts,
    }
    print_answer(output, document, [f"{name}: all caches forget {which} (mark {wanted.mark})"])


async def _purge(kubeconfig: str, context: str, namespace: str, service: str, wanted: Purge) -> PurgePatch:
    path = f"/api/v1/namespaces/{namespace}/services/{service}"
    name = f"Service {namespace}/{service}"
    async with open_objects(kubeconfig, context) as client:
        for _ in range(TRIES):
            try:
                found = await client.get(path)
                if found is None:
                    raise NotPurged(f"{name} does not exist; nothing was purged")
                patch = plan_purge(found, wanted)
                await client.patch(path, patch.document)
            except Conflict:
                continue
            except ApiError as error:
                if error.failure.kind in ("forbidden", "refused"):
                    raise NotPurged(f"{name}: {error.failure.reason}; nothing was purged") from error
                raise SourceError(f"{name}: {error.failure.reason}") from error
            return patch
    raise NotPurged(f"{name} was changed by others {TRIES} times in a row; nothing was purged, try again")


@cache.command(short_help="Show what caches do, over all nodes.")
@service_argument(required=False)
@click.option(
    "--namespace",
    "-n",
    default="",
    metavar="NAME",
    callback=parse_service_namespace,
    help="Services of this namespace only.  [default: all]",
)
@agents_options
@output_option()
def stat(
    service: str,
    namespace: str,
    which: WhichAgents,
    output: Output,
) -> None:
    """Show what caches do: hits, misses, bytes and more of each port that has one, over all nodes.

    Agents are asked for their metrics through the API server, as `meshctl status` does; counts begin
    at 0 when an agent is replaced.

    Exits with 0 if all agents have answered, with 1 if one has not or there is none, with 2 if the cluster
    cannot be read.
    """

    def is_meant(name: str, of: str) -> bool:
        return name == (service or name) and of == (namespace or of)

    with reading(which):
        agents = asyncio.run(_read_caches(which, is_meant))
    print_answer(output, stat_document(agents), stat_lines(agents) if agents else ())
    if not agents:
        click.echo(which.none, err=True)
    sys.exit(0 if agents and not any(agent.reason for agent in agents) else 1)


async def _read_caches(which: WhichAgents, is_meant: Callable[[str, str], bool]) -> list[AgentCaches]:
    async with open_agents(which) as agents:
        return [_read_agent(answer, is_meant) for answer in await agents.ask("/metrics", {})]


def _read_agent(answer: Answer, is_meant: Callable[[str, str], bool]) -> AgentCaches:
    said = AgentCaches(answer.node, answer.agent, answer.namespace, reason=answer.reason)
    if answer.reason:
        return said
    try:
        counts = read_counts(answer.text)
    except ValueError as error:
        return msgspec.structs.replace(said, reason=str(error))
    meant = tuple(one for one in counts if is_meant(one.service, one.namespace))
    return msgspec.structs.replace(said, caches=meant)
