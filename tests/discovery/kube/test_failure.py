from __future__ import annotations

import json

import pytest

from discovery.kube.failure import FailureKind, read_failure
from tests.discovery.kube.fake_api import status


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (302, "refused"),
        (400, "refused"),
        (401, "unauthorized"),
        (403, "forbidden"),
        (404, "refused"),
        (410, "expired"),
        (429, "throttled"),
        (500, "server_error"),
        (503, "server_error"),
    ],
)
def test_the_code_says_what_kind_it_is(code: int, kind: FailureKind) -> None:
    body = json.dumps(status(code, "Reason", "the message")).encode()
    assert read_failure(code, body).kind == kind
    assert read_failure(code, b"<html>", content_type="text/html").kind == kind
    # In a watch's ERROR event the code is in the document alone.
    assert read_failure(0, body).kind == kind


def test_the_reason_is_the_server_s_own() -> None:
    body = json.dumps(status(403, "Forbidden", "pods is forbidden")).encode()
    assert read_failure(403, body).reason == "status 403: pods is forbidden"


@pytest.mark.parametrize("body", [b'{"kind":"\xff"}', b'{"kind":' + b"[" * 100_000, b"\xff" * 100, b""])
def test_a_body_that_is_no_text_is_no_crash(body: bytes) -> None:
    assert read_failure(503, body).kind == "server_error"
    assert len(read_failure(503, body).reason) <= 300


def test_the_reason_shows_what_came_instead() -> None:
    failure = read_failure(502, b"<html>Bad Gateway</html>" * 1000, content_type="text/html")
    assert "text/html" in failure.reason
    assert "Bad Gateway" in failure.reason
    assert len(failure.reason) <= 300


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7), ("", 0), ("-1", 0), ("soon", 0), ("99999999", 300), ("٣", 0)]
)
def test_retry_after(header: str, seconds: float) -> None:
    assert read_failure(429, b"", retry_after=header).retry_after == seconds


def test_retry_after_from_the_status() -> None:
    body = json.dumps(status(429, "TooManyRequests", "", retryAfterSeconds=3)).encode()
    assert read_failure(429, body).retry_after == 3


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'{"kind":"Status","code":"x"}', b"\xff\xfe"])
def test_anything_may_come_instead_of_a_status(body: bytes) -> None:
    assert read_failure(0, body).kind == "server_error"
