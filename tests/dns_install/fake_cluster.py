"""A small API server for `meshctl dns`: ConfigMaps with resource versions, workloads, pods and their ports.

Runs in a thread of its own, so that commands can be run as a person runs them. `Pods` says what is behind a
forwarded port 53: a function from a DNS query to its answer, or the address of a real server.
"""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from aiohttp import web

from nodeagent.meshctl.clusterdns.cluster import BACKUP
from tests.discovery.kube.forwarded import open_forward, pump

Document = dict[str, Any]
Patch = Callable[[str, Document], None]


def status(code: int, message: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "code": code, "message": message}
    return web.json_response(body, status=code)


class FakeCluster:
    """The state is in the attributes; change them before a command is run, look at them afterwards."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.configmaps: dict[tuple[str, str], Document] = {}
        self.workloads: dict[str, Document] = {}
        self.agents = ["svcmesh-agent-1"]
        """The mesh's pods."""
        self.forbidden: set[str] = set()
        """Such as `patch configmaps`."""
        self.writes: list[str] = []
        self.resolves_cluster = True
        self.served_zones: Callable[[str], list[str]] = lambda corefiles: []
        """From all texts of kube-system, the zones that its pods serve at present."""
        self.after_write: Callable[[], object] = lambda: None
        self.forward_to: tuple[str, int] | None = None
        self.metrics = ""
        self._version = 100
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = 0

    def __enter__(self) -> FakeCluster:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    def kubeconfig(self, server: str = "") -> str:
        path = self._folder / "kubeconfig"
        cluster = {"server": server or f"http://127.0.0.1:{self.port}"}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": "t"}}],
        }
        path.write_text(json.dumps(document))
        return str(path)

    def put(self, name: str, data: dict[str, str], **metadata: Any) -> None:
        """Make a ConfigMap in kube-system."""
        self._store("kube-system", name, {"metadata": {"name": name, **metadata}, "data": data})

    def workload(self, kind: str, name: str, mounts: dict[str, str] | None = None) -> None:
        """Make a Deployment or DaemonSet; `mounts` are ConfigMaps by folder. It has one pod, `NAME-1`."""
        mounts = mounts or {}
        pod = {
            "volumes": [{"name": found, "configMap": {"name": found}} for found in mounts.values()],
            "containers": [
                {"volumeMounts": [{"name": found, "mountPath": folder} for folder, found in mounts.items()]}
            ],
        }
        spec = {"selector": {"matchLabels": {"app": name}}, "template": {"spec": pod}}
        self.workloads[f"{kind}/{name}"] = {"metadata": {"name": name}, "spec": spec}

    def data(self, name: str, namespace: str = "kube-system") -> dict[str, str] | None:
        found = self.configmaps.get((namespace, name))
        return None if found is None else found.get("data", {})

    def texts(self) -> str:
        """All data of kube-system, but for the backup, which nobody mounts."""
        return "".join(
            text
            for (ns, name), one in self.configmaps.items()
            if ns == "kube-system" and name != BACKUP
            for text in one.get("data", {}).values()
        )

    # -- serving ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        app = web.Application()
        base = "/api/v1/namespaces/{namespace}"
        app.router.add_get("/api/v1/pods", self._agents)
        app.router.add_route("*", base + "/configmaps", self._create)
        app.router.add_route("*", base + "/configmaps/{name}", self._configmap)
        app.router.add_get("/apis/apps/v1/namespaces/kube-system/{kind}/{name}", self._workload)
        app.router.add_get(base + "/pods", self._pods)
        app.router.add_get(base + "/pods/{pod}/portforward", self._forward)
        app.router.add_get(base + "/pods/{pod}/proxy/metrics", self._metrics)
        runner = web.AppRunner(app, shutdown_timeout=0.05)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    def _store(self, namespace: str, name: str, document: Document) -> None:
        self._version += 1
        document["metadata"]["resourceVersion"] = str(self._version)
        if not document.get("data"):
            document.pop("data", None)
        self.configmaps[(namespace, name)] = document

    async def _agents(self, request: web.Request) -> web.Response:
        assert request.query["labelSelector"] == "app.kubernetes.io/name=svcmesh"
        if "list pods everywhere" in self.forbidden:
            return status(403, 'User "u" cannot list resource "pods" at the cluster scope')
        return web.json_response({"items": [{"metadata": {"name": name}} for name in self.agents] or None})

    async def _create(self, request: web.Request) -> web.Response:
        namespace, document = request.match_info["namespace"], await request.json()
        name = document["metadata"]["name"]
        if "create configmaps" in self.forbidden:
            return status(403, 'User "u" cannot create resource "configmaps"')
        if (namespace, name) in self.configmaps:
            return status(409, "already exists")
        self._store(namespace, name, document)
        self._wrote(f"create {namespace}/{name}")
        return web.json_response(document, status=201)

    async def _configmap(self, request: web.Request) -> web.Response:
        key = namespace, name = request.match_info["namespace"], request.match_info["name"]
        if f"{request.method.lower()} configmaps" in self.forbidden:
            return status(403, f'User "u" cannot {request.method.lower()} resource "configmaps"')
        if (found := self.configmaps.get(key)) is None:
            return status(404, "not found")
        if request.method == "DELETE":
            del self.configmaps[key]
            self._wrote(f"delete {namespace}/{name}")
        elif request.method == "PATCH":
            patch = await request.json()
            wanted = patch.get("metadata", {}).get("resourceVersion")
            if wanted not in (None, found["metadata"]["resourceVersion"]):
                return status(409, "the object has been modified")
            merged = found.get("data", {}) | patch["data"]
            data = {key: value for key, value in merged.items() if value is not None}
            self._store(namespace, name, {**found, "data": data})
            self._wrote(f"patch {namespace}/{name}")
        return web.json_response(found)

    def _wrote(self, what: str) -> None:
        self.writes.append(what)
        if not what.endswith(BACKUP):
            self.after_write()

    async def _workload(self, request: web.Request) -> web.Response:
        found = self.workloads.get(f"{request.match_info['kind']}/{request.match_info['name']}")
        return status(404, "not found") if found is None else web.json_response(found)

    async def _pods(self, request: web.Request) -> web.Response:
        name = request.query["labelSelector"].removeprefix("app=")
        pods = [
            {"metadata": {"name": f"{name}-{phase.lower()}"}, "status": {"phase": phase}}
            for phase in ("Running", "Failed")
        ]
        return web.json_response({"items": pods})

    async def _metrics(self, request: web.Request) -> web.Response:
        assert request.match_info["pod"] == "node-local-dns-running:9253"
        zones = [".", *(f"{zone}." for zone in self.served_zones(self.texts()))]
        lines = [
            f'coredns_plugin_enabled{{name="forward",server="dns://:53",view="",zone="{one}"}} 1'
            for one in zones
        ]
        return web.Response(text="\n".join(lines))

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        if "create pods/portforward" in self.forbidden:
            return status(403, "no")
        assert request.match_info["pod"] == "coredns-running"
        socket = await open_forward(request)
        if self.forward_to is None:
            await self._answer(socket)
        else:
            await pump(socket, *self.forward_to)
        return socket

    async def _answer(self, socket: web.WebSocketResponse) -> None:
        async for message in socket:
            query = dns.message.from_wire(message.data[3:])
            wire = self._resolve(query).to_wire()
            # In two pieces, as a network may cut it.
            whole = struct.pack("!H", len(wire)) + wire
            await socket.send_bytes(b"\x00" + whole[:5])
            await socket.send_bytes(b"\x00" + whole[5:])

    def _resolve(self, query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        name = str(query.question[0].name)
        if name.startswith("kubernetes.default.svc."):
            good = self.resolves_cluster
        else:
            good = name.removesuffix(".") in self.served_zones(self.texts())
            if good:
                response.answer.append(dns.rrset.from_text(name, 5, "IN", "SOA", "ns. root. 1 2 3 4 5"))
        response.set_rcode(dns.rcode.NOERROR if good else dns.rcode.NXDOMAIN)
        return response
