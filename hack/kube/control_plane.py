"""A control plane of its own for a test: `with ControlPlane() as cluster: ...`.

etcd, kube-apiserver and kube-controller-manager run on free ports of 127.0.0.1, with their data in a folder
that is removed at the end; several can run side by side. There are no nodes, no kubelet and no scheduler:
Pods are only objects; for endpoints without Pods, write EndpointSlices.
"""

from __future__ import annotations

import http.client
import json
import secrets
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hack.kit.manifests import Document
from hack.kit.ports import free_ports
from hack.kube.assets import Assets, find_assets
from hack.kube.certificates import Certificates, make_certificates
from hack.kube.client import Client, Refused
from hack.kube.component import Component

CONTROLLERS = (
    "endpointslice-controller",
    "endpointslice-mirroring-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
)
SERVICE_RANGE = "10.96.0.0/12"


class ControlPlane:
    """The components and what leads to them; `controllers` empty leaves the controller manager out.

    `apiserver_flags` are added to those of kube-apiserver.

    Raises:
        AssetsMissing: on construction, where the programs are not there.
    """

    def __init__(
        self,
        *,
        controllers: Sequence[str] = CONTROLLERS,
        apiserver_flags: Sequence[str] = (),
        assets: Assets | None = None,
    ) -> None:
        self._assets = assets or find_assets()
        self._controllers = controllers if self._assets.controller_manager else ()
        self._apiserver_flags = apiserver_flags
        self.folder = Path(tempfile.mkdtemp(prefix="svcmesh-kube-"))
        self.port, self._etcd_port, self._peer_port = free_ports(3)
        self._token = secrets.token_hex(16)
        self.etcd: Component
        self.apiserver: Component
        self.controller_manager: Component | None = None

    def __enter__(self) -> ControlPlane:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- as a whole ------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._certificates = make_certificates(self.folder)
        (self.folder / "tokens.csv").write_text(f"{self._token},admin,admin,system:masters\n")
        self.admin = Client(self.port, str(self._certificates.ca), self._token)
        self.kubeconfig = self.write_kubeconfig("admin", {"token": self._token})
        self.etcd = Component("etcd", self._etcd_command(), self.folder / "etcd.log", self._etcd_ready)
        self.apiserver = Component(
            "kube-apiserver", self._apiserver_command(), self.folder / "apiserver.log", self.ready
        )
        self.etcd.start()
        self.apiserver.start()
        if self._controllers:
            self.controller_manager = Component(
                "kube-controller-manager",
                self._controller_command(),
                self.folder / "controllers.log",
                self._default_account,
            )
            self.controller_manager.start()

    def close(self) -> None:
        """Kill everything and remove the folder."""
        for name in ("controller_manager", "apiserver", "etcd"):
            component: Component | None = getattr(self, name, None)
            if component is not None:
                component.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ready(self) -> bool:
        """Whether the API server says that it is."""
        return self._answers("/readyz")

    # -- identities ------------------------------------------------------------------------------------

    def write_kubeconfig(self, name: str, user: Document, port: int = 0) -> str:
        """Write a kubeconfig for a user (a section such as `{"token": ...}`) and return its path.

        `port` leads it to something else on 127.0.0.1, such as a proxy before the API server.
        """
        cluster = {
            "server": f"https://127.0.0.1:{port or self.port}",
            "certificate-authority": str(self._certificates.ca),
        }
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "svcmesh-test",
            "contexts": [{"name": "svcmesh-test", "context": {"cluster": "test", "user": name}}],
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
        }
        path = self.folder / f"{name}-{port or self.port}.kubeconfig"
        path.write_text(json.dumps(document))
        path.chmod(0o600)
        return str(path)

    def service_account_token(
        self, namespace: str, name: str, *, seconds: int = 3600, bound_to: Document | None = None
    ) -> str:
        """Return a new token of a ServiceAccount, as the kubelet gets it for a Pod (TokenRequest).

        `bound_to` is a reference (`kind`, `apiVersion`, `name`, `uid`) to a Pod or Secret: the token is
        refused when that is gone.
        """
        spec: Document = {"expirationSeconds": seconds}
        if bound_to is not None:
            spec["boundObjectRef"] = bound_to
        answer = self.admin.request(
            "POST",
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
        )
        token: str = answer["status"]["token"]
        return token

    def open_session(self) -> Client:
        """Return a client of the administrator that keeps its connection, for one thread."""
        return Client(self.port, str(self._certificates.ca), self._token, kept=True)

    def client(self, token: str) -> Client:
        """Return a client with this token."""
        return Client(self.port, str(self._certificates.ca), token)

    # -- bad weather -----------------------------------------------------------------------------------

    def compact(self) -> int:
        """Forget etcd's history before its present revision, which is returned."""
        status = self._etcd_call("/v3/maintenance/status")
        revision = int(status["header"]["revision"])
        self._etcd_call("/v3/kv/compaction", {"revision": str(revision), "physical": True})
        return revision

    def save_data(self) -> Path:
        """Copy etcd's data as it is now (etcd stops for a moment) and return the copy's folder."""
        copy = self.folder / f"saved-{secrets.token_hex(4)}"
        self.etcd.stop()
        shutil.copytree(self._data, copy)
        self.etcd.start()
        return copy

    def restore_data(self, saved: Path) -> None:
        """Replace etcd's data by a copy and restart etcd and the API server.

        Resource versions go back with it, as after a restore from a backup that does not raise revisions.
        """
        self.apiserver.kill()
        self.etcd.kill()
        shutil.rmtree(self._data)
        shutil.copytree(saved, self._data)
        self.etcd.start()
        self.apiserver.start()

    # -- programs --------------------------------------------------------------------------------------

    @property
    def _data(self) -> Path:
        return self.folder / "etcd"

    def _etcd_command(self) -> list[str]:
        client, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{self._peer_port}"
        return [
            *(self._assets.etcd, "--name=test", f"--data-dir={self._data}"),
            *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
            *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
            *(f"--initial-cluster=test={peer}", "--log-level=warn"),
        ]

    def _apiserver_command(self) -> list[str]:
        keys: Certificates = self._certificates
        return [
            self._assets.apiserver,
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            *(
                "--bind-address=127.0.0.1",
                f"--secure-port={self.port}",
                f"--service-cluster-ip-range={SERVICE_RANGE}",
            ),
            *(f"--tls-cert-file={keys.server}", f"--tls-private-key-file={keys.server_key}"),
            *("--authorization-mode=Node,RBAC", f"--token-auth-file={self.folder / 'tokens.csv'}"),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            *(
                f"--service-account-key-file={keys.token_key}",
                f"--service-account-signing-key-file={keys.token_key}",
            ),
            # The Service `kubernetes` may not have 127.0.0.1 as its endpoint.
            *("--endpoint-reconciler-type=none", "--allow-privileged=true", "--profiling=false"),
            *self._apiserver_flags,
        ]

    def _controller_command(self) -> list[str]:
        return [
            *(self._assets.controller_manager, f"--kubeconfig={self.kubeconfig}", "--secure-port=0"),
            *(f"--controllers={','.join(self._controllers)}", "--leader-elect=false"),
            f"--service-account-private-key-file={self._certificates.token_key}",
            f"--root-ca-file={self._certificates.ca}",
        ]

    # -- conditions ------------------------------------------------------------------------------------

    def _etcd_ready(self) -> bool:
        try:
            return int(self._etcd_call("/v3/maintenance/status").get("leader", "0")) > 0
        except (OSError, ValueError, http.client.HTTPException):
            return False

    def _default_account(self) -> bool:
        return self._answers("/api/v1/namespaces/default/serviceaccounts/default") and self._answers(
            "/api/v1/namespaces/default/configmaps/kube-root-ca.crt"
        )

    def _answers(self, path: str) -> bool:
        try:
            self.admin.get(path)
        except (OSError, Refused, http.client.HTTPException):
            return False
        return True

    def _etcd_call(self, path: str, body: Document | None = None) -> Document:
        """Call etcd's JSON gateway to its gRPC API."""
        connection = http.client.HTTPConnection("127.0.0.1", self._etcd_port, timeout=20)
        try:
            connection.request("POST", path, json.dumps(body or {}))
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer
        finally:
            connection.close()
