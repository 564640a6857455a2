"""Over TLS: the server is verified, and a certificate that was replaced on disk is used without a restart."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.discovery.kube.conftest import QUICKLY_STALE, Listen
from tests.discovery.kube.fake_api import PATHS, FakeApi
from tests.discovery.kube.objects import service

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates with openssl")


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own CA, and its key."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*command, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    return certificate, key


def serve_tls(pair: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*pair)
    return context


async def test_a_server_is_verified_by_the_ca_that_is_on_disk_now(
    api: FakeApi, listen: Listen, tmp_path: Path
) -> None:
    right, wrong = make_certificate(tmp_path, "right"), make_certificate(tmp_path, "wrong")
    await api.stop()
    await api.start(tls=serve_tls(right))
    api.put(service("cart"))
    ca = tmp_path / "ca.crt"
    shutil.copy(wrong[0], ca)
    with capture_logs() as logs:
        listener = listen(kubeconfig=api.write_kubeconfig(tmp_path / "tls", ca=ca), timing=QUICKLY_STALE)
        await listener.until(lambda: bool(listener.stale) and bool(logs))
    reasons = {(line["kind"], "CERTIFICATE_VERIFY_FAILED" in line["reason"]) for line in logs}
    assert reasons == {("connect", True)}
    assert not api.requests

    ca.unlink()
    shutil.copy(right[0], ca)
    await listener.until(lambda: listener.synced == 1)
    assert listener.names == {"Service cart"}
    await listener.until(lambda: all(api.watching(kind) for kind in PATHS))
