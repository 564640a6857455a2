"""What workers have ejected, all together."""

from __future__ import annotations

from discovery.model import ServiceKey
from nodeagent.control.ejections import follow, merged
from nodeagent.control.messages import BackendEjections, Ejections
from nodeagent.plan.model import BackendKey

WEB, SHOP = (BackendKey(ServiceKey("default", name), 80) for name in ("web", "shop"))
A, B = ("10.0.0.1", 80), ("10.0.0.2", 80)
BAD = BackendEjections(WEB, ((*A, "5 failures in a row"),))


def test_one_worker() -> None:
    known = follow({}, Ejections((BAD,)))
    assert merged([known]) == {WEB: {A: "5 failures in a row"}}
    assert follow(known, Ejections((BackendEjections(WEB, ()),))) == {}


def test_a_message_tells_of_the_backends_that_it_names_alone() -> None:
    known = follow(follow({}, Ejections((BAD,))), Ejections((BackendEjections(SHOP, ((*B, "slow"),)),)))
    assert merged([known]) == {WEB: {A: "5 failures in a row"}, SHOP: {B: "slow"}}


def test_several_workers() -> None:
    both = BackendEjections(WEB, ((*A, "3 failures in a row"), (*B, "slow")))
    known = [follow({}, Ejections((BAD,))), follow({}, Ejections((both,))), {}]
    assert merged(known) == {
        WEB: {A: "5 failures in a row (by 2 of 3 workers)", B: "slow (by 1 of 3 workers)"}
    }
