"""Where the API server is and how we prove who we are: kubeconfig or the pod's ServiceAccount.

kubernetes-asyncio reads and interprets the configuration (token files, exec plugins, OIDC, inline
certificates). Here its result becomes an `Access` value, read again when it has aged or was not accepted,
since tokens and certificates are rotated on disk.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec

from discovery.kube.library import Library
from discovery.source import SourceError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
DEFAULT_KUBECONFIG = "~/.kube/config"
PLUGIN_TIME = 60.0
"""Seconds for an exec plugin, which may have to ask a person."""


class CredentialsUnavailable(Exception):
    """There are none at the moment (a plugin failed, a token file is empty); it may be tried again."""


class TlsSettings(msgspec.Struct, frozen=True):
    """What a TLS context is made of; paths of PEM files."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify: bool = True
    server_name: str | None = None
    fingerprint: tuple[tuple[int, int], ...] = ()
    """Time of change and size of each file, so that a file that was replaced makes another value."""


class Access(msgspec.Struct, frozen=True):
    """How to reach the API server now."""

    server: str
    """Its URL, without a slash at the end."""
    authorization: str
    """The value of the header, or empty."""
    tls: TlsSettings
    proxy: str | None


class Loader(Protocol):
    """Fills a kubernetes-asyncio `Configuration`."""

    @property
    def expires(self) -> bool:
        """Whether loading again after a while is useful; a plugin without expiry would only run again."""
        ...

    async def load(self, configuration: Any) -> None:
        """Set host, token and certificates.

        Raises:
            SourceError: it can never work.
            CredentialsUnavailable: it did not work this time.
        """
        ...


class Credentials:
    """The current `Access`, shared by the reflectors; `clock` gives monotonic seconds."""

    def __init__(
        self, library: Library, make_loader: Callable[[], Loader], max_age: float, clock: Callable[[], float]
    ) -> None:
        self._library = library
        self._make_loader = make_loader
        self._max_age = max_age
        self._clock = clock
        self._loader: Loader | None = None
        self._access: Access | None = None
        self._loaded_at = 0.0
        self._lock = asyncio.Lock()

    async def current(self) -> Access:
        """Return the access, read again if it has aged.

        Raises:
            SourceError: the configuration can never work.
            CredentialsUnavailable: there are none at the moment.
        """
        async with self._lock:
            if self._access is None or self._loader is None:
                return await self._load(self._make_loader())
            if self._loader.expires and self._clock() - self._loaded_at >= self._max_age:
                return await self._load(self._loader)
            return self._access

    async def renew(self, rejected: Access) -> None:
        """The server does not accept `rejected`: read everything again, unless another reflector just did."""
        async with self._lock:
            if self._access == rejected:
                self._access = None

    async def _load(self, loader: Loader) -> Access:
        configuration = self._library.Configuration(host="")
        try:
            async with asyncio.timeout(PLUGIN_TIME):
                await loader.load(configuration)
        except TimeoutError:
            raise CredentialsUnavailable(f"no answer from the plugin in {PLUGIN_TIME:g}s") from None
        except OSError as error:
            raise CredentialsUnavailable(str(error)) from error
        self._access = _read_access(configuration)
        self._loader = loader
        self._loaded_at = self._clock()
        return self._access


def _read_access(configuration: Any) -> Access:
    server: str = configuration.host
    tls = TlsSettings(
        ca_file=configuration.ssl_ca_cert,
        cert_file=configuration.cert_file,
        key_file=configuration.key_file,
        verify=configuration.verify_ssl,
        server_name=configuration.tls_server_name,
        fingerprint=_fingerprint(configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file),
    )
    # Files that people write end with a line feed, which must not get into a header.
    token = (configuration.api_key.get("BearerToken") or "").strip()
    return Access(server, token, tls, configuration.proxy)


def _fingerprint(*paths: str | None) -> tuple[tuple[int, int], ...]:
    states = [os.stat(path) for path in paths if path]
    return tuple((state.st_mtime_ns, state.st_size) for state in states)


class InClusterLoader:
    """The ServiceAccount that Kubernetes mounts into a pod.

    A proxy is never used: the API server's address is in the cluster.
    """

    expires = True

    def __init__(
        self, library: Library, environment: Mapping[str, str], folder: Path = SERVICE_ACCOUNT
    ) -> None:
        self._library = library
        self._environment = environment
        self._folder = folder

    async def load(self, configuration: Any) -> None:
        """Set host, token and certificates; see `Loader`."""
        loader = self._library.InClusterConfigLoader(
            token_filename=str(self._folder / "token"),
            cert_filename=str(self._folder / "ca.crt"),
            try_refresh_token=False,
            environ=dict(self._environment),
        )
        try:
            loader.load_and_set(configuration)
        except self._library.ConfigException as error:
            raise SourceError(
                f"no access to the API server as this pod's ServiceAccount: {error} Have its token mounted "
                f"in {self._folder} (automountServiceAccountToken), or point KUBECONFIG to a kubeconfig file."
            ) from error


class KubeconfigLoader:
    """One or several kubeconfig files, joined as kubectl does; `context` empty is the current one."""

    def __init__(self, library: Library, paths: str, context: str) -> None:
        self._library = library
        self._paths = paths
        try:
            merged = library.KubeConfigMerger(paths).config
            self._loader = library.KubeConfigLoader(
                config_dict=merged, config_base_path=None, active_context=context or None
            )
            self._user = _user_of(merged, self._loader.current_context)
        except Exception as error:
            # If something is not a mapping where the library expects one, the error may be of any type.
            raise SourceError(_advice(paths, error)) from error
        self._plugin = "exec" in self._user or "auth-provider" in self._user

    @property
    def expires(self) -> bool:
        """Not if a plugin gave credentials without an end: they hold until the server refuses them."""
        return "exec" not in self._user or hasattr(self._loader, "exec_plugin_expiry")

    async def load(self, configuration: Any) -> None:
        """Set host, token and certificates; see `Loader`."""
        try:
            await self._loader.load_and_set(configuration)
        except Exception as error:
            # A plugin that ran and failed may succeed later; one that does not exist will not.
            if self._plugin and not isinstance(error, FileNotFoundError | PermissionError):
                raise CredentialsUnavailable(f"the plugin of {self._paths} failed: {error}") from error
            raise SourceError(_advice(self._paths, error)) from error
        url = urlsplit(configuration.host)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise SourceError(
                f"kubeconfig {self._paths}: clusters[].cluster.server is {configuration.host!r}; it must be "
                f"a URL such as https://10.0.0.1:6443"
            )
        configuration.proxy = configuration.proxy or _environment_proxy(url.scheme, url.hostname)


def _environment_proxy(scheme: str, host: str) -> str | None:
    if host in ("localhost", "127.0.0.1", "::1") or proxy_bypass(host):
        return None
    return getproxies().get(scheme)


def _user_of(merged: Any, context: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the user's section of a kubeconfig, empty if there is none."""
    name = context["context"].get("user")
    users = merged.safe_get("users") or []
    named = [user for user in users if user["name"] == name]
    return (named[0]["user"].value or {}) if named else {}


def _advice(paths: str, error: Exception) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    return f"kubeconfig {paths} cannot be used: {said}. `kubectl config view` shows what is in it."


def loader_for(
    library: Library, kubeconfig: str, context: str, environment: Mapping[str, str]
) -> Callable[[], Loader]:
    """Decide whose configuration is used, and return what makes a loader of it.

    The order is that of controllers: the file that was named, $KUBECONFIG, the pod's ServiceAccount,
    `~/.kube/config`.

    Raises:
        SourceError: none of them exists.
    """
    paths = kubeconfig or environment.get("KUBECONFIG", "")
    if not paths and environment.get("KUBERNETES_SERVICE_HOST"):
        return lambda: InClusterLoader(library, environment)
    default = not paths
    paths = paths or DEFAULT_KUBECONFIG
    if not any(os.path.isfile(os.path.expanduser(path)) for path in paths.split(os.pathsep) if path):
        if default:
            raise SourceError(
                f"no Kubernetes API server is known: this is not a pod (KUBERNETES_SERVICE_HOST is not set), "
                f"KUBECONFIG is not set, and {DEFAULT_KUBECONFIG} does not exist. "
                f"Set KUBECONFIG to a kubeconfig file."
            )
        raise SourceError(f"kubeconfig {paths} does not exist. Point KUBECONFIG to a kubeconfig file.")
    return lambda: KubeconfigLoader(library, paths, context)
