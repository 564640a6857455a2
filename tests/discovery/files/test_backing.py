"""Endpoints where no EndpointSlice lists them: which statement decides, and what is said if there is none."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.files.backing import Backing
from discovery.files.content import Content, read_content
from discovery.files.declared import Declarations
from discovery.files.overrides import Override
from discovery.model import MeshObject, ObjectKey, PodObject, Problem, ServiceKey, ServiceObject
from discovery.registry import Registry
from discovery.source import Deleted, Event, Malformed, Synced, Upserted

SHOP = ServiceKey("default", "shop")


def service(
    name: str = "shop",
    port: Any = None,
    *,
    selector: Mapping[str, str] | None = None,
    meshed: bool = True,
    **spec: Any,
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    if meshed:
        metadata["annotations"] = {"svc.mesh/enabled": "true"}
    ports = [{"name": "http", "port": 80, **({} if port is None else {"targetPort": port})}]
    selected = {} if selector is None else {"selector": dict(selector)}
    document = {"apiVersion": "v1", "kind": "Service", "metadata": metadata}
    return document | {"spec": {"ports": ports, **selected, **spec}}


def endpoint_slice(*addresses: str, of: str = "shop", name: str = "shop-1") -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": of}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 1000}],
        "endpoints": [{"addresses": [address]} for address in addresses],
    }


def endpoints(*subsets: Any, name: str = "shop") -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": name}, "subsets": list(subsets)}


def subset(*addresses: str, not_ready: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "addresses": [{"ip": address} for address in addresses],
        "notReadyAddresses": [{"ip": address} for address in not_ready],
        "ports": [{"name": "http", "port": 2000}],
    }


def pod(name: str, address: Any = "", **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "shop", "pod": name}},
        "spec": {"nodeName": "n1", "containers": [{"ports": [{"name": "web", "containerPort": 3001}]}]},
        "status": {**({"podIP": address} if address else {}), **status},
    }


def deployment(kind: str = "Deployment", **labels: str) -> dict[str, Any]:
    template = {"metadata": {"labels": labels or {"app": "shop"}}}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "shop"},
        "spec": {"template": template},
    }


APP = {"app": "shop"}


class Folder:
    """Files, as they are declared, and what came of them."""

    def __init__(self, *overrides: Override) -> None:
        self.declarations = Declarations()
        self.backing = Backing(overrides)
        self.registry = Registry()
        self.objects: dict[tuple[type, ObjectKey], MeshObject] = {}
        self.problems: dict[str, tuple[Problem, ...]] = {}

    def write(self, path: str, *documents: Any) -> tuple[Event, ...]:
        """Write a file and return the events that it makes."""
        text = yaml.safe_dump_all(documents).encode()
        if documents:
            self.declarations.put(path, read_content(path, text, Content()))
        else:
            self.declarations.remove(path)
        events = self.backing.fold(self.declarations.take_events())
        self.registry.fold((*events, Synced()))
        for event in events:
            if isinstance(event, Upserted):
                self.objects[type(event.object.key), event.object.key] = event.object
            elif isinstance(event, Deleted):
                del self.objects[type(event.key), event.key]
            elif isinstance(event, Malformed):
                self.problems[event.origin] = event.problems
        self.problems = {origin: found for origin, found in self.problems.items() if found}
        return events

    def endpoints(self, key: ServiceKey = SHOP) -> list[str]:
        """The ready endpoints of port http, as snapshots have them."""
        found = self.registry.snapshot().services[key].endpoints["http"]
        return [f"{endpoint}{'' if endpoint.ready else ' not ready'}" for endpoint in found]

    def service(self, key: ServiceKey = SHOP) -> ServiceObject:
        found = self.objects[ServiceKey, key]
        assert isinstance(found, ServiceObject)
        return found

    def why(self) -> str:
        unbacked = self.service().unbacked
        return unbacked.reason.removeprefix("has no endpoints: ") if unbacked is not None else ""

    def said(self) -> list[tuple[str, str, str, str]]:
        found = [problem for problems in self.problems.values() for problem in problems]
        return [(one.kind, one.severity, one.origin, one.reason) for one in found]


def folder(*documents: Any) -> Folder:
    made = Folder()
    made.write("a.yaml", *documents)
    return made


def test_slices_go_first() -> None:
    made = folder(
        service(selector=APP), endpoint_slice("10.0.0.1"), endpoints(subset("10.0.0.2")), pod("p", "10.0.0.3")
    )
    assert made.endpoints() == ["10.0.0.1:1000"]
    ((kind, severity, place, reason),) = made.said()
    assert (kind, severity) == ("Endpoints", "info")
    assert place.startswith("a.yaml:")
    assert reason == "the EndpointSlices of Service default/shop go before it"


def test_slices_without_an_endpoint_go_first_too() -> None:
    made = folder(service(selector=APP), endpoint_slice(), pod("p", "10.0.0.3"))
    assert (made.endpoints(), made.why()) == ([], "")


def test_endpoints_go_before_pods() -> None:
    made = folder(
        service(selector=APP), endpoints(subset("10.0.0.2", not_ready=("10.0.0.9",))), pod("p", "10.0.0.3")
    )
    assert made.endpoints() == ["10.0.0.2:2000", "10.0.0.9:2000 not ready"]
    assert (made.said(), made.why()) == ([], "")


def test_what_goes_first_is_decided_anew_with_every_change() -> None:
    made = folder(service(selector=APP), pod("p", "10.0.0.3"))
    assert made.endpoints() == ["10.0.0.3:80"]
    made.write("e.yaml", endpoints(subset("10.0.0.2")))
    assert made.endpoints() == ["10.0.0.2:2000"]
    made.write("s.yaml", endpoint_slice("10.0.0.1"))
    assert made.endpoints() == ["10.0.0.1:1000"]
    assert len(made.said()) == 1
    made.write("e.yaml")
    assert made.said() == []
    made.write("s.yaml")
    assert made.endpoints() == ["10.0.0.3:80"]
    made.write("a.yaml", service(selector=APP))
    assert made.endpoints() == []
    assert made.why() == "the files hold no EndpointSlice, Endpoints or Pod for it"


def test_endpoints_of_two_families_and_several_subsets() -> None:
    other = {"addresses": [{"ip": "10.0.0.4"}], "ports": [{"name": "http", "port": 2001}]}
    made = folder(service(), endpoints(subset("10.0.0.2", "fd00::1"), other))
    assert made.endpoints() == ["10.0.0.2:2000", "10.0.0.4:2001"]
    assert made.said() == []


def test_endpoints_without_a_service_wait_for_it() -> None:
    made = folder(endpoints(subset("10.0.0.2")))
    assert made.said() == [("Endpoints", "info", "a.yaml:4", "there is no Service default/shop")]
    made.write("s.yaml", service())
    assert (made.endpoints(), made.said()) == (["10.0.0.2:2000"], [])
    made.write("s.yaml")
    assert len(made.said()) == 1
    assert not any(kind is not ServiceKey and key.name.startswith("shop/") for kind, key in made.objects)


@pytest.mark.parametrize(
    ("bad", "field", "reason"),
    [
        ({"addresses": [{"ip": "10.0.0"}]}, "subsets[0].addresses[0].ip", "is not an IP address"),
        ({"addresses": [{}]}, "subsets[0].addresses[0].ip", "is not an IP address"),
        ({"addresses": [{"ip": "0.0.0.0"}]}, "subsets[0].addresses[0].ip", "is not the address of one host"),
        ({"addresses": ["10.0.0.1"]}, "subsets[0].addresses[0]", "is a string"),
        ({"addresses": "10.0.0.1"}, "subsets[0].addresses", "is a string"),
        ({"addresses": [{"ip": f"10.1.{n // 250}.{n % 250 + 1}"} for n in range(1001)]},
         "subsets[0].addresses", "there are more than the 1000 that are read"),
        ({"ports": [{"port": 65536}]}, "subsets[0].ports[0].port", "is not a port number"),
        ({"ports": [{"name": "http", "port": 1}, {"name": "http", "port": 2}]},
         "subsets[0].ports[1].name", "is used twice"),
        (7, "subsets[0]", "is a number"),
    ],
)  # fmt: skip
def test_bad_endpoints_are_reported_and_the_rest_is_read(bad: Any, field: str, reason: str) -> None:
    content = read_content(
        "a.yaml", yaml.safe_dump(endpoints(bad, subset("10.0.0.2"))).encode(), Content()
    ).all_problems()
    assert [(one.kind, one.name, one.field, one.reason) for one in content] == [
        ("Endpoints", "shop", field, reason)
    ]
    assert "10.0.0.2:2000" in folder(service(), endpoints(bad, subset("10.0.0.2"))).endpoints()


def test_pods_by_labels() -> None:
    other = pod("other", "10.0.0.5") | {"metadata": {"name": "other", "labels": {"app": "shops"}}}
    elsewhere = pod("p", "10.0.0.6")
    elsewhere["metadata"]["namespace"] = "elsewhere"
    made = folder(service(selector=APP), pod("p", "10.0.0.3"), pod("q", "10.0.0.4"), other, elsewhere)
    assert made.endpoints() == ["10.0.0.3:80", "10.0.0.4:80"]
    found = made.registry.snapshot().services[SHOP].endpoints["http"][0]
    assert (found.pod, found.node) == ("p", "n1")
    assert folder(service(selector={**APP, "pod": "q"}), pod("p", "10.0.0.3")).endpoints() == []
    assert folder(service(selector={}), pod("p", "10.0.0.3")).endpoints() == []


def test_where_pods_listen() -> None:
    named = pod("p", "10.0.0.3")
    moved = pod("q", "10.0.0.4")
    moved["spec"]["containers"][0]["ports"][0]["containerPort"] = 3002
    assert folder(service(port=8080, selector=APP), named).endpoints() == ["10.0.0.3:8080"]
    assert folder(service(port="web", selector=APP), named, moved).endpoints() == [
        "10.0.0.3:3001",
        "10.0.0.4:3002",
    ]
    made = folder(service(port="none", selector=APP), named)
    assert made.endpoints() == []
    assert made.why() == "it selects Pod default/p, where no port has the name of its targetPort: none"


@pytest.mark.parametrize("port", [0, -1, 65536, True, "HTTP", "80", 1.5, [80], ""])
def test_a_target_port_that_is_none(port: Any) -> None:
    document = service(port=port, selector=APP)
    problems = read_content("a.yaml", yaml.safe_dump(document).encode(), Content()).all_problems()
    right = port in (0, "") and port is not False
    assert [one.field for one in problems] == ([] if right else ["spec.ports[0].targetPort"])
    assert folder(document, pod("p", "10.0.0.3")).endpoints() == ["10.0.0.3:80"]


READY, UNREADY = ({"conditions": [{"type": "Ready", "status": word}]} for word in ("True", "False"))


@pytest.mark.parametrize(
    ("status", "ready"),
    [
        ({}, True),
        (READY, True),
        (UNREADY, False),
        ({"conditions": [{"type": "Ready", "status": "Unknown"}]}, False),
        ({"conditions": [{"type": "Initialized", "status": "True"}]}, True),
        ({"phase": "Running"}, True),
        ({"phase": "Pending"}, False),
        ({"phase": "Pending", **READY}, True),
    ],
)
def test_which_pods_are_ready(status: Any, ready: bool) -> None:
    made = folder(service(selector=APP), pod("p", "10.0.0.3", **status))
    assert made.endpoints() == ["10.0.0.3:80" if ready else "10.0.0.3:80 not ready"]
    why = "it selects Pod default/p, not ready according to status and metadata"
    assert made.why() == ("" if ready else why)
    published = folder(service(selector=APP, publishNotReadyAddresses=True), pod("p", "10.0.0.3", **status))
    assert published.endpoints() == ["10.0.0.3:80"]


def test_pods_that_are_no_endpoints() -> None:
    for phase in ("Succeeded", "Failed"):
        made = folder(service(selector=APP), pod("p", "10.0.0.3", phase=phase), pod("q"))
        assert made.endpoints() == []
        assert made.why() == ("it selects Pod default/p and 1 more, without an IPv4 address (status.podIP)")
    leaving = pod("p", "10.0.0.3", **READY)
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    made = folder(service(selector=APP), leaving)
    (found,) = made.registry.snapshot().services[SHOP].endpoints["http"]
    assert (found.ready, found.serving, found.terminating) == (False, True, True)
    for bad in ("localhost", "fd00::1", "10.0.0", 7, "0.0.0.0"):
        assert folder(service(selector=APP), pod("p", bad)).endpoints() == []
    host = pod("p", "10.0.0.3", podIPs=[{"ip": "fd00::1"}, {"ip": "10.0.0.4"}])
    host["spec"]["hostNetwork"] = True
    assert folder(service(selector=APP), host).endpoints() == ["10.0.0.4:80"]


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"])
def test_what_would_make_its_pods_is_named(kind: str) -> None:
    made = folder(service(port=8080, selector=APP), deployment(kind, app="shop", tier="web"))
    assert made.why() == f"{kind} default/shop makes its Pods, and their addresses exist only in a cluster"
    unbacked = made.service().unbacked
    assert unbacked is not None
    assert unbacked.targets == {"http": 8080}
    made.write("a.yaml", service(selector=APP), deployment(kind, app="other"))
    assert made.why() == "the files hold no EndpointSlice, Endpoints or Pod for it"


def test_a_service_that_selects_nothing() -> None:
    assert folder(service()).why() == (
        "the files hold no EndpointSlice or Endpoints for it, and it selects no Pods"
    )


def test_a_service_that_does_not_ask_for_the_mesh_is_left_alone() -> None:
    made = folder(service(meshed=False, selector=APP), endpoints(subset("10.0.0.2")), pod("p", "10.0.0.3"))
    assert made.why() == ""
    assert made.said() == []
    assert [type(found) for found in made.objects.values()] == [PodObject, ServiceObject]


def test_objects_leave_as_what_the_mesh_knows() -> None:
    """What only files say stays behind: nobody else has to know of it, and a snapshot on disk is smaller."""
    made = folder(service(selector=APP), pod("p", "10.0.0.3"))
    assert {type(found) for found in made.objects.values()} >= {ServiceObject, PodObject}
    assert all(type(found).__name__.endswith("Object") for found in made.objects.values())


def test_a_change_that_means_nothing_is_not_told() -> None:
    made = folder(service(selector=APP), pod("p", "10.0.0.3"))
    changed = pod("p", "10.0.0.3")
    changed["spec"]["containers"][0]["ports"].append({"name": "more", "containerPort": 9})
    events = made.write("a.yaml", service(selector=APP), changed)
    assert [type(event.object) for event in events if isinstance(event, Upserted)] == [PodObject]


# -- the command line ----------------------------------------------------------------------------------


def override(port: str = "", places: str = "127.0.0.1:9", name: str = "shop") -> Override:
    return Override(ServiceKey("default", name), port, places)


def test_an_override_is_an_annotation_that_goes_before_those_in_the_files() -> None:
    written = service()
    written["metadata"]["annotations"] |= {
        "svc.mesh/endpoints": "127.0.0.1:1",
        "svc.mesh/endpoints.80": "127.0.0.1:2",
    }
    for port in ("", "http", "80"):
        made = Folder(override(port))
        made.write("a.yaml", written)
        assert made.service().annotations == {
            "svc.mesh/enabled": "true",
            "svc.mesh/endpoints.http": "127.0.0.1:9",
        }
        assert made.said() == []


def test_overrides_that_fit_no_service_are_told_until_they_do() -> None:
    made = Folder(override(), override(name="web"))
    made.write("a.yaml", endpoint_slice(of="web"))
    assert [(kind, reason) for kind, _, _, reason in made.said()] == [
        ("Flag", "there is no Service default/shop in the files"),
        ("Flag", "there is no Service default/web in the files"),
    ]
    made.write("b.yaml", service())
    assert len(made.said()) == 1
    made.write("c.yaml", service("web", meshed=False))
    assert [(kind, reason) for kind, _, _, reason in made.said()] == [
        ("Flag", "default/web is not in the mesh")
    ]
    made.write("c.yaml", service("web"))
    assert made.said() == []
    made.write("b.yaml")
    assert len(made.said()) == 1


def test_an_override_says_where_the_service_is_instead() -> None:
    made = Folder(override())
    elsewhere = service()
    elsewhere["metadata"]["namespace"] = "front"
    made.write("a.yaml", elsewhere, service("web"))
    ((problem,),) = made.problems.values()
    assert problem.expected == "NAME.NAMESPACE of a Service in the files: shop.front"


def test_an_override_has_to_say_which_port() -> None:
    ports: list[dict[str, Any]] = [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]
    made = Folder(override(), override("udp"), override("admin"))
    made.write(
        "a.yaml", service() | {"spec": {"ports": [*ports, {"name": "udp", "port": 1, "protocol": "UDP"}]}}
    )
    ((first, second),) = made.problems.values()
    assert first.reason == "default/shop has 2 TCP ports, and this says not which"
    assert first.expected == "shop.default:http=127.0.0.1:9 or shop.default:admin=127.0.0.1:9"
    assert second.reason == "default/shop has no TCP port 'udp'"
    assert made.service().annotations["svc.mesh/endpoints.admin"] == "127.0.0.1:9"
    none = Folder(override())
    none.write("a.yaml", service() | {"spec": {}})
    ((problem,),) = none.problems.values()
    assert problem.reason == "default/shop has no TCP port"


# -- any order -----------------------------------------------------------------------------------------

PIECES: tuple[tuple[Any, ...], ...] = (
    (service(selector=APP), service(), service(meshed=False, selector=APP)),
    (endpoint_slice("10.0.0.1"), endpoint_slice("10.0.0.1", of="web")),
    (endpoints(subset("10.0.0.2")), endpoints()),
    (pod("p", "10.0.0.3"), pod("p"), pod("p", "10.0.0.3", **UNREADY)),
    (deployment(), deployment(app="other")),
    (service("web", selector={"pod": "p"}),),
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(PIECES) - 1), st.integers(-1, 2)), max_size=20), st.randoms())
def test_what_is_told_depends_on_what_there_is_alone(
    steps: list[tuple[int, int]], chance: random.Random
) -> None:
    """Whatever came and went before, the objects and problems are those of the files as they are now."""
    flags = (override(), override(name="web"))
    lived, now = Folder(*flags), {}
    for place, which in steps:
        documents = PIECES[place][which : which + 1] if which >= 0 else ()
        lived.write(f"{place}.yaml", *documents)
        now[f"{place}.yaml"] = documents
    fresh = Folder(*flags)
    paths = list(now)
    chance.shuffle(paths)
    for path in paths:
        if now[path]:
            fresh.write(path, *now[path])
    assert fresh.objects == lived.objects
    if any(now.values()):
        assert fresh.problems == lived.problems
    assert fresh.registry.snapshot().services == lived.registry.snapshot().services
