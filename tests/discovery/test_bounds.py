"""One object gives a bounded number of problems, each of a bounded length."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from discovery import bounds
from discovery.bounds import LONGEST, MOST_PROBLEMS, bounded, shorten
from discovery.files.content import EMPTY, read_content
from discovery.files.declared import Declarations
from discovery.join import MAX_ENDPOINTS, join_service
from discovery.manifest import read_object
from discovery.manifest.annotations import MAX_ANNOTATION_CHARACTERS, MAX_ANNOTATIONS
from discovery.manifest.endpointslice import MAX_SLICE_ENDPOINTS
from discovery.manifest.service import MAX_PORTS
from discovery.model import (
    Problem,
    ServiceKey,
    ServiceObject,
    ServicePort,
    SliceEndpoint,
    SliceKey,
    SliceObject,
    SlicePort,
)
from discovery.registry import MOST_OF_NAMESPACE, Registry
from discovery.source import Malformed, Synced, Upserted

WEB = ServiceKey("shop", "web")


def problem(number: int, severity: Any = "error", **fields: str) -> Problem:
    made = {"field": f"f{number:05}", "value": "v", "reason": "is wrong", **fields}
    return Problem("shop", "web", severity=severity, **made)


def of_slice(namespace: str, name: str) -> Problem:
    return Problem(namespace, name, "ports", "", "x", kind="EndpointSlice")


def test_a_few_problems_are_what_they_are() -> None:
    few = [problem(number) for number in range(MOST_PROBLEMS)]
    assert bounded(few) == tuple(few)
    assert bounded([]) == ()


def test_many_problems_are_the_first_and_how_many_more() -> None:
    many = [problem(number) for number in range(MOST_PROBLEMS + 2345)]
    *listed, last = bounded(many)
    assert listed == many[:MOST_PROBLEMS]
    assert (last.namespace, last.name, last.reason) == ("shop", "web", "there are 2,345 more")
    assert last.severity == "error"
    assert bounded(bounded(many)) == bounded(many)


def test_what_is_counted_twice_is_counted_right() -> None:
    before = bounded([problem(number) for number in range(1000)])
    assert bounded([problem(2000), *before])[-1].reason == f"there are {1001 - MOST_PROBLEMS:,} more"


def test_one_more_is_told_as_it_is() -> None:
    assert bounded([problem(number) for number in range(MOST_PROBLEMS + 1)])[-1].reason == "is wrong"


def test_what_is_wrong_goes_before_what_is_good_to_know() -> None:
    notes = [problem(number, "info") for number in range(100)]
    first, *_, last = bounded([*notes, problem(100)])
    assert first == problem(100)
    assert last.severity == "info"


@pytest.mark.parametrize("field", ["name", "field", "value", "reason", "expected", "effect", "origin"])
def test_texts_are_cut(field: str) -> None:
    long = msgspec.structs.replace(problem(1), **{field: "x" * 100_000})
    (cut,) = bounded([long])
    assert len(getattr(cut, field)) <= 2 * LONGEST
    assert "…" in getattr(cut, field)


def test_what_is_short_is_not_touched() -> None:
    assert shorten("x" * LONGEST) == "x" * LONGEST
    assert len(shorten("x" * (LONGEST + 1))) == LONGEST
    one = problem(1)
    assert bounded([one])[0] is one


# -- objects -------------------------------------------------------------------------------------------


def service(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop", "annotations": spec.pop("annotations", {})},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}], **spec},
    }


def slice_of(endpoints: list[Any], ports: list[Any]) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": ports,
    }


LOUD: dict[str, dict[str, Any]] = {
    "annotations that are no text": service(annotations={f"svc.mesh/{n}": n for n in range(500)}),
    "ports": service(ports=[{"port": "x" * 1000} for _ in range(1000)]),
    "addresses": service(clusterIPs=["x" * 1000 for _ in range(1000)]),
    "a long name": {**service(), "metadata": {"name": "x" * 100_000}},
    "a long namespace": {**service(), "metadata": {"name": "x" * 100_000, "namespace": "y" * 100_000}},
    "endpoints": slice_of([{"addresses": ["x" * 1000]} for _ in range(10_000)], []),
    "conditions": slice_of([{"addresses": ["10.1.0.1"], "conditions": {"ready": 1}}] * 500, []),
    "slice ports": slice_of([], [{"port": n, "name": "same"} for n in range(1, 10_000)]),
    "a long type": service(type="x" * 100_000),
    "long texts": service(
        ports=[{"name": f"p{n}", "port": n, "appProtocol": "x" * 10_000} for n in range(1, 99)]
    ),
}


@pytest.mark.parametrize("name", LOUD)
def test_no_object_has_many_problems(name: str) -> None:
    _, problems = read_object(LOUD[name], "", "traefik-mesh")
    assert 0 < len(problems) <= MOST_PROBLEMS + 1
    assert len(msgspec.json.encode(problems)) < 100 * LONGEST


def many(count: int, size: int = 1) -> dict[str, str]:
    return {f"svc.mesh/a{number}": "x" * size for number in range(count)}


@pytest.mark.parametrize(
    "annotations", [many(MAX_ANNOTATIONS), many(8, MAX_ANNOTATION_CHARACTERS // 8)], ids=["number", "size"]
)
@pytest.mark.parametrize("prefix", ["svc.mesh/", "mesh.traefik.io/"])
def test_more_annotations_than_are_read(annotations: dict[str, str], prefix: str) -> None:
    given = {name.replace("svc.mesh/", prefix): value for name, value in annotations.items()}
    found, problems = read_object(
        service(annotations={"svc.mesh/enabled": "true", **given}), "", "traefik-mesh"
    )
    assert isinstance(found, ServiceObject)
    assert found.overlong
    assert found.annotations == {"svc.mesh/enabled": "true"}
    (said,) = problems
    assert said.field == "metadata.annotations"
    assert "stay so" in said.effect


def test_as_many_annotations_as_are_read() -> None:
    given = {"svc.mesh/enabled": "true", **many(MAX_ANNOTATIONS - 1)}
    found, problems = read_object(service(annotations=given), "")
    assert isinstance(found, ServiceObject)
    assert (found.annotations, found.overlong, problems) == (given, False, ())


def test_annotations_of_others_are_not_counted() -> None:
    others = {f"example.com/a{number}": "x" * 1000 for number in range(10_000)}
    found, problems = read_object(service(annotations={"svc.mesh/enabled": "true", **others}), "")
    assert isinstance(found, ServiceObject)
    assert (found.annotations, found.overlong, problems) == ({"svc.mesh/enabled": "true"}, False, ())


@pytest.mark.parametrize("own", [{}, {"svc.mesh/enabled": "false"}])
def test_many_annotations_of_another_mesh_are_still_a_wish_for_the_mesh(own: dict[str, str]) -> None:
    foreign = {f"mesh.traefik.io/a{number}": "x" for number in range(MAX_ANNOTATIONS + 1)}
    document = service(annotations={**own, **foreign})
    with_compat, _ = read_object(document, "", "traefik-mesh")
    without, _ = read_object(document, "")
    assert isinstance(with_compat, ServiceObject)
    assert isinstance(without, ServiceObject)
    assert with_compat.annotations == (own or {"svc.mesh/enabled": "true"})
    assert (without.annotations, without.overlong) == (own, False)


def test_ports_and_endpoints_beyond_the_bound_are_left_out_and_said() -> None:
    found, problems = read_object(
        service(ports=[{"name": f"p{n}", "port": n} for n in range(1, MAX_PORTS + 9)]), ""
    )
    assert isinstance(found, ServiceObject)
    assert len(found.ports) == MAX_PORTS
    assert [said.field for said in problems] == ["spec.ports"]
    slice_, problems = read_object(
        slice_of([{"addresses": ["10.1.0.1"]}] * (MAX_SLICE_ENDPOINTS + 1), [{"port": 80}]), ""
    )
    assert isinstance(slice_, SliceObject)
    assert len(slice_.endpoints) == MAX_SLICE_ENDPOINTS
    assert [said.field for said in problems] == ["endpoints"]


def addresses(count: int, first: int = 0) -> tuple[SliceEndpoint, ...]:
    return tuple(SliceEndpoint(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}") for n in range(first, first + count))


def test_endpoints_of_one_service_are_bounded() -> None:
    ports = tuple(ServicePort(f"p{n}", 8000 + n) for n in range(4))
    targets = tuple(SlicePort(port.name, port.port) for port in ports)
    slices = [
        SliceObject(
            SliceKey("shop", f"web-{n}"), ServiceKey("shop", "web"), "IPv4", targets, addresses(500, n * 500)
        )
        for n in range(MAX_ENDPOINTS // 1000)
    ]
    joined = join_service(ServiceObject(WEB, {}, ports=ports), slices)
    assert {len(endpoints) for endpoints in joined.endpoints.values()} == {MAX_ENDPOINTS // 4}
    assert [said.field for said in joined.problems] == ["EndpointSlice endpoints"]


def test_an_object_that_is_declared_a_thousand_times_is_one_object_s_problem() -> None:
    text = b"---\n".join([b"apiVersion: v1\nkind: Service\nmetadata: {name: a}\n"] * 1000)
    declarations = Declarations()
    declarations.put("shop.yaml", read_content("shop.yaml", text, EMPTY))
    (problems,) = [event.problems for event in declarations.take_events() if isinstance(event, Malformed)]
    assert len(problems) == MOST_PROBLEMS + 1


def test_ports_that_no_slice_has_are_one_object_s_problems() -> None:
    ports = tuple(ServicePort(f"p{n}", 8000 + n) for n in range(MAX_PORTS))
    targets = tuple(SlicePort(f"q{n}", 8000 + n) for n in range(MAX_PORTS))
    slice_ = SliceObject(SliceKey("shop", "web-1"), WEB, "IPv4", targets, addresses(1))
    joined = join_service(ServiceObject(WEB, {}, ports=ports), [slice_])
    assert len(joined.problems) == MOST_PROBLEMS + 1


def test_a_namespace_has_a_bounded_number_of_problems_of_no_service() -> None:
    registry = Registry()
    noisy = [
        Malformed(f"EndpointSlice noisy/{n}", (of_slice("noisy", f"s{n}"),))
        for n in range(10 * MOST_OF_NAMESPACE)
    ]
    quiet = of_slice("quiet", "s")
    registry.fold([*noisy, Malformed("EndpointSlice quiet/s", (quiet,)), Synced()])
    problems = registry.snapshot().problems
    assert len(problems) == MOST_OF_NAMESPACE + 2
    assert quiet in problems
    assert f"there are {9 * MOST_OF_NAMESPACE:,} more" in {said.reason for said in problems}


def test_slices_of_nobody_are_bounded_too() -> None:
    registry = Registry()
    key = ServiceKey("noisy", "nobody")
    slices = [SliceObject(SliceKey("noisy", f"s{n}"), key) for n in range(10 * MOST_OF_NAMESPACE)]
    registry.fold([*map(Upserted, slices), Synced()])
    assert len(registry.snapshot().problems) == MOST_OF_NAMESPACE + 1


def test_a_snapshot_after_a_change_of_somebody_else_has_the_same_problems() -> None:
    registry = Registry()
    registry.fold([Malformed("x", (of_slice("noisy", "s"),)), Synced()])
    before = registry.snapshot()
    registry.fold([Upserted(ServiceObject(ServiceKey("shop", "web"), {"svc.mesh/enabled": "true"}))])
    after = registry.snapshot()
    assert after.version > before.version
    assert after.problems is before.problems


def test_the_bounds_say_what_they_are() -> None:
    assert (bounds.MOST_PROBLEMS, bounds.LONGEST) == (16, 256)
