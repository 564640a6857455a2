"""A network namespace of the test's own, joined to this one by a pair of interfaces.

Kubernetes takes no address of 127.0.0.0/8 for an endpoint or a pod. The two addresses of such a link are
ones that it takes, and what is sent to them never leaves the machine.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from hack.kit.ports import claim_number


class Link(NamedTuple):
    """`near` is an address of this namespace, `far` one of the namespace `name`."""

    name: str
    near: str
    far: str


@contextmanager
def private_link() -> Iterator[Link]:
    """Make a namespace and the link to it; both are gone afterwards. Needs root, skips without."""
    if os.geteuid():
        pytest.skip("needs root: Kubernetes takes no loopback address, and others need a network namespace")
    number, claim = claim_number("svcmesh-test-link", 250)
    name = f"svcmesh-k{number}"
    inner = f"{name[7:]}n"
    subnet = f"10.254.{number}"
    link = Link(name, f"{subnet}.1", f"{subnet}.2")
    # What a killed process of tests has left behind under this number is nobody's.
    subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
    _ip("netns", "add", name)
    try:
        _ip("link", "add", name, "type", "veth", "peer", "name", inner, "netns", name)
        _ip("address", "add", f"{link.near}/30", "dev", name)
        _ip("link", "set", name, "up")
        _ip("-n", name, "address", "add", f"{link.far}/30", "dev", inner)
        _ip("-n", name, "link", "set", inner, "up")
        _ip("-n", name, "link", "set", "lo", "up")
        yield link
    finally:
        _ip("netns", "delete", name)
        claim.close()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
