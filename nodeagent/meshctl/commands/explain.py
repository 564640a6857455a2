"""`meshctl explain`: what the mesh would do with a request, without sending it."""

from __future__ import annotations

import asyncio
import ipaddress
import sys

import click
import msgspec

from discovery.compat import Compat
from discovery.files.overrides import Override
from discovery.kube.commands.objects import ObjectClient, open_objects
from discovery.kube.commands.reading import Cluster
from discovery.registry import Registry
from discovery.source import SourceError
from nodeagent.explain.choosing import Node
from nodeagent.explain.explain import explain as explain_request
from nodeagent.explain.model import Explanation, Question, Unexplained
from nodeagent.explain.question import read_field, read_source, workload_of
from nodeagent.explain.text import text_lines
from nodeagent.meshctl.asking import WhichAgents, ask_any, open_agents
from nodeagent.meshctl.check import node_settings
from nodeagent.meshctl.commands.agents import agents_options
from nodeagent.meshctl.commands.cluster import (
    Where,
    compat_option,
    overrides_option,
    read_events,
    reading,
)
from nodeagent.meshctl.commands.output import Output, output_option, print_answer
from nodeagent.plan.compile import compile_plan
from nodeagent.plan.model import EMPTY_PLAN
from nodeagent.plan.render import InForce


@click.command(short_help="Say what the mesh would do with a request, without sending it.")
@click.argument("url")
@click.option(
    "--from",
    "source",
    default="",
    metavar="POD|ADDRESS",
    help="Who sends it: [NAMESPACE/]POD or an address.  [default: a client that nobody knows]",
)
@click.option("--header", "-H", "headers", multiple=True, metavar="NAME:VALUE", help="A header field.")
@click.option("--method", "-X", default="GET", show_default=True, metavar="METHOD", help="The method.")
@click.option(
    "--files", multiple=True, metavar="PATH", help="Go by these files or folders; - is standard input."
)
@click.option("--zone", default="", metavar="NAME", help="With --files: the zone of the client's node.")
@agents_options
@compat_option
@overrides_option
@output_option()
def explain(
    url: str,
    source: str,
    headers: tuple[str, ...],
    method: str,
    files: tuple[str, ...],
    zone: str,
    which: WhichAgents,
    compat: Compat | None,
    overrides: tuple[Override, ...],
    output: Output,
) -> None:
    """Say what the mesh would do with a request, step by step, and what causes each step.

    The agent of the client's node is asked, or any agent if --from is not a pod; with --files no cluster is
    needed. It goes by the code that serves requests, and sends nothing.

    Exits with 0 if there is an explanation, with 1 if the request does not come to the mesh (the message says
    why), with 2 if it cannot be found out.
    """
    with reading(which):
        try:
            fields = tuple(map(read_field, headers))
            if files:
                found = _by_files(Question(url, method, fields), source, files, zone, compat, overrides)
            else:
                if zone or compat or overrides:
                    raise click.UsageError("--zone, --compat and --endpoints need --files")
                query = {"url": url, "method": method}
                if fields:
                    query["header"] = "\n".join(f"{name}: {value}" for name, value in fields)
                found = asyncio.run(_by_agent(query, source, which))
        except Unexplained as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(1)
    print_answer(output, found, text_lines(found), fold=12)


def _by_files(
    question: Question,
    source: str,
    files: tuple[str, ...],
    zone: str,
    compat: Compat | None,
    overrides: tuple[Override, ...],
) -> Explanation:
    events = read_events(Where(files, Cluster("", ""), ""), compat, overrides)
    registry = Registry()
    registry.fold(events)
    snapshot = registry.snapshot()
    settings = node_settings(compat)
    plan = compile_plan(snapshot, EMPTY_PLAN, settings)
    pods = snapshot.pods
    question = msgspec.structs.replace(question, source=read_source(source or question.source, pods))
    return explain_request(
        Node(InForce(plan), zone), settings, question, lambda address: workload_of(pods, address)
    )


async def _by_agent(query: dict[str, str], source: str, which: WhichAgents) -> Explanation:
    if source:
        query["from"] = source
    if source and not which.urls:
        async with open_objects(which.kubeconfig, which.context) as client:
            query["from"], node = await _locate(client, source)
        which = msgspec.structs.replace(which, node=which.node or node)
    async with open_agents(which) as agents:
        answer = await ask_any(agents, "/explain", query, (400,))
    if answer.status == 400:
        raise Unexplained(answer.text.strip())
    try:
        return msgspec.json.decode(answer.text, type=Explanation)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise SourceError(f"{answer.agent} gives no explanation of this version: {error}") from None


async def _locate(client: ObjectClient, source: str) -> tuple[str, str]:
    """Return the address of a pod and its node; of an address the node is not known."""
    try:
        return str(ipaddress.IPv4Address(source)), ""
    except ValueError:
        namespace, _, name = source.rpartition("/")
    pod = await client.get(f"/api/v1/namespaces/{namespace or 'default'}/pods/{name}")
    address = pod.get("status", {}).get("podIP", "") if pod is not None else ""
    if pod is None or not address:
        why = "has no address yet" if pod is not None else "does not exist"
        raise Unexplained(f"pod {namespace or 'default'}/{name} {why}")
    return address, pod.get("spec", {}).get("nodeName", "")
