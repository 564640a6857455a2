"""Whatever the bytes: a snapshot is refused, or it is one that the agent can serve."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.agent import stored as module
from nodeagent.agent.stored import SnapshotRefused, Stored, decode_snapshot, remembered_plan
from nodeagent.plan.compile import compile_plan
from nodeagent.plan.render import plan_document
from tests.plan.builders import SETTINGS
from tests.state.test_stored import encoded, seal

CONTENT = encoded(2)
BODY = CONTENT[module._PREFIX.size :]


def frames(body: bytes = BODY) -> list[bytes]:
    return list(module._split(body))


def join(parts: list[bytes]) -> bytes:
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def with_frame(index: int, change: Callable[[Any], Any]) -> bytes:
    """Return a snapshot, checksum and all, with the value of a frame changed."""
    parts = frames()
    parts[index] = msgspec.msgpack.encode(change(msgspec.msgpack.decode(parts[index])))
    return seal(join(parts), CONTENT)


def serve(stored: Stored) -> None:
    """Do with a snapshot what an agent does."""
    plan = compile_plan(stored.snapshot, remembered_plan(stored), SETTINGS)
    msgspec.json.encode(plan_document(plan))
    round(max(0.0, 1e9 - stored.head.written))
    assert 0 < stored.snapshot.version < 2**53
    for listener in plan.listeners():
        msgspec.msgpack.encode(listener)
        assert 1 <= listener.port <= 65535


def refuse_or_serve(content: bytes) -> None:
    try:
        stored = decode_snapshot(content, "kube")
    except SnapshotRefused:
        return
    serve(stored)


def refused(content: bytes) -> str:
    with pytest.raises(SnapshotRefused) as raised:
        decode_snapshot(content, "kube")
    return str(raised.value)


@given(st.data())
def test_changed_bytes_with_a_right_checksum(data: st.DataObject) -> None:
    body = bytearray(BODY)
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    refuse_or_serve(seal(bytes(body), CONTENT))


@given(st.integers(0, len(frames()) - 1), st.data())
def test_changed_bytes_within_a_frame(index: int, data: st.DataObject) -> None:
    parts = frames()
    at = data.draw(st.integers(0, len(parts[index])))
    until = data.draw(st.integers(at, min(len(parts[index]), at + 8)))
    parts[index] = parts[index][:at] + data.draw(st.binary(max_size=12)) + parts[index][until:]
    refuse_or_serve(seal(join(parts), CONTENT))


@given(st.binary(max_size=300))
def test_any_bytes(content: bytes) -> None:
    refuse_or_serve(content)
    refuse_or_serve(seal(content, CONTENT))
    refuse_or_serve(seal(join([content]), CONTENT))
    refuse_or_serve(seal(join([*frames()[:2], content]), CONTENT))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)


@given(st.integers(0, len(frames()) - 1), json_values)
def test_values_of_another_type(index: int, value: Any) -> None:
    refuse_or_serve(with_frame(index, lambda _: value))


@given(json_values, st.integers(0, 10**6))
def test_one_value_of_another_type_somewhere_in_a_frame(value: Any, place: int) -> None:
    for index in range(len(frames())):
        refuse_or_serve(with_frame(index, lambda old: replace_leaf(old, value, place)))


def replace_leaf(tree: Any, value: Any, place: int) -> Any:
    """Return a tree of lists and mappings with one of its parts replaced, which `place` tells."""
    parts = list(tree.items() if isinstance(tree, dict) else enumerate(tree))
    if not parts:
        return value
    key, inner = parts[place % len(parts)]
    deeper = isinstance(inner, list | dict) and place // len(parts) % 3
    new = replace_leaf(inner, value, place // len(parts)) if deeper else value
    if isinstance(tree, dict):
        return {**tree, key: new}
    return [*tree[:key], new, *tree[key + 1 :]]


def of_service(field: str, value: Any) -> Callable[[Any], Any]:
    """Return what changes one field of the first Service, as `ServiceObject` names it."""

    def change(stored: Any) -> Any:
        stored[0][0]["object"][field] = value
        return stored

    return change


def of_endpoint(field: str, value: Any) -> Callable[[Any], Any]:
    def change(stored: Any) -> Any:
        stored[0][0]["endpoints"]["http"][0][field] = value
        return stored

    return change


def test_text_that_is_no_utf8() -> None:
    assert "its content is not" in refused(seal(BODY.replace(b"shop", b"sh\xffp"), CONTENT))


@pytest.mark.parametrize(
    "frame",
    [
        b"\x91" * 100_000,
        b"\x81\xa1a" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x81\x90\x01",
        b"\xc1",
        b"",
    ],
    ids=["deep lists", "deep maps", "a long list", "a long map", "long bytes", "a list as key", "none", "no"],
)
def test_frames_that_are_not_what_they_say(frame: bytes) -> None:
    first, second, *rest = frames()
    for parts in ([frame, second], [first, frame], [first, second, frame], [first, second, *rest, frame]):
        assert "its content is not" in refused(seal(join(parts), CONTENT))


@pytest.mark.parametrize(
    ("index", "change", "reason"),
    [
        (0, lambda head: {**head, "written": float("nan")}, "written"),
        (0, lambda head: {**head, "written": float("inf")}, "written"),
        (0, lambda head: {**head, "version": -1}, "version"),
        (0, lambda head: {**head, "version": 2**63}, "version"),
        (2, of_service("ports", [{"name": "http", "port": 65536}]), "port"),
        (2, of_service("ports", [{"name": "http", "port": 0}]), "port"),
        (2, of_service("key", ["shop", "UPPER"]), "UPPER"),
        (2, of_service("key", ["shop.x", "web"]), "shop.x"),
        (2, of_service("key", ["shop", ""]), "name"),
        (2, of_service("key", ["shop", "s1"]), "twice"),
        (2, of_endpoint("address", "somewhere"), "somewhere"),
        (2, of_endpoint("port", -1), "port"),
    ],
)
def test_values_that_no_source_tells(index: int, change: Callable[[Any], Any], reason: str) -> None:
    said = refused(with_frame(index, change))
    assert "its content is not" in said
    assert reason in said


def test_a_key_that_stands_twice_in_a_mapping_is_no_crash() -> None:
    head = frames()[0]
    assert head[0] == 0x84
    twice = b"\x85" + head[1:] + b"\xa6source" + msgspec.msgpack.encode("kube")
    serve(decode_snapshot(seal(join([twice, *frames()[1:]]), CONTENT), "kube"))
