"""HTTP/1 on both sides, as bytes on the wire."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from middleware.contract import Handler, Reply, Request, Response
from nodeagent.settings import Limits
from nodeagent.stats import columns
from tests.exchange.http1 import FROM, HOST, Http1Stage, Own, get, got, http, ok, put, was_put
from tests.exchange.layers import Gate, layer
from tests.exchange.script import a, a1, a2, b, b1, client, client2

Wires = Callable[..., Http1Stage]
CHUNKED = "Transfer-Encoding: chunked"
CLOSE = "Connection: close"
UPGRADE = ("Connection: upgrade", "Upgrade: echo")


def asked(stage: Http1Stage, request: bytes = get(), forwarded: bytes = got()) -> Http1Stage:
    """Have the first request of the client reach a first connection to `a`."""
    stage.play(client >> request, a << "dialled", a >> "accepts", a1 << forwarded)
    return stage


class TestPlain:
    def test_one_after_another(self, wires: Wires) -> None:
        stage = asked(wires(), get("/1"), got("/1"))
        stage.play(
            a1 >> ok(b"one"),
            client << ok(b"one"),
            client >> get("/2"),
            a1 << got("/2"),
            a1 >> ok(b"two"),
            client << ok(b"two"),
            client >> "ends",
            client << "end",
        )
        assert stage.plane.count(columns.REQUESTS_2XX) == 2
        assert stage.plane.count(columns.UPSTREAM_CONNECTIONS) == 1

    def test_byte_by_byte(self, wires: Wires) -> None:
        stage = asked(wires())
        stage.play(a1 >> ok(), client << ok())

        def says(name: str, data: bytes) -> None:
            for byte in data:
                stage.wire(name).says(bytes((byte,)))

        stage.play(
            lambda: says("client", put(b"body") + put(b"more")),
            a1 << was_put(b"body"),
            lambda: says("a1", http("HTTP/1.1 200 OK", CHUNKED, body=b"3\r\nabc\r\n0\r\n\r\n")),
            client << http("HTTP/1.1 200 OK", CHUNKED, body=b"3\r\nabc\r\n0\r\n\r\n"),
            a1 << was_put(b"more"),
            a1 >> ok(b"last"),
            client << ok(b"last"),
        )

    def test_head_has_no_body(self, wires: Wires) -> None:
        stage = asked(wires(), http("HEAD / HTTP/1.1", HOST), http("HEAD / HTTP/1.1", HOST, FROM))
        stage.play(
            a1 >> ok(length=100),
            client << ok(length=100),
            client >> get(),
            a1 << got(),
            a1 >> http("HTTP/1.1 304 Not Modified", "Content-Length: 7"),
            client << http("HTTP/1.1 304 Not Modified", "Content-Length: 7"),
            client >> get(),
            a1 << got(),
        )

    def test_chunks_pass_as_they_come(self, wires: Wires) -> None:
        stage = asked(
            wires(),
            http("POST / HTTP/1.1", HOST, CHUNKED, body=b"3\r\nab"),
            http("POST / HTTP/1.1", HOST, CHUNKED, FROM, body=b"3\r\nab"),
        )
        stage.play(
            client >> b"c\r\n0",
            a1 << b"c\r\n0",
            client >> b"\r\n\r\n",
            a1 << b"\r\n\r\n",
            a1 >> http("HTTP/1.1 200 OK", CHUNKED, body=b"1"),
            client << http("HTTP/1.1 200 OK", CHUNKED, body=b"1"),
            a1 >> b"\r\nx\r\n0\r\n",
            client << b"\r\nx\r\n0\r\n",
            a1 >> b"\r\n",
            client << b"\r\n",
            client >> get(),
            a1 << got(),
        )

    def test_trailers_end_here(self, wires: Wires) -> None:
        asked(wires()).play(
            a1 >> http("HTTP/1.1 200 OK", CHUNKED, body=b"1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n"),
            client << http("HTTP/1.1 200 OK", CHUNKED, body=b"1\r\nx\r\n0\r\n\r\n"),
        )

    def test_trailers_pass_for_a_client_that_takes_them(self, wires: Wires) -> None:
        answer = http("HTTP/1.1 200 OK", CHUNKED, body=b"1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n")
        passed_on = http("GET / HTTP/1.1", HOST, "TE: trailers", FROM, "Connection: TE")
        asked(wires(), get("/", "TE: trailers"), passed_on).play(a1 >> answer, client << answer)

    def test_a_response_until_close_gets_chunks(self, wires: Wires) -> None:
        asked(wires()).play(
            a1 >> http("HTTP/1.1 200 OK", body=b"abc"),
            client << http("HTTP/1.1 200 OK", CHUNKED, body=b"3\r\nabc\r\n"),
            a1 >> b"de",
            client << b"2\r\nde\r\n",
            a1 >> "ends",
            client << b"0\r\n\r\n",
            a1 << "end",
            client >> get(),
            a << "dialled",
        )

    def test_a_response_until_close_with_its_end_at_once(self, wires: Wires) -> None:
        stage = asked(wires())

        def says() -> None:
            stage.wire("a1").says(http("HTTP/1.1 200 OK", body=b"abc"))
            stage.wire("a1").closes()

        stage.play(
            says,
            client << http("HTTP/1.1 200 OK", CHUNKED, body=b"3\r\nabc\r\n0\r\n\r\n"),
            client >> get(),
            a << "dialled",
        )

    def test_a_response_until_reset_is_not_whole(self, wires: Wires) -> None:
        asked(wires()).play(
            a1 >> http("HTTP/1.1 200 OK", body=b"abc"),
            client << http("HTTP/1.1 200 OK", CHUNKED, body=b"3\r\nabc\r\n"),
            a1 >> "resets",
            client << "reset",
        )

    def test_early_hints_and_an_expectation(self, wires: Wires) -> None:
        expecting = http("PUT / HTTP/1.1", HOST, "Content-Length: 4", "Expect: 100-continue")
        passed_on = http("PUT / HTTP/1.1", HOST, "Content-Length: 4", "Expect: 100-continue", FROM)
        asked(wires(), expecting, passed_on).play(
            a1 >> http("HTTP/1.1 103 Early Hints", "Link: x"),
            client << http("HTTP/1.1 103 Early Hints", "Link: x"),
            a1 >> http("HTTP/1.1 100 Continue"),
            client << http("HTTP/1.1 100 Continue"),
            client >> b"body",
            a1 << b"body",
            a1 >> http("HTTP/1.1 103 Early Hints") + ok(b"x"),
            client << http("HTTP/1.1 103 Early Hints") + ok(b"x"),
        )


class TestOld:
    """Clients that speak HTTP/1.0."""

    GET = http("GET / HTTP/1.0")
    GOT = http("GET / HTTP/1.1", "Host: 127.64.0.10", FROM)

    def test_a_request_is_a_connection(self, wires: Wires) -> None:
        asked(wires(), self.GET, self.GOT).play(a1 >> ok(b"x"), client << ok(b"x", CLOSE), client << "end")

    def test_it_may_ask_to_keep_it(self, wires: Wires) -> None:
        keep = "Connection: keep-alive"
        asked(wires(), http("GET / HTTP/1.0", keep), self.GOT).play(
            a1 >> ok(b"x"),
            client << ok(b"x", keep),
            client >> self.GET,
            a1 << self.GOT,
            a1 >> ok(b"y"),
            client << ok(b"y", CLOSE),
            client << "end",
        )

    def test_chunks_are_taken_out(self, wires: Wires) -> None:
        asked(wires(), self.GET, self.GOT).play(
            a1 >> http("HTTP/1.1 200 OK", CHUNKED, "X-More: 1", body=b"3\r\nab"),
            client << http("HTTP/1.1 200 OK", "X-More: 1", CLOSE, body=b"ab"),
            a1 >> b"c\r\n1\r\nd\r\n",
            client << b"cd",
            a1 >> b"0\r\n\r\n",
            client << "end",
        )

    def test_interim_responses_are_not_for_it(self, wires: Wires) -> None:
        asked(wires(), self.GET, self.GOT).play(
            a1 >> http("HTTP/1.1 103 Early Hints"), a1 >> ok(), client << ok(b"", CLOSE), client << "end"
        )

    def test_an_old_endpoint(self, wires: Wires) -> None:
        asked(wires()).play(
            a1 >> http("HTTP/1.0 200 OK", "Content-Length: 1", body=b"x"),
            client << http("HTTP/1.1 200 OK", "Content-Length: 1", body=b"x"),
            a1 << "end",
            client >> get(),
            a << "dialled",
        )


class TestPipelining:
    def test_in_order(self, wires: Wires) -> None:
        asked(wires(), get("/1") + get("/2") + get("/3"), got("/1")).play(
            a1 >> ok(b"1"),
            client << ok(b"1"),
            a1 << got("/2"),
            a1 >> ok(b"2"),
            client << ok(b"2"),
            a1 << got("/3"),
            a1 >> ok(b"3"),
            client << ok(b"3"),
        )

    def test_behind_a_body(self, wires: Wires) -> None:
        asked(wires(), put(b"body") + get("/2"), was_put(b"body")).play(
            a1 >> ok(b"1"), client << ok(b"1"), a1 << got("/2")
        )

    def test_behind_a_body_that_comes_later(self, wires: Wires) -> None:
        asked(wires(), put(b"bo", length=4), was_put(b"bo", length=4)).play(
            client >> b"dy" + get("/2"), a1 << b"dy", a1 >> ok(b"1"), client << ok(b"1"), a1 << got("/2")
        )

    def test_a_second_head_in_pieces(self, wires: Wires) -> None:
        asked(wires(), get("/1") + get("/2")[:10], got("/1")).play(
            client >> get("/2")[10:20],
            a1 >> ok(b"1"),
            client << ok(b"1"),
            client >> get("/2")[20:],
            a1 << got("/2"),
        )

    def test_behind_one_that_is_refused(self, wires: Wires) -> None:
        stage = asked(wires(), get("/1") + b"nonsense\r\n\r\n" + get("/3"), got("/1"))
        refused = Own(400, "malformed_line", closing=True, behind=ok(b"1"))
        stage.play(a1 >> ok(b"1"), client << refused, client << "end")

    def test_it_is_not_read_without_end(self, wires: Wires) -> None:
        stage = asked(wires(limits=Limits(head_bytes=512)), get("/1"), got("/1"))
        stage.play(client >> get("/2") * 20)
        assert stage.held("client")
        stage.play(a1 >> ok(b"1"), client << ok(b"1"), a1 << got("/2"))
        for _ in range(18):
            stage.play(a1 >> ok(), client << ok(), a1 << got("/2"))
        assert not stage.held("client")
        stage.play(a1 >> ok(), client << ok(), a1 << got("/2"))

    def test_others_have_their_turn(self, wires: Wires) -> None:
        """What the mesh answers itself is answered in turns of 32."""

        async def reply(request: Request, handler: Handler) -> Response:
            return Reply(403, reason="forbidden")

        stage = wires(layers=[("rule", layer(reply))], high=10**6)
        stage.connects("client").says(get() * 80)
        for expected in (32, 64, 80):
            stage.loop.turn()
            assert stage.plane.ended == expected
        stage.log.clear()

    def test_who_does_not_read_is_asked_nothing_more(self, wires: Wires) -> None:
        stage = asked(wires(), get("/1") + get("/2"), got("/1"))
        stage.play(client >> "stops reading", a1 >> ok(b"x" * 100))
        assert stage.connection("client").write_paused
        stage.play(client >> get("/3"), client >> "reads", client << ok(b"x" * 100), a1 << got("/2"))

    def test_nor_where_its_next_head_comes_later(self, wires: Wires) -> None:
        stage = asked(wires(), get("/1"), got("/1"))
        stage.play(client >> "stops reading", a1 >> ok(b"x" * 100), client >> get("/2"))
        assert stage.held("client")
        stage.play(client >> "reads", client << ok(b"x" * 100), a1 << got("/2"))


class TestHalfClose:
    """A client that sends no more is still answered."""

    def test_while_it_waits(self, wires: Wires) -> None:
        asked(wires()).play(client >> "ends", a1 >> ok(b"x"), client << ok(b"x", CLOSE), client << "end")

    def test_with_its_request(self, wires: Wires) -> None:
        stage = wires()

        def says() -> None:
            stage.connects("client").says(get())
            stage.wire("client").ends()

        stage.play(
            says,
            a << "dialled",
            a >> "accepts",
            a1 << got(),
            a1 >> ok(b"x"),
            client << ok(b"x", CLOSE),
            client << "end",
        )

    def test_within_its_request(self, wires: Wires) -> None:
        asked(wires(), put(b"bo", length=4), was_put(b"bo", length=4)).play(
            client >> "ends", client << "end", a1 << "end"
        )

    def test_within_its_response(self, wires: Wires) -> None:
        asked(wires()).play(
            a1 >> ok(b"ab", length=4),
            client << ok(b"ab", length=4),
            client >> "ends",
            a1 >> b"cd",
            client << b"cd",
            client << "end",
        )

    def test_behind_pipelined_requests(self, wires: Wires) -> None:
        """The first one is answered; the others were not begun, and it may as well have left."""
        asked(wires(), get("/1") + get("/2"), got("/1")).play(
            client >> "ends", a1 >> ok(b"1"), client << ok(b"1", CLOSE), client << "end"
        )


class TestEarlyAnswer:
    def test_the_rest_of_the_body_is_read_for_a_moment(self, wires: Wires) -> None:
        """Bytes unread at its close would reset the connection, and with it the answer."""
        asked(wires(), put(b"bo", length=4), was_put(b"bo", length=4)).play(
            a1 >> ok(b"x"),
            client << ok(b"x", CLOSE),
            client << "end",
            a1 << "end",
            client >> b"dy",
            client >> "ends",
        )

    def test_a_chunked_body_that_is_waited_with(self, wires: Wires) -> None:
        """The endpoint does not read, so the client is paused; there are enough chunks to need several
        turns."""
        chunks = b"1\r\nx\r\n" * 1500
        head = http("PUT / HTTP/1.1", HOST, CHUNKED)
        stage = asked(wires(), head, http("PUT / HTTP/1.1", HOST, CHUNKED, FROM))
        stage.play(a1 >> "stops reading", client >> chunks)
        assert stage.held("client")
        stage.play(a1 >> ok(b"no"), client << ok(b"no", CLOSE), client << "end", a1 << "end")
        assert not stage.held("client")
        stage.play(client >> b"1\r\ny\r\n", client >> "ends")
        assert stage.wire("client").ended == "end"

    def test_it_may_answer_and_read_on(self, wires: Wires) -> None:
        asked(wires(), put(b"bo", length=4), was_put(b"bo", length=4)).play(
            a1 >> ok(b"x", length=2),
            client << ok(b"x", length=2),
            client >> b"dy",
            a1 << b"dy",
            a1 >> b"y",
            client << b"y",
            client >> get(),
            a1 << got(),
        )


class TestTunnel:
    SWITCHED = http("HTTP/1.1 101 Switching Protocols", *UPGRADE)

    def begin(self, wires: Wires, **options: object) -> Http1Stage:
        return asked(wires(**options), get("/", *UPGRADE), http("GET / HTTP/1.1", HOST, FROM, *UPGRADE))

    def test_the_client_ends_first(self, wires: Wires) -> None:
        self.begin(wires).play(
            a1 >> self.SWITCHED + b"hello",
            client << self.SWITCHED + b"hello",
            client >> b"ping",
            a1 << b"ping",
            client >> "ends",
            a1 << "end",
            a1 >> b"pong",
            client << b"pong",
            a1 >> "ends",
            client << "end",
        )

    def test_the_endpoint_ends_first(self, wires: Wires) -> None:
        self.begin(wires).play(
            a1 >> self.SWITCHED,
            client << self.SWITCHED,
            a1 >> "ends",
            client << "end",
            client >> b"ping",
            a1 << b"ping",
            client >> "ends",
            a1 << "end",
        )

    def test_bytes_ahead(self, wires: Wires) -> None:
        """What a client sends before the answer is for the side that answers: here the other protocol."""
        self.begin(wires).play(
            client >> b"early",
            client >> "ends",
            a1 >> self.SWITCHED,
            client << self.SWITCHED,
            a1 << b"early",
            a1 << "end",
            a1 >> "ends",
            client << "end",
        )

    def test_it_is_refused(self, wires: Wires) -> None:
        self.begin(wires).play(client >> get("/2"), a1 >> ok(b"no"), client << ok(b"no"), a1 << got("/2"))

    def test_unasked(self, wires: Wires) -> None:
        answer = Own(502, "upstream_protocol_error")
        asked(wires()).play(a1 >> self.SWITCHED, client << answer, a1 << "reset")

    @pytest.mark.parametrize("word", ["resets", "closes"])
    def test_the_client_leaves(self, wires: Wires, word: str) -> None:
        """An end may be half of one: found out when more is sent."""
        found_out = (a1 << "end", a1 >> b"anybody?", a1 >> b"hello?") if word == "closes" else ()
        self.begin(wires).play(
            a1 >> self.SWITCHED, client << self.SWITCHED, client >> word, *found_out, a1 << "reset"
        )

    @pytest.mark.parametrize("word", ["resets", "closes"])
    def test_the_endpoint_leaves(self, wires: Wires, word: str) -> None:
        found_out = (client << "end", client >> b"anybody?", client >> b"hello?") if word == "closes" else ()
        self.begin(wires).play(
            a1 >> self.SWITCHED, client << self.SWITCHED, a1 >> word, *found_out, client << "reset"
        )

    def test_backpressure_both_ways(self, wires: Wires) -> None:
        stage = self.begin(wires)
        stage.play(
            a1 >> self.SWITCHED, client << self.SWITCHED, client >> "stops reading", a1 >> "stops reading"
        )
        stage.play(a1 >> b"x" * 100, client >> b"y" * 100)
        assert stage.held("a1")
        assert stage.held("client")
        stage.play(a1 >> b"more", client >> b"more")
        stage.play(client >> "reads", client << b"x" * 100 + b"more")
        assert stage.held("client")
        assert not stage.held("a1")
        stage.play(a1 >> "reads", a1 << b"y" * 100 + b"more")
        assert not stage.held("client")

    def test_its_ends_pass_what_is_held(self, wires: Wires) -> None:
        """Both ends come while both sides are held: all bytes arrive, in order, before the ends."""
        stage = self.begin(wires)
        stage.play(
            a1 >> self.SWITCHED, client << self.SWITCHED, client >> "stops reading", a1 >> "stops reading"
        )
        stage.play(a1 >> b"x" * 100, client >> b"y" * 100, a1 >> "ends", client >> "ends")
        stage.play(client >> "reads", client << b"x" * 100, client << "end")
        stage.play(a1 >> "reads", a1 << b"y" * 100, a1 << "end")

    def test_the_last_bytes_are_sent_to_a_slow_endpoint(self, wires: Wires) -> None:
        stage = self.begin(wires)
        stage.play(a1 >> self.SWITCHED, client << self.SWITCHED, a1 >> "stops reading", client >> b"last")
        stage.play(client >> "ends", a1 >> "ends", client << "end")
        stage.play(a1 >> "reads", a1 << b"last", a1 << "end")


class TestEndpointGone:
    @pytest.mark.parametrize("word", ["ends", "closes", "resets"])
    def test_while_idle(self, wires: Wires, word: str) -> None:
        stage = asked(wires())
        heard = (a1 << "end",) if word == "ends" else ()
        stage.play(a1 >> ok(), client << ok(), a1 >> word, *heard)
        stage.play(client >> get(), a << "dialled", a >> "accepts", a2 << got())

    def test_while_nobody_has_looked(self, wires: Wires) -> None:
        """It closes in the same turn in which the next request comes: a look at the socket tells."""
        stage = asked(wires())
        stage.play(a1 >> ok(), client << ok())

        def at_once() -> None:
            stage.wire("client").says(put(b"body"))
            stage.wire("a1").closes()

        stage.play(at_once, a << "dialled", a >> "accepts", a2 << was_put(b"body"))

    @pytest.mark.parametrize("word", ["closes", "resets"])
    def test_before_its_answer(self, wires: Wires, word: str) -> None:
        asked(wires()).play(a1 >> word, client << Own(502, "upstream_reset"))

    @pytest.mark.parametrize("word", ["closes", "resets"])
    def test_before_its_answer_on_a_connection_that_was_kept(self, wires: Wires, word: str) -> None:
        asked(wires()).play(
            a1 >> ok(),
            client << ok(),
            client >> get(),
            a1 << got(),
            a1 >> word,
            a << "dialled",
            a >> "accepts",
            a2 << got(),
        )

    @pytest.mark.parametrize("word", ["closes", "resets"])
    def test_within_the_head_of_its_answer(self, wires: Wires, word: str) -> None:
        asked(wires()).play(a1 >> b"HTTP/1.1 200", a1 >> word, client << Own(502, "upstream_reset"))

    @pytest.mark.parametrize("word", ["closes", "resets"])
    @pytest.mark.parametrize("chunked", [False, True])
    def test_within_its_answer(self, wires: Wires, word: str, chunked: bool) -> None:
        answer = http("HTTP/1.1 200 OK", CHUNKED, body=b"5\r\nab") if chunked else ok(b"ab", length=4)
        asked(wires()).play(a1 >> answer, client << answer, a1 >> word, client << "reset")

    def test_within_the_request(self, wires: Wires) -> None:
        asked(wires(), put(b"bo", length=4), was_put(b"bo", length=4)).play(
            a1 >> "resets",
            client << Own(502, "upstream_reset", closing=True),
            client << "end",
            client >> b"dy",
        )

    def test_while_it_does_not_read(self, wires: Wires) -> None:
        stage = asked(wires(), put(b"x" * 100, length=300), was_put(b"x" * 100, length=300))
        stage.play(a1 >> "stops reading", client >> b"x" * 100)
        assert stage.held("client")
        stage.play(a1 >> "resets", client << Own(502, "upstream_reset", closing=True), client << "end")
        assert not stage.held("client")

    def test_at_once(self, wires: Wires) -> None:
        """It accepts, and breaks off before the mesh knows that it is connected."""
        stage = wires()

        def accepts_and_resets() -> None:
            stage.accepts("a").resets()

        stage.play(client >> get(), a << "dialled", accepts_and_resets, client << Own(502, "upstream_reset"))

    def test_for_a_client_that_does_not_read(self, wires: Wires) -> None:
        """It is held, so nobody notices; when the client has read what there was, it learns the rest."""
        stage = asked(wires())
        stage.play(client >> "stops reading", a1 >> ok(b"x" * 100, length=300))
        assert stage.held("a1")
        stage.play(a1 >> "resets", client >> "reads", client << ok(b"x" * 100, length=300), client << "reset")

    def test_bytes_behind_its_answer(self, wires: Wires) -> None:
        asked(wires()).play(
            a1 >> ok(b"x") + ok(b"surplus"), client << ok(b"x"), a1 << "end", client >> get(), a << "dialled"
        )

    def test_bytes_behind_its_chunked_answer(self, wires: Wires) -> None:
        answer = http("HTTP/1.1 200 OK", CHUNKED, body=b"1\r\nx\r\n0\r\n\r\n")
        asked(wires()).play(
            a1 >> answer + ok(b"surplus"), client << answer, a1 << "end", client >> get(), a << "dialled"
        )

    def test_bytes_behind_its_answer_later(self, wires: Wires) -> None:
        asked(wires()).play(
            a1 >> ok(b"x"),
            client << ok(b"x"),
            a1 >> ok(b"surplus"),
            a1 << "end",
            client >> get(),
            a << "dialled",
        )


class TestClientGone:
    @pytest.mark.parametrize("word", ["ends", "closes", "resets"])
    def test_while_idle(self, wires: Wires, word: str) -> None:
        stage = wires()
        stage.play(client >> "connects", client >> word, *((client << "end",) if word == "ends" else ()))
        assert not stage.plane.runtime.connections

    def test_within_a_head(self, wires: Wires) -> None:
        stage = wires()
        stage.play(client >> b"GET / HT", client >> "resets")
        assert stage.plane.ended == 0

    @pytest.mark.parametrize("word", ["ends", "closes", "resets"])
    def test_within_a_body_while_connecting(self, wires: Wires, word: str) -> None:
        stage = wires()
        heard = (client << "end",) if word == "ends" else ()
        stage.play(client >> put(b"bo", length=4), a << "dialled", client >> word, *heard, a << "given up")
        assert stage.plane.count(columns.REQUESTS_NONE) == 1

    def test_while_connecting(self, wires: Wires) -> None:
        wires().play(client >> get(), a << "dialled", client >> "resets", a << "given up")

    def test_in_the_turn_in_which_the_connection_is_made(self, wires: Wires) -> None:
        """The loop closes a connection that is given up between `connection_made` and its taker."""
        stage = wires()
        stage.play(client >> get(), a << "dialled")

        def at_once() -> None:
            stage.wire("client").resets()
            stage.loop.turn()
            stage.accepts("a")

        stage.play(at_once, a1 << "end")
        assert not stage.plane.runtime.connections

    def test_connecting_takes_too_long_by_one_turn(self, wires: Wires) -> None:
        stage = wires()
        stage.play(client >> get(), a << "dialled")
        stage.loop.now += 3.0
        stage.loop.call_soon(stage.accepts, "a")
        stage.loop.advance(0.0)
        stage.log.clear()

    def test_while_it_waits(self, wires: Wires) -> None:
        asked(wires()).play(client >> "resets", a1 << "end")

    def test_while_it_waits_without_a_word(self, wires: Wires) -> None:
        """An end may be half of one: found out when the answer is sent."""
        stage = asked(wires())
        stage.play(client >> "closes", a1 >> ok(b"x"))
        assert not any(name == "client" for name, _ in stage.log)

    def test_within_its_response(self, wires: Wires) -> None:
        asked(wires()).play(
            a1 >> ok(b"ab", length=4), client << ok(b"ab", length=4), client >> "resets", a1 << "end"
        )

    def test_within_its_response_that_it_does_not_read(self, wires: Wires) -> None:
        stage = asked(wires())
        stage.play(client >> "stops reading", a1 >> ok(b"x" * 100, length=300))
        assert stage.held("a1")
        stage.play(client >> "resets", a1 << "end")

    def test_behind_a_response_that_it_does_not_read(self, wires: Wires) -> None:
        """Its endpoint's connection is free nevertheless."""
        stage = asked(wires())
        stage.play(client >> "stops reading", a1 >> ok(b"x" * 100))
        stage.play(client2 >> get("/2"), a1 << http("GET /2 HTTP/1.1", HOST, "X-Forwarded-For: 10.1.2.4"))
        stage.play(client >> "resets", a1 >> ok(b"2"), client2 << ok(b"2"))

    def test_while_a_layer_waits(self, wires: Wires) -> None:
        gate = Gate()

        async def wait(request: Request, handler: Handler) -> Response:
            await gate()
            return await handler(request)

        wires(layers=[("rule", layer(wait))]).play(client >> get(), client >> "resets", gate.opens)


class TestConnecting:
    def test_refused_by_one(self, wires: Wires) -> None:
        wires(endpoints="ab").play(
            client >> put(b"body"),
            a << "dialled",
            a >> "refuses",
            b << "dialled",
            b >> "accepts",
            b1 << was_put(b"body"),
        )

    def test_refused_by_all(self, wires: Wires) -> None:
        wires().play(client >> get(), a << "dialled", a >> "refuses", client << Own(503, "connect_failed"))

    def test_a_body_meanwhile(self, wires: Wires) -> None:
        stage = wires(limits=Limits(replay_bytes=8))
        stage.play(client >> put(b"x" * 6, length=20), a << "dialled", client >> b"x" * 6)
        assert stage.held("client")
        stage.play(a >> "accepts", a1 << was_put(b"x" * 12, length=20))
        assert not stage.held("client")
        stage.play(client >> b"x" * 8, a1 << b"x" * 8)

    def test_a_body_that_fills_the_endpoint_at_once(self, wires: Wires) -> None:
        """The client waits until the endpoint reads, though it is connected."""
        stage = wires(limits=Limits(replay_bytes=8))
        stage.play(client >> put(b"x" * 100, length=300), a << "dialled")

        def accepts() -> None:
            stage.accepts("a").stops()

        stage.play(accepts)
        assert stage.held("client")
        stage.play(a1 >> "reads", a1 << was_put(b"x" * 100, length=300))
        assert not stage.held("client")

    def test_the_queue(self, wires: Wires) -> None:
        stage = asked(wires(limits=Limits(upstream_connections=1)))
        other = http("GET / HTTP/1.1", HOST, "X-Forwarded-For: 10.1.2.4")
        stage.play(
            client2 >> get(),
            a1 >> ok(b"1"),
            client << ok(b"1"),
            a1 << other,
            a1 >> ok(b"2", CLOSE),
            client2 << ok(b"2"),
            a1 << "end",
        )
        stage.play(
            client >> get(),
            a << "dialled",
            client2 >> get(),
            a >> "refuses",
            client << Own(503, "connect_failed"),
            a << "dialled",
            a >> "accepts",
            a2 << other,
        )

    def test_a_place_that_a_tunnel_leaves(self, wires: Wires) -> None:
        request = http("GET / HTTP/1.1", HOST, FROM, *UPGRADE)
        stage = asked(wires(limits=Limits(upstream_connections=1)), get("/", *UPGRADE), request)
        stage.play(client2 >> get(), a1 >> TestTunnel.SWITCHED, client << TestTunnel.SWITCHED, a << "dialled")


class TestBackpressure:
    def test_a_client_that_does_not_read(self, wires: Wires) -> None:
        stage = asked(wires())
        stage.play(client >> "stops reading", a1 >> ok(b"x" * 100, length=300))
        assert stage.held("a1")
        whole = ok(b"x" * 100 + b"y" * 200)
        stage.play(a1 >> b"y" * 200, client >> "reads 100", client << whole[:100])
        assert stage.held("a1")
        stage.play(client >> "reads", client << whole[100:])

    def test_an_endpoint_that_does_not_read(self, wires: Wires) -> None:
        stage = asked(wires(), put(b"x" * 10, length=310), was_put(b"x" * 10, length=310))
        stage.play(a1 >> "stops reading", client >> b"y" * 100)
        assert stage.held("client")
        stage.play(client >> b"z" * 200, a1 >> "reads", a1 << b"y" * 100 + b"z" * 200)
        assert not stage.held("client")
        stage.play(a1 >> ok(), client << ok())

    def test_chunks_that_wait_for_an_endpoint(self, wires: Wires) -> None:
        """They take turns, and wait while it does not read."""
        chunks = b"1\r\nx\r\n" * 1500
        head = http("PUT / HTTP/1.1", HOST, CHUNKED)
        stage = asked(wires(), head, http("PUT / HTTP/1.1", HOST, CHUNKED, FROM))
        stage.play(a1 >> "stops reading", client >> chunks + b"0\r\n\r\n")
        assert stage.wire("a1").get_write_buffer_size() < len(chunks)
        stage.play(a1 >> "reads", a1 << chunks + b"0\r\n\r\n")
        stage.play(a1 >> ok(), client << ok(), client >> get(), a1 << got())

    def test_chunks_of_a_response_take_turns(self, wires: Wires) -> None:
        chunks = b"1\r\nx\r\n" * 1500
        stage = asked(wires(high=10**6))
        stage.wire("a1").says(http("HTTP/1.1 200 OK", CHUNKED, body=chunks))
        stage.loop.turn()
        assert len(stage.wire("client").received) < len(chunks) // 2
        stage.loop.settle()
        assert bytes(stage.wire("client").received).endswith(chunks)
        stage.log.clear()
        stage.play(a1 >> b"0\r\n\r\n", client << b"0\r\n\r\n", client >> get(), a1 << got())

    def test_chunks_for_a_client_that_does_not_read(self, wires: Wires) -> None:
        chunks = b"1\r\nx\r\n" * 1500
        stage = asked(wires())
        answer = http("HTTP/1.1 200 OK", CHUNKED, body=chunks + b"0\r\n\r\n")
        stage.play(client >> "stops reading", a1 >> answer, client >> "reads", client << answer)
        stage.play(client >> get(), a1 << got())


class TestReading:
    """A layer that reads responses."""

    def test_chunks(self, wires: Wires) -> None:
        bodies: list[bytes | None] = []

        async def read(request: Request, handler: Handler) -> Response:
            response = await handler(request)
            bodies.append(await response.read(100))
            response.headers.set("X-Read", "1")
            return response

        asked(wires(layers=[("rule", layer(read))])).play(
            a1 >> http("HTTP/1.1 200 OK", CHUNKED, body=b"2\r\nab\r\n"),
            a1 >> b"1\r\nc\r\n0\r",
            a1 >> b"\n\r\n" + b"surplus",
            client << http("HTTP/1.1 200 OK", CHUNKED, "X-Read: 1", body=b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"),
            a1 << "end",
        )
        assert bodies == [b"abc"]

    def test_until_close(self, wires: Wires) -> None:
        bodies: list[bytes | None] = []

        async def read(request: Request, handler: Handler) -> Response:
            response = await handler(request)
            bodies.append(await response.read(100))
            return response

        asked(wires(layers=[("rule", layer(read))])).play(
            a1 >> http("HTTP/1.1 200 OK", body=b"ab"),
            a1 >> "ends",
            client << http("HTTP/1.1 200 OK", CHUNKED, body=b"2\r\nab\r\n0\r\n\r\n"),
            a1 << "end",
        )
        assert bodies == [b"ab"]
