"""What may be given on the command line, and what an agent makes of what was not."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from nodeagent.capture.choose import Choice
from nodeagent.cli import flags as module
from nodeagent.cli.flags import Given, resolve_settings
from nodeagent.cli.flagvalues import (
    parse_drain_timeout,
    parse_listen,
    parse_node_name,
    parse_node_zone,
    parse_range,
    parse_source,
    parse_workers,
    parse_zone,
)


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        (parse_source, "kube", "kube"),
        (parse_source, "file:shop", "file:shop"),
        (parse_range, "240.0.0.0/4", "240.0.0.0/4"),
        (parse_range, "10.200.0.0/16", "10.200.0.0/16"),
        (parse_zone, "svc.mesh", "svc.mesh"),
        (parse_zone, "Svc.Mesh.", "svc.mesh"),
        (parse_listen, "127.0.0.1:10053", ("127.0.0.1", 10053)),
        (parse_listen, "[::1]:15000", ("::1", 15000)),
        (parse_workers, "4", 4),
        (parse_node_name, "node-1", "node-1"),
        (parse_node_name, " ip-10-0-0-1.ec2.internal\n", "ip-10-0-0-1.ec2.internal"),
        (parse_node_name, "", ""),
        (parse_node_name, " ", ""),
        (parse_node_zone, " eu-1a\n", "eu-1a"),
        (parse_node_zone, "", ""),
        (parse_drain_timeout, "30s", 30.0),
        (parse_drain_timeout, "1m30s", 90.0),
        (parse_drain_timeout, "0", 0.0),
    ],
)
def test_good_values(parse: Callable[[str], Any], text: str, expected: object) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_source, "kubernetes", "neither kube nor file:PATH"),
        (parse_source, "file:", "neither kube nor file:PATH"),
        (parse_source, "./shop", "did you mean file:./shop?"),
        (parse_range, "240.0.0.0/17", "must be a /4 to a /16"),
        (parse_range, "128.0.0.0/1", "must be a /4 to a /16"),
        (parse_range, "240.0.0.0", "must be a /4 to a /16"),
        (parse_range, "240.0.0.1/8", "did you mean 240.0.0.0/8?"),
        (parse_range, "fd00::/64", "IPv6"),
        (parse_range, "mesh", "not a network"),
        (parse_range, "224.0.0.0/4", "no connection can be made"),
        (parse_range, "0.0.0.0/8", "no connection can be made"),
        (parse_zone, "svc_mesh", "not a DNS name"),
        (parse_zone, "", "not a DNS name"),
        (parse_zone, "a..b", "not a DNS name"),
        (parse_listen, "localhost:80", "not an IP address"),
        (parse_listen, "127.0.0.1", "ADDRESS:PORT"),
        (parse_listen, ":80", "ADDRESS:PORT"),
        (parse_listen, "::1:80", "ADDRESS:PORT"),
        (parse_listen, "[127.0.0.1]:80", "ADDRESS:PORT"),
        (parse_listen, "127.0.0.1:0", "not a port"),
        (parse_listen, "127.0.0.1:65536", "not a port"),
        (parse_listen, "127.0.0.1:٣", "not a port"),
        (parse_node_name, "Node-1", "did you mean node-1?"),
        (parse_node_name, "node_1", "not the name of a Node"),
        (parse_node_zone, "eu 1a", "not a value of the label topology.kubernetes.io/zone"),
        (parse_node_zone, "-eu", "not a value of the label"),
        (parse_node_name, "node-1,status.phase=Failed", "not the name of a Node"),
        (parse_node_name, "n..1", "not the name of a Node"),
        (parse_node_name, "n" * 64, "not the name of a Node"),
        (parse_node_name, ".".join(["n"] * 128), "not the name of a Node"),
        (parse_workers, "0", "from 1 to 256"),
        (parse_workers, "many", "from 1 to 256"),
        (parse_workers, "1000000", "from 1 to 256"),
        (parse_drain_timeout, "30", "the unit is missing"),
        (parse_drain_timeout, "-1s", "out of range"),
        (parse_drain_timeout, "2h", "out of range"),
    ],
)
def test_bad_values_say_what_is_right(parse: Callable[[str], Any], text: str, message: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse(text)
    assert message in str(raised.value)


def test_defaults_of_a_laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "first_bindable_port", lambda: 1024)
    settings = resolve_settings(Given(source="file:shop", capture="loopback"))
    assert settings.mesh_range == "127.64.0.0/10"
    assert settings.dns_listen == ("127.0.0.1", 10053)
    assert settings.admin_listen == ("127.0.0.1", 15000)
    assert settings.first_bindable_port == 1024
    assert settings.workers >= 1
    assert settings.node_name
    assert settings.drain_timeout == 30.0


@pytest.mark.parametrize("given", [None, ""])
def test_without_a_node_name_it_is_the_host_s_as_the_kubelet_has_it(
    given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Worker-7.example.org")
    assert resolve_settings(Given(capture="loopback", node_name=given)).node_name == "worker-7.example.org"


def test_defaults_of_a_node() -> None:
    settings = resolve_settings(Given(capture="nftables"))
    assert settings.mesh_range == "240.0.0.0/4"
    assert settings.dns_listen == ("240.0.0.53", 15053)
    assert settings.admin_listen == ("0.0.0.0", 15000)
    assert settings.first_bindable_port == 1


def test_the_dns_of_a_node_follows_its_range() -> None:
    settings = resolve_settings(Given(capture="nftables", mesh_range="10.200.0.0/16"))
    assert settings.dns_listen == ("10.200.0.53", 15053)


@pytest.mark.parametrize("kind", ["nftables", "loopback"])
def test_auto_is_what_the_machine_allows(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "choose_capture", lambda given: Choice(kind, f"for {given}"))
    assert resolve_settings(Given()).capture == kind


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Given(capture="loopback", mesh_range="240.0.0.0/4"), "must lie in 127.0.0.0/8"),
        (Given(capture="loopback", mesh_range="127.0.0.0/8"), "leave out 127.0.0.1"),
        (Given(capture="nftables", mesh_range="127.64.0.0/10"), "which pods cannot reach"),
        (Given(capture="nftables", mesh_range="112.0.0.0/4"), "overlaps 127.0.0.0/8"),
        (Given(capture="loopback", alias_zones=("svc.mesh",)), "is the same as --zone"),
        (Given(source="file:shop", service_selector="team=shop"), "no meaning with --source file:shop"),
    ],
)
def test_what_does_not_go_together(given: Given, message: str) -> None:
    with pytest.raises(ValueError, match="--") as raised:
        resolve_settings(given)
    assert message in str(raised.value)


def test_another_mesh_brings_its_zones() -> None:
    given = Given(capture="loopback", compat="traefik-mesh", alias_zones=("mesh.local", "maesh"))
    assert resolve_settings(given).alias_zones == ("mesh.local", "maesh", "traefik.mesh")
    given = Given(capture="loopback", compat="traefik-mesh", zone="traefik.mesh")
    assert resolve_settings(given).alias_zones == ("maesh",)
    assert resolve_settings(Given(capture="loopback")).compat is None


def test_what_is_given_is_used() -> None:
    given = Given(
        capture="loopback",
        mesh_range="127.128.0.0/9",
        alias_zones=("mesh.local", "mesh.local"),
        dns_listen=("127.0.0.1", 5300),
        admin_listen=("127.0.0.1", 5301),
        workers=3,
        node_name="node-b",
        log_format="json",
    )
    settings = resolve_settings(given)
    assert settings.mesh_range == "127.128.0.0/9"
    assert settings.alias_zones == ("mesh.local",)
    assert (settings.dns_listen, settings.admin_listen) == (("127.0.0.1", 5300), ("127.0.0.1", 5301))
    assert (settings.workers, settings.node_name, settings.log_format) == (3, "node-b", "json")
