"""The cache against a naive one: whatever is asked and whatever endpoints say, no answer is one that RFC 9111
forbids, and whatever may be answered from what is kept is.

The model keeps every response that the endpoint has ever given, and never forgets one. An answer is right if
the endpoint gave it to an equal request, and it is fresh, was validated, or may be stale.
"""

from __future__ import annotations

from email.utils import formatdate
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from middleware.cache import build
from middleware.cache_options import Options
from middleware.contract import Request
from middleware.testing import FakeContext, FakeRequest, FakeResponse, run

WALL = 1_700_000_000.0
START = 1000.0
SIZE = 1 << 16


class Given(msgspec.Struct):
    """A response that the endpoint gave, as the model sees it. Times in seconds."""

    number: int
    target: str
    vary: str
    value: str
    """Of the field that it varies by."""
    max_age: int
    word: str
    kept: bool
    beside: int
    at: float
    """When it was given, or last said to be valid."""


class CacheMachine(RuleBasedStateMachine):
    """Requests, changes at the endpoint, and time that passes, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.context = FakeContext()
        self.context.time = START
        layer = build(Options(size=SIZE, object=SIZE), self.context, wall=self.wall)
        self.handler = layer(self.endpoint)
        self.control: dict[str, Any] = {"max_age": 60, "word": "", "vary": "", "beside": 0, "etag": True}
        self.size = 10
        self.number = 0
        self.given: dict[int, Given] = {}
        self.asked = 0
        self.changed = True

    def wall(self) -> float:
        return WALL + self.context.time - START

    async def endpoint(self, request: Request) -> Any:
        """Give another response each time, unless the client has the last one of an unchanged resource."""
        self.asked += 1
        said = request.headers.get("If-None-Match")
        control = self.control
        words = [control["word"]] if control["word"] else []
        if control["max_age"] is not None:
            words.append(f"max-age={control['max_age']}")
        if control["beside"]:
            words.append(f"stale-while-revalidate={control['beside']}")
        fields = {"Date": formatdate(self.wall(), usegmt=True), "Vary": control["vary"]}
        if words:
            fields["Cache-Control"] = ", ".join(words)
        if said and not self.changed:
            known = self.given[int(said.strip('"'))]
            if (known.target, known.vary) == (request.target, control["vary"]):
                if words:
                    self.note(known.number, request)
                else:  # what the response itself said stays in force (RFC 9111 section 3.2)
                    value = request.headers.get("X-A") or ""
                    self.given[known.number] = replace(known, value=value, at=self.context.time)
                return FakeResponse(304, {**fields, "ETag": said})
        self.number += 1
        self.note(self.number, request)
        if control["etag"]:
            fields["ETag"] = f'"{self.number}"'
        body = b"%d|" % self.number + b"x" * self.size
        return FakeResponse(200, fields, body)

    def note(self, number: int, request: Request) -> None:
        control = self.control
        self.given[number] = Given(
            number,
            request.target,
            control["vary"],
            request.headers.get("X-A") or "",
            control["max_age"] or 0,
            control["word"],
            control["word"] not in ("no-store", "private")
            and control["vary"] != "*"
            and (control["max_age"] is not None or control["word"] in ("public", "no-cache")),
            control["beside"],
            self.context.time,
        )

    @rule(
        max_age=st.sampled_from([None, 0, 10, 60]),
        word=st.sampled_from(["", "", "public", "no-store", "private", "no-cache", "must-revalidate"]),
        vary=st.sampled_from(["", "", "X-A", "*"]),
        beside=st.sampled_from([0, 0, 30]),
        etag=st.booleans(),
        size=st.sampled_from([10, 10, 20_000, 70_000]),
        changed=st.booleans(),
    )
    def says(self, size: int, changed: bool, **control: Any) -> None:
        """Have the endpoint answer otherwise from now on."""
        self.control, self.size, self.changed = control, size, changed

    @rule(seconds=st.sampled_from([1, 5, 9, 10, 30, 59, 61]))
    def passes(self, seconds: int) -> None:
        self.context.time += seconds

    @rule(
        path=st.sampled_from(["/a", "/a", "/b", "/c"]),
        value=st.sampled_from(["", "1", "2"]),
        control=st.sampled_from(["", "", "", "no-cache", "max-age=5", "max-stale=7", "min-fresh=3"]),
        method=st.sampled_from(["GET", "GET", "HEAD"]),
    )
    def asks(self, path: str, value: str, control: str, method: str) -> None:
        self.ask(path, value, control, method)

    def ask(self, path: str, value: str, control: str = "", method: str = "GET") -> bool:
        """Ask, and check the answer; return whether it came from what was kept."""
        fields = {"Host": "web"} | ({"X-A": value} if value else {})
        if control:
            fields["Cache-Control"] = control
        before, now = self.asked, self.context.time
        request = FakeRequest(method, target=path, fields=fields)
        response = run(self.handler(request))
        kept = self.asked == before
        given = self.given[int(response.body.partition(b"|")[0])]
        assert given.target == path
        assert response.status == 200
        if kept:
            self.check_kept(given, value, control, now)
            assert response.headers.get("Age") == str(int(now - given.at))
        else:
            assert given.at == now, "it was sent on, so the answer is a new one, or was validated now"
        for copy, serve in request.errands:
            run(serve(copy))
        return kept

    def check_kept(self, given: Given, value: str, control: str, now: float) -> None:
        """The endpoint was not asked: that must have been allowed."""
        age = now - given.at
        assert given.kept
        assert given.word != "no-cache"
        assert given.word != "must-revalidate" or age < given.max_age
        assert not given.vary or given.value == value
        assert control != "no-cache"
        assert control != "max-age=5" or age <= 5
        assert control != "min-fresh=3" or given.max_age - age >= 3
        late = max(given.beside, 7 if control == "max-stale=7" else 0)
        assert age < given.max_age or age <= given.max_age + late

    @rule(
        path=st.sampled_from(["/a", "/b"]),
        values=st.sampled_from([("", ""), ("1", "1"), ("1", "2"), ("", "1")]),
        later=st.sampled_from([0, 0, 9, 10, 12, 59, 60, 62]),
    )
    def asks_twice(self, path: str, values: tuple[str, str], later: int) -> None:
        """What may be kept, and has room, is not asked for again while it is fresh."""
        control = self.control
        self.ask(path, values[0], "no-cache")
        self.context.time += later
        kept = self.ask(path, values[1])
        usable = control["word"] in ("", "public", "must-revalidate") and later < (control["max_age"] or 0)
        equal = control["vary"] != "*" and (not control["vary"] or values[0] == values[1])
        if usable and equal and self.size < 30_000:
            assert kept

    @rule(path=st.sampled_from(["/a", "/b"]))
    def posts(self, path: str) -> None:
        """Nothing that was asked for before is used after that."""
        run(self.handler(FakeRequest("POST", target=path, fields={"Host": "web"})))
        for given in self.given.values():
            if given.target == path and given.at <= self.context.time:
                given.kept = False
        self.context.time += 1

    @invariant()
    def bounded(self) -> None:
        assert self.context.metrics["svcmesh_cache_stored"] >= 0
        assert self.context.metrics.get("svcmesh_cache_bytes", 0) <= SIZE


CacheMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAgainstTheModel = CacheMachine.TestCase
