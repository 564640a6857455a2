"""The cluster as the mesh sees it: frozen values, trimmed to what is used.

Four object types arrive from a source (`ServiceObject`, `SliceObject`, `PodObject`, `NamespaceObject`); the
registry joins them into `Service` values and publishes a `MeshSnapshot`. Everything here is compared and
shared freely, so nothing is ever changed in place. Addresses are text in canonical form; ports are 1 to
65535.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from discovery.position import Lines, place_of

ANNOTATION_PREFIX = "svc.mesh/"
DEFAULT_PREFIX = f"{ANNOTATION_PREFIX}default."
LIMIT_PREFIX = f"{ANNOTATION_PREFIX}limit."
NAMESPACE_PREFIXES = (DEFAULT_PREFIX, LIMIT_PREFIX)
"""What a Namespace says of the Services in it: a setting's name follows."""


class ServiceKey(NamedTuple):
    """The identity of a Service: `str()` gives `namespace/name`, as in logs and metrics."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class SliceKey(NamedTuple):
    """The identity of an EndpointSlice."""

    namespace: str
    name: str


class PodKey(NamedTuple):
    """The identity of a Pod."""

    namespace: str
    name: str


class NamespaceKey(NamedTuple):
    """The identity of a Namespace, which is in none itself."""

    name: str

    @property
    def namespace(self) -> str:
        """Where problems with it are told: with those of the Services in it."""
        return self.name


Severity = Literal["error", "warning", "info"]
"""`warning`: what is written is right, but something is missing without which it does not work.
`info`: nothing is wrong, but the owner may like to know what the mesh makes of it."""


class Problem(msgspec.Struct, frozen=True, order=True):
    """Something in the input that cannot be used: in which object and field, what is wrong, and what happens
    now.
    """

    namespace: str
    name: str
    field: str
    """Where in the object: an annotation's full name or a path such as `spec.ports[0].port`."""
    value: str
    reason: str
    """What is wrong, as a sentence without a full stop."""
    expected: str = ""
    """What would be right, with an example."""
    effect: str = ""
    """What is in force instead."""
    kind: str = "Service"
    origin: str = ""
    """Where it is to be mended: `file:line` of the field for files, empty for the API server."""
    severity: Severity = "error"


class ServicePort(msgspec.Struct, frozen=True):
    """One port of a Service. `name` is empty when the Service has a single unnamed port."""

    name: str
    port: int
    protocol: str = "TCP"
    app_protocol: str = ""


class Unread(msgspec.Struct, frozen=True):
    """An annotation of another mesh whose value cannot be read: what was in force before stays so."""

    annotation: str
    value: str
    reason: str
    expected: str
    ours: str
    """The annotation of ours that it would have become."""


class Unbacked(msgspec.Struct, frozen=True):
    """Nothing that is written in the files gives a Service an endpoint that can be used."""

    reason: str
    """Why not, as a sentence without a full stop."""
    targets: Mapping[str, int] = {}
    """Where its Pods would listen (`targetPort`), by the name of the port; only those that are numbers."""


class ServiceObject(msgspec.Struct, frozen=True):
    """A Kubernetes Service, trimmed. Only annotations below `svc.mesh/` are kept.

    Those of another mesh are translated where the source reads them (`discovery.compat`).
    """

    key: ServiceKey
    annotations: Mapping[str, str]
    type: str = "ClusterIP"
    cluster_ips: tuple[str, ...] = ()
    """Empty for a headless Service and for ExternalName."""
    external_name: str = ""
    ports: tuple[ServicePort, ...] = ()
    origin: str = ""
    foreign: Mapping[str, str] = {}
    """Annotations of another mesh that it has, as they are written."""
    translated: Mapping[str, tuple[str, ...]] = {}
    """For each of `annotations` that was made of `foreign` ones, their names."""
    unread: tuple[Unread, ...] = ()
    uid: str = ""
    """As the API server has it; empty for what comes from files."""
    overlong: bool = False
    """It has more annotations for the mesh than are read: those that were last in force stay in force."""
    lines: Lines = ()
    """Of files only: where its fields stand."""
    unbacked: Unbacked | None = None
    """Of files only: why it has no endpoints. In a cluster that is nothing to speak of."""

    @property
    def from_file(self) -> bool:
        """Whether it was read from a file."""
        return bool(self.origin)

    def place(self, field: str) -> str:
        """Return where a field stands, for `Problem.origin`: its path, or an annotation as it is written."""
        return place_of(self.origin, self.lines, field)

    def written_as(self, annotation: str) -> tuple[str, str]:
        """Return name and value of an annotation as the owner wrote it; of several, the first."""
        for name in self.translated.get(annotation, ()):
            return name, self.foreign[name]
        return annotation, self.annotations.get(annotation, "")

    def written(self, name: str) -> str | None:
        """Return the value that the owner wrote for an annotation of ours or of another mesh."""
        own = self.annotations.get(name) if name not in self.translated else None
        return self.foreign.get(name, own)

    @property
    def meshed(self) -> bool:
        """True if its owner asks for the mesh at all (the value may still be malformed)."""
        return f"{ANNOTATION_PREFIX}enabled" in self.annotations


class SlicePort(msgspec.Struct, frozen=True):
    """A port of an EndpointSlice: joined to a Service port by `name`."""

    name: str
    port: int
    protocol: str = "TCP"


class SliceEndpoint(msgspec.Struct, frozen=True):
    """An endpoint of an EndpointSlice with Kubernetes' conditions (an absent `ready` counts as true)."""

    address: str
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    zone: str = ""
    hints: tuple[str, ...] = ()
    """Zones that should use this endpoint (`hints.forZones`)."""
    node: str = ""
    pod: str = ""


class SliceObject(msgspec.Struct, frozen=True):
    """A Kubernetes EndpointSlice, trimmed."""

    key: SliceKey
    service: ServiceKey
    """From the label `kubernetes.io/service-name`."""
    address_type: str = "IPv4"
    ports: tuple[SlicePort, ...] = ()
    endpoints: tuple[SliceEndpoint, ...] = ()
    origin: str = ""
    lines: Lines = ()
    """Of files only: where its fields stand."""


class PodObject(msgspec.Struct, frozen=True):
    """A Kubernetes Pod, trimmed to the fields that name the source of a connection."""

    key: PodKey
    workload: str
    """What made the pod, in its namespace: `deployment/web`; a pod that nothing made is `pod/web`."""
    addresses: tuple[str, ...] = ()
    origin: str = ""
    lines: Lines = ()
    """Of files only: where its fields stand."""
    service_account: str = ""
    """The name of its ServiceAccount, in its namespace; empty if it does not say."""


class NamespaceObject(msgspec.Struct, frozen=True):
    """A Kubernetes Namespace, trimmed to what it says of the Services in it."""

    key: NamespaceKey
    annotations: Mapping[str, str] = {}
    """Those that begin with `NAMESPACE_PREFIXES`."""
    origin: str = ""
    lines: Lines = ()
    """Of files only: where its fields stand."""

    def place(self, field: str) -> str:
        """Return where a field stands, for `Problem.origin`."""
        return place_of(self.origin, self.lines, field)


MeshObject = ServiceObject | SliceObject | PodObject | NamespaceObject
ObjectKey = ServiceKey | SliceKey | PodKey | NamespaceKey


class Endpoint(msgspec.Struct, frozen=True):
    """One place that serves a Service port: address and target port, with the slice's conditions."""

    address: str
    port: int
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    zone: str = ""
    hints: tuple[str, ...] = ()
    node: str = ""
    pod: str = ""

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


class Service(msgspec.Struct, frozen=True):
    """A Service that asks for the mesh, joined with the endpoints of all its slices.

    `endpoints` maps the port's *name* to its endpoints, duplicates removed, sorted by address and port,
    so that two equal clusters give equal values whatever the order of their events.
    """

    object: ServiceObject
    endpoints: Mapping[str, tuple[Endpoint, ...]]
    problems: tuple[Problem, ...] = ()
    namespace: NamespaceObject | None = None
    """Its Namespace, if that says anything of the Services in it."""

    @property
    def key(self) -> ServiceKey:
        """The identity of the Service."""
        return self.object.key


class Changes(msgspec.Struct, frozen=True):
    """Which Services came, went or changed since an earlier version of the value that holds this."""

    since: int
    keys: frozenset[ServiceKey]


class MeshSnapshot(msgspec.Struct, frozen=True):
    """What the cluster says, at one moment.

    A Service that did not change between two snapshots is the *same object* in both, so that a consumer can
    find changes with `is`; if it has seen the snapshot before this one, `changes` is enough.
    """

    version: int
    """Grows with every change of anything but `pods`."""
    services: Mapping[ServiceKey, Service]
    pods: Mapping[str, PodObject] = {}
    """Pods by address; the same object as before if they are the same."""
    problems: tuple[Problem, ...] = ()
    """Problems that belong to no Service of `services` (a slice for an unknown Service, say)."""
    changes: Changes | None = None
    """None: not known."""
    namespaces: Mapping[str, NamespaceObject] = {}
    """Those that say something of the Services in them; the same object as before if they are the same."""
