"""From a Kubernetes object, as plain values, to what the mesh uses of it.

Both sources end here: YAML and JSON files, and what the API server sends. Of an object only the fields of
`discovery.model` are looked at; what else it holds is never checked. A bad field is reported and falls back
to something harmless, the rest of the object goes on. Pure: no I/O, no clock.

The meaning of the fields is that of the Kubernetes API reference (Service v1, EndpointSlice
discovery.k8s.io/v1, Pod v1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Any, Literal

import msgspec

from discovery.compat import PREFIXES, Compat, translate
from discovery.model import (
    ANNOTATION_PREFIX,
    MeshObject,
    PodKey,
    PodObject,
    Problem,
    ServiceKey,
    ServiceObject,
    ServicePort,
    SliceEndpoint,
    SliceKey,
    SliceObject,
    SlicePort,
)

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
SERVICE_TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
PROTOCOLS = ("TCP", "UDP", "SCTP")
ADDRESS_TYPES = ("IPv4", "IPv6", "FQDN")
FAMILIES = {"IPv4": AF_INET, "IPv6": AF_INET6}

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""RFC 1123 section 2.1, in lower case, as Kubernetes wants it of Services, namespaces and port names."""
_SUBDOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_SHOWN = 80


def read_object(
    document: Mapping[str, Any], origin: str, compat: Compat | None = None
) -> tuple[MeshObject | None, tuple[Problem, ...]]:
    """Trim a Service, EndpointSlice or Pod to what the mesh uses.

    Returns the object, or None if it is of another kind or cannot be used at all, and what is wrong with it.
    `origin` goes into object and problems as it is. With `compat` the annotations of that mesh are read too.
    Never raises for bad input.
    """
    kind, version = document.get("kind"), document.get("apiVersion")
    if not (isinstance(kind, str) and isinstance(version, str)):
        return None, ()
    if kind == "EndpointSlice" and version.startswith("discovery.k8s.io/v1"):
        return _Reader(document, kind, origin).read_slice(version)
    if kind == "Service" and version == "v1":
        return _Reader(document, kind, origin).read_service(compat)
    if kind == "Pod" and version == "v1":
        return _Reader(document, kind, origin).read_pod()
    return None, ()


def show(value: object) -> str:
    """Return a value as a person would write it in YAML, shortened."""
    if isinstance(value, str):
        return value if len(value) <= _SHOWN else value[: _SHOWN - 1] + "…"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of more than 64 bits"
    if isinstance(value, int | float):
        return str(value)
    return f"({describe_type(value)})"


def kind_of(found: MeshObject) -> str:
    """Return the Kubernetes kind of an object."""
    if isinstance(found, ServiceObject):
        return "Service"
    return "EndpointSlice" if isinstance(found, SliceObject) else "Pod"


def describe_type(value: object) -> str:
    """Return what sort of YAML value this is, with its article."""
    if value is None:
        return "null"
    for type_, word in _TYPE_WORDS:
        if isinstance(value, type_):
            return word
    return type(value).__name__


_TYPE_WORDS: tuple[tuple[Any, str], ...] = (
    (str, "a string"),
    (bool, "a boolean"),
    (int | float, "a number"),
    (Mapping, "a mapping"),
    (list | tuple, "a list"),
)
_NOTHING: Mapping[str, Any] = {}


class _Reader:
    """Reads one object and gathers what is wrong with it."""

    def __init__(self, document: Mapping[str, Any], kind: str, origin: str) -> None:
        self.document = document
        self.kind = kind
        self.origin = origin
        self.problems: list[Problem] = []
        self.namespace = "default"
        self.name = ""

    # -- objects ---------------------------------------------------------------------------------------

    def read_service(self, compat: Compat | None) -> tuple[ServiceObject | None, tuple[Problem, ...]]:
        metadata = self._identify(_LABEL)
        if metadata is None:
            return None, tuple(self.problems)
        spec = self._mapping(self.document, "spec", "spec")
        service_type = self._choice(spec, "type", "spec.type", SERVICE_TYPES, "ClusterIP")
        external = service_type == "ExternalName"
        written = self._mapping(metadata, "annotations", "metadata.annotations")
        service = ServiceObject(
            key=ServiceKey(self.namespace, self.name),
            annotations=self._annotations(written, (ANNOTATION_PREFIX,)),
            type=service_type,
            cluster_ips=() if external else self._cluster_ips(spec),
            external_name=self._external_name(spec) if external else "",
            ports=self._service_ports(spec),
            origin=self.origin,
            uid=self._text(metadata, "uid", "metadata.uid"),
        )
        if compat is not None:
            service = self._translate(service, self._annotations(written, PREFIXES))
        return service, tuple(self.problems)

    def read_slice(self, version: str) -> tuple[SliceObject | None, tuple[Problem, ...]]:
        metadata = self._identify(_SUBDOMAIN)
        if metadata is None:
            return None, tuple(self.problems)
        left_out = "the slice is left out"
        if version != "discovery.k8s.io/v1":
            self._report("apiVersion", version, "is no longer served", "discovery.k8s.io/v1", left_out)
            return None, tuple(self.problems)
        labels = self._mapping(metadata, "labels", "metadata.labels")
        service = labels.get(SERVICE_NAME_LABEL)
        if not isinstance(service, str) or not _LABEL.fullmatch(service):
            reason = "is missing" if service is None else "is not the name of a Service"
            field = f"metadata.labels[{SERVICE_NAME_LABEL}]"
            self._report(field, service, reason, "the name of the Service it belongs to", left_out)
            return None, tuple(self.problems)
        address_type = self.document.get("addressType")
        if address_type not in ADDRESS_TYPES:
            reason = "is missing" if address_type is None else "is not an address type"
            self._report("addressType", address_type, reason, "IPv4", left_out)
            return None, tuple(self.problems)
        slice_ = SliceObject(
            key=SliceKey(self.namespace, self.name),
            service=ServiceKey(self.namespace, service),
            address_type=address_type,
            ports=self._slice_ports(),
            endpoints=tuple(self._endpoints(address_type)),
            origin=self.origin,
        )
        return slice_, tuple(self.problems)

    def read_pod(self) -> tuple[PodObject | None, tuple[Problem, ...]]:
        if self._identify(_SUBDOMAIN) is None:
            return None, tuple(self.problems)
        spec = self._mapping(self.document, "spec", "spec")
        account = self._text(spec, "serviceAccountName", "spec.serviceAccountName")
        pod = PodObject(
            key=PodKey(self.namespace, self.name),
            addresses=self._pod_addresses(spec),
            service_account=account or self._text(spec, "serviceAccount", "spec.serviceAccount") or "default",
            node=self._text(spec, "nodeName", "spec.nodeName"),
            origin=self.origin,
        )
        return pod, tuple(self.problems)

    # -- parts -----------------------------------------------------------------------------------------

    def _identify(self, pattern: re.Pattern[str]) -> Mapping[str, Any] | None:
        """Read namespace and name; None if the object has no usable ones."""
        metadata = self._mapping(self.document, "metadata", "metadata")
        name, namespace = metadata.get("name"), metadata.get("namespace")
        left_out = f"the {self.kind} is left out"
        # A namespace of null or "" is what templates leave behind; kubectl takes the default for both.
        if namespace is not None and namespace != "":
            if not isinstance(namespace, str) or not _LABEL.fullmatch(namespace):
                self.name = name if isinstance(name, str) else ""
                self._report("metadata.namespace", namespace, _why_no_name(namespace), "shop", left_out)
                return None
            self.namespace = namespace
        if not isinstance(name, str) or not pattern.fullmatch(name):
            if not self.problems:
                self._report("metadata.name", name, _why_no_name(name), "whoami", left_out)
            return None
        self.name = name
        return metadata

    def _translate(self, service: ServiceObject, foreign: Mapping[str, str]) -> ServiceObject:
        if not foreign:
            return service
        translation = translate({**foreign, **service.annotations})
        for note in translation.notes:
            self._report(
                note.annotation, note.value, note.reason, note.expected, note.effect, severity=note.severity
            )
        return msgspec.structs.replace(
            service, annotations=translation.annotations, translated=translation.became
        )

    def _annotations(self, written: Mapping[Any, Any], prefixes: tuple[str, ...]) -> Mapping[str, str]:
        kept: dict[str, str] = {}
        for name, value in written.items():
            if not isinstance(name, str) or not name.startswith(prefixes):
                continue
            if isinstance(value, str):
                kept[name] = value
                continue
            quoted = isinstance(value, bool | int | float)
            expected = f'"{show(value)}", in quotes' if quoted else "a string"
            reason = f"is {describe_type(value)}, and Kubernetes takes only strings"
            self._report(name, value, reason, expected, "the annotation is ignored")
        return kept

    def _cluster_ips(self, spec: Mapping[str, Any]) -> tuple[str, ...]:
        several = self._items(spec, "clusterIPs", "spec.clusterIPs")
        found = [(f"spec.clusterIPs[{i}]", value) for i, value in enumerate(several)]
        if not found and spec.get("clusterIP") is not None:
            found = [("spec.clusterIP", spec["clusterIP"])]
        addresses = []
        for field, value in found:
            if value in ("None", ""):
                continue
            address = canonical_address(value)
            if address is None:
                self._report(field, value, "is not an IP address", "10.96.0.10", "it is ignored")
            else:
                addresses.append(address)
        return tuple(dict.fromkeys(addresses))

    def _external_name(self, spec: Mapping[str, Any]) -> str:
        name = self._text(spec, "externalName", "spec.externalName")
        if not name and spec.get("externalName") in (None, ""):
            self._report("spec.externalName", None, "is missing", "db.example.com", "it leads nowhere")
        return name.removesuffix(".")

    def _service_ports(self, spec: Mapping[str, Any]) -> tuple[ServicePort, ...]:
        items = self._items(spec, "ports", "spec.ports")
        ports: list[ServicePort] = []
        names: set[str] = set()
        numbers: set[tuple[int, str]] = set()
        for field, item in self._mappings(items, "spec.ports"):
            read = self._port(item, field)
            if read is None:
                continue
            name, number, protocol = read
            if not name and len(items) > 1:
                reason = "is missing, and a Service with several ports must name them"
                self._report(f"{field}.name", None, reason, "http", "the port is left out")
            elif name in names:
                self._report(f"{field}.name", name, "is used twice", "another name", "the port is left out")
            elif (number, protocol) in numbers:
                self._report(
                    f"{field}.port", number, f"is used twice for {protocol}", "", "the port is left out"
                )
            else:
                names.add(name)
                numbers.add((number, protocol))
                app_protocol = self._text(item, "appProtocol", f"{field}.appProtocol")
                ports.append(ServicePort(name, number, protocol, app_protocol))
        return tuple(ports)

    def _slice_ports(self) -> tuple[SlicePort, ...]:
        ports: dict[str, SlicePort] = {}
        for field, item in self._mappings(self._items(self.document, "ports", "ports"), "ports"):
            read = self._port(item, field)
            if read is None:
                continue
            if read[0] in ports:
                self._report(
                    f"{field}.name", read[0], "is used twice", "another name", "the port is left out"
                )
            else:
                ports[read[0]] = SlicePort(*read)
        return tuple(ports.values())

    def _port(self, item: Mapping[str, Any], field: str) -> tuple[str, int, str] | None:
        """Read name, number and protocol; None if the port cannot be used."""
        left_out = "the port is left out"
        number, name, protocol = item.get("port"), item.get("name"), item.get("protocol")
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= 65535:
            reason = "is missing" if number is None else "is not a port number"
            self._report(f"{field}.port", number, reason, "a number from 1 to 65535", left_out)
            return None
        if name is None:
            name = ""
        if not isinstance(name, str) or (name and not _LABEL.fullmatch(name)):
            self._report(f"{field}.name", name, _why_no_name(name), "http", left_out)
            return None
        if protocol is None or protocol == "":
            protocol = "TCP"
        if protocol not in PROTOCOLS:
            self._report(f"{field}.protocol", protocol, "is not a protocol", "TCP, UDP or SCTP", left_out)
            return None
        return name, number, protocol

    def _endpoints(self, address_type: str) -> Iterator[SliceEndpoint]:
        items = self._items(self.document, "endpoints", "endpoints")
        for field, item in self._mappings(items, "endpoints"):
            address = self._endpoint_address(item, field, address_type)
            if address is None:
                continue
            ready, serving, terminating = self._conditions(item, field)
            yield SliceEndpoint(
                address=address,
                ready=ready,
                serving=serving,
                terminating=terminating,
                zone=self._text(item, "zone", f"{field}.zone"),
                hints=self._hints(item, field) if "hints" in item else (),
                node=self._text(item, "nodeName", f"{field}.nodeName"),
                pod=self._pod_name(item, field) if "targetRef" in item else "",
            )

    def _endpoint_address(self, item: Mapping[str, Any], field: str, address_type: str) -> str | None:
        """Only the first address has a meaning (Kubernetes API reference, `Endpoint.addresses`)."""
        addresses = self._items(item, "addresses", f"{field}.addresses")
        left_out = "the endpoint is left out"
        if not addresses:
            self._report(f"{field}.addresses", None, "is empty", "one address", left_out)
            return None
        value = addresses[0]
        if address_type == "FQDN":
            if isinstance(value, str) and value:
                return value.removesuffix(".").lower()
            usable, reason = None, "is not a host name"
        else:
            usable = canonical_address(value, address_type)
            reason = f"is not an {address_type} address"
            if usable is not None and not _is_unicast(usable):
                usable, reason = None, "is not the address of one host"
        if usable is None:
            self._report(f"{field}.addresses[0]", value, reason, "", left_out)
        return usable

    def _conditions(self, item: Mapping[str, Any], field: str) -> tuple[bool, bool, bool]:
        """Read ready, serving and terminating. An unreadable condition takes the endpoint out of use."""
        if item.get("conditions") is None:
            return True, True, False
        path = f"{field}.conditions"
        conditions = self._mapping(item, "conditions", path)
        ready = self._condition(conditions, "ready", path, absent=True, unreadable=False)
        serving = self._condition(conditions, "serving", path, absent=ready, unreadable=False)
        terminating = self._condition(conditions, "terminating", path, absent=False, unreadable=True)
        return ready, serving, terminating

    def _condition(
        self, conditions: Mapping[str, Any], name: str, path: str, *, absent: bool, unreadable: bool
    ) -> bool:
        value = conditions.get(name)
        if value is None:
            return absent
        if isinstance(value, bool):
            return value
        effect = f"it counts as {show(unreadable)}"
        self._report(f"{path}.{name}", value, "is not a boolean", "true or false", effect)
        return unreadable

    def _hints(self, item: Mapping[str, Any], field: str) -> tuple[str, ...]:
        hints = self._mapping(item, "hints", f"{field}.hints")
        path = f"{field}.hints.forZones"
        zones = self._mappings(self._items(hints, "forZones", path), path)
        return tuple(name for at, zone in zones if (name := self._text(zone, "name", f"{at}.name")))

    def _pod_name(self, item: Mapping[str, Any], field: str) -> str:
        reference = self._mapping(item, "targetRef", f"{field}.targetRef")
        if reference.get("kind") != "Pod":
            return ""
        return self._text(reference, "name", f"{field}.targetRef.name")

    def _pod_addresses(self, spec: Mapping[str, Any]) -> tuple[str, ...]:
        """Read the addresses that are this pod's alone.

        A pod on the host's network shares its node's address, and that of a finished one may already belong
        to another pod: neither says who a client is.
        """
        status = self._mapping(self.document, "status", "status")
        if spec.get("hostNetwork") is True or status.get("phase") in ("Succeeded", "Failed"):
            return ()
        several = self._mappings(self._items(status, "podIPs", "status.podIPs"), "status.podIPs")
        found = [(f"{at}.ip", item.get("ip")) for at, item in several]
        if not found and status.get("podIP") not in (None, ""):
            found = [("status.podIP", status["podIP"])]
        addresses = []
        for field, value in found:
            address = canonical_address(value)
            if address is None:
                self._report(field, value, "is not an IP address", "10.1.2.3", "it is ignored")
            else:
                addresses.append(address)
        return tuple(dict.fromkeys(addresses))

    # -- fields ----------------------------------------------------------------------------------------

    def _report(
        self,
        field: str,
        value: object,
        reason: str,
        expected: str,
        effect: str,
        severity: Literal["error", "info"] = "error",
    ) -> None:
        self.problems.append(
            Problem(
                namespace=self.namespace,
                name=self.name,
                field=field,
                value="" if value is None else show(value),
                reason=reason,
                expected=expected,
                effect=effect,
                kind=self.kind,
                origin=self.origin,
                severity=severity,
            )
        )

    def _mapping(self, parent: Mapping[str, Any], name: str, field: str) -> Mapping[str, Any]:
        value = parent.get(name)
        if value is None:
            return _NOTHING
        if isinstance(value, Mapping):
            return value
        self._report(field, value, f"is {describe_type(value)}", "a mapping", "it is ignored")
        return _NOTHING

    def _items(self, parent: Mapping[str, Any], name: str, field: str) -> list[Any]:
        value = parent.get(name)
        if value is None:
            return []
        if isinstance(value, list):
            return value
        self._report(field, value, f"is {describe_type(value)}", "a list", "it is ignored")
        return []

    def _mappings(self, items: list[Any], field: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for index, item in enumerate(items):
            at = f"{field}[{index}]"
            if isinstance(item, Mapping):
                yield at, item
            else:
                self._report(at, item, f"is {describe_type(item)}", "a mapping", "it is left out")

    def _text(self, parent: Mapping[str, Any], name: str, field: str) -> str:
        value = parent.get(name)
        if value is None:
            return ""
        if isinstance(value, str):
            return value
        self._report(field, value, f"is {describe_type(value)}", "a string, in quotes", "it is ignored")
        return ""

    def _choice(
        self, parent: Mapping[str, Any], name: str, field: str, choices: tuple[str, ...], default: str
    ) -> str:
        value = parent.get(name)
        if value is None or value == "":
            return default
        if value in choices:
            return str(value)
        self._report(field, value, "is not known", f"one of {', '.join(choices)}", f"{default} is in force")
        return default


def canonical_address(value: object, address_type: str = "") -> str | None:
    """Return an IP address in its canonical form, or None; any family unless `address_type` names one."""
    if not isinstance(value, str):
        return None
    for name, family in FAMILIES.items():
        if address_type in ("", name):
            try:
                return inet_ntop(family, inet_pton(family, value))
            except (OSError, ValueError):
                continue
    return None


def _is_unicast(address: str) -> bool:
    """Whether packets to it reach one host; loopback counts, for meshes on a laptop."""
    if ":" in address:
        return address != "::" and not address.startswith("ff")
    first = int(address.partition(".")[0])
    return first != 0 and not 224 <= first <= 239 and address != "255.255.255.255"


def _why_no_name(value: object) -> str:
    if value is None or value == "":
        return "is missing"
    if not isinstance(value, str):
        return f"is {describe_type(value)}, not a string: put it in quotes"
    return "is not a name: lower-case letters, digits and '-' (RFC 1123)"
