"""What controllers do in a cluster, done for files: the endpoints of Services that no EndpointSlice lists.

The first of these that there is decides, for each Service that asks for the mesh: its EndpointSlices; an
Endpoints object of its name; the Pods that it selects and that have an address. What comes of it are slices
like any others. Where nothing gives an endpoint, the Service says why (`Unbacked`). Endpoints from the
command line become annotations, which the plan puts before all of these. Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from discovery.files.declared import Beside, Declared, Removed
from discovery.files.labels import LabelIndex, SelectorIndex
from discovery.files.overrides import FLAG, Override, override_problems, override_service
from discovery.manifest.written import (
    EndpointsKey,
    WorkloadKey,
    WrittenEndpoints,
    WrittenPod,
    WrittenService,
    WrittenWorkload,
)
from discovery.model import (
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
    Unbacked,
)
from discovery.position import place_of
from discovery.source import Deleted, Event, Malformed, Upserted

_Verdict = tuple[Sequence[SliceObject], Unbacked | None]


class Backing:
    """Turns what files declare into the events of a source."""

    def __init__(self, overrides: Sequence[Override] = ()) -> None:
        self._overrides: defaultdict[ServiceKey, list[Override]] = defaultdict(list)
        for override in overrides:
            self._overrides[override.service].append(override)
        self._services: dict[ServiceKey, WrittenService] = {}
        self._selecting: SelectorIndex[ServiceKey] = SelectorIndex()
        self._service_of: dict[SliceKey, ServiceKey] = {}
        self._slices_of: defaultdict[ServiceKey, set[SliceKey]] = defaultdict(set)
        self._endpoints: dict[ServiceKey, WrittenEndpoints] = {}
        self._pods: dict[PodKey, WrittenPod] = {}
        self._pod_labels: LabelIndex[PodKey] = LabelIndex()
        self._workloads: dict[WorkloadKey, WrittenWorkload] = {}
        self._workload_labels: LabelIndex[WorkloadKey] = LabelIndex()
        self._dirty: set[ServiceKey] = set()
        self._told: dict[ServiceKey, ServiceObject] = {}
        self._told_slices: dict[ServiceKey, Mapping[SliceKey, SliceObject]] = {}
        self._told_problems: dict[str, tuple[Problem, ...]] = {}

    @property
    def services(self) -> Collection[ServiceObject]:
        """All Services in the files."""
        return self._services.values()

    def fold(self, declared: Iterable[Declared]) -> tuple[Event, ...]:
        """Take in what is declared now, and return what is to be told: deletions, objects, problems."""
        deleted: list[Event] = []
        upserted: list[Event] = []
        problems: list[Event] = []
        for one in declared:
            match one:
                case Upserted():
                    upserted += self._put(one)
                case Deleted():
                    deleted += self._delete(one)
                case Malformed():
                    problems.append(one)
                case Beside(object=found):
                    self._put_beside(found)
                case Removed(key=key):
                    self._remove_beside(key)
        changed = bool(self._dirty)
        for service in sorted(self._dirty):
            self._work_out(service, deleted, upserted, problems)
        self._dirty.clear()
        if self._overrides and (changed or not self._told_problems):
            given = [override for several in self._overrides.values() for override in several]
            self._tell_problems(FLAG, override_problems(given, self._services.values()), problems)
        return (*deleted, *upserted, *problems)

    # -- what there is ---------------------------------------------------------------------------------

    def _put(self, event: Upserted) -> Iterable[Event]:
        found = event.object
        if isinstance(found, WrittenService):
            self._services[found.key] = found
            self._selecting.put(found.key, found.key.namespace, found.selector)
            self._dirty.add(found.key)
            return ()
        if isinstance(found, SliceObject):
            self._forget_slice(found.key)
            self._service_of[found.key] = found.service
            self._slices_of[found.service].add(found.key)
            self._dirty.add(found.service)
        elif isinstance(found, WrittenPod):
            self._forget_pod(found.key)
            self._pods[found.key] = found
            self._pod_labels.put(found.key, found.key.namespace, found.labels)
            self._dirty |= self._selecting.selecting(found.key.namespace, found.labels)
            return (Upserted(_plain_pod(found)),)
        return (event,)

    def _delete(self, event: Deleted) -> Iterable[Event]:
        key = event.key
        if isinstance(key, ServiceKey):
            del self._services[key]
            self._selecting.remove(key)
            self._told.pop(key, None)
            self._dirty.add(key)
        elif isinstance(key, SliceKey):
            self._forget_slice(key)
        elif isinstance(key, PodKey):
            self._forget_pod(key)
        return (event,)

    def _forget_slice(self, key: SliceKey) -> None:
        service = self._service_of.pop(key, None)
        if service is not None:
            self._slices_of[service].discard(key)
            self._dirty.add(service)
            if not self._slices_of[service]:
                del self._slices_of[service]

    def _forget_pod(self, key: PodKey) -> None:
        old = self._pods.pop(key, None)
        if old is not None:
            self._pod_labels.remove(key)
            self._dirty |= self._selecting.selecting(key.namespace, old.labels)

    def _put_beside(self, found: WrittenEndpoints | WrittenWorkload) -> None:
        if isinstance(found, WrittenEndpoints):
            key = ServiceKey(*found.key)
            self._endpoints[key] = found
            self._dirty.add(key)
        else:
            self._remove_beside(found.key)
            self._workloads[found.key] = found
            self._workload_labels.put(found.key, found.key.namespace, found.labels)
            self._dirty |= self._selecting.selecting(found.key.namespace, found.labels)

    def _remove_beside(self, key: EndpointsKey | WorkloadKey) -> None:
        if isinstance(key, EndpointsKey):
            del self._endpoints[ServiceKey(*key)]
            self._dirty.add(ServiceKey(*key))
        elif (old := self._workloads.pop(key, None)) is not None:
            self._workload_labels.remove(key)
            self._dirty |= self._selecting.selecting(key.namespace, old.labels)

    # -- what follows from it --------------------------------------------------------------------------

    def _work_out(
        self, key: ServiceKey, deleted: list[Event], upserted: list[Event], problems: list[Event]
    ) -> None:
        service = self._services.get(key)
        slices, unbacked = self._back(service) if service is not None and service.meshed else ((), None)
        if service is not None:
            now = _plain_service(override_service(service, self._overrides.get(key, ())), unbacked)
            if now != self._told.get(key):
                self._told[key] = now
                upserted.append(Upserted(now))
        before, after = self._told_slices.pop(key, {}), {slice_.key: slice_ for slice_ in slices}
        deleted += (Deleted(gone) for gone in sorted(before.keys() - after.keys()))
        upserted += (Upserted(slice_) for slice_ in slices if before.get(slice_.key) != slice_)
        if after:
            self._told_slices[key] = after
        self._tell_problems(f"endpoints of {key}", self._notes(key, service), problems)

    def _back(self, service: WrittenService) -> _Verdict:
        """Return slices in place of those that are not written, and why there is no endpoint."""
        if self._slices_of.get(service.key):
            return (), None
        endpoints = self._endpoints.get(service.key)
        if endpoints is not None:
            return endpoints.slices, None
        keys = self._pod_labels.selected(service.key.namespace, service.selector)
        slices = slices_of_pods(service, [self._pods[key] for key in sorted(keys)])
        if any(endpoint.ready for slice_ in slices if slice_.ports for endpoint in slice_.endpoints):
            return slices, None
        targets = {name: target for name, target in service.targets.items() if isinstance(target, int)}
        return slices, Unbacked(f"has no endpoints: {self._why(service, sorted(keys))}", targets)

    def _why(self, service: WrittenService, pods: Sequence[PodKey]) -> str:
        if not service.selector:
            return "the files hold no EndpointSlice or Endpoints for it, and it selects no Pods"
        if pods:
            return _why_not(service, [self._pods[key] for key in pods])
        makers = sorted(self._workload_labels.selected(service.key.namespace, service.selector))
        if makers:
            first = f"{makers[0].kind} {makers[0].namespace}/{makers[0].name}"
            return f"{first} makes its Pods, and their addresses exist only in a cluster"
        return "the files hold no EndpointSlice, Endpoints or Pod for it"

    def _notes(self, key: ServiceKey, service: ServiceObject | None) -> tuple[Problem, ...]:
        """Return that an Endpoints object is passed over, if it is."""
        endpoints = self._endpoints.get(key)
        if endpoints is None or (service is not None and not service.meshed):
            return ()
        if service is None:
            reason, effect = f"there is no Service {key}", "it waits for it"
        elif self._slices_of.get(key):
            reason = f"the EndpointSlices of Service {key} go before it"
            effect = "it is not used"
        else:
            return ()
        place = place_of(endpoints.origin, endpoints.lines, "metadata.name")
        found = Problem(
            key.namespace, key.name, "metadata.name", key.name, reason, "", effect, "Endpoints", place, "info"
        )
        return (found,)

    def _tell_problems(self, origin: str, found: tuple[Problem, ...], problems: list[Event]) -> None:
        if found != self._told_problems.get(origin, ()):
            problems.append(Malformed(origin, found))
        self._told_problems[origin] = found
        if not found:
            del self._told_problems[origin]


def slices_of_pods(service: WrittenService, pods: Iterable[WrittenPod]) -> tuple[SliceObject, ...]:
    """Return the Pods that have an address as slices, one for all whose ports have the same numbers."""
    grouped: defaultdict[tuple[SlicePort, ...], list[SliceEndpoint]] = defaultdict(list)
    for pod in pods:
        if not pod.address:
            continue
        numbers = [(port, _target(service, port, pod)) for port in service.ports]
        ports = tuple(SlicePort(port.name, number, port.protocol) for port, number in numbers if number)
        grouped[ports].append(
            SliceEndpoint(
                address=pod.address,
                ready=service.publishes_not_ready or (pod.ready and not pod.terminating),
                serving=pod.ready,
                terminating=pod.terminating,
                node=pod.node,
                pod=pod.key.name,
            )
        )
    return tuple(
        # No object has such a name: it has a slash.
        SliceObject(
            SliceKey(service.key.namespace, f"{service.key.name}/pods/{number}"),
            service.key,
            ports=ports,
            endpoints=tuple(grouped[ports]),
            origin=service.origin,
        )
        for number, ports in enumerate(sorted(grouped, key=_numbers))
    )


def _numbers(ports: Sequence[SlicePort]) -> list[tuple[str, int]]:
    return [(port.name, port.port) for port in ports]


def _target(service: WrittenService, port: ServicePort, pod: WrittenPod) -> int:
    """Return the number where a Pod serves a port; 0 if none of its ports has the name."""
    target = service.targets.get(port.name, port.port)
    if isinstance(target, int):
        return target
    found = (one.port for one in pod.ports if one.name == target and one.protocol == port.protocol)
    return next(found, 0)


def _why_not(service: WrittenService, pods: Sequence[WrittenPod]) -> str:
    """Return why none of the Pods that a Service selects is an endpoint that can be used."""
    first = f"Pod {pods[0].key.namespace}/{pods[0].key.name}"
    those = first if len(pods) == 1 else f"{first} and {len(pods) - 1} more"
    with_address = [pod for pod in pods if pod.address]
    if not with_address:
        return f"it selects {those}, without an IPv4 address (status.podIP)"
    if any(pod.ready and not pod.terminating for pod in with_address):
        names = sorted({target for target in service.targets.values() if isinstance(target, str)})
        return f"it selects {those}, where no port has the name of its targetPort: {', '.join(names)}"
    return f"it selects {those}, not ready according to status and metadata"


def _plain_service(found: ServiceObject, unbacked: Unbacked | None) -> ServiceObject:
    values = {name: getattr(found, name) for name in ServiceObject.__struct_fields__}
    return ServiceObject(**values | {"unbacked": unbacked})


def _plain_pod(found: PodObject) -> PodObject:
    return PodObject(**{name: getattr(found, name) for name in PodObject.__struct_fields__})
