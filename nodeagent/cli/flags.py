"""From what was given on the command line to the settings of an agent, with defaults that fit the capture.

Values that do not go together are a ValueError with a sentence for the person who typed them. Single values
are read by `nodeagent.cli.flagvalues`.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from discovery.compat import ZONES, Compat
from discovery.files.overrides import Override
from discovery.model import ANNOTATION_PREFIX, ServiceKey
from middleware.registry import found_here
from nodeagent.capture.choose import choose_capture
from nodeagent.capture.loopback import first_bindable_port
from nodeagent.cli.cpu import available_cpus
from nodeagent.cli.flagvalues import Listen, store_address
from nodeagent.cli.memory import worker_memory
from nodeagent.plan.policy import Rules
from nodeagent.settings import (
    DNS_PORT,
    LOOPBACK_RANGE,
    MOST_SERIES,
    NFTABLES_RANGE,
    AccessLog,
    CaptureKind,
    Limits,
    Settings,
    StoreAddress,
    TraceCollector,
)

ADMIN_PORT = 15000
LAPTOP_DNS_PORT = 10053
LOCALHOST = "127.0.0.1"
ANYWHERE = "0.0.0.0"

_LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")


class Given(msgspec.Struct, frozen=True):
    """What was given; None (or `auto`) leaves the choice to `resolve_settings`."""

    source: str = "kube"
    capture: Literal["auto"] | CaptureKind = "auto"
    mesh_range: str | None = None
    zone: str = "svc.mesh"
    alias_zones: tuple[str, ...] = ()
    dns_listen: Listen | None = None
    admin_listen: Listen | None = None
    workers: int | None = None
    worker_memory: int | None = None
    node_name: str | None = None
    node_zone: str = ""
    drain_timeout: float = 30.0
    log_level: str = "info"
    log_format: Literal["auto", "console", "json"] = "auto"
    access_log: AccessLog = "errors"
    max_series: int = MOST_SERIES
    ready_file: str = ""
    state_dir: str = ""
    compat: Compat | None = None
    service_selector: str = ""
    overrides: tuple[Override, ...] = ()
    defaults: tuple[tuple[str, str], ...] = ()
    limits: tuple[tuple[str, str], ...] = ()
    token_store: str | None = None
    token_store_password_file: str = ""
    traces: TraceCollector | None = None
    traces_headers_file: str = ""
    kept: bool = False
    """Whether process 1 starts another agent when this one dies."""


def resolve_settings(given: Given) -> Settings:
    """Return the settings of this agent on this machine.

    What was not given is found out from the machine: its capabilities, CPU quota and host name, and whether
    standard error is a terminal.

    Raises:
        ValueError: two values do not go together; the message names the flags.
    """
    _check_source(given)
    capture = choose_capture(given.capture).kind
    laptop = capture == "loopback"
    workers = given.workers or available_cpus()
    settings = Settings(
        source=given.source,
        capture=capture,
        mesh_range=_fitting_range(given.mesh_range, capture),
        zone=given.zone,
        alias_zones=_alias_zones(given),
        dns_listen=given.dns_listen or (LOCALHOST, LAPTOP_DNS_PORT),
        # On a node, the kubelet and Prometheus connect from other addresses; on a laptop nobody does.
        admin_listen=given.admin_listen or (LOCALHOST if laptop else ANYWHERE, ADMIN_PORT),
        workers=workers,
        limits=Limits(memory=given.worker_memory or worker_memory(workers)),
        node_name=given.node_name or _host_name(),
        node_zone=given.node_zone,
        drain_timeout=given.drain_timeout,
        log_level=given.log_level,
        log_format=_log_format(given.log_format),
        access_log=given.access_log,
        max_series=given.max_series,
        ready_file=given.ready_file,
        state_dir=given.state_dir,
        compat=given.compat,
        service_selector=given.service_selector,
        overrides=given.overrides,
        defaults=_policy("--default", given.defaults),
        setting_limits=_policy("--limit", given.limits),
        first_bindable_port=first_bindable_port() if laptop else 1,
        workers_outlive=given.kept or not laptop,
        token_store=_token_store(given),
        traces=_collector(given),
    )
    if given.dns_listen is None and not laptop:
        settings = msgspec.structs.replace(settings, dns_listen=(settings.dns_address, DNS_PORT))
    return settings


def _policy(flag: str, given: Sequence[tuple[str, str]]) -> Mapping[str, str]:
    """Return the values of `--default` or `--limit` by annotation."""
    if not given:
        return {}
    rules = Rules(found_here().middlewares)  # the log, where problems with them belong, is not set up yet
    check = rules.fault_in_default if flag == "--default" else rules.fault_in_limit
    found: dict[str, str] = {}
    for name, value in given:
        short = name.removeprefix(ANNOTATION_PREFIX)
        if name in found:
            raise ValueError(f"{flag} is given twice for {short}")
        fault = check(short, name, value)
        if fault is not None:
            raise ValueError(f"{flag} {short}={value}: {fault.reason}; expected {fault.expected}")
        found[name] = value
    return found


def _token_store(given: Given) -> StoreAddress | None:
    if given.token_store:
        return store_address(given.token_store, given.token_store_password_file)
    if given.token_store_password_file:
        raise ValueError("--token-store-password-file has no meaning without --token-store")
    return None


def _collector(given: Given) -> TraceCollector | None:
    if given.traces is None and given.traces_headers_file:
        raise ValueError("--traces-headers-file has no meaning without --traces")
    if given.traces is None:
        return None
    return msgspec.structs.replace(given.traces, fields_file=given.traces_headers_file)


def _check_source(given: Given) -> None:
    if given.service_selector and given.source != "kube":
        raise ValueError(
            f"--service-selector has no meaning with --source {given.source}, because the API server "
            f"applies it: "
            "leave it out, and keep the other Services out of the files"
        )
    if given.overrides and given.source == "kube":
        raise ValueError(
            "--endpoints has a meaning with --source file:PATH only: in a cluster EndpointSlices say where a "
            "Service's endpoints are"
        )
    check_overrides(given.overrides)


def check_overrides(overrides: Sequence[Override]) -> None:
    """Look at all uses of `--endpoints` together.

    Raises:
        ValueError: two are for the same port.
    """
    seen: set[tuple[ServiceKey, str]] = set()
    for override in overrides:
        which = (override.service, override.port)
        if which in seen:
            name = str(override).partition("=")[0]
            raise ValueError(
                f"--endpoints is given twice for {name}; several endpoints are separated by commas"
            )
        seen.add(which)


def _fitting_range(given: str | None, capture: CaptureKind) -> str:
    if given is None:
        return LOOPBACK_RANGE if capture == "loopback" else NFTABLES_RANGE
    network = ipaddress.IPv4Network(given)
    if capture == "nftables":
        if network.overlaps(_LOOPBACK):
            raise ValueError(
                f"--mesh-range {given} overlaps 127.0.0.0/8, which pods cannot reach; "
                f"with --capture nftables use another, such as {NFTABLES_RANGE}"
            )
        return given
    if not network.subnet_of(_LOOPBACK) or ipaddress.IPv4Address(LOCALHOST) in network:
        raise ValueError(
            f"--mesh-range {given} is not local to every machine: with --capture loopback it must lie in "
            f"127.0.0.0/8 and leave out 127.0.0.1, as {LOOPBACK_RANGE} does"
        )
    return given


def _alias_zones(given: Given) -> tuple[str, ...]:
    if given.zone in given.alias_zones:
        raise ValueError(f"--alias-zone {given.zone} is the same as --zone: leave it out")
    further = [zone for zone in ZONES if zone != given.zone] if given.compat else []
    return tuple(dict.fromkeys([*given.alias_zones, *further]))


def _log_format(given: Literal["auto", "console", "json"]) -> Literal["console", "json"]:
    if given != "auto":
        return given
    return "console" if sys.stderr.isatty() else "json"


def _host_name() -> str:
    """Return the name that the kubelet gives its node unless it is told another one."""
    return socket.gethostname().strip().lower()
