"""Objects are trimmed to what the mesh uses; a bad field is named and harms nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.manifest import read_object
from discovery.model import (
    PodKey,
    PodObject,
    Problem,
    ServiceKey,
    ServiceObject,
    ServicePort,
    SliceEndpoint,
    SliceObject,
    SlicePort,
)


def service(spec: Any = None, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "whoami", **metadata}, "spec": spec}


def endpoint_slice(*endpoints: Any, **fields: Any) -> dict[str, Any]:
    labels = {"kubernetes.io/service-name": "whoami"}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "whoami-1", "labels": labels},
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        **fields,
    }


def read_service(document: dict[str, Any]) -> tuple[ServiceObject, tuple[Problem, ...]]:
    found, problems = read_object(document, "shop.yaml:3")
    assert isinstance(found, ServiceObject)
    return found, problems


def read_slice(document: dict[str, Any]) -> tuple[SliceObject, tuple[Problem, ...]]:
    found, problems = read_object(document, "shop.yaml:3")
    assert isinstance(found, SliceObject)
    return found, problems


def test_a_service_is_trimmed() -> None:
    found, problems = read_service(
        service(
            {
                "clusterIP": "10.96.0.10",
                "clusterIPs": ["10.96.0.10", "fd00:0::a"],
                "selector": {"app": "whoami"},
                "ports": [
                    {"name": "http", "port": 80, "targetPort": "web", "nodePort": 30080},
                    {"name": "dns", "port": 53, "protocol": "UDP", "appProtocol": "dns"},
                ],
            },
            namespace="shop",
            annotations={"svc.mesh/enabled": "true", "other.example/x": 1},
            labels={"app": "whoami"},
        )
    )
    assert problems == ()
    assert found == ServiceObject(
        key=ServiceKey("shop", "whoami"),
        annotations={"svc.mesh/enabled": "true"},
        cluster_ips=("10.96.0.10", "fd00::a"),
        ports=(ServicePort("http", 80), ServicePort("dns", 53, "UDP", "dns")),
        origin="shop.yaml:3",
    )


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (None, ("ClusterIP", (), "")),
        ({"clusterIP": "None"}, ("ClusterIP", (), "")),
        ({"clusterIP": "None", "clusterIPs": ["None"]}, ("ClusterIP", (), "")),
        ({"clusterIP": ""}, ("ClusterIP", (), "")),
        ({"type": "LoadBalancer", "clusterIP": "10.0.0.1"}, ("LoadBalancer", ("10.0.0.1",), "")),
        ({"type": "ExternalName", "externalName": "db.example.com."}, ("ExternalName", (), "db.example.com")),
    ],
)
def test_addresses_and_type(spec: Any, expected: tuple[str, tuple[str, ...], str]) -> None:
    found, problems = read_service(service(spec))
    assert (found.type, found.cluster_ips, found.external_name) == expected
    assert problems == ()


@pytest.mark.parametrize(
    ("document", "field", "reason"),
    [
        (service(5), "spec", "is a number"),
        (service({"type": "Cluster"}), "spec.type", "is not known"),
        (service({"type": ["x"]}), "spec.type", "is not known"),
        (service({"type": "ExternalName"}), "spec.externalName", "is missing"),
        (service({"clusterIP": "10.96.0.300"}), "spec.clusterIP", "is not an IP address"),
        (service({"clusterIPs": [7]}), "spec.clusterIPs[0]", "is not an IP address"),
        (service({"ports": "http"}), "spec.ports", "is a string"),
        (service({"ports": ["http"]}), "spec.ports[0]", "is a string"),
        (service({"ports": [{}]}), "spec.ports[0].port", "is missing"),
        (service({"ports": [{"port": 0}]}), "spec.ports[0].port", "is not a port number"),
        (service({"ports": [{"port": 65536}]}), "spec.ports[0].port", "is not a port number"),
        (service({"ports": [{"port": True}]}), "spec.ports[0].port", "is not a port number"),
        (service({"ports": [{"port": "80"}]}), "spec.ports[0].port", "is not a port number"),
        (service({"ports": [{"port": 1 << 20_000}]}), "spec.ports[0].port", "is not a port number"),
        (
            service({"ports": [{"port": 80, "protocol": "tcp"}]}),
            "spec.ports[0].protocol",
            "is not a protocol",
        ),
        (service({"ports": [{"port": 80, "name": 80}]}), "spec.ports[0].name", "is a number"),
        (service({"ports": [{"port": 80, "appProtocol": 1}]}), "spec.ports[0].appProtocol", "is a number"),
        (service(annotations=[]), "metadata.annotations", "is a list"),
        (service(annotations={"svc.mesh/enabled": True}), "svc.mesh/enabled", "is a boolean"),
        (service(annotations={"svc.mesh/enabled": None}), "svc.mesh/enabled", "is null"),
        (service(annotations={"svc.mesh/retry-attempts": 2}), "svc.mesh/retry-attempts", "is a number"),
    ],
)
def test_a_bad_field_of_a_service_is_named_and_the_rest_goes_on(
    document: dict[str, Any], field: str, reason: str
) -> None:
    found, problems = read_service(document)
    assert found.key == ServiceKey("default", "whoami")
    assert [problem.field for problem in problems] == [field]
    problem = problems[0]
    assert problem.reason.startswith(reason)
    assert (problem.namespace, problem.name, problem.kind) == ("default", "whoami", "Service")
    assert problem.origin == "shop.yaml:3"
    assert problem.effect
    assert found.annotations == {}


def test_an_unquoted_annotation_is_not_used_and_the_hint_quotes_it() -> None:
    found, problems = read_service(service(annotations={"svc.mesh/enabled": True}))
    assert not found.meshed
    expected = '"true", in quotes; "on" if that stands there'
    assert (problems[0].value, problems[0].expected) == ("true", expected)


def test_the_hint_knows_that_off_is_a_boolean_in_yaml() -> None:
    _, problems = read_service(service(annotations={"svc.mesh/server-timing": False}))
    assert problems[0].expected == '"false", in quotes; "off" if that stands there'


def test_only_the_bad_port_is_left_out() -> None:
    ports = [{"name": "a", "port": 1}, {"name": "b", "port": 0}, {"name": "c", "port": 3}]
    found, problems = read_service(service({"ports": ports}))
    assert [port.name for port in found.ports] == ["a", "c"]
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("second", "field"),
    [
        ({"name": "a", "port": 2}, "spec.ports[1].name"),
        ({"name": "b", "port": 1}, "spec.ports[1].port"),
        ({"port": 2}, "spec.ports[1].name"),
    ],
)
def test_ports_that_clash_or_lack_a_name(second: dict[str, Any], field: str) -> None:
    found, problems = read_service(service({"ports": [{"name": "a", "port": 1}, second]}))
    assert found.ports == (ServicePort("a", 1),)
    assert [problem.field for problem in problems] == [field]


def test_one_number_for_two_protocols() -> None:
    ports = [{"name": "a", "port": 53}, {"name": "b", "port": 53, "protocol": "UDP"}]
    found, problems = read_service(service({"ports": ports}))
    assert (len(found.ports), problems) == (2, ())


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        (None, "metadata.name"),
        ({}, "metadata.name"),
        ("x", "metadata"),
        ({"name": ""}, "metadata.name"),
        ({"name": 7}, "metadata.name"),
        ({"name": "Who_Ami"}, "metadata.name"),
        ({"name": "a.b"}, "metadata.name"),
        ({"name": "a" * 64}, "metadata.name"),
        ({"name": "a\n"}, "metadata.name"),
        ({"name": "whoami", "namespace": 7}, "metadata.namespace"),
        ({"name": "whoami", "namespace": "a/b"}, "metadata.namespace"),
    ],
)
def test_an_object_without_a_usable_name_is_left_out(metadata: Any, field: str) -> None:
    found, problems = read_object({"apiVersion": "v1", "kind": "Service", "metadata": metadata}, "x:1")
    assert found is None
    assert [problem.field for problem in problems] == [field]


@pytest.mark.parametrize("namespace", [None, ""])
def test_the_namespace_defaults(namespace: str | None) -> None:
    found, problems = read_service(service(namespace=namespace))
    assert (found.key.namespace, problems) == ("default", ())


@pytest.mark.parametrize(
    ("kind", "version"),
    [
        ("Deployment", "apps/v1"),
        ("Service", "serving.knative.dev/v1"),
        ("Service", None),
        (None, "v1"),
        ([], "v1"),
        ("Pod", {}),
        ("Endpoints", "v1"),
    ],
)
def test_other_kinds_are_none_of_our_business(kind: Any, version: Any) -> None:
    assert read_object({"kind": kind, "apiVersion": version, "metadata": 5}, "x:1") == (None, ())


def test_a_slice_is_trimmed() -> None:
    found, problems = read_slice(
        endpoint_slice(
            {
                "addresses": ["10.1.0.1", "10.1.0.2"],
                "conditions": {"ready": False, "serving": True, "terminating": True},
                "hints": {"forZones": [{"name": "a"}, {"name": "b"}]},
                "nodeName": "node-1",
                "zone": "a",
                "targetRef": {"kind": "Pod", "name": "whoami-x"},
            },
            {"addresses": ["10.1.0.3"], "targetRef": {"kind": "Node", "name": "n"}},
            ports=[{"name": "http", "port": 8080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
        )
    )
    assert problems == ()
    assert found.service == ServiceKey("default", "whoami")
    assert found.ports == (SlicePort("http", 8080), SlicePort("", 53, "UDP"))
    assert found.endpoints == (
        SliceEndpoint(
            "10.1.0.1",
            ready=False,
            serving=True,
            terminating=True,
            zone="a",
            hints=("a", "b"),
            node="node-1",
            pod="whoami-x",
        ),
        SliceEndpoint("10.1.0.3"),
    )


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (None, (True, True, False)),
        ({}, (True, True, False)),
        ({"ready": None, "serving": None, "terminating": None}, (True, True, False)),
        ({"ready": False}, (False, False, False)),
        ({"ready": False, "serving": True}, (False, True, False)),
        ({"ready": True, "terminating": True}, (True, True, True)),
    ],
)
def test_absent_conditions(conditions: Any, expected: tuple[bool, bool, bool]) -> None:
    found, problems = read_slice(endpoint_slice({"addresses": ["10.1.0.1"], "conditions": conditions}))
    endpoint = found.endpoints[0]
    assert (endpoint.ready, endpoint.serving, endpoint.terminating) == expected
    assert problems == ()


def test_an_unreadable_condition_takes_the_endpoint_out_of_use() -> None:
    found, problems = read_slice(
        endpoint_slice({"addresses": ["10.1.0.1"], "conditions": {"ready": "false"}})
    )
    assert not found.endpoints[0].ready
    assert [problem.field for problem in problems] == ["endpoints[0].conditions.ready"]


@pytest.mark.parametrize(
    ("endpoint", "field"),
    [
        (7, "endpoints[0]"),
        ({}, "endpoints[0].addresses"),
        ({"addresses": []}, "endpoints[0].addresses"),
        ({"addresses": "10.1.0.1"}, "endpoints[0].addresses"),
        ({"addresses": ["10.1.0.01"]}, "endpoints[0].addresses[0]"),
        ({"addresses": ["::1"]}, "endpoints[0].addresses[0]"),
        ({"addresses": ["0.0.0.0"]}, "endpoints[0].addresses[0]"),
        ({"addresses": ["224.0.0.1"]}, "endpoints[0].addresses[0]"),
        ({"addresses": ["255.255.255.255"]}, "endpoints[0].addresses[0]"),
        ({"addresses": ["10.0.0.1\0"]}, "endpoints[0].addresses[0]"),
        ({"addresses": [None]}, "endpoints[0].addresses[0]"),
    ],
)
def test_only_the_bad_endpoint_is_left_out(endpoint: Any, field: str) -> None:
    found, problems = read_slice(endpoint_slice(endpoint, {"addresses": ["10.1.0.9"]}))
    assert [e.address for e in found.endpoints] == ["10.1.0.9"]
    assert problems[-1].field == field
    assert problems[-1].kind == "EndpointSlice"


@pytest.mark.parametrize(
    ("address_type", "address", "expected"),
    [("IPv6", "FD00:0::1", "fd00::1"), ("FQDN", "DB.example.com.", "db.example.com")],
)
def test_the_address_type_is_kept(address_type: str, address: str, expected: str) -> None:
    found, problems = read_slice(endpoint_slice({"addresses": [address]}, addressType=address_type))
    assert (found.address_type, found.endpoints[0].address, problems) == (address_type, expected, ())


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"addressType": None}, "addressType"),
        ({"addressType": []}, "addressType"),
        ({"addressType": "IPv5"}, "addressType"),
        ({"apiVersion": "discovery.k8s.io/v1beta1"}, "apiVersion"),
        ({"metadata": {"name": "x"}}, "metadata.labels[kubernetes.io/service-name]"),
        (
            {"metadata": {"name": "x", "labels": {"kubernetes.io/service-name": True}}},
            "metadata.labels[kubernetes.io/service-name]",
        ),
    ],
)
def test_a_slice_that_cannot_be_used_at_all(fields: dict[str, Any], field: str) -> None:
    found, problems = read_object(endpoint_slice(**fields), "x:1")
    assert found is None
    assert [problem.field for problem in problems] == [field]


def test_slice_ports_that_cannot_be_used() -> None:
    ports = [{"name": "a"}, {"name": "b", "port": 70000}, {"name": "c", "port": 1}, {"name": "c", "port": 2}]
    found, problems = read_slice(endpoint_slice(ports=ports))
    assert found.ports == (SlicePort("c", 1),)
    assert [problem.field for problem in problems] == ["ports[0].port", "ports[1].port", "ports[3].name"]


@pytest.mark.parametrize(
    ("spec", "status", "addresses"),
    [
        ({}, {"podIP": "10.1.0.1"}, ("10.1.0.1",)),
        (
            {},
            {"podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd00::1"}]},
            ("10.1.0.1", "fd00::1"),
        ),
        ({}, {}, ()),
        ({"hostNetwork": True}, {"podIP": "192.168.0.1"}, ()),
        ({}, {"podIP": "10.1.0.1", "phase": "Succeeded"}, ()),
    ],
)
def test_a_pod_keeps_the_addresses_that_are_its_own(spec: Any, status: Any, addresses: Any) -> None:
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web-0.a"},
        "spec": {"serviceAccountName": "web", "nodeName": "node-1", **spec},
        "status": status,
    }
    expected = PodObject(PodKey("default", "web-0.a"), "pod/web-0.a", addresses, "x:1", service_account="web")
    assert read_object(document, "x:1") == (expected, ())


@pytest.mark.parametrize(
    ("spec", "account", "wrong"),
    [
        ({}, "", []),
        ({"serviceAccount": "old"}, "old", []),
        ({"serviceAccountName": "new", "serviceAccount": "old"}, "new", []),
        ({"serviceAccountName": ""}, "", []),
        ({"serviceAccountName": 'we"b'}, "", ["spec.serviceAccountName"]),
        ({"serviceAccountName": 7}, "", ["spec.serviceAccountName"]),
    ],
)
def test_the_service_account_of_a_pod(spec: Any, account: str, wrong: list[str]) -> None:
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}
    found, problems = read_object(document, "x:1")
    assert isinstance(found, PodObject)
    assert (found.service_account, [problem.field for problem in problems]) == (account, wrong)


def owner(kind: Any, name: Any, controller: Any = True) -> dict[str, Any]:
    return {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "1", "controller": controller}


def read_workload(owners: Any, **labels: Any) -> tuple[str, list[str]]:
    """Return the workload of a Pod `web-x` with these owners and labels, and the fields that are wrong."""
    metadata = {"name": "web-x", "ownerReferences": owners, "labels": labels}
    found, problems = read_object({"apiVersion": "v1", "kind": "Pod", "metadata": metadata}, "x:1")
    assert isinstance(found, PodObject)
    return found.workload, [problem.field for problem in problems]


@pytest.mark.parametrize(
    ("kind", "name", "template_hash", "workload"),
    [
        ("ReplicaSet", "web-5d89bdfbf9", "5d89bdfbf9", "deployment/web"),
        ("ReplicaSet", "web-5d89bdfbf9", None, "replicaset/web-5d89bdfbf9"),
        ("ReplicaSet", "web-5d89bdfbf9", "5d89", "replicaset/web-5d89bdfbf9"),
        ("ReplicaSet", "5d89bdfbf9", "5d89bdfbf9", "replicaset/5d89bdfbf9"),
        ("ReplicaSet", "web-", "", None),
        ("ReplicaSet", "web-7", 7, "replicaset/web-7"),
        ("Job", "backup-29370240", None, "cronjob/backup"),
        ("Job", "backup-2-29370240", None, "cronjob/backup-2"),
        ("Job", "backup-20240131", None, "job/backup-20240131"),
        ("Job", "backup-1700000000", None, "job/backup-1700000000"),
        ("Job", "29370240", None, "job/29370240"),
        ("Job", "backup", None, "job/backup"),
        ("StatefulSet", "db", "5d89bdfbf9", "statefulset/db"),
        ("DaemonSet", "logs", None, "daemonset/logs"),
        ("Node", "node-1", None, "pod/web-x"),
    ],
)
def test_the_workload_is_what_a_person_made(
    kind: str, name: str, template_hash: Any, workload: str | None
) -> None:
    labels = {} if template_hash is None else {"pod-template-hash": template_hash}
    found, wrong = read_workload([owner(kind, name)], **labels)
    if workload is None:
        assert (found, wrong) == ("pod/web-x", ["metadata.ownerReferences[0].name"])
    else:
        assert (found, wrong) == (workload, [])


def test_the_owner_that_controls_is_the_one_that_counts() -> None:
    owners = [owner("ConfigMap", "one", controller=False), owner("StatefulSet", "db"), owner("Job", "two")]
    assert read_workload(owners) == ("statefulset/db", [])
    assert read_workload([owner("ConfigMap", "one", controller=None)]) == ("pod/web-x", [])
    assert read_workload([]) == read_workload(None) == ("pod/web-x", [])


@pytest.mark.parametrize(
    ("owners", "field"),
    [
        ("web", "metadata.ownerReferences"),
        ([7], "metadata.ownerReferences[0]"),
        ([owner("Replica/Set", "web")], "metadata.ownerReferences[0].kind"),
        ([owner("", "web")], "metadata.ownerReferences[0].kind"),
        ([owner("K" * 64, "web")], "metadata.ownerReferences[0].kind"),
        ([owner("Job", "a b")], "metadata.ownerReferences[0].name"),
        ([owner("Job", None)], "metadata.ownerReferences[0].name"),
        ([owner("Job", "a" * 254)], "metadata.ownerReferences[0].name"),
    ],
)
def test_an_owner_that_cannot_be_one_is_reported_and_the_pod_stands_for_itself(
    owners: Any, field: str
) -> None:
    assert read_workload(owners) == ("pod/web-x", [field])


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.just("10.1.0.1"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = {
    "Service": ("type", "clusterIP", "clusterIPs", "ports", "externalName"),
    "Pod": ("hostNetwork",),
    "EndpointSlice": (),
}


@given(
    kind=st.sampled_from(sorted(FIELDS)),
    metadata=anything
    | st.fixed_dictionaries(
        {
            "name": st.just("x"),
            "annotations": anything,
            "labels": anything,
            "ownerReferences": anything
            | st.lists(
                st.fixed_dictionaries({"controller": st.just(True), "kind": anything, "name": anything})
            ),
        }
    ),
    data=st.data(),
)
def test_nothing_raises(kind: str, metadata: Any, data: st.DataObject) -> None:
    version = "discovery.k8s.io/v1" if kind == "EndpointSlice" else "v1"
    spec = data.draw(anything | st.fixed_dictionaries(dict.fromkeys(FIELDS[kind], anything)))
    endpoint = st.fixed_dictionaries(
        {"addresses": anything | st.just(["10.1.0.1"]), "conditions": anything, "hints": anything}
    )
    document = {
        "apiVersion": version,
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
        "status": data.draw(anything),
        "addressType": data.draw(st.just("IPv4") | anything),
        "ports": data.draw(anything | st.lists(st.fixed_dictionaries({"port": anything, "name": anything}))),
        "endpoints": data.draw(anything | st.lists(endpoint, max_size=3)),
    }
    found, problems = read_object(document, "x:1")
    assert all(problem.field and problem.reason for problem in problems)
    if found is not None:
        hash(found.key)
