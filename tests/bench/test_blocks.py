"""Prepared header blocks: valid, as many as asked for, and different where they have to be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import hpack
import pytest

from hack.bench.blocks import PATHS, Kind, prepare, read_blocks, write_blocks

Fields = list[tuple[str, str]]


def decoded(blocks: Sequence[bytes]) -> list[Fields]:
    decoder = hpack.Decoder()
    return [[(str(name), str(value)) for name, value in decoder.decode(block)] for block in blocks]


def values(requests: Sequence[Fields], name: str) -> list[str]:
    return [dict(fields)[name] for fields in requests]


@pytest.mark.parametrize("kind", ["paths", "unique", "literal"])
def test_blocks_are_requests(kind: Kind) -> None:
    for blocks in prepare(kind, 2, 40, seed=1):
        requests = decoded(blocks)
        assert len(requests) == 40
        for fields in requests:
            names = [name for name, _ in fields]
            pseudo = [name.startswith(":") for name in names]
            assert pseudo == sorted(pseudo, reverse=True), "pseudo-header fields come first"
            assert set(names[:4]) == {":method", ":scheme", ":authority", ":path"}
            assert len(set(names)) == len(names)


def test_paths_are_of_a_set_and_each_connection_has_its_own_order() -> None:
    first, second = (values(decoded(blocks), ":path") for blocks in prepare("paths", 2, PATHS + 1, seed=1))
    assert len(set(first)) == PATHS
    assert set(first) == set(second)
    assert first != second
    assert first[PATHS] == first[0], "and then again"


@pytest.mark.parametrize("kind", ["paths", "literal"])
def test_what_differs_is_put_into_no_table(kind: Kind) -> None:
    ((*blocks,),) = prepare(kind, 1, 50, seed=1)
    decoder = hpack.Decoder()
    decoder.decode(blocks[0])
    entries = len(decoder.header_table.dynamic_entries)
    for block in blocks[1:]:
        decoder.decode(block)
    assert entries == len(decoder.header_table.dynamic_entries)


@pytest.mark.parametrize("kind", ["unique", "literal"])
def test_unique_fields_come_once_in_all(kind: Kind) -> None:
    blocks = prepare(kind, 3, 200, seed=1) + prepare(kind, 3, 200, seed=2)
    requests = [fields for connection in blocks for fields in decoded(connection)]
    for name in ("traceparent", "x-request-id"):
        assert len(set(values(requests, name))) == len(requests) == 1200
    assert set(values(requests, ":path")) == {"/"}
    assert len({block for connection in blocks for block in connection}) == 1200


def test_the_same_seed_makes_the_same_blocks(tmp_path: Path) -> None:
    blocks = prepare("unique", 2, 5, seed=7)
    assert blocks == prepare("unique", 2, 5, seed=7)
    write_blocks(tmp_path / "blocks", blocks)
    assert read_blocks(tmp_path / "blocks") == blocks
