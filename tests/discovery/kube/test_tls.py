"""Over TLS: the server is verified, and a certificate that was replaced on disk is used without a restart."""

from __future__ import annotations

import shutil
from pathlib import Path

from structlog.testing import capture_logs

from tests.certificates import NEEDS_OPENSSL, make_certificate, serve_tls
from tests.discovery.kube.conftest import QUICKLY_STALE, Listen
from tests.discovery.kube.fake_api import PATHS, FakeApi
from tests.discovery.kube.objects import service

pytestmark = NEEDS_OPENSSL


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
