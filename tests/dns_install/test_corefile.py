"""Reading Corefiles; adding a server block and taking it away gives the same bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.meshctl.clusterdns.corefile import (
    Address,
    CorefileNotUnderstood,
    Directive,
    find_block,
    insert_block,
    read_address,
    read_corefile,
    remove_block,
)
from nodeagent.meshctl.clusterdns.stub import (
    Stub,
    answered_zones,
    cluster_domain,
    main_server,
    root_port,
    stub_block,
)
from tests.dns_install.samples import NAMES, read

STUB = Stub(("svc.mesh",), "240.0.0.53")


@pytest.mark.parametrize("name", NAMES)
def test_real_corefiles_are_understood(name: str) -> None:
    corefile = read_corefile(read(name))
    assert "forward" in {directive.name for directive in corefile.directives(main_server(corefile))}


@pytest.mark.parametrize("name", NAMES)
def test_remove_undoes_insert_byte_for_byte_and_the_rest_reads_as_before(name: str) -> None:
    text = read(name)
    before = read_corefile(text)
    block = stub_block(before, STUB)
    edited = insert_block(text, block)
    after = read_corefile(edited)
    assert remove_block(edited) == text
    assert find_block(edited) == block
    assert after.servers[:-1] == before.servers
    assert (after.snippets, after.imports) == (before.snippets, before.imports)
    assert answered_zones(after, STUB) == {"svc.mesh": True}


# Pieces of files, valid and not, so that whatever is understood is put together in every way.
PIECES = st.sampled_from(
    [
        *(read(name) for name in NAMES),
        *(
            "a:53 {\n errors\n}",
            ".:53 {\n",
            "}\n",
            "}",
            "\n",
            "\r\n",
            "\t",
            " ",
            "# svcmesh",
            "# a {",
            '"',
            "{",
            "x",
        ),
        *(
            ".:53 { }",
            "import x/*.server\n",
            "import",
            "(s) {\n log\n}\n",
            "import s\n",
            "a,\n",
            'a "b c" {\n',
            "\\",
        ),
    ]
)


@given(st.lists(PIECES, max_size=8).map("".join))
def test_whatever_is_understood_comes_back_byte_for_byte(text: str) -> None:
    try:
        before = read_corefile(text)
    except CorefileNotUnderstood:
        return
    edited = insert_block(text, "svc.mesh:53 {\n    errors\n}\n")
    assert remove_block(edited) == text
    assert read_corefile(edited).servers[:-1] == before.servers


@given(st.text(alphabet='.:53{}\n\r\t #"\\a,() svcmeshbegin'))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    try:
        read_corefile(text)
        remove_block(text)
    except CorefileNotUnderstood:
        return
    assert "# svcmesh end" not in text.split("\n")


@pytest.mark.parametrize("added", ["\n", "other:53 {\n    errors\n}\n", "# a comment\n"])
def test_what_others_add_behind_or_before_the_block_stays(added: str) -> None:
    text = read("kubeadm")
    edited = insert_block(text, "svc.mesh:53 {\n    errors\n}\n")
    assert remove_block(edited + added) == text + added
    assert remove_block(added + edited) == added + text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it ends where"),
        (".\nforward . 1.1.1.1\n", "without braces"),
        (".:53 {\n    errors\n", "it ends where"),
        (".:53 {\n    health {\n}\n", "it ends where"),
        (".:53 {\n    errors }\n}\n", "closes nothing"),
        (".:53 {\n    errors\n} b {\n}\n", "something behind"),
        (".:53 { errors\n}\n", "something behind"),
        ('.:53 {\n    rewrite "a\n}\n', "quote"),
        ("{\n}\n", "without a zone"),
        (".:53 {\n import a b\n}\n", "not expected"),
        ("import a b\n", "one pattern"),
        ('"a", b {\n}\n', "empty"),
        (".:53 {\n errors\rlog\n}\n", "carriage return"),
    ],
)
def test_what_is_not_understood_says_why(text: str, reason: str) -> None:
    with pytest.raises(CorefileNotUnderstood, match=reason):
        main_server(read_corefile(text)) if text else read_corefile("a,")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a:53 {\n    reload\n}\n", "no server block"),
        (".:53 {\n reload\n}\n.:54 {\n}\n", "2 server block"),
        (".:53 {\n    errors\n}\n", "reload"),
        ('.:53 {\n    reload\n    bind "a b"\n}\n', "list of addresses"),
        (".:53 {\n    reload\n    bind eth0 {\n        except 10.0.0.1\n    }\n}\n", "list of addresses"),
    ],
)
def test_a_file_without_a_plain_main_block_gets_no_stub(text: str, reason: str) -> None:
    with pytest.raises(CorefileNotUnderstood, match=reason):
        stub_block(read_corefile(text), STUB)


def test_marks_that_somebody_edited_are_refused() -> None:
    edited = insert_block(read("kubeadm"), "svc.mesh:53 {\n}\n")
    broken = [
        edited.replace("# svcmesh end\n", ""),
        edited + "# svcmesh end\n",
        edited.replace("made by", "by"),
    ]
    for text in broken:
        with pytest.raises(CorefileNotUnderstood, match="marks"):
            remove_block(text)


def test_the_stub_listens_where_the_root_zone_does() -> None:
    assert stub_block(read_corefile(read("nodelocal")), STUB).splitlines() == [
        "svc.mesh:53 {",
        "    errors",
        "    bind 169.254.20.10 10.96.0.10",
        "    prometheus :9253",
        "    forward . 240.0.0.53",
        "}",
    ]
    twice = Stub(("svc.mesh", "traefik.mesh"), "240.0.0.53:5353")
    assert root_port(read_corefile("a:53 .:1053 {\n    reload\n}\n")) == 1053
    assert stub_block(read_corefile(".:1053 {\n    reload\n}\n"), twice).splitlines() == [
        "svc.mesh:1053 traefik.mesh:1053 {",
        "    errors",
        "    forward . 240.0.0.53:5353",
        "}",
    ]


def test_snippets_keys_and_quotes() -> None:
    corefile = read_corefile(read("snippets-and-stub-domains"))
    assert [server.keys for server in corefile.servers] == [
        ("corp.example.com:53", "corp.example.org:53", "consul.local"),
        ("dns://.:53",),
        ("tls://.:853",),
    ]
    assert Directive("cache", ("30",)) in tuple(corefile.directives(corefile.servers[0]))
    assert cluster_domain(corefile) == "cluster.example"


@pytest.mark.parametrize(
    ("name", "domain"), [("kubeadm", "cluster.local"), ("no-line-feed-at-the-end", "corp.internal")]
)
def test_cluster_domain(name: str, domain: str) -> None:
    assert cluster_domain(read_corefile(read(name))) == domain


@pytest.mark.parametrize(
    ("key", "address"),
    [
        (".", Address("", "53")),
        (".:53", Address("", "53")),
        ("DNS://Svc.Mesh.:1053", Address("svc.mesh", "1053")),
        ("a:53-55", Address("a", "53-55")),
        ("tls://.", None),
        ("{$ZONE}:53", Address("{$zone}", "53")),
    ],
)
def test_addresses(key: str, address: Address | None) -> None:
    assert read_address(key) == address
