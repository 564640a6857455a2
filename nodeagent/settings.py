"""The settings of an agent: read once from the command line and the environment, then frozen."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Literal

import msgspec

from discovery.compat import Compat
from discovery.files.overrides import Override

CaptureKind = Literal["nftables", "loopback"]
AccessLog = Literal["off", "errors", "all"]

NFTABLES_RANGE = "240.0.0.0/4"
LOOPBACK_RANGE = "127.64.0.0/10"


def worker_address(network: ipaddress.IPv4Network) -> str:
    """Return where workers listen in a mesh range (`240.0.0.1`)."""
    return str(network.network_address + 1)


def dns_address(network: ipaddress.IPv4Network) -> str:
    """Return where DNS is asked in a mesh range (`240.0.0.53`)."""
    return str(network.network_address + 53)


class Limits(msgspec.Struct, frozen=True):
    """What a client may use up on one connection. Sizes in bytes, times in seconds."""

    head_bytes: int = 64 * 1024
    head_fields: int = 128
    head_time: float = 10.0
    """From the first byte of a head to its last."""
    idle_time: float = 75.0
    """Between two requests of a client."""
    stall_time: float = 60.0
    """Without a byte moved in an exchange in which a peer owes one."""
    response_time: float = 300.0
    """From the last byte of a request to the head of its response."""
    connect_time: float = 3.0
    upstream_idle_time: float = 30.0
    upstream_idle_connections: int = 256
    """Idle connections kept for each endpoint and worker."""
    upstream_connections: int = 1024
    """Connections to each endpoint, for each worker (`svc.mesh/max-connections`)."""
    streams: int = 100
    """Requests at once on one HTTP/2 connection, of a client or to an endpoint."""
    windows: int = 64 * 1024 * 1024
    """Bytes by which the windows of all HTTP/2 streams of a worker together may be larger than they start."""
    upstream_queue: int = 4096
    """Requests that may wait for one of them."""
    upstream_queue_time: float = 10.0
    replay_bytes: int = 64 * 1024
    """Of a request's body, kept so that it can be sent again."""
    connections_per_source: int = 4096
    """From one source address, for each worker."""
    memory: int = 0
    """Bytes that a worker may take: near them it refuses new requests, and beyond them it breaks off
    the source that makes it hold most; 0: no limit."""
    connections: int = 65_536
    """From all clients, for each worker; fewer where it may not have the descriptors for them."""


class StoreAddress(msgspec.Struct, frozen=True):
    """Where the Redis or Valkey is that keeps the limits of the whole cluster."""

    host: str
    port: int
    user: str
    """Empty: the default user."""
    database: int
    password_file: str
    """Read for each connection; empty: no password."""


class TraceCollector(msgspec.Struct, frozen=True):
    """Where the spans of traced requests go."""

    form: Literal["otlp", "otlp-grpc", "zipkin"]
    """In which they are sent: protobuf messages of OTLP, by POST or by gRPC, or Zipkin's JSON, version 2."""
    url: str
    """Of a POST, such as `http://HOST:4318/v1/traces`, or `http://HOST:4317` for gRPC; `https`: with TLS."""
    fields_file: str = ""
    """With header fields that the collector wants, such as a token. Read for each lot; empty: none."""


MOST_SERIES = 3000
"""Time series on an agent's page of metrics, by default."""
FEWEST_SERIES = 500
"""Below this there is no room for ports beside the agent's own."""


class Settings(msgspec.Struct, frozen=True):
    """The settings of one agent. Addresses are text; `*_listen` are (address, port)."""

    source: str
    """`kube` or `file:PATH`."""
    capture: CaptureKind
    mesh_range: str
    zone: str
    alias_zones: tuple[str, ...]
    dns_listen: tuple[str, int]
    admin_listen: tuple[str, int]
    workers: int
    node_name: str
    drain_timeout: float
    """Seconds."""
    log_level: str
    log_format: Literal["console", "json"]
    access_log: AccessLog = "errors"
    first_bindable_port: int = 1
    """Loopback capture only: lower Service ports are served at `port + LOW_PORT_SHIFT` (no privileges)."""
    compat: Compat | None = None
    """The other mesh whose annotations are read too, and whose zones are among `alias_zones`."""
    service_selector: str = ""
    """Only Services with these labels, and their slices, are asked of the API server; empty: all."""
    overrides: tuple[Override, ...] = ()
    """Files only: endpoints that go before those in the files."""
    state_dir: str = ""
    """Where the last good snapshot is kept for a start without the source; empty: it is not."""
    node_zone: str = ""
    """The zone of this node; empty: workers learn it from endpoints on this node."""
    ready_file: str = ""
    """A file that exists while this agent is ready; empty for none."""
    worker_port: int = 15001
    """Where this agent's workers listen on `worker_address` in nftables capture: one of `WORKER_PORTS`."""
    limits: Limits = Limits()
    workers_outlive: bool = False
    """Whether workers serve on when the agent is killed, until the next one is ready: on a node, where there
    will be a next one. On a laptop nothing outlives the agent."""

    defaults: Mapping[str, str] = {}
    """Of all Services of the cluster whose owners and namespaces say nothing else; by annotation."""
    setting_limits: Mapping[str, str] = {}
    """The highest numbers that owners may set, by annotation."""
    token_store: StoreAddress | None = None
    """What keeps the limits that all nodes share; None: there are none."""
    traces: TraceCollector | None = None
    """Where spans are sent; None: nowhere."""
    max_series: int = MOST_SERIES
    """Time series that the agent shows at most; what there is no room for is counted together."""

    @property
    def network(self) -> ipaddress.IPv4Network:
        """The mesh range; its first /24 is the mesh's own."""
        return ipaddress.IPv4Network(self.mesh_range)

    @property
    def worker_address(self) -> str:
        """The workers' one listening address in nftables capture (`240.0.0.1`)."""
        return worker_address(self.network)

    @property
    def dns_address(self) -> str:
        """The mesh DNS' fixed address in nftables capture (`240.0.0.53`)."""
        return dns_address(self.network)


LOW_PORT_SHIFT = 10_000
WORKER_PORTS = range(15001, 15009)
"""Where workers may listen on `Settings.worker_address` in nftables capture. An agent takes the first port
that no other has: during an upgrade two agents overlap, and each new connection belongs to one of them."""
DNS_PORT = 15053
"""Where DNS listens on `Settings.dns_address` in nftables capture; port 53 is mapped to it."""
