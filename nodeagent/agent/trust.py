"""Which certificates of a collector are trusted: those of the system's CAs, or of the CAs in `SSL_CERT_FILE`.

The file is read anew when it has changed, as the kubelet changes it when somebody edits a ConfigMap.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from typing import Final

VARIABLE: Final = "SSL_CERT_FILE"

_Stamp = tuple[str, int, int, int]


class Trust:
    """Makes contexts for TLS; `protocols` are offered to the collector (ALPN)."""

    def __init__(self, protocols: Sequence[str] = ()) -> None:
        self._protocols = list(protocols)
        self._context: ssl.SSLContext | None = None
        self._stamp: _Stamp | None = None

    def context(self) -> ssl.SSLContext:
        """Return the context for the next connection: the same one until the file of CAs changes.

        Reading the CAs of a system takes some 20 ms, and so is not done for each connection.

        Raises:
            OSError: the file that `SSL_CERT_FILE` names cannot be read, or has no certificate.
        """
        # OpenSSL would look at the variable by itself, but not in a program with a file capability, which
        # the agent is in its image.
        named = os.environ.get(VARIABLE, "")
        stamp = _stamp(named or ssl.get_default_verify_paths().openssl_cafile, missing_ok=not named)
        if self._context is None or stamp != self._stamp:
            context = _new_context(named)
            if self._protocols:
                context.set_alpn_protocols(self._protocols)
            self._context, self._stamp = context, stamp
        return self._context


def _stamp(path: str, missing_ok: bool) -> _Stamp | None:
    """Return what changes when a file is replaced or written; None: there is none."""
    try:
        found = os.stat(path)
    except OSError as error:
        if missing_ok:
            return None
        raise OSError(f"the CAs in {path} ({VARIABLE}) cannot be read: {error.strerror}") from error
    return path, found.st_ino, found.st_mtime_ns, found.st_size


def _new_context(cas: str) -> ssl.SSLContext:
    if not cas:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=cas)
    except ssl.SSLError as error:
        raise OSError(f"{cas} ({VARIABLE}) has no certificate of a CA in PEM: {error.reason}") from error
    except OSError as error:
        raise OSError(f"the CAs in {cas} ({VARIABLE}) cannot be read: {error.strerror}") from error
