"""The effects of `meshctl dns`: reading a cluster's DNS, changing it, watching the result, undoing it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from discovery.kube.commands.objects import Conflict, ObjectClient
from discovery.kube.failure import ApiError
from nodeagent.meshctl.clusterdns.change import Change
from nodeagent.meshctl.clusterdns.layout import (
    CORE,
    CUSTOM,
    NAMESPACE,
    NODE_LOCAL,
    ClusterDns,
    read_configmap,
    read_workload,
)
from nodeagent.meshctl.clusterdns.question import Respondent, look
from nodeagent.meshctl.clusterdns.verdict import Verdict, Worse

BACKUP = "svcmesh-dns-backup"
AGENTS = "app.kubernetes.io/name=svcmesh"
"""The label of the mesh's agents."""
MANAGED = {"app.kubernetes.io/managed-by": "meshctl"}
"""The label of ConfigMaps that were made here, and may be deleted again."""
PAUSE = 2.0
"""Seconds between two looks."""


class NotDone(Exception):
    """What was wanted is not in force; `restored` tells whether everything is as it was before."""

    def __init__(self, message: str, *, restored: bool = True) -> None:
        super().__init__(message)
        self.restored = restored


async def read_dns(client: ObjectClient) -> ClusterDns:
    """Read what there is of the cluster's DNS.

    Raises:
        ApiError: it cannot be read.
    """
    workloads = {}
    for kind, name in (("deployments", CORE), *(("daemonsets", name) for name in NODE_LOCAL)):
        if found := await client.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/{kind}/{name}"):
            workloads[name] = read_workload(found)
    mounted = {name for workload in workloads.values() for name in workload.mounts.values()}
    configmaps = {}
    for name in sorted({CORE, CUSTOM, *NODE_LOCAL, *mounted}):
        if found := await client.get(_path(name)):
            configmaps[name] = read_configmap(found)
    return ClusterDns(configmaps, workloads)


async def read_backup(client: ObjectClient) -> dict[str, str]:
    """Return the data of the backup, empty if there is none.

    It lies beside what it is a backup of: the mesh's own namespace may be called anything, and may be gone.

    Raises:
        ApiError: it cannot be read.
    """
    found = await client.get(_path(BACKUP))
    return {} if found is None else read_configmap(found).data


async def write_backup(client: ObjectClient, data: dict[str, str]) -> None:
    """Make or replace the backup.

    Raises:
        Conflict: somebody else made it at the same time.
        ApiError: it was refused.
    """
    if await client.get(_path(BACKUP)) is None:
        await client.create(_folder(NAMESPACE), _configmap(BACKUP, data))
    else:
        await client.patch(_path(BACKUP), {"data": data})


async def delete_backup(client: ObjectClient) -> None:
    """Delete the backup if there is one.

    Raises:
        ApiError: it was refused.
    """
    await client.delete(_path(BACKUP))


async def check_agents(client: ObjectClient) -> None:
    """See that the mesh is there at all, as far as one may list the pods of all namespaces.

    Raises:
        NotDone: it is not.
        ApiError: there was no answer.
    """
    try:
        found = await client.get("/api/v1/pods", labelSelector=AGENTS, limit="1")
    except ApiError as error:
        if error.failure.kind != "forbidden":
            raise
        return
    if not (found or {}).get("items"):
        raise NotDone(
            f"no pod in any namespace matches {AGENTS}, so nobody would answer: install the mesh first"
        )


async def write_change(client: ObjectClient, change: Change) -> None:
    """Change one key, on condition that its ConfigMap is as it was when it was read.

    Raises:
        Conflict: it is not.
        ApiError: it was refused.
    """
    if not change.version:
        await client.create(
            _folder(NAMESPACE), _configmap(change.configmap, {change.key: change.after or ""})
        )
        return
    await client.patch(
        _path(change.configmap),
        {"metadata": {"resourceVersion": change.version}, "data": {change.key: change.after}},
    )


async def change_and_watch(
    client: ObjectClient,
    changes: Sequence[Change],
    respondents: Sequence[Respondent],
    zones: Sequence[str],
    seconds: float,
    *,
    gone: bool = False,
) -> None:
    """Make the changes and wait until the pods answer as they should; undo them if they do not.

    They are undone if names of the cluster are not answered any more, or the zones not after `seconds`. With
    `gone` the zones are waited for to disappear, and are no reason to undo.

    Raises:
        NotDone: nothing is changed in the end.
    """
    done: list[Change] = []
    try:
        for change in changes:
            # Counted before it is known to have arrived: an interruption may come in between.
            done.append(change)
            await write_change(client, change)
        await _watch(client, respondents, zones, seconds, gone)
    except (Worse, Conflict, ApiError, asyncio.CancelledError) as error:
        why = "interrupted" if isinstance(error, asyncio.CancelledError) else str(error)
        left = [wrong for change in reversed(done) if (wrong := await _undo(client, change))]
        outcome = "; ".join(left) or "everything is as it was before"
        raise NotDone(f"{why}; {outcome}", restored=not left) from error
    await _tidy(client, changes)


async def check_beforehand(client: ObjectClient, respondents: Sequence[Respondent]) -> None:
    """See that the cluster's DNS is well before it is touched.

    Raises:
        NotDone: it is not.
        ApiError: we may not look.
    """
    if not respondents:
        raise NotDone("no running pod of CoreDNS was found: the result could not be checked")
    for sight in await look(client, respondents, ()):
        if sight.cluster:
            raise NotDone(f"pod {sight.pod} does not answer well before any change: {sight.cluster}")


async def _watch(
    client: ObjectClient,
    respondents: Sequence[Respondent],
    zones: Sequence[str],
    seconds: float,
    gone: bool,
) -> None:
    clock = asyncio.get_running_loop().time
    verdict = Verdict(clock() + seconds, strict=not gone)
    while True:
        if verdict.judge(await look(client, respondents, zones, gone=gone), clock()):
            return
        await asyncio.sleep(PAUSE)


async def _undo(client: ObjectClient, change: Change) -> str:
    """Put back what was there; return what could not be."""
    try:
        found = await client.get(_path(change.configmap))
        if found is None:
            return ""
        present = read_configmap(found)
        if present.data.get(change.key) == change.before:
            return ""
        if present.data.get(change.key) != change.after:
            return f"{change.title} was changed by somebody else meanwhile and is left as it is"
        back = Change(change.configmap, change.key, change.after, change.before, present.version)
        await write_change(client, back)
        await _tidy(client, [back])
    except (ApiError, Conflict) as error:
        return f"{change.title} could not be put back ({error}): the backup has its bytes"
    return ""


async def _tidy(client: ObjectClient, changes: Sequence[Change]) -> None:
    """Delete ConfigMaps that were made here and hold nothing any more."""
    for change in changes:
        if change.after is None and (found := await client.get(_path(change.configmap))) is not None:
            present = read_configmap(found)
            if not present.data and present.labels.items() >= MANAGED.items():
                await client.delete(_path(change.configmap))


def _configmap(name: str, data: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": MANAGED},
        "data": data,
    }


def _folder(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


def _path(name: str) -> str:
    return f"{_folder(NAMESPACE)}/{name}"
