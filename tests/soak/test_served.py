"""What endpoints write down proves that no request was lost or served twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from hack.soak.served import ServedLog, complaints, read


def test_each_once() -> None:
    assert complaints(Counter({"1": 1, "2": 1, "3": 1}), ["1", "3"]) == []


def test_one_twice() -> None:
    (said,) = complaints(Counter({"1": 1, "2": 2}), ["1", "2"])
    assert said == "request 2 was served 2 times"


def test_one_that_was_answered_and_never_served() -> None:
    (said,) = complaints(Counter({"1": 1}), ["1", "2"])
    assert said == "request 2 was answered, and no endpoint has had it"


def test_endpoints_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "served"
    assert read(path) == {}
    first, second = ServedLog(path), ServedLog(path)
    first.add("1")
    second.add("2")
    first.add("2")
    first.add("")  # a request without a number may be sent twice
    assert read(path) == {"1": 1, "2": 2}
