"""What is read of a node's sockets and prefixes, from tables as Linux writes them."""

from __future__ import annotations

import ipaddress
import sys

import pytest

from nodeagent.capture.node_facts import Listening, parse_listening, within

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the tables below are of such a machine")

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
TCP = f"""{HEAD}\
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 00000000:3A98 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 0100007F:1F91 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 20 4 0 10 -1
   3: nonsense:zz 0100007F:9C40 0A
"""
TCP6 = f"""{HEAD}\
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 4 1
   1: 00000000000000000000000001000000:0051 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 5 1
"""
UDP = f"""{HEAD}\
 10: 00000000:3ACD 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 6 2 0 0
 11: 0100007F:3ACE 0100007F:0035 01 00000000:00000000 00:00000000 00000000     0        0 7 2 0 0
"""


def test_sockets_that_wait() -> None:
    assert list(parse_listening("tcp", TCP)) == [
        Listening("tcp", "127.0.0.1", 8080),
        Listening("tcp", "0.0.0.0", 15000),
    ]
    assert list(parse_listening("tcp", TCP6)) == [Listening("tcp", "::", 80), Listening("tcp", "::1", 81)]
    assert list(parse_listening("udp", UDP)) == [Listening("udp", "0.0.0.0", 15053)]
    assert list(parse_listening("tcp", "")) == []


@pytest.mark.parametrize(
    ("prefix", "inside"),
    [
        ("240.0.0.0/4", True),
        ("241.1.2.3/32", True),
        ("0.0.0.0/0", False),
        ("224.0.0.0/3", False),
        ("255.255.255.255/32", False),
        ("10.0.0.0/8", False),
        ("fd00::/8", False),
    ],
)
def test_what_lies_in_the_range(prefix: str, inside: bool) -> None:
    assert within(ipaddress.IPv4Network("240.0.0.0/4"), prefix) is inside
