"""A blocking client of an API server for tests and tools: JSON in, JSON out, no retries, no cache."""

from __future__ import annotations

import http.client
import json
import ssl

from hack.kit.manifests import Document
from hack.kit.ports import LOCALHOST

_PLURALS = {"NetworkPolicy": "networkpolicies", "PriorityClass": "priorityclasses"}
_CLUSTER_WIDE = {
    "Namespace",
    "Node",
    "ClusterRole",
    "ClusterRoleBinding",
    "PriorityClass",
    "CustomResourceDefinition",
    "APIService",
}


class Refused(Exception):
    """The server said no: `code` is the HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Client:
    """Requests of one identity; a connection for each, since servers come and go in tests.

    With `kept` one connection is for all, and the client for one thread.
    """

    def __init__(self, port: int, ca: str, token: str, *, kept: bool = False) -> None:
        self._port = port
        self._tls = ssl.create_default_context(cafile=ca)
        self._token = token
        self._kept = self._connection() if kept else None

    def request(self, method: str, path: str, body: Document | None = None, *, kind: str = "") -> Document:
        """Send a request and return the document of the answer; a PATCH is a merge patch unless another
        content type is given.

        Raises:
            Refused: the status is not 2xx.
            OSError: there is no server.
        """
        status, data = self.raw(method, path, body, kind=kind)
        document: Document = json.loads(data) if data.startswith(b"{") else {"text": data.decode()}
        if status >= 300:
            raise Refused(status, document.get("message") or document.get("text") or "")
        return document

    def raw(
        self, method: str, path: str, body: Document | None = None, *, kind: str = ""
    ) -> tuple[int, bytes]:
        """Send a request and return status and body."""
        kind = kind or ("application/merge-patch+json" if method == "PATCH" else "application/json")
        connection = self._kept or self._connection()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": kind}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            if self._kept is None:
                connection.close()

    def _connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(LOCALHOST, self._port, timeout=60, context=self._tls)

    def get(self, path: str) -> Document:
        """GET a path; see `request`."""
        return self.request("GET", path)

    def create(self, document: Document) -> Document:
        """Create an object; return it as the server has it."""
        return self.request("POST", path_of(document).rpartition("/")[0], document)

    def apply(self, document: Document, *, dry_run: bool = False) -> Document:
        """Create or change an object as `kubectl apply --server-side --force-conflicts` does."""
        query = "fieldManager=svcmesh-test&force=true" + ("&dryRun=All" if dry_run else "")
        return self.request(
            "PATCH", f"{path_of(document)}?{query}", document, kind="application/apply-patch+yaml"
        )

    def delete(self, document: Document) -> None:
        """Delete an object."""
        self.request("DELETE", path_of(document))


def path_of(document: Document) -> str:
    """Return the path of an object at the API server, from its kind, namespace and name."""
    kind, version, metadata = document["kind"], document["apiVersion"], document["metadata"]
    plural = _PLURALS.get(kind, f"{kind.lower()}s")
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    scope = "" if kind in _CLUSTER_WIDE else f"/namespaces/{metadata.get('namespace', 'default')}"
    return f"{root}{scope}/{plural}/{metadata['name']}"
