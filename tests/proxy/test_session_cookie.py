"""Session affinity when endpoints leave: only the clients of those lose theirs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from discovery.model import Endpoint
from nodeagent.plan.model import Affinity
from nodeagent.proxy.message import Fields, RequestHead, ResponseHead
from nodeagent.proxy.steering import SessionCookie

NUMBERS = st.sets(st.integers(1, 40), min_size=1)


class Target:
    """An endpoint of a backend."""

    def __init__(self, number: int) -> None:
        self.endpoint = Endpoint(f"10.0.0.{number}", 80, pod=f"web-{number}")


def cookie_of(cookies: SessionCookie[Target], target: Target) -> str:
    head = ResponseHead(200, b"1", b"200 OK", b"", 0)
    cookies.give(head, target)
    return str(Fields(head).get("Set-Cookie")).partition(";")[0]


def asks(cookie: str) -> RequestHead:
    head = RequestHead(b"GET", b"/", b"1", b"Host: web\r\n", 0)
    Fields(head).add("Cookie", f"theme=dark; {cookie}")
    return head


@given(before=NUMBERS, gone=NUMBERS, new=NUMBERS)
def test_only_the_clients_of_endpoints_that_left_lose_theirs(
    before: set[int], gone: set[int], new: set[int]
) -> None:
    cookies: SessionCookie[Target] = SessionCookie(Affinity("a", salt="uid"))
    targets = {number: Target(number) for number in before}
    cookies.keep(targets.values())
    given_out = {number: cookie_of(cookies, target) for number, target in targets.items()}
    assert len(set(given_out.values())) == len(before)

    added = {number: Target(number) for number in new - before}
    stay = {number: target for number, target in targets.items() if number not in gone}
    cookies.keep((*added.values(), *stay.values()))
    for number, cookie in given_out.items():
        assert cookies.target(asks(cookie)) is stay.get(number)

    other_node: SessionCookie[Target] = SessionCookie(Affinity("a", salt="uid"))
    other_node.keep(targets.values())
    assert {number: cookie_of(other_node, target) for number, target in targets.items()} == given_out
