"""What an explanation says of retries is what the layer does: on every failure, for requests and calls."""

from __future__ import annotations

import itertools

import pytest

from middleware.contract import ConnectFailed, ExchangeError, GatewayTimeout, NoEndpoint, UpstreamReset
from middleware.grpc import BY_WORD, GrpcStatus, of_reply
from middleware.retry import again_on, build
from middleware.retry_options import CONDITIONS, Options
from middleware.testing import FakeContext, FakeRequest, FakeResponse, handler_of, status_of

WORDS = ((), ("5xx",), ("503", "unavailable"), ("retriable-4xx",), ("deadline-exceeded", "gateway-error"))
METHODS = ((), ("POST",), ("any",))
FAILURES = (ConnectFailed("refused"), UpstreamReset("reset"), GatewayTimeout("slow"), NoEndpoint("none"))
STATUSES = (409, 429, 500, 503)
CALL_STATUSES = (GrpcStatus.UNAVAILABLE, GrpcStatus.DEADLINE_EXCEEDED, GrpcStatus.INTERNAL)


async def at_once(_: float) -> None:
    """No wait."""


def named(word: str, status: int) -> bool:
    """Whether a word stands for a status of HTTP."""
    return word == str(status) or status in CONDITIONS.get(word, ())


def expected(words: list[str], failure: ExchangeError | int | GrpcStatus, call: bool) -> bool:
    """Whether these words say that a request is sent again after this failure."""
    if isinstance(failure, NoEndpoint):
        return False
    if isinstance(failure, ExchangeError):
        if not failure.processed or ("reset" in words):
            return True
        of_call = call and any(BY_WORD.get(word) is of_reply(failure.status) for word in words)
        return of_call or any(named(word, failure.status) for word in words)
    if isinstance(failure, GrpcStatus):
        return any(BY_WORD.get(word) is failure for word in words)
    return any(named(word, failure) for word in words)


@pytest.mark.parametrize("call", [False, True])
@pytest.mark.parametrize("on", WORDS)
@pytest.mark.parametrize("methods", METHODS)
def test_the_words_are_what_the_layer_does(on: tuple[str, ...], methods: tuple[str, ...], call: bool) -> None:
    options = Options(1, on, methods)
    failures = (*FAILURES, *(CALL_STATUSES if call else STATUSES))
    for method, failure in itertools.product(("POST",) if call else ("GET", "POST", "PATCH"), failures):
        outcome = FakeResponse(200, early=failure) if isinstance(failure, GrpcStatus) else failure
        layer = build(options, FakeContext(), sleep=at_once, fraction=lambda: 0.0)
        handler, scripted = handler_of(layer, outcome, 200)
        status_of(handler(FakeRequest(method, grpc=call)))
        words = again_on(options, method, call)
        assert set(words) <= {"connect-failure", *BY_WORD} if call else not set(words) & set(BY_WORD)
        again = len(scripted.requests) == 2
        assert again == expected(words, failure, call), (options, method, failure, words)
