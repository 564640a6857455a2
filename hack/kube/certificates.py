"""The keys of a control plane, made with openssl: a CA, the server's certificate, the token key."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec

NAMES = "IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes.default.svc"
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


class Certificates(msgspec.Struct, frozen=True):
    """Paths of PEM files; `token_key` signs and verifies the tokens of ServiceAccounts."""

    ca: Path
    server: Path
    server_key: Path
    token_key: Path


def make_certificates(folder: Path) -> Certificates:
    """Make them in a folder; they are good for two days.

    Raises:
        subprocess.CalledProcessError: openssl (3.0 or newer) refuses.
    """
    ca, ca_key = folder / "ca.crt", folder / "ca.key"
    server, server_key, token_key = folder / "server.crt", folder / "server.key", folder / "token.key"
    _openssl("req", "-x509", *KEY, "-subj", "/CN=svcmesh-test-ca", "-keyout", ca_key, "-out", ca)
    _openssl(
        *("req", "-x509", *KEY, "-CA", ca, "-CAkey", ca_key, "-subj", "/CN=kube-apiserver"),
        *("-addext", f"subjectAltName={NAMES}", "-addext", "basicConstraints=critical,CA:FALSE"),
        *("-addext", "extendedKeyUsage=serverAuth", "-keyout", server_key, "-out", server),
    )
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", token_key)
    return Certificates(ca, server, server_key, token_key)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=30)
