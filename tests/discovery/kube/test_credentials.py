"""Whose configuration is used, what it becomes, and what is said when it cannot be used."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from discovery.kube.connection import check_access
from discovery.kube.credentials import (
    Access,
    Credentials,
    CredentialsUnavailable,
    InClusterLoader,
    KubeconfigLoader,
    loader_for,
)
from discovery.kube.library import load_library
from discovery.kube.source import KubeSource
from discovery.source import SourceError

LIBRARY = load_library()
POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
PEM = base64.b64encode(b"-----BEGIN CERTIFICATE-----\n").decode()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def config(server: Any = "http://10.0.0.1:6443", user: Any = None, **cluster: Any) -> dict[str, Any]:
    return {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": user or {}}],
    }


def write(path: Path, document: object) -> str:
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


def credentials(paths: str, clock: Clock | None = None) -> Credentials:
    return Credentials(LIBRARY, lambda: KubeconfigLoader(LIBRARY, paths, ""), 60.0, clock or Clock())


async def access(tmp_path: Path, document: object) -> Access:
    return await credentials(write(tmp_path / "config", document)).current()


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        ("{file}", {"KUBECONFIG": "/missing", **POD}, KubeconfigLoader),
        ("", {"KUBECONFIG": "{file}", **POD}, KubeconfigLoader),
        ("", {"KUBECONFIG": "/missing:{file}"}, KubeconfigLoader),
        ("", POD, InClusterLoader),
    ],
)
def test_the_order_is_that_of_controllers(
    tmp_path: Path, given: str, environment: dict[str, str], expected: type
) -> None:
    file = write(tmp_path / "config", config())
    environment = {name: value.format(file=file) for name, value in environment.items()}
    make = loader_for(LIBRARY, given.format(file=file), "", environment)
    assert type(make()) is expected


async def first_error(source: KubeSource) -> str:
    with pytest.raises(SourceError) as caught:
        async for _ in source.watch():
            pass
    return str(caught.value)


async def test_a_kubeconfig_that_does_not_exist() -> None:
    message = await first_error(KubeSource(kubeconfig="/missing/config", environment={}))
    assert message == "kubeconfig /missing/config does not exist. Point KUBECONFIG to a kubeconfig file."


async def test_no_cluster_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    message = await first_error(KubeSource(environment={}))
    assert "this is not a pod" in message
    assert "Set KUBECONFIG" in message


async def test_a_pod_without_its_token() -> None:
    message = await first_error(KubeSource(environment=POD))
    assert "automountServiceAccountToken" in message


@pytest.mark.parametrize(
    "document",
    [
        "",
        "just text",
        "{not: [yaml",
        "[]",
        "{}",
        {"current-context": "nobody", "contexts": [], "clusters": [], "users": []},
        config() | {"clusters": []},
        config() | {"clusters": "k"},
        config(server=""),
        config(server=7),
        config(server="10.0.0.1:6443"),
        config(server="ftp://10.0.0.1"),
        config(
            user={"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "/missing/plugin"}}
        ),
        config(user={"tokenFile": "/missing/token"}),
        config("https://10.0.0.1", **{"certificate-authority": "/missing/ca.crt"}),
        config("https://10.0.0.1", **{"certificate-authority-data": PEM}),
    ],
)
async def test_a_kubeconfig_that_cannot_be_used(tmp_path: Path, document: object) -> None:
    path = write(tmp_path / "config", document)
    message = await first_error(KubeSource(kubeconfig=path, environment={}))
    assert path in message or "certificates for https://10.0.0.1" in message


async def test_a_kubeconfig_becomes_an_access(tmp_path: Path) -> None:
    found = await access(tmp_path, config("http://10.0.0.1:6443/", {"token": "secret"}))
    assert found.server == "http://10.0.0.1:6443"
    assert found.authorization == "Bearer secret"


async def test_name_and_password(tmp_path: Path) -> None:
    found = await access(tmp_path, config(user={"username": "u", "password": "p"}))
    assert found.authorization == "Basic " + base64.b64encode(b"u:p").decode()


async def test_tls_settings(tmp_path: Path) -> None:
    options = {"insecure-skip-tls-verify": True, "tls-server-name": "kube", "proxy-url": "http://proxy:3128"}
    found = await access(tmp_path, config("https://10.0.0.1", {"token": "x"}, **options))
    assert (found.tls.verify, found.tls.server_name, found.proxy) == (False, "kube", "http://proxy:3128")
    check_access(found)


async def test_the_proxy_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "internal.example")
    assert (await access(tmp_path, config("http://kube.example"))).proxy == "http://proxy:3128"
    assert (await access(tmp_path, config("http://kube.internal.example"))).proxy is None
    assert (await access(tmp_path, config("http://127.0.0.1:6443"))).proxy is None


async def test_a_token_file_is_read_again_when_it_has_aged(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")
    clock = Clock()
    found = credentials(write(tmp_path / "config", config(user={"tokenFile": str(token)})), clock)
    assert (await found.current()).authorization == "Bearer old"
    token.write_text("new\n")
    assert (await found.current()).authorization == "Bearer old"
    clock.now = 60.0
    assert (await found.current()).authorization == "Bearer new"


async def test_a_rejected_access_is_read_again_once(tmp_path: Path) -> None:
    path = write(tmp_path / "config", config(user={"token": "old"}))
    found = credentials(path)
    old = await found.current()
    write(tmp_path / "config", config(user={"token": "new"}))
    await found.renew(old)
    new = await found.current()
    assert new.authorization == "Bearer new"
    # A second reflector whose request went out with the old one does not make us read once more.
    write(tmp_path / "config", config(user={"token": "newest"}))
    await found.renew(old)
    assert await found.current() == new


def plugin(tmp_path: Path, body: str) -> dict[str, Any]:
    script = tmp_path / "plugin.py"
    script.write_text(body)
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": [str(script)],
        }
    }


COUNTING = """
import json, pathlib
runs = pathlib.Path(__file__).with_name("runs")
count = len(runs.read_text()) + 1 if runs.exists() else 1
runs.write_text("x" * count)
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
                  "status": {"token": f"t{count}"}}))
"""


async def test_a_plugin_is_run_again_only_when_its_token_is_rejected(tmp_path: Path) -> None:
    clock = Clock()
    path = write(tmp_path / "config", config(user=plugin(tmp_path, COUNTING)))
    found = credentials(path, clock)
    first = await found.current()
    clock.now = 3600.0
    assert await found.current() == first
    assert first.authorization == "Bearer t1"
    await found.renew(first)
    assert (await found.current()).authorization == "Bearer t2"


async def test_a_plugin_that_fails_may_succeed_later(tmp_path: Path) -> None:
    path = write(tmp_path / "config", config(user=plugin(tmp_path, "raise SystemExit('no network')")))
    with pytest.raises(CredentialsUnavailable, match="no network"):
        await credentials(path).current()


async def test_the_pod_s_service_account_follows_its_files(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one")
    (tmp_path / "ca.crt").write_text("pem")
    clock = Clock()
    found = Credentials(LIBRARY, lambda: InClusterLoader(LIBRARY, POD, tmp_path), 60.0, clock)
    first = await found.current()
    assert (first.server, first.authorization) == ("https://10.96.0.1:443", "Bearer one")
    assert first.tls.ca_file == str(tmp_path / "ca.crt")
    (tmp_path / "token").write_text("two")
    (tmp_path / "ca.crt").write_text("another pem")
    clock.now = 61.0
    second = await found.current()
    assert second.authorization == "Bearer two"
    assert second.tls != first.tls
    (tmp_path / "token").unlink()
    clock.now = 122.0
    with pytest.raises(SourceError):
        await found.current()
