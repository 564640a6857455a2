"""Which CAs a collector's certificate is checked with, and when they are read anew."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hack.manifests.confine import USER
from nodeagent.agent import trust as trust_module
from nodeagent.agent.trust import Trust
from tests.certificates import NEEDS_OPENSSL, make_certificate

pytestmark = NEEDS_OPENSSL


def subjects(trust: Trust) -> list[str]:
    return [dict(pair[0] for pair in one["subject"])["commonName"] for one in trust.context().get_ca_certs()]  # type: ignore[misc]


def test_the_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (make_certificate(tmp_path, name)[0] for name in ("first", "second"))
    # As the kubelet mounts a ConfigMap: ca.crt -> ..data/ca.crt, and ..data is replaced.
    for version, source in (("1", first), ("2", second)):
        (tmp_path / version).mkdir()
        shutil.copy(source, tmp_path / version / "ca.crt")
    data, named = tmp_path / "..data", tmp_path / "ca.crt"
    data.symlink_to("1")
    named.symlink_to("..data/ca.crt")
    monkeypatch.setenv("SSL_CERT_FILE", str(named))
    trust = Trust(["h2"])
    context = trust.context()
    assert subjects(trust) == ["first"]
    assert trust.context() is context
    (tmp_path / "..data_tmp").symlink_to("2")
    (tmp_path / "..data_tmp").replace(data)
    assert subjects(trust) == ["second"]


def test_a_file_that_is_written_anew_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (make_certificate(tmp_path, name)[0] for name in ("first", "second"))
    named = tmp_path / "ca.crt"
    named.write_bytes(first.read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(named))
    trust = Trust()
    assert subjects(trust) == ["first"]
    named.write_bytes(first.read_bytes() + second.read_bytes())
    assert subjects(trust) == ["first", "second"]


def test_a_file_that_is_not_there_yet_or_has_no_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "ca.crt"
    monkeypatch.setenv("SSL_CERT_FILE", str(named))
    trust = Trust()
    with pytest.raises(OSError, match=r"ca\.crt \(SSL_CERT_FILE\) cannot be read: No such file"):
        trust.context()
    named.write_text("nothing")
    with pytest.raises(OSError, match=r"ca\.crt \(SSL_CERT_FILE\) has no certificate of a CA in PEM"):
        trust.context()
    named.write_bytes(make_certificate(tmp_path, "first")[0].read_bytes())
    assert subjects(trust) == ["first"]


def test_the_cas_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    trust = Trust()
    assert trust.context() is trust.context()
    assert trust.context().verify_mode.name == "CERT_REQUIRED"


SCRIPT = """
from trust import Trust
print([one["subject"] for one in Trust().context().get_ca_certs()])
"""


def test_a_program_with_a_file_capability_uses_the_file_too() -> None:
    """OpenSSL does not look at SSL_CERT_FILE there by itself, and the image's Python is one."""
    python = Path("/usr/bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    missing = [name for name in ("setcap", "setpriv") if shutil.which(name) is None]
    if os.geteuid() != 0 or missing or not python.exists():
        pytest.skip(f"needs root, setcap, setpriv (Debian: libcap2-bin util-linux) and {python}")
    with tempfile.TemporaryDirectory(prefix="svcmesh-trust-") as name:  # pytest's own is closed to others
        folder = Path(name)
        folder.chmod(0o755)
        copy = folder / "python"
        shutil.copy(python, copy)
        if subprocess.run(["setcap", "cap_net_admin+ep", copy], capture_output=True, check=False).returncode:
            pytest.skip(f"the file system of {folder} has no file capabilities")
        shutil.copy(trust_module.__file__, folder)
        certificate, _ = make_certificate(folder, "own-ca")
        found = subprocess.run(
            ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", copy, "-c", SCRIPT],
            env={"SSL_CERT_FILE": str(certificate), "PYTHONPATH": str(folder), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=True,
        )
    assert found.stdout == "[((('commonName', 'own-ca'),),)]\n"
