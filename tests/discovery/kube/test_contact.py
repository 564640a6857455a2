from __future__ import annotations

from discovery.kube.contact import Contact
from discovery.source import Stale, Synced


def synced() -> Contact:
    contact = Contact(("Service", "Pod"), patience=3.0, now=0.0)
    contact.listed("Service")
    contact.listed("Pod")
    return contact


def test_synced_when_the_last_has_listed() -> None:
    contact = Contact(("Service", "Pod"), patience=3.0, now=0.0)
    assert contact.listed("Service") is None
    assert contact.listed("Pod") == Synced()
    assert contact.due_in(100.0) is None


def test_synced_again_after_every_relist() -> None:
    contact = synced()
    contact.list_begun("Pod")
    assert contact.touched("Service") is None
    assert contact.listed("Pod") == Synced()


def test_stale_once_after_the_patience_with_the_last_reason() -> None:
    contact = synced()
    contact.lost("Pod", "refused", now=10.0)
    contact.lost("Pod", "timeout", now=12.0)
    assert contact.due_in(12.0) == 1.0
    assert contact.expire(12.9) is None
    assert contact.expire(13.0) == Stale("Pod: timeout")
    assert contact.expire(20.0) is None
    assert contact.due_in(20.0) is None


def test_a_short_loss_is_not_worth_a_word() -> None:
    contact = synced()
    contact.lost("Pod", "cut", now=10.0)
    assert contact.touched("Pod") is None
    assert contact.expire(20.0) is None


def test_stale_ends_when_all_are_back() -> None:
    contact = synced()
    contact.lost("Pod", "cut", now=10.0)
    contact.lost("Service", "cut", now=10.0)
    assert isinstance(contact.expire(13.0), Stale)
    assert contact.touched("Pod") is None
    assert contact.stale
    assert contact.touched("Service") == Synced()
    assert not contact.stale


def test_stale_is_not_over_before_a_relist_is() -> None:
    contact = synced()
    contact.lost("Pod", "cut", now=10.0)
    contact.expire(13.0)
    contact.list_begun("Pod")
    assert contact.touched("Pod") is None
    assert contact.listed("Pod") == Synced()


def test_no_answer_from_the_start_is_stale_too() -> None:
    contact = Contact(("Service",), patience=3.0, now=0.0)
    assert contact.expire(3.0) == Stale("Service: no answer yet")
