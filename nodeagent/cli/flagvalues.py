"""The values of flags, one by one: from what somebody typed to what the settings have. Pure.

The parsers raise ValueError with a sentence for the person who typed the value: what is wrong, what is right.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from discovery.files.overrides import Override
from discovery.model import ANNOTATION_PREFIX, ServiceKey
from discovery.places import InvalidPlaces, parse_places
from middleware.values import InvalidValue, parse_duration, parse_size
from nodeagent.cli.memory import LEAST
from nodeagent.log.template import OTHER_FORMS, parse_template
from nodeagent.plan.addresses import LONGEST_PREFIX
from nodeagent.settings import (
    FEWEST_SERIES,
    NFTABLES_RANGE,
    StoreAddress,
    TraceCollector,
)

SHORTEST_PREFIX = 4
MAX_WORKERS = 256
MAX_DRAIN = 3600.0
MOST_MEMORY = 1 << 40
MAX_SERIES = 1_000_000
STORE_PORT = 6379
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
Listen = tuple[str, int]


class _Collector(NamedTuple):
    form: Literal["otlp", "otlp-grpc", "zipkin"]
    scheme: str
    port: int
    path: str
    """The one that its specification names; empty: it may have none."""


COLLECTORS: Final[Mapping[str, _Collector]] = {
    "otlp+http": _Collector("otlp", "http", 4318, "/v1/traces"),
    "otlp+https": _Collector("otlp", "https", 4318, "/v1/traces"),
    "otlp+grpc": _Collector("otlp-grpc", "http", 4317, ""),
    "otlp+grpcs": _Collector("otlp-grpc", "https", 4317, ""),
    "zipkin+http": _Collector("zipkin", "http", 9411, "/api/v2/spans"),
    "zipkin+https": _Collector("zipkin", "https", 9411, "/api/v2/spans"),
}
"""The schemes of `--traces`, each with the port and path that its specification names."""
COLLECTOR_FORMS: Final = (
    "otlp+http://HOST[:PORT][/PATH], otlp+grpc://HOST[:PORT] or zipkin+http://HOST[:PORT][/PATH]"
)


def parse_assignment(text: str) -> tuple[str, str]:
    """Read `NAME=VALUE`; return the annotation `svc.mesh/NAME`, and the value.

    Raises:
        ValueError: it is something else.
    """
    name, equals, value = text.partition("=")
    name = name.strip().removeprefix(ANNOTATION_PREFIX)
    if not (equals and name and value.strip()):
        raise ValueError(f"{text!r} is not NAME=VALUE, such as timeout=5s")
    return f"{ANNOTATION_PREFIX}{name}", value.strip()


def parse_store(text: str) -> str:
    """Check `redis://[USER@]HOST[:PORT][/DATABASE]`.

    Raises:
        ValueError: it is not one.
    """
    store_address(text, "")
    return text


def store_address(url: str, password_file: str) -> StoreAddress:
    """Read the address of a store, as `parse_store` takes it."""
    parts = urlsplit(url)
    if parts.scheme != "redis" or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"{url!r} is not redis://[USER@]HOST[:PORT][/DATABASE]")
    if parts.password is not None:
        raise ValueError(
            "everybody who may list processes could read a password here: put it into a file, and give that "
            "with --token-store-password-file"
        )
    database = parts.path.removeprefix("/") or "0"
    if not (database.isascii() and database.isdigit()):
        raise ValueError(f"{database!r} is not the number of a database, such as 0")
    return StoreAddress(
        parts.hostname, parts.port or STORE_PORT, unquote(parts.username or ""), int(database), password_file
    )


def parse_collector(text: str) -> TraceCollector:
    """Read `otlp+http://HOST[:PORT][/PATH]`, or the same with another scheme of `COLLECTORS`.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(text)
    collector = COLLECTORS.get(parts.scheme)
    if collector is None or not parts.hostname:
        raise ValueError(f"{text!r} is not {COLLECTOR_FORMS}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(f"{text!r} has more than a scheme, a host, a port and a path")
    given = parts.path if parts.path != "/" else ""
    if given and not collector.path:
        raise ValueError(f"{text!r} has a path, which gRPC does not take")
    try:
        parts.hostname.encode("idna")
    except UnicodeError:
        raise ValueError(f"{parts.hostname!r} is not the name of a host") from None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return TraceCollector(
        collector.form,
        f"{collector.scheme}://{host}:{parts.port or collector.port}{given or collector.path}",
    )


def parse_access_log_format(text: str) -> str:
    """Check that lines of the access log can have this form: `json`, `console` or a template.

    Raises:
        ValueError: they cannot.
    """
    if text not in OTHER_FORMS:
        parse_template(text)
    return text


def parse_source(text: str) -> str:
    """Read `kube` or `file:PATH`.

    Raises:
        ValueError: neither.
    """
    kind, _, path = text.partition(":")
    if text == "kube" or (kind == "file" and path):
        return text
    hint = f"; did you mean file:{text}?" if "/" in text or text.endswith((".yaml", ".yml", ".json")) else ""
    raise ValueError(f"{text!r} is neither kube nor file:PATH{hint}")


def parse_override(text: str) -> Override:
    """Read `NAME[.NAMESPACE][:PORT]=ADDR:PORT[,ADDR:PORT...]`; without a namespace it is `default`.

    Raises:
        ValueError: anything else.
    """
    example = "NAME[.NAMESPACE][:PORT]=ADDR:PORT[,ADDR:PORT...], such as web.shop=127.0.0.1:8080"
    whole, equals, places = text.partition("=")
    dotted, colon, port = whole.partition(":")
    name, dot, namespace = dotted.partition(".")
    if not equals:
        raise ValueError(f"{text!r} is not {example}")
    if not _LABEL.fullmatch(name) or (dot and not _LABEL.fullmatch(namespace)):
        raise ValueError(f"{dotted!r} is not NAME or NAME.NAMESPACE of a Service; expected {example}")
    if colon and not _LABEL.fullmatch(port):
        raise ValueError(f"{port!r} is not the name or number of a port; expected {example}")
    try:
        parse_places(places)
    except InvalidPlaces as invalid:
        raise ValueError(f"{text!r}: {invalid.reason}; expected {invalid.expected}") from None
    return Override(ServiceKey(namespace or "default", name), port, places)


def parse_range(text: str) -> str:
    """Read the mesh range: an IPv4 network of 2**16 to 2**28 addresses in CIDR form.

    Raises:
        ValueError: anything else.
    """
    example = f"such as {NFTABLES_RANGE}"
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is not a network in CIDR form, {example}") from None
    if network.version != 4:
        raise ValueError(f"{text} is an IPv6 network; the mesh has IPv4 addresses only, {example}")
    if not SHORTEST_PREFIX <= network.prefixlen <= LONGEST_PREFIX or "/" not in text:
        raise ValueError(f"{text} must be a /{SHORTEST_PREFIX} to a /{LONGEST_PREFIX}, {example}")
    if text != str(network):
        raise ValueError(f"{text} has bits set after the prefix; did you mean {network}?")
    if network.is_multicast or network.network_address == ipaddress.IPv4Address(0):
        raise ValueError(
            f"{text} contains addresses that no connection can be made to; use another range, {example}"
        )
    return text


def parse_series(text: str) -> int:
    """Read how many time series an agent may show.

    Raises:
        ValueError: not a whole number, or too few or too many.
    """
    if not (text.isascii() and text.isdigit() and FEWEST_SERIES <= int(text[:9]) <= MAX_SERIES):
        raise ValueError(f"{text!r} is not a whole number from {FEWEST_SERIES} to {MAX_SERIES}")
    return int(text)


def parse_zone(text: str) -> str:
    """Read a DNS zone; returns it in lower case without the final dot.

    Raises:
        ValueError: not a DNS name as Kubernetes means it (RFC 1123 section 2.1).
    """
    zone = text.lower().removesuffix(".")
    if len(zone) > 120 or not all(_LABEL.fullmatch(label) for label in zone.split(".")):
        raise ValueError(f"{text!r} is not a DNS name, such as svc.mesh")
    return zone


def parse_listen(text: str) -> Listen:
    """Read `ADDRESS:PORT` (`127.0.0.1:15000`, `[::1]:15000`); returns both.

    Raises:
        ValueError: anything else, for example a host name.
    """
    example = "ADDRESS:PORT, such as 127.0.0.1:15000 or [::1]:15000"
    address, colon, port = text.rpartition(":")
    if not colon or not address:
        raise ValueError(f"{text!r} is not {example}")
    bracketed = address.startswith("[") and address.endswith("]")
    try:
        parsed = ipaddress.ip_address(address[1:-1] if bracketed else address)
    except ValueError:
        raise ValueError(f"{address!r} is not an IP address; {example}") from None
    if bracketed != (parsed.version == 6):
        raise ValueError(f"{text!r} is not {example}")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"{port!r} is not a port from 1 to 65535; {example}")
    return str(parsed), int(port)


def parse_node_name(text: str) -> str:
    """Read the name of a Node. An empty text, as from an environment variable that is not set, means no name.

    Raises:
        ValueError: no Node can have this name.
    """
    name = text.strip()
    if name and (len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split("."))):
        hint = f"; did you mean {name.lower()}?" if name != name.lower() else ""
        raise ValueError(f"{text!r} is not the name of a Node as `kubectl get nodes` shows it{hint}")
    return name


def parse_node_zone(text: str) -> str:
    """Read the zone of a Node. An empty text, as from an environment variable that is not set, means none.

    Raises:
        ValueError: no label of a Node can have this value.
    """
    zone = text.strip()
    if zone and not _LABEL_VALUE.fullmatch(zone):
        raise ValueError(f"{text!r} is not a value of the label topology.kubernetes.io/zone, such as eu-1a")
    return zone


def parse_workers(text: str) -> int:
    """Read the number of worker processes.

    Raises:
        ValueError: not a whole number from 1 to `MAX_WORKERS`.
    """
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_WORKERS):
        raise ValueError(f"{text!r} is not a whole number from 1 to {MAX_WORKERS}")
    return int(text)


def parse_worker_memory(text: str) -> int:
    """Read a size in bytes, as Kubernetes writes it.

    Raises:
        ValueError: not a size from `LEAST` to `MOST_MEMORY`.
    """
    return parse_size(text, least=LEAST, most=MOST_MEMORY)


def parse_drain_timeout(text: str) -> float:
    """Read a Go duration of at most an hour; returns seconds.

    Raises:
        ValueError: anything else.
    """
    try:
        return parse_duration(text, most=MAX_DRAIN)
    except InvalidValue as error:
        raise ValueError(str(error)) from None
