"""A short-lived pod on each node that runs `nodeagent node-check` there; all of them are removed again.

They run where the agent's pod would: in the mesh's namespace if that is there, with its registry credentials,
else in a namespace that is made for them and removed. They are deleted whatever ends the command, a timeout
or Ctrl-C too; and each ends by itself after two minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from discovery.kube.commands.objects import Conflict, Document, ObjectClient
from discovery.kube.commands.waiting import why_not_running
from discovery.kube.failure import UNREADABLE, ApiError
from nodeagent.capture.node_facts import NodeFacts
from nodeagent.meshctl.clustercheck.admission import ENFORCE, PRIVILEGED, agent_pod
from nodeagent.meshctl.clustercheck.reading import NO_ACCOUNT
from nodeagent.meshctl.clustercheck.result import Unknown
from nodeagent.meshctl.clustercheck.target import Target

AT_ONCE: Final = 16
"""Nodes that are looked at at the same time."""
LOOK: Final = 0.5
"""Seconds between two looks at a pod."""
CLEANING: Final = 15.0
"""Seconds that removing a pod or the namespace may take."""
LABELS: Final = {"app.kubernetes.io/name": "svcmesh-check", "app.kubernetes.io/part-of": "svcmesh"}
LOG_END: Final = 300
"""Characters of a pod's log that are shown."""

_decoder = msgspec.json.Decoder(NodeFacts)
Tell = Callable[[str], None]


async def probe_nodes(
    client: ObjectClient, target: Target, nodes: Sequence[str], present: bool, tell: Tell
) -> dict[str, NodeFacts | Unknown]:
    """Return what was found on each node; `present`: the mesh's namespace is there. `tell` hears of progress.

    Raises:
        ApiError: no namespace for the pods could be made.
    """
    token = secrets.token_hex(3)
    found: dict[str, NodeFacts | Unknown] = {}
    turn = asyncio.Semaphore(AT_ONCE)

    async def look_at(node: str, namespace: str, name: str) -> None:
        async with turn:
            try:
                found[node] = await _probe(client, target, node, namespace, name, tell)
            except ApiError as error:
                found[node] = Unknown(error.failure.reason)
            tell(f"{len(found)} of {len(nodes)} nodes looked at")

    async with _place(client, target, present, token, tell) as namespace, asyncio.TaskGroup() as group:
        for number, node in enumerate(nodes):
            group.create_task(look_at(node, namespace, f"svcmesh-check-{token}-{number}"))
    return found


@asynccontextmanager
async def _place(
    client: ObjectClient, target: Target, present: bool, token: str, tell: Tell
) -> AsyncIterator[str]:
    if present:
        yield target.namespace
        return
    name = f"svcmesh-check-{token}"
    metadata = {"name": name, "labels": {**LABELS, ENFORCE: PRIVILEGED}}
    try:
        await client.create(
            "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
        )
        yield name
    finally:
        await _remove(client, f"/api/v1/namespaces/{name}", tell)


async def _probe(
    client: ObjectClient, target: Target, node: str, namespace: str, name: str, tell: Tell
) -> NodeFacts | Unknown:
    args = ["node-check", "--mesh-range", target.mesh_range]
    pod = agent_pod(namespace, name, target.image, args, LABELS, node)
    path = f"/api/v1/namespaces/{namespace}/pods"
    try:
        await _create(client, path, pod)
        return await _outcome(client, f"{path}/{name}")
    finally:
        # By its name, whether it is known to exist or not: an interruption may come while it is made.
        await _remove(client, f"{path}/{name}", tell, gracePeriodSeconds="0")


async def _create(client: ObjectClient, path: str, pod: Document) -> None:
    """Make the pod; in a namespace that is new, once its ServiceAccount is there."""
    while True:
        try:
            return await client.create(path, pod)
        except ApiError as error:
            if NO_ACCOUNT not in error.failure.reason:
                raise
        await asyncio.sleep(LOOK)


async def _outcome(client: ObjectClient, path: str) -> NodeFacts | Unknown:
    """Wait until the pod has ended, and return what it found."""
    while True:
        document = await client.get(path)
        if document is None:
            return Unknown("somebody deleted the pod")
        phase = (document.get("status") or {}).get("phase")
        if phase == "Succeeded":
            return _read(await client.text(f"{path}/log"))
        if reason := why_not_running(document):
            said = await _log_end(client, path) if phase == "Failed" else ""
            return Unknown(" ".join(filter(None, (reason, said))))
        await asyncio.sleep(LOOK)


async def _log_end(client: ObjectClient, path: str) -> str:
    try:
        return " ".join((await client.text(f"{path}/log")).split())[-LOG_END:]
    except ApiError:
        return ""


def _read(log: str) -> NodeFacts | Unknown:
    try:
        return _decoder.decode(log.strip().rpartition("\n")[2].encode())
    except UNREADABLE:
        return Unknown(
            f"its pod does not print what is expected; is that an agent's image? {log[:LOG_END]!r}"
        )


async def _remove(client: ObjectClient, path: str, tell: Tell, **query: str) -> None:
    """Delete an object, with a time limit of its own, and say so if that was not possible."""
    try:
        async with asyncio.timeout(CLEANING):
            with contextlib.suppress(Conflict):
                await client.delete(path, **query)
    except (ApiError, TimeoutError) as error:
        tell(f"{path} could not be removed ({str(error) or 'no answer in time'}): remove it by hand")
