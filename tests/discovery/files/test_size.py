"""What one file may cost: bounded in memory and in the time that nobody else can compute."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

import pytest

from discovery.bounds import MOST_PROBLEMS
from discovery.files import documents
from discovery.files.content import EMPTY, Content, read_content
from discovery.files.documents import Chunk, Unparsable, parse_yaml, take_apart

MIB = 1024 * 1024
LAUGHS = b"a0: &a0 [lol, lol]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 10)) for i in range(1, 30)
)
PADDING = b"# padding\n" * (documents.LARGE // 10 + 1)
"""Makes a document one that is counted first."""

HUGE: dict[str, tuple[str, bytes, str]] = {
    "numbers": ("x.yaml", b"[" + b"[1,2]," * 600_000 + b"1]", "holds more than"),
    "maps": ("x.yaml", b"- {a: b}\n" * 400_000, "holds more than"),
    "a long list": ("x.yaml", b"- 1\n" * 1_000_000, "holds more than"),
    "more than a document may have": ("x.yaml", b"- [1, [2]]\n" * 500_000, "is larger than 4 MiB"),
    "deep": ("x.yaml", b"[" * 3_000_000, "is nested deeper than"),
    "deep blocks": ("x.yaml", b"- " * 1_000_000, "is nested deeper than"),
    "laughs": ("x.yaml", LAUGHS, "aliases stand for more than"),
    "laughs in a large file": ("x.yaml", PADDING + LAUGHS, "aliases stand for more than"),
    "an alias of nothing": ("x.yaml", PADDING + b"- a\n" * 9000 + b"- *x\n", "undefined alias"),
    "numbers in JSON": ("x.json", b"[" + b"[1,2]," * 600_000 + b"1]", "holds more than"),
    "JSON in an item": ("x.json", b'{"kind":"List","items":[[' + b"1," * 200_000 + b"1]]}", "cannot be read"),
    "a large JSON": ("x.json", b'{"a":"' + b"x" * 9 * MIB + b'"}', "is larger than 8 MiB"),
    "deep JSON": ("x.json", b'{"a":' + b"[" * 90_000, ""),
}
SERVICE = b"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n"


@pytest.mark.parametrize("name", HUGE)
def test_what_is_too_much_is_refused_cheaply_and_the_last_good_stays(name: str) -> None:
    path, text, reason = HUGE[name]
    before = read_content("x.yaml", SERVICE, EMPTY)
    tracemalloc.start()
    try:
        after = read_content(path, text, before)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    problem = after.all_problems()[0]
    assert reason in problem.reason
    assert problem.origin.startswith(f"{path}:")
    assert "what it held last stays in force" in problem.effect
    assert list(after.objects()) == list(before.objects())
    # The text is there several times, as it is handed on; nothing else is.
    assert peak < 3 * len(text) + 4 * MIB
    assert gc.isenabled()


def test_the_line_of_what_is_too_much_is_that_of_the_file() -> None:
    text = SERVICE + b"---\n" + b"- 1\n" * (documents.MAX_NODES + 10)
    (problem,) = read_content("x.yaml", text, EMPTY).all_problems()
    lines_before = SERVICE.count(b"\n") + 1
    # The list itself is a node, too.
    assert problem.origin == f"x.yaml:{lines_before + documents.MAX_NODES}"


def test_a_broken_neighbour_harms_no_other_document() -> None:
    text = b"---\n".join([SERVICE, b"[" + b"[1,2]," * 100_000 + b"1]\n", SERVICE.replace(b": a", b": b")])
    found = read_content("x.yaml", text, EMPTY)
    assert [one.key.name for one in found.objects()] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PADDING + SERVICE, ""),
        (PADDING + b"a: 1\na: 2\n", "given twice"),
        (PADDING + b"a: [\n", "did not find expected"),
        (PADDING + b"a: \x01\n", "control characters"),
        (PADDING + b"x: &a {b: 1}\ny: *a\n", ""),
    ],
)
def test_a_large_document_is_read_as_a_small_one(text: bytes, reason: str) -> None:
    small = text.removeprefix(PADDING)
    lines = PADDING.count(b"\n")
    if not reason:
        (large,), (same,) = parse_yaml(Chunk(1, text)), parse_yaml(Chunk(1 + lines, small))
        assert (large.value, large.line) == (same.value, same.line)
        return
    with pytest.raises(Unparsable, match=reason) as of_large:
        parse_yaml(Chunk(1, text))
    with pytest.raises(Unparsable, match=reason) as of_small:
        parse_yaml(Chunk(1 + lines, small))
    assert (of_large.value.line, of_large.value.reason) == (of_small.value.line, of_small.value.reason)


def test_what_a_document_was_made_from_is_taken_apart() -> None:
    (document,) = parse_yaml(Chunk(1, b"a: [1, {b: c}]\n"))
    node = document.node
    assert node is not None
    take_apart(document)
    assert node.value == ()
    assert document.value == {"a": [1, {"b": "c"}]}


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(enabled: bool) -> None:
    try:
        (gc.enable if enabled else gc.disable)()
        read_content("x.yaml", PADDING + SERVICE, EMPTY)
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


def test_many_broken_documents_each_keep_their_own() -> None:
    """With one look at all of them for each this took minutes."""
    count = 2000

    def text(end: str) -> bytes:
        one = "apiVersion: v1\nkind: Service\nmetadata: {name: s%d}\n" + end
        return "---\n".join(one % number for number in range(count)).encode()

    before = read_content("x.yaml", text(""), EMPTY)
    after = read_content("x.yaml", text("oops: [\n"), before)
    assert [one.key.name for one in after.objects()] == [one.key.name for one in before.objects()]
    assert len(after.all_problems()) == count


def lists(count: int) -> bytes:
    item = b'{"metadata":{"name":"s%d","namespace":"shop"},"spec":{"ports":[{"port":80}]}}'
    items = b",".join(item % number for number in range(count))
    return b'{"kind":"ServiceList","apiVersion":"v1","items":[' + items + b"]}"


def test_a_json_list_of_many_objects_is_read_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_JSON_VALUES", 30)
    found = read_content("x.json", lists(500), EMPTY)
    assert len(list(found.objects())) == 500
    assert found.all_problems() == ()


@pytest.mark.parametrize("items", ["null", "7", '"x"', "{}"])
def test_items_that_are_no_list(items: str) -> None:
    text = f'{{"kind":"List","apiVersion":"v1","items":{items}}}'.encode()
    assert read_content("x.json", text, EMPTY).all_problems() == ()


DIRECTIVES: dict[str, Callable[[], bytes]] = {
    "comments": lambda: b"# 100 %\n" * 100_000 + SERVICE,
    "blank lines": lambda: b"\n" * 100_000 + b"%YAML 1.1\n---\n" + SERVICE,
    "a percent sign far below": lambda: SERVICE + b"# x\n" * 100_000 + b"# 100 %\n",
}


@pytest.mark.parametrize("name", DIRECTIVES)
def test_percent_signs(name: str) -> None:
    found: Content = read_content("x.yaml", DIRECTIVES[name](), EMPTY)
    assert [one.key.name for one in found.objects()] == ["a"]


def test_a_file_of_many_bad_objects_says_a_little_of_each() -> None:
    ports = b", ".join([b"{port: x}"] * 300)
    one = b"apiVersion: v1\nkind: Service\nmetadata: {name: s%d}\nspec: {ports: [" + ports + b"]}\n"
    found = read_content("x.yaml", b"---\n".join(one % number for number in range(9)), EMPTY)
    assert len(found.all_problems()) == 9 * (MOST_PROBLEMS + 1)
