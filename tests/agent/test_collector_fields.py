"""The file of header fields for a collector: what it may have, and that no fault shows what it has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.agent import collector_fields
from nodeagent.agent.collector_fields import Fields, FieldsFault, parse_fields, read_fields, without_secrets

TOKEN = "Bearer s3cr3t-0123456789"
BOTH = pytest.mark.parametrize("of_grpc", [True, False], ids=["grpc", "http"])


@BOTH
def test_what_a_file_may_have(of_grpc: bool) -> None:
    text = (
        f"# of the team\r\nAuthorization: {TOKEN}\r\n\n  \nx-honeycomb-team:abc \t\nx_y.z: a: b, c\n".encode()
    )
    assert parse_fields(text, of_grpc) == (
        ("authorization", TOKEN),
        ("x-honeycomb-team", "abc"),
        ("x_y.z", "a: b, c"),
    )


@BOTH
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"s3cr3t", "line 1 is not `Name: value`"),
        (b"a: b\n\ns3cr3t s3cr3t: x", "line 3 is not `Name: value`"),
        (b": s3cr3t", "line 1 is not `Name: value`"),
        (b" a: s3cr3t", "line 1 is not `Name: value`"),
        (b"a : s3cr3t", "line 1 is not `Name: value`"),
        ("\ufeffa: s3cr3t".encode(), "line 1 is not `Name: value`"),
        (b"a:\xe2\x80\x8bs3cr3t", "line 1 has a value with other characters than printable ASCII"),
        (b"a: s3cr3t\0", "line 1 has a value with other characters than printable ASCII"),
        (b"a: \t", "line 1 has no value"),
        (b"a: s3cr3t\nA: s3cr3t", "line 2 has the name of a line above"),
        (b"Host: s3cr3t", "line 1 has the name host, which the agent sets itself"),
        (b"Transfer-Encoding: s3cr3t", "line 1 has the name transfer-encoding, which the agent sets itself"),
        (b"", "it has no line `Name: value`"),
        (b"# Authorization: s3cr3t\n\n", "it has no line `Name: value`"),
        (b"a: " + b"s3cr3t" * 3000, "it has more than 16384 bytes"),
    ],
)
def test_what_it_may_not_have(text: bytes, fault: str, of_grpc: bool) -> None:
    with pytest.raises(FieldsFault) as caught:
        parse_fields(text, of_grpc)
    assert str(caught.value) == fault


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("token-bin", "a name with -bin, of which gRPC wants binary values"),
        ("GRPC-Timeout", "a name with grpc-, which gRPC keeps for itself"),
        ("a~b", "a name that gRPC does not take: a-z 0-9 _ . -"),
    ],
)
def test_names_that_only_http_takes(name: str, fault: str) -> None:
    text = f"{name}: s3cr3t".encode()
    with pytest.raises(FieldsFault) as caught:
        parse_fields(text, of_grpc=True)
    assert str(caught.value) == f"line 1 has {fault}"
    assert parse_fields(text, of_grpc=False) == ((name.lower(), "s3cr3t"),)


PIECES = st.sampled_from([b"a: ", b"\n", b"\r", b":", b" ", b"\xff", b"Host"]) | st.binary(max_size=9)


def outcome(text: bytes, of_grpc: bool) -> tuple[Fields, str]:
    try:
        return parse_fields(text, of_grpc), ""
    except FieldsFault as fault:
        return (), str(fault)


@BOTH
@given(pieces=st.lists(PIECES))
def test_whatever_it_has_no_fault_shows_it_and_no_field_breaks_a_head(
    of_grpc: bool, pieces: list[bytes]
) -> None:
    fields, fault = outcome(b"s3cr3t".join(pieces), of_grpc)
    assert bool(fields) != bool(fault)
    assert "s3cr3t" not in fault
    assert fault.isascii()
    for name, value in fields:
        assert name
        assert value == value.strip()
        assert (name + value).isascii()
        assert (name + value).isprintable()
        assert not set(name) & set(' :"(),/;<=>?@[]{}')


def test_a_file_that_is_read(tmp_path: Path) -> None:
    path = tmp_path / "headers"
    path.write_text(f"authorization: {TOKEN}\n")
    assert read_fields(str(path), of_grpc=True) == (("authorization", TOKEN),)
    path.write_text("s3cr3t\n")
    with pytest.raises(FieldsFault, match=rf"^{path}: line 1 is not `Name: value`$"):
        read_fields(str(path), of_grpc=True)


def test_a_file_that_cannot_be_read_holds_nobody(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # to read it would wait for a writer
    for path in (tmp_path / "none", tmp_path, pipe):
        with pytest.raises(FieldsFault, match=rf"^{path} is not there, or is not a file$"):
            read_fields(str(path), of_grpc=False)
    endless = tmp_path / "loop"
    endless.symlink_to(endless)
    with pytest.raises(FieldsFault, match=rf"^{endless} "):
        read_fields(str(endless), of_grpc=False)


def test_values_in_what_a_collector_says() -> None:
    fields = (("authorization", TOKEN), ("x-scope-orgid", "shop"))
    said = f"401: {TOKEN} of shop is unknown; s3cr3t-0123456789 is no Bearer token"
    assert without_secrets(said, fields) == "401: *** of shop is unknown; *** is no Bearer token"
    assert without_secrets("fine", ()) == "fine"


def test_a_value_that_is_part_of_another_one() -> None:
    fields = (("a", "01234567"), ("b", "0123456789"))
    assert without_secrets("0123456789 01234567", fields) == "*** ***"
    assert len(fields[0][1]) == collector_fields.SHORTEST_SECRET
