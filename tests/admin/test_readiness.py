from __future__ import annotations

from nodeagent.admin.readiness import Readiness


def test_ready_when_everybody_has_released() -> None:
    readiness = Readiness()
    source, workers = readiness.register("source"), readiness.register("workers")
    assert (readiness.ready, readiness.pending) == (False, ("source", "workers"))
    source.release()
    assert (readiness.ready, readiness.pending, readiness.released) == (False, ("workers",), ("source",))
    workers.release()
    assert (readiness.ready, readiness.pending, readiness.released) == (True, (), ("source", "workers"))


def test_to_release_twice_does_not_speak_for_another() -> None:
    readiness = Readiness()
    first, _ = readiness.register("worker"), readiness.register("worker")
    first.release()
    first.release()
    assert (readiness.ready, readiness.pending, readiness.released) == (False, ("worker",), ())


def test_a_component_can_be_awaited_again() -> None:
    readiness = Readiness()
    with readiness.register("workers"):
        assert len(readiness.pending) == 1
    assert readiness.released == ("workers",)
    readiness.register("workers")
    assert "workers" not in readiness.released
    assert not readiness.ready


def test_draining_is_not_ready_for_good() -> None:
    readiness = Readiness()
    token = readiness.register("source")
    readiness.drain()
    token.release()
    assert not readiness.ready
