"""Where a field stands: the same while an object is read and afterwards; the nearest above if unknown."""

from __future__ import annotations

import pytest

from discovery.files.content import Content, read_content
from discovery.files.documents import Chunk, parse_yaml
from discovery.files.layout import MOST_LINES, YamlLayout
from discovery.manifest.written import WrittenService
from discovery.model import SliceObject
from discovery.position import place_of, shifted, split_place

SERVICE = """\
# a comment
apiVersion: v1
kind: Service
metadata:
  name: shop
  annotations:
    svc.mesh/enabled: "true"
    example.com/other: x
    mesh.traefik.io/retry-attempts: "2"
spec:
  ports:
    - name: http
      port: 80
    - {name: admin, port: 81}
"""


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("", 2),
        ("endpoints", 2),
        ("EndpointSlice addressType", 2),
        ("kind", 2),
        ("metadata.name", 5),
        ("metadata.uid", 4),
        ("svc.mesh/enabled", 7),
        ("svc.mesh/none", 6),
        ("mesh.traefik.io/retry-attempts", 9),
        ("spec", 10),
        ("spec.nothing.here", 10),
        ("spec.ports", 11),
        ("spec.ports[0]", 12),
        ("spec.ports[0].name", 12),
        ("spec.ports[0].port", 13),
        ("spec.ports[1].port", 14),
        ("spec.ports[7].port", 11),
    ],
)
def test_read_or_asked_for_later(field: str, line: int) -> None:
    content = read_content("shop.yaml", SERVICE.encode(), Content())
    (found,) = content.objects()
    assert isinstance(found, WrittenService)
    assert found.place(field) == f"shop.yaml:{line}"
    (document,) = parse_yaml(Chunk(1, SERVICE.encode()))
    assert document.node is not None
    if field != "kind":  # is never wrong afterwards
        assert YamlLayout(document.node).offset(field) == line - 2


def test_of_a_slice_the_label_is_known() -> None:
    text = (
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: a\n  labels:\n"
        "    app: x\n    kubernetes.io/service-name: shop\naddressType: IPv4\n"
    )
    (found,) = read_content("a.yaml", text.encode(), Content()).objects()
    assert isinstance(found, SliceObject)
    label = "metadata.labels[kubernetes.io/service-name]"
    assert place_of(found.origin, found.lines, label) == "a.yaml:7"


def test_an_object_that_moves_keeps_its_lines() -> None:
    before = read_content("shop.yaml", SERVICE.encode(), Content())
    after = read_content("shop.yaml", f"# more\n# lines\n---\n{SERVICE[12:]}".encode(), before)
    (found,) = after.objects()
    assert isinstance(found, WrittenService)
    assert found.place("spec.ports[0].port") == "shop.yaml:15"


def test_of_a_huge_object_so_many_lines_are_kept() -> None:
    annotations = "".join(f"    svc.mesh/{n}: x\n" for n in range(MOST_LINES + 10))
    (found,) = read_content(
        "a.yaml", SERVICE.replace("    example.com/other: x\n", annotations).encode(), Content()
    ).objects()
    assert len(found.lines) == MOST_LINES
    assert isinstance(found, WrittenService)
    assert found.place(f"svc.mesh/{MOST_LINES + 9}") == "a.yaml:6"


def test_of_a_list_as_json_each_object_has_its_line() -> None:
    text = b"""{
  "apiVersion": "v1", "kind": "List",
  "items": [
    {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {}},
    {
      "apiVersion": "v1", "kind": "Service", "metadata": {"name": "b"}, "spec": {"ports": 5}}
  ]
}
"""
    content = read_content("a.json", text, Content())
    assert [found.origin for found in content.objects()] == ["a.json:4", "a.json:5"]
    assert [problem.origin for problem in content.all_problems()] == ["a.json:5"]


def test_places_as_text() -> None:
    assert split_place("a:b.yaml:7") == ("a:b.yaml", 7)
    assert split_place("") == ("", 0)
    assert split_place("a.yaml") == ("a.yaml", 0)
    assert split_place("a:b") == ("a:b", 0)
    assert shifted("a.yaml:7", 3) == "a.yaml:10"
    assert shifted("", 3) == ""
