"""Calls of gRPC: which status the mesh knows of, wherever it stands, and what it does about it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from middleware.contract import Ended
from middleware.grpc import GrpcStatus
from nodeagent.proxy.http2 import frames
from nodeagent.proxy.http2.frames import frame
from nodeagent.stats import columns
from nodeagent.stats.methods import read_rows
from tests.exchange.http1 import http
from tests.exchange.script import Step, a, a1, b, b1, client, passes
from tests.http2.wire import BACK, HELLO, Http2Stage, answers, asks, data, head

Wires = Callable[..., Http2Stage]
KIND = ("content-type", "application/grpc")
MESSAGE = b"\0\0\0\0\2hi"


def call(stream: int = 1, *, end: bool = True) -> bytes:
    """Write a call of one message."""
    begun = asks(stream, "POST", "/shop.Cart/Add", KIND, ("te", "trailers"), end=False)
    return begun + data(stream, MESSAGE, end=end)


def reset(stream: int, code: int) -> bytes:
    return frame(frames.RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def only(stream: int, code: int) -> bytes:
    """Write a response that is nothing but a head: Trailers-Only."""
    return answers(stream, 200, KIND, ("grpc-status", str(code)))


def trailers(stream: int, code: int) -> bytes:
    return head(stream, ("grpc-status", str(code)))


def begins(stream: int) -> bytes:
    return answers(stream, 200, KIND, end=False)


def called(wires: Wires, request: bytes | None = None, **options: object) -> Http2Stage:
    """Have a call reach a first connection to `a`."""
    stage = wires(**options)
    said = stage.does(client >> HELLO, client >> (request or call()), a >> "accepts", a1 >> BACK)
    assert said["a1"][0].startswith("1: POST /shop.Cart/Add ")
    return stage


def counted(stage: Http2Stage) -> dict[str, int]:
    counts = {each.name: stage.plane.count(columns.GRPC_CALLS + each) for each in GrpcStatus}
    return {name: count for name, count in counts.items() if count}


def told(stage: Http2Stage) -> list[GrpcStatus | None]:
    return [ended.grpc_status for ended in stage.plane.watcher.ends]


MORE = a1 >> begins(1) + data(1, MESSAGE, end=False)
ENDINGS: dict[str, tuple[list[Step], str]] = {
    "trailers": ([a1 >> begins(1) + data(1, MESSAGE, end=False) + trailers(1, 0)], "OK"),
    "trailers later": (
        [a1 >> begins(1), a1 >> data(1, MESSAGE, end=False), a1 >> trailers(1, 9)],
        "FAILED_PRECONDITION",
    ),
    "trailers without a message": ([a1 >> begins(1), a1 >> trailers(1, 14)], "UNAVAILABLE"),
    "a head alone": ([a1 >> only(1, 5)], "NOT_FOUND"),
    "no such status": ([a1 >> only(1, 99)], "UNKNOWN"),
    "no trailers": ([a1 >> begins(1) + data(1, MESSAGE)], "UNKNOWN"),
    "trailers that say nothing": ([a1 >> begins(1) + head(1, ("x", "y"))], "UNKNOWN"),
    "a head that says nothing": ([a1 >> answers(1)], "UNKNOWN"),
    "no gRPC at all": ([a1 >> answers(1, 502, end=False) + data(1, b"bad gateway")], "UNAVAILABLE"),
    "no gRPC at all, with trailers": (
        [a1 >> answers(1, 502, end=False) + data(1, b"bad", end=False) + head(1, ("x", "y"))],
        "UNAVAILABLE",
    ),
    "another status, with one of gRPC in trailers": (
        [a1 >> answers(1, 502, end=False) + trailers(1, 8)],
        "RESOURCE_EXHAUSTED",
    ),
    "another status, with one of gRPC": (
        [a1 >> answers(1, 503, ("grpc-status", "8"))],
        "RESOURCE_EXHAUSTED",
    ),
    "broken off": ([MORE, a1 >> reset(1, frames.INTERNAL_ERROR)], "UNAVAILABLE"),
    "nonsense within": ([MORE, a1 >> head(1, (":status", "200"))], "UNAVAILABLE"),
    "broken off, and no gRPC": (
        [a1 >> answers(1, 404, end=False), a1 >> reset(1, frames.INTERNAL_ERROR)],
        "UNIMPLEMENTED",
    ),
    "cancelled": ([client >> reset(1, frames.CANCEL)], "CANCELLED"),
    "cancelled within": ([MORE, client >> reset(1, frames.CANCEL)], "CANCELLED"),
    "the endpoint breaks it off": ([a1 >> reset(1, frames.INTERNAL_ERROR)], "UNAVAILABLE"),
    "nothing comes": ([passes(70.0)], "DEADLINE_EXCEEDED"),
    "nothing more comes": ([MORE, passes(70.0)], "DEADLINE_EXCEEDED"),
}
LIMITS: dict[str, dict[str, str]] = {
    "no layers": {"svc.mesh/idle-timeout": "1m"},
    "layers": {"svc.mesh/timeout": "1m"},
    "layers that hold heads": {
        "svc.mesh/timeout": "1m",
        "svc.mesh/retry-attempts": "1",
        "svc.mesh/retry-on": "aborted",
    },
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("limits", LIMITS)
def test_every_ending_has_a_status(wires: Wires, ending: str, limits: str) -> None:
    steps, expected = ENDINGS[ending]
    if ending == "nothing more comes" and "svc.mesh/timeout" in LIMITS[limits]:
        expected = "DEADLINE_EXCEEDED"  # whose time is up is told so in trailers
    stage = called(wires, annotations=LIMITS[limits])
    stage.does(*steps)
    assert counted(stage) == {expected: 1}
    assert told(stage) == [GrpcStatus[expected]]


def test_what_is_broken_off_ends_with_a_status(wires: Wires) -> None:
    """The caller learns what it would without the mesh, and that its stream is not whole."""
    stage = called(wires)
    said = stage.does(MORE, a1 >> reset(1, frames.INTERNAL_ERROR))["client"]
    assert said[:2] == ["1: 200 content-type=application/grpc", '1: "\0\0\0\0\2hi"']
    assert said[2].startswith("1: trailers proxy-status=svc.mesh; error=connection_terminated;")
    assert " grpc-status=14 grpc-message=svc.mesh: 10.1.0.1:8080 closed the connection" in said[2]
    assert said[2].endswith(" end")
    assert len(said) == 3
    (ended,) = stage.plane.watcher.ends
    assert ended.error is not None
    assert ended.error.reason == "upstream_reset"
    assert stage.plane.count(columns.UPSTREAM_TRUNCATED) == 1


def test_what_is_no_response_of_grpc_is_broken_off(wires: Wires) -> None:
    stage = called(wires)
    said = stage.does(a1 >> answers(1, 404, end=False), a1 >> reset(1, frames.INTERNAL_ERROR))
    assert said["client"] == ["1: 404", "1: reset 2"]


def test_a_caller_that_takes_no_more_is_broken_off(wires: Wires) -> None:
    """Its window is closed, and it would not see trailers either."""
    stage = called(wires)
    stage.does(a1 >> begins(1), *(a1 >> data(1, b"x" * 16_000, end=False) for _ in range(9)))
    assert stage.does(passes(70.0))["client"] == ["1: reset 2"]
    assert counted(stage) == {"INTERNAL": 1}


def test_a_service_that_has_left_says_so(wires: Wires) -> None:
    stage = called(wires)
    stage.plane.listeners.apply([], [stage.plane.spec.key])
    said = stage.does(client >> call(3))["client"]
    assert said[0].startswith("3: 200 ")
    assert " grpc-status=14 " in said[0]
    assert "no_route" in said[0]
    stage.does(a1 >> only(1, 0))
    assert counted(stage) == {"OK": 1}, "it is no Service's call"


def test_others_have_none(wires: Wires) -> None:
    for kind in ("application/json", "application/grpc-web+proto"):
        stage = wires()
        stage.does(client >> HELLO, client >> asks(1, "POST", "/", ("content-type", kind)), a >> "accepts")
        stage.does(a1 >> BACK + only(1, 14))
        assert counted(stage) == {}
        assert told(stage) == [None]


@pytest.mark.parametrize("code", [0, 14])
@pytest.mark.parametrize("limits", LIMITS)
def test_trailers_of_http1(wires: Wires, code: int, limits: str) -> None:
    stage = wires(http1="endpoint", trailers=True, annotations=LIMITS[limits])
    stage.does(client >> HELLO, client >> call(), a >> "accepts")
    answer = http("HTTP/1.1 200 OK", "Content-Type: application/grpc", "Transfer-Encoding: chunked")
    said = stage.does(a1 >> answer + b"2\r\nhi\r\n0\r\ngrpc-status: %d\r\n\r\n" % code)
    assert said["client"][-1] == f"1: trailers grpc-status={code} end"
    assert counted(stage) == {GrpcStatus(code).name: 1}


MESH_MADE: dict[str, tuple[dict[str, str], str]] = {
    "fault": ({"svc.mesh/fault": "abort 429"}, "RESOURCE_EXHAUSTED"),
    "fault 503": ({"svc.mesh/fault": "abort 503"}, "UNAVAILABLE"),
    "rate limit": ({"svc.mesh/rate-limit": "1/h"}, "RESOURCE_EXHAUSTED"),
}


@pytest.mark.parametrize("case", MESH_MADE)
def test_what_the_mesh_says_itself_counts(wires: Wires, case: str) -> None:
    annotations, expected = MESH_MADE[case]
    stage = wires(annotations=annotations)
    stage.does(client >> HELLO, client >> call(1), client >> call(3))
    said = stage.does(client >> call(5))["client"]
    code = GrpcStatus[expected].value
    assert f" grpc-status={code} " in said[0]
    assert counted(stage)[expected] >= 2
    assert stage.plane.count(columns.MESH_RESPONSES) == counted(stage)[expected]


def test_calls_that_wait_for_others(wires: Wires) -> None:
    stage = called(wires, annotations={"svc.mesh/max-requests": "1 queue=1"})
    assert stage.does(client >> call(3)) == {}
    refused = stage.does(client >> call(5))["client"]
    assert f" grpc-status={GrpcStatus.UNAVAILABLE.value} " in refused[0]
    assert "concurrency_limited" in refused[0]
    said = stage.does(a1 >> begins(1), a1 >> data(1, MESSAGE, end=False), a1 >> trailers(1, 0))
    assert said["a1"][0].startswith("3: POST /shop.Cart/Add ")
    assert counted(stage) == {"UNAVAILABLE": 1, "OK": 1}


def test_without_endpoints(wires: Wires) -> None:
    stage = wires(endpoints="")
    stage.does(client >> HELLO, client >> call())
    assert counted(stage) == {"UNAVAILABLE": 1}
    ended: Ended = stage.plane.watcher.ends[0]
    assert (ended.status, ended.grpc_status) == (503, GrpcStatus.UNAVAILABLE)


class TestRetry:
    """Calls are tried again on the statuses that the owner has named, while nothing has been passed on."""

    def called(
        self, wires: Wires, request: bytes | None = None, on: str = "unavailable", attempts: str = "1"
    ) -> Http2Stage:
        retries = {"svc.mesh/retry-attempts": attempts, "svc.mesh/retry-on": on}
        return called(wires, request, endpoints="ab", annotations=retries)

    def second(self, stage: Http2Stage, *steps: Step) -> list[str]:
        """Have the second endpoint be asked, and answer with OK; return what the client hears."""
        said = stage.does(*steps)
        assert "client" not in said
        assert said["b"] == ["dialled"]
        said = stage.does(b >> "accepts", b1 >> BACK)
        assert said["b1"][0].startswith("1: POST /shop.Cart/Add ")
        assert said["b1"][1] == '1: "\0\0\0\0\2hi" end'
        said = stage.does(b1 >> begins(1) + data(1, MESSAGE, end=False) + trailers(1, 0))
        assert counted(stage) == {"OK": 1}
        return said["client"]

    @pytest.mark.parametrize(
        "answer",
        {
            "a head alone": [a1 >> only(1, 14)],
            "trailers at once": [a1 >> begins(1) + trailers(1, 14)],
            "trailers later": [a1 >> begins(1), passes(0.5), a1 >> trailers(1, 14)],
            "no gRPC": [a1 >> answers(1, 503, end=False) + data(1, b"sorry", end=False)],
            "broken off": [a1 >> reset(1, frames.INTERNAL_ERROR)],
            "broken off behind its head": [a1 >> begins(1), a1 >> reset(1, frames.INTERNAL_ERROR)],
            "nonsense behind its head": [a1 >> begins(1), a1 >> head(1, (":status", "200"))],
        }.values(),
    )
    def test_another_endpoint_answers(self, wires: Wires, answer: list[Step]) -> None:
        stage = self.called(wires)
        heard = self.second(stage, *answer)
        assert heard[-1] == "1: trailers grpc-status=0 end"
        assert told(stage) == [GrpcStatus.OK]

    @pytest.mark.parametrize("asked", ["-1", "never", "60000"])
    @pytest.mark.parametrize("alone", [True, False])
    def test_who_pushes_back_is_not_asked_again(self, wires: Wires, asked: str, alone: bool) -> None:
        """gRFC A6: nobody else either."""
        stage = self.called(wires)
        fields = (("grpc-status", "14"), ("grpc-retry-pushback-ms", asked))
        said = stage.does(a1 >> (answers(1, 200, KIND, *fields) if alone else begins(1) + head(1, *fields)))
        assert f"grpc-status=14 grpc-retry-pushback-ms={asked}" in said["client"][-1]
        assert "b" not in said

    def test_who_asks_for_a_pause_gets_it(self, wires: Wires) -> None:
        stage = self.called(wires)
        fields = (("grpc-status", "14"), ("grpc-retry-pushback-ms", "400"))
        assert "b" not in stage.does(a1 >> begins(1) + head(1, *fields), passes(0.2))
        heard = self.second(stage, passes(0.3))
        assert heard[-1] == "1: trailers grpc-status=0 end"

    def test_who_broke_off_is_not_asked_again(self, wires: Wires) -> None:
        """Even if it is its turn."""
        stage = self.called(wires)
        stage.does(client >> call(3), b >> "accepts", b1 >> BACK)
        said = stage.does(a1 >> begins(1), a1 >> reset(1, frames.INTERNAL_ERROR))
        assert list(said) == ["b1"]
        assert stage.plane.count(columns.UPSTREAM_TRUNCATED) == 1
        stage.does(b1 >> only(1, 0), b1 >> only(3, 0))
        assert counted(stage) == {"OK": 2}

    @pytest.mark.parametrize("code", [0, 2, 13])
    def test_other_statuses_are_passed_on(self, wires: Wires, code: int) -> None:
        stage = self.called(wires)
        said = stage.does(a1 >> begins(1), a1 >> trailers(1, code))
        assert said["client"][-1] == f"1: trailers grpc-status={code} end"
        assert "b" not in said

    @pytest.mark.parametrize("on", ["5xx", "503", "deadline-exceeded", "gateway-error,409"])
    def test_only_what_is_named(self, wires: Wires, on: str) -> None:
        stage = self.called(wires, on=on)
        said = stage.does(a1 >> only(1, 14))
        assert said["client"] == ["1: 200 content-type=application/grpc grpc-status=14 content-length=0 end"]

    def test_a_message_ends_it(self, wires: Wires) -> None:
        """What has been passed on cannot be taken back."""
        stage = self.called(wires)
        said = stage.does(a1 >> begins(1), a1 >> data(1, MESSAGE, end=False))
        assert said["client"] == ["1: 200 content-type=application/grpc", '1: "\0\0\0\0\2hi"']
        said = stage.does(a1 >> trailers(1, 14))
        assert said["client"] == ["1: trailers grpc-status=14 end"]
        assert counted(stage) == {"UNAVAILABLE": 1}

    def test_messages_pass_at_once(self, wires: Wires) -> None:
        stage = self.called(wires)
        assert "client" not in stage.does(a1 >> begins(1))
        for _ in range(3):
            assert stage.does(a1 >> data(1, MESSAGE, end=False))["client"][-1] == '1: "\0\0\0\0\2hi"'

    def test_a_head_is_not_held_for_long(self, wires: Wires) -> None:
        """A stream that lives and has nothing to say yet."""
        stage = self.called(wires)
        assert "client" not in stage.does(a1 >> begins(1), passes(0.9))
        assert stage.does(passes(0.2))["client"] == ["1: 200 content-type=application/grpc"]
        assert stage.does(a1 >> trailers(1, 14))["client"] == ["1: trailers grpc-status=14 end"]

    def test_a_caller_that_still_sends_gets_the_head(self, wires: Wires) -> None:
        stage = self.called(wires, call(end=False))
        assert stage.does(a1 >> begins(1))["client"] == ["1: 200 content-type=application/grpc"]

    def test_a_caller_that_still_sends_is_served_by_another(self, wires: Wires) -> None:
        stage = self.called(wires, call(end=False))
        said = stage.does(a1 >> only(1, 14), b >> "accepts", b1 >> BACK)
        assert said["a1"] == ["1: reset 8"]
        assert said["b1"][1] == '1: "\0\0\0\0\2hi"'
        said = stage.does(client >> data(1, b"more"), b1 >> only(1, 0))
        assert said["b1"] == ['1: "more" end']
        assert counted(stage) == {"OK": 1}

    def test_the_last_try_is_not_held(self, wires: Wires) -> None:
        stage = self.called(wires)
        stage.does(a1 >> only(1, 14), b >> "accepts", b1 >> BACK)
        assert stage.does(b1 >> begins(1))["client"] == ["1: 200 content-type=application/grpc"]
        assert stage.does(b1 >> trailers(1, 14))["client"] == ["1: trailers grpc-status=14 end"]
        assert counted(stage) == {"UNAVAILABLE": 1}

    def test_a_silent_endpoint_within_the_time_of_a_try(self, wires: Wires) -> None:
        retries = {
            "svc.mesh/retry-attempts": "1",
            "svc.mesh/retry-on": "deadline-exceeded",
            "svc.mesh/per-try-timeout": "5s",
        }
        stage = called(wires, endpoints="ab", annotations=retries)
        self.second(stage, passes(6.0))

    def test_a_caller_that_leaves_while_the_head_is_held(self, wires: Wires) -> None:
        stage = self.called(wires)
        stage.does(a1 >> begins(1), client >> reset(1, frames.CANCEL))
        assert counted(stage) == {"CANCELLED": 1}

    def test_others_are_not_held(self, wires: Wires) -> None:
        retries = {"svc.mesh/retry-attempts": "1", "svc.mesh/retry-on": "unavailable"}
        stage = wires(endpoints="ab", annotations=retries)
        stage.does(client >> HELLO, client >> asks(1, "POST"), a >> "accepts", a1 >> BACK)
        assert stage.does(a1 >> answers(1, 200, end=False))["client"] == ["1: 200"]


class TestCircuitBreaker:
    def test_failing_calls_open_it(self, wires: Wires) -> None:
        breaker = {"svc.mesh/circuit-breaker": "ResponseCodeRatio(500, 600, 0, 600) > 0.5"}
        stage = wires(annotations=breaker)
        stage.does(client >> HELLO, client >> call(1), a >> "accepts", a1 >> BACK)
        stage.does(a1 >> begins(1), a1 >> trailers(1, 14))
        stage.does(client >> call(3), passes(0.2), a1 >> only(3, 13))
        stage.does(client >> call(5), passes(0.2), a1 >> begins(5) + data(5, MESSAGE, end=False))
        assert stage.does(passes(0.2), a1 >> trailers(5, 2))["client"] == ["5: trailers grpc-status=2 end"]
        said = stage.does(client >> call(7))
        assert list(said) == ["client"]
        assert " grpc-status=14 " in said["client"][0]
        assert "circuit_open" in said["client"][0]
        assert counted(stage) == {"UNAVAILABLE": 2, "INTERNAL": 1, "UNKNOWN": 1}

    def test_calls_that_the_application_refuses_do_not(self, wires: Wires) -> None:
        breaker = {"svc.mesh/circuit-breaker": "ResponseCodeRatio(500, 600, 0, 600) > 0.5"}
        stage = wires(annotations=breaker)
        stage.does(client >> HELLO, client >> call(1), a >> "accepts", a1 >> BACK + only(1, 5))
        for number in (3, 5, 7):
            stage.does(client >> call(number), passes(0.2), a1 >> only(number, 9))
        assert counted(stage) == {"NOT_FOUND": 1, "FAILED_PRECONDITION": 3}


def by_method(stage: Http2Stage) -> dict[str, int]:
    return {row.method: sum(row.calls) for row in read_rows(stage.plane.methods) if row is not None}


class TestMethods:
    def test_an_endpoint_says_which_there_are(self, wires: Wires) -> None:
        stage = called(wires)
        stage.does(a1 >> only(1, 5))
        assert by_method(stage) == {"shop.Cart/Add": 1}
        stage.does(client >> call(3), client >> reset(3, frames.CANCEL))
        assert by_method(stage) == {"shop.Cart/Add": 2}

    @pytest.mark.parametrize("code", [1, 4, 7, 8, 12, 14, 16])
    def test_what_is_answered_to_anything_says_nothing(self, wires: Wires, code: int) -> None:
        stage = called(wires)
        stage.does(a1 >> only(1, code))
        assert by_method(stage) == {"other": 1}

    @pytest.mark.parametrize(
        "answer",
        [a1 >> answers(1, 500), a1 >> begins(1) + data(1, MESSAGE), a1 >> reset(1, frames.INTERNAL_ERROR)],
    )
    def test_nor_does_what_is_no_answer_of_grpc(self, wires: Wires, answer: Step) -> None:
        stage = called(wires)
        stage.does(answer)
        assert by_method(stage) == {"other": 1}

    def test_nor_what_the_mesh_says(self, wires: Wires) -> None:
        stage = wires(annotations={"svc.mesh/fault": "abort 500"})
        stage.does(client >> HELLO, client >> call())
        assert counted(stage) == {"INTERNAL": 1}
        assert by_method(stage) == {"other": 1}

    def test_they_are_forgotten_with_their_port(self, wires: Wires) -> None:
        stage = called(wires)
        stage.does(a1 >> only(1, 0), client >> call(3))
        stage.plane.listeners.apply([], [stage.plane.spec.key])
        stage.does(a1 >> only(3, 0))
        assert by_method(stage) == {}
        assert counted(stage) == {"OK": 2}
