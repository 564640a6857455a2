"""An API server that passes requests on (the aggregation layer), and prometheus-adapter behind it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from hack.kit.ports import free_port
from hack.kube.certificates import KEY
from hack.kube.client import Client
from hack.kube.component import Component
from hack.kube.control_plane import ControlPlane
from tests.manifests.autoscaling import FOLDER
from tests.manifests.tools import tool

API = "/apis/custom.metrics.k8s.io/v1beta1"


def flags(folder: Path) -> tuple[str, ...]:
    """Return flags of kube-apiserver, with the certificate by which others know that it asks."""
    ca, ca_key, proxy, proxy_key = (folder / name for name in ("ca.crt", "ca.key", "proxy.crt", "proxy.key"))
    _openssl("-subj", "/CN=front-proxy-ca", "-keyout", ca_key, "-out", ca)
    _openssl(
        *("-CA", ca, "-CAkey", ca_key, "-subj", "/CN=front-proxy", "-keyout", proxy_key, "-out", proxy),
        *("-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=clientAuth"),
    )
    return (
        *(f"--requestheader-client-ca-file={ca}", "--requestheader-allowed-names=front-proxy"),
        *("--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group"),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        *(f"--proxy-client-cert-file={proxy}", f"--proxy-client-key-file={proxy_key}"),
    )


def _openssl(*arguments: str | Path) -> None:
    command = ["openssl", "req", "-x509", *KEY, *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, timeout=30)


@contextmanager
def adapter(cluster: ControlPlane, prometheus: str, folder: Path) -> Iterator[Component]:
    """Run prometheus-adapter with the rules of the manifests, as the chart does, and register it."""
    rules = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    (folder / "adapter.yaml").write_text(yaml.safe_dump({"rules": rules}))
    port = free_port()
    command = [
        str(tool("prometheus-adapter", "autoscaling-tools")),
        *(f"--config={folder / 'adapter.yaml'}", f"--prometheus-url={prometheus}"),
        *("--metrics-relist-interval=1s", "--metrics-max-age=1m"),
        *("--bind-address=127.0.0.1", f"--secure-port={port}", f"--cert-dir={folder / 'certificates'}"),
        *(
            f"--{what}-kubeconfig={cluster.kubeconfig}"
            for what in ("lister", "authentication", "authorization")
        ),
    ]
    _register(cluster.admin, port)
    answers = Component(
        "prometheus-adapter",
        command,
        folder / "adapter.log",
        lambda: cluster.admin.raw("GET", API)[0] == 200,
    )
    try:
        answers.start()
        yield answers
    finally:
        answers.kill()


def _register(admin: Client, port: int) -> None:
    """Name it to the API server by a Service that leads to this machine by its name."""
    home = {"name": "adapter", "namespace": "default"}
    ports = [{"name": "https", "port": port}]
    service = {"type": "ExternalName", "externalName": "localhost", "ports": ports}
    admin.apply({"apiVersion": "v1", "kind": "Service", "metadata": home, "spec": service})
    admin.apply(
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": "v1beta1.custom.metrics.k8s.io"},
            "spec": {
                "group": "custom.metrics.k8s.io",
                "version": "v1beta1",
                "service": {**home, "port": port},
                "insecureSkipTLSVerify": True,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
            },
        }
    )
