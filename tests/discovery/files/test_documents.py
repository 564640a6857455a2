"""YAML is read as Kubernetes reads it, document by document, with lines, and nothing makes it explode."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import discovery.files.content
import discovery.files.documents
from discovery.files.content import EMPTY, Content, read_content
from discovery.files.documents import Chunk, Unparsable, parse_json, parse_yaml, split


def parse(text: str) -> list[Any]:
    chunks = split(text.encode())
    return [document.value for chunk in chunks for document in parse_yaml(chunk)]


def read(text: bytes, previous: Content = EMPTY, path: str = "shop.yaml") -> Content:
    return read_content(path, text, previous)


def service(name: str, port: int | str = 80) -> str:
    return f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  ports: [{{port: {port}}}]\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1", {"a": 1}),
        ("a: '1'", {"a": "1"}),
        ("a: !!str 1", {"a": "1"}),
        ("a: !!int '7'", {"a": 7}),
        ("a: !!int x", {"a": "x"}),
        ("[!!int, !!bool maybe]", ["", "maybe"]),
        ("a: !ours x", {"a": "x"}),
        ("a: true", {"a": True}),
        ("a: off", {"a": False}),
        ("a:", {"a": None}),
        ("a: ~", {"a": None}),
        ("a: 10.1.0.1", {"a": "10.1.0.1"}),
        ("a: 1.5", {"a": 1.5}),
        ("a: -1e3", {"a": -1000.0}),
        ("a: 0x1F", {"a": 31}),
        ("a: 0644", {"a": 420}),
        ("a: 08", {"a": 8.0}),
        ("a: 1:30", {"a": "1:30"}),
        ("a: 2024-99-99", {"a": "2024-99-99"}),
        ("a: " + "9" * 5000, {"a": "9" * 5000}),
        ("on: x", {"on": "x"}),
        ("1: x", {"1": "x"}),
        ("[1, [2, {a: b}]]", [1, [2, {"a": "b"}]]),
        ("a: |\n  x\n  y\n", {"a": "x\ny\n"}),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}", {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}),
        ("[&x {b: 1}, &y {b: 2, d: 3}, {<<: [*x, *y]}]", [{"b": 1}, {"b": 2, "d": 3}, {"b": 1, "d": 3}]),
        ("a: &k b\n*k : 1", {"a": "b", "b": 1}),
    ],
)
def test_values(text: str, value: Any) -> None:
    assert parse(text) == [value]


def test_without_libyaml_the_same_is_read() -> None:
    code = (
        "import yaml\n"
        "del yaml.CSafeLoader\n"
        "from discovery.files.documents import Chunk, Loader, Unparsable, parse_yaml\n"
        "assert Loader is yaml.SafeLoader\n"
        "(document,) = parse_yaml(Chunk(3, b'# x\\n1: {on: 08, d: 2024-01-01}'))\n"
        "print(document.line, document.value)\n"
        "for text in (b'a: 1\\na: 2', b'[' * 200_000, b'a: \\xff'):\n"
        "    try:\n"
        "        parse_yaml(Chunk(1, text))\n"
        "    except Unparsable as error:\n"
        "        print(error.line)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["4 {'1': {'on': 8.0, 'd': '2024-01-01'}}", "2", "1", "1"]


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        ("a: 1\na: 2", 2, 1, "given twice"),
        ("a: 1\n b: 2", 2, 3, "mapping values are not allowed"),
        ("a: [1", 2, 1, "did not find expected"),
        ("a: *x", 1, 4, "undefined alias"),
        ("a: &x [*x]", 1, 4, "holds itself"),
        ("? [a]\n: 1", 1, 3, "key"),
        ("a: {<<: 5}", 1, 9, "'<<' wants"),
        ("[" * 200, 1, 100, "nested deeper"),
        ("[" * 200_000, 1, 101, "nested deeper"),
        ("a: \x01", 1, 4, "control characters"),
        ("a: @x", 1, 4, "cannot start any token"),
        ("x: 1\n...\ny: 2", 3, 1, "expected <document start>"),
    ],
)
def test_what_cannot_be_read_says_where(text: str, line: int, column: int, reason: str) -> None:
    with pytest.raises(Unparsable) as caught:
        parse(text)
    assert reason in caught.value.reason
    assert (caught.value.line, caught.value.column) == (line, column)


def test_many_laughs() -> None:
    lines = ["a0: &a0 [lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    with pytest.raises(Unparsable, match="aliases stand for more than"):
        parse("\n".join(lines))


def test_more_values_or_documents_than_anybody_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery.files.documents, "MAX_NODES", 5_000)
    monkeypatch.setattr(discovery.files.content, "MAX_DOCUMENTS", 3)
    before = read(service("a").encode())
    for text, reason in [
        (
            b"[" + b"a," * 10_000 + b"]",
            "holds more than 5000 keys and values; objects may be in documents of their own",
        ),
        (b"---\n" * 5, "holds more than 3 documents"),
    ]:
        after = read(text, before)
        assert [problem.reason for problem in after.all_problems()] == [reason]
        assert list(after.objects()) == list(before.objects())


def test_bytes_that_are_not_utf8_say_where() -> None:
    with pytest.raises(Unparsable) as caught:
        parse_yaml(Chunk(1, b"a: 1\nb: \xff\n"))
    assert (caught.value.line, caught.value.column) == (2, 4)


def test_documents_are_split_with_their_lines() -> None:
    text = b"# first\na: 1\n--- # second\nb: |\n  --- no marker\n\n---\nc: 1\n---word: no marker\n---"
    assert [(chunk.line, chunk.text[:5]) for chunk in split(text)] == [
        (1, b"# fir"),
        (3, b"--- #"),
        (7, b"---\nc"),
        (10, b"---"),
    ]


def test_directives_belong_to_the_document_that_follows() -> None:
    text = "# x\n%YAML 1.1\n---\na: 1\n---\nb: 2\n"
    assert parse(text) == [{"a": 1}, {"b": 2}]
    assert [chunk.line for chunk in split(text.encode())] == [1, 5]


def test_the_line_is_that_of_the_content() -> None:
    chunks = split(b"\n# a comment\na: 1\n---\n\n# more\nb: 2\n...\n")
    documents = [document for chunk in chunks for document in parse_yaml(chunk)]
    assert [(document.value, document.line) for document in documents] == [
        ({"a": 1}, 3),
        ({"b": 2}, 7),
    ]


@given(st.binary(max_size=200))
def test_splitting_loses_nothing(text: bytes) -> None:
    chunks = split(text)
    assert b"".join(chunk.text for chunk in chunks) == text
    line = 1
    for chunk in chunks:
        assert chunk.line == line
        line += chunk.text.count(b"\n")


def test_json_errors_say_where() -> None:
    with pytest.raises(Unparsable) as caught:
        parse_json(b'{"a": 1,\n "b": x}')
    assert caught.value.line == 2
    with pytest.raises(Unparsable, match="nested"):
        parse_json(b"[" * 100_000)


# -- files ---------------------------------------------------------------------------------------------


def test_objects_carry_file_and_line() -> None:
    content = read(f"{service('a')}---\n{service('b')}".encode())
    assert [(o.key.name, o.origin) for o in content.objects()] == [("a", "shop.yaml:1"), ("b", "shop.yaml:7")]


@pytest.mark.parametrize("kind", ["List", "ServiceList"])
def test_the_items_of_a_list_count_one_by_one(kind: str) -> None:
    given_kind = "    apiVersion: v1\n    kind: Service\n" if kind == "List" else ""
    item = "  - metadata: {name: %s}\n" + given_kind
    text = f"apiVersion: v1\nkind: {kind}\nitems:\n{item % 'a'}{item % 'b'}  - 5\n"
    content = read(text.encode())
    assert [o.key.name for o in content.objects()] == ["a", "b"]
    assert next(o.origin for o in content.objects()) == "shop.yaml:4"
    assert [p.reason for p in content.all_problems()] == ["is a number, not a Kubernetes object"]


def test_json_files() -> None:
    text = b'{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}}'
    content = read(text, path="a.json")
    assert [o.origin for o in content.objects()] == ["a.json:1"]
    broken = read(b"{", content, "a.json")
    assert list(broken.objects()) == list(content.objects())
    assert broken.all_problems()[0].reason
    assert read(text, broken, "a.json") == content


def test_unchanged_documents_are_not_read_again_but_move() -> None:
    before = read(f"{service('a')}---\n{service('b', 0)}".encode())
    after = read(f"# a line more\n{service('a', 81)}---\n{service('b', 0)}".encode(), before)
    assert [o.origin for o in after.objects()] == ["shop.yaml:2", "shop.yaml:8"]
    assert [p.origin for p in before.all_problems()] == ["shop.yaml:11"]
    assert [p.origin for p in after.all_problems()] == ["shop.yaml:12"]
    again = read(f"{service('a', 82)}---\n{service('b', 0)}".encode(), before)
    assert again.parts[1] is before.parts[1]


def test_a_broken_document_keeps_what_it_held_and_harms_no_other() -> None:
    a, b, c = service("a"), service("b"), service("c")
    before = read(f"{a}---\n{b}---\n{c}".encode())
    broken = read(f"{service('a', 81)}---\n{b}  oops: [\n---\n{c}".encode(), before)
    assert [o.key.name for o in broken.objects()] == ["a", "b", "c"]
    (problem,) = broken.all_problems()
    assert problem.origin == "shop.yaml:13"
    assert problem.field == "line 13, column 1"
    assert problem.effect == "what it held last stays in force: Service default/b"
    still = read(f"{a}---\n{b}  oops: {{\n---\n{c}".encode(), broken)
    assert [o.key.name for o in still.objects()] == ["a", "b", "c"]
    mended = read(f"{a}---\n{service('b', 82)}---\n{c}".encode(), still)
    assert mended.all_problems() == ()
    assert [o.key.name for o in mended.objects()] == ["a", "b", "c"]


def test_the_broken_document_is_found_by_its_name() -> None:
    a, b, c = service("a"), service("b"), service("c")
    before = read(f"{a}---\n{b}---\n{c}".encode())
    broken = read(f"{b}oops: [\n---\n{c}".encode(), before)  # `a` is gone, and `b` is broken
    assert [o.key.name for o in broken.objects()] == ["b", "c"]


def names_and_ports(content: Content) -> dict[str, list[int]]:
    return {o.key.name: [port.port for port in getattr(o, "ports")] for o in content.objects()}  # noqa: B009


def test_a_file_that_is_cut_anywhere_keeps_what_it_held() -> None:
    text = "---\n".join(service(name) for name in ("first", "second", "third")).encode()
    before = read(text)
    for written in (text, text.replace(b"port: 80", b"port: 81"), text.replace(b"second", b"fourth")):
        after = names_and_ports(read(written))
        for length in range(len(written)):
            start, rest = written[:length], written[length:]
            cut = read(start, before)
            if start.endswith(b"\n") and (
                rest.startswith(b"---")
                or start.endswith(b"---\n")
                or b"---" not in rest
                or not text.startswith(start)
            ):
                continue  # whole documents, or whole lines of one: an edit, as far as anybody can tell
            held = names_and_ports(cut)
            for name, ports in names_and_ports(before).items():
                assert held.get(name) in (ports, after.get(name)), start
            assert held.keys() <= names_and_ports(before).keys() | after.keys()
            assert names_and_ports(read(written, cut)) == after
            assert read(written, cut).all_problems() == ()


def test_a_cut_file_says_so_until_it_is_written_anew() -> None:
    text = "---\n".join(service(name) for name in "abc").encode()
    before = read(text)
    for length in (len(service("a")) + 10, len(text) - 5):
        cut = read(text[:length], before)
        again = read(text[: length + 2], cut)
        assert {o.key.name for o in again.objects()} == set("abc")
        (problem,) = again.all_problems()
        assert "what it held last stays in force: Service default/" in problem.effect
    (problem,) = read(text[:-1], before).all_problems()
    assert problem.reason == "the file ends without a line feed, unlike before: it may be cut off"
    assert problem.origin == "shop.yaml:17"


def test_documents_that_are_taken_away_are_gone() -> None:
    a, b, c = (service(name) for name in "abc")
    before = read(f"{a}---\n{b}---\n{c}".encode())
    for text in (a, f"{a}---\n", f"{a}---\n# later\n", f"{a}---\n{service('b', 81)}", "# nothing\n", f"{c}"):
        after = read(text.encode(), before)
        assert after.all_problems() == ()
        assert names_and_ports(after) == names_and_ports(read(text.encode()))
    without = read(a.strip().encode())
    assert names_and_ports(read(service("b").strip().encode(), without)) == {"b": [80]}


def test_an_empty_file_keeps_what_it_held() -> None:
    before = read(service("a").encode())
    after = read(b"", before)
    assert list(after.objects()) == list(before.objects())
    assert [problem.reason for problem in after.all_problems()] == ["is empty"]


def test_a_document_broken_from_the_start_is_left_out() -> None:
    content = read(f"{service('a')}---\noops: [\n".encode())
    assert [o.key.name for o in content.objects()] == ["a"]
    assert content.all_problems()[0].effect == "the document is left out"


def test_binary_garbage_leaves_the_last_content_in_force() -> None:
    before = read(service("a").encode())
    after = read(b"\x7fELF\0\0", before)
    assert list(after.objects()) == list(before.objects())
    assert "zero bytes" in after.all_problems()[0].reason


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n---\n", "\ufeff"])
def test_nothing_is_no_problem(text: str) -> None:
    content = read(text.encode())
    assert (list(content.objects()), content.all_problems()) == ([], ())


def test_what_is_no_object_is_said() -> None:
    content = read(b"hello\n---\nreplicas: 3\n")
    assert [(p.severity, p.origin) for p in content.all_problems()] == [
        ("error", "shop.yaml:1"),
        ("info", "shop.yaml:3"),
    ]


WORDS = """--- ... \n - a: kind:Service apiVersion:v1 metadata:{name:a} spec: {} [] null
&x *x <<: [ ] { } , " ' | > !!int !x %YAML # \0 é"""
yaml_words = st.sampled_from([" ", "  ", "\n", *(word.replace(":", ": ") for word in WORDS.split())])
mixtures = st.lists(yaml_words, max_size=25).map(lambda words: "".join(words).encode())
texts = st.binary(max_size=60) | mixtures


@given(st.lists(texts, min_size=1, max_size=4), st.sampled_from(["x.yaml", "x.json"]))
def test_no_bytes_raise(versions: list[bytes], path: str) -> None:
    content = EMPTY
    for text in versions:
        content = read(text, content, path)
        assert all(problem.reason and problem.origin.startswith(path) for problem in content.all_problems())
