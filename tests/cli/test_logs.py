"""`meshctl logs`: which lines are about a Service, their order, and logs that cannot be read or go on."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from discovery.kube.commands.agents import AgentPod
from discovery.kube.commands.pod_logs import LONGEST_LINE, LineSplitter, PodLine, read_line, utc_stamp
from discovery.kube.commands.reading import Cluster, connect
from hack.kit.waiting import until_async
from nodeagent.meshctl import logreading
from nodeagent.meshctl.asking import WhichAgents
from nodeagent.meshctl.logreading import LogFailure, LogReader, TooManyAgents, check_number
from nodeagent.meshctl.logs import LogLine, Merge, Newest, TextForm, Wanted, record_of
from nodeagent.meshctl.main import main
from tests.cli.test_status import put_agent
from tests.discovery.kube.fake_api import Answer, FakeApi, answer, raw, status

POD = AgentPod("svcmesh-agent-1", "node-1", "Running", leaving=False, namespace="svcmesh")
CART = Wanted("shop/cart")


def log_line(
    second: float, event: str = "request_failed", service: str = "shop/cart", **fields: Any
) -> bytes:
    """Return a line as the API server gives it: the runtime is a little later than the agent."""
    time = f"2026-01-31T19:00:{second:09.6f}Z"
    said = {"time": time, "level": "warning", "event": event, "service": service, "port": 80, **fields}
    return f"2026-01-31T19:00:{second + 0.001:012.9f}Z {json.dumps(said)}\n".encode()


def put_log(api: FakeApi, name: str, node: str, *lines: bytes) -> None:
    put_agent(api, name, node)
    api.logs[name] = raw(200, b"".join(lines), "text/plain")


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times are shown in local time."""
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def meshctl(api: FakeApi, tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    result = CliRunner().invoke(main, ["logs", "--kubeconfig", kubeconfig, *arguments])
    return result.exit_code, result.stdout, result.stderr


# -- the command -----------------------------------------------------------------------------------------


def test_lines_of_all_agents_in_the_order_of_time(api: FakeApi, tmp_path: Path) -> None:
    put_log(
        api,
        "a",
        "node-1",
        log_line(1, status=503, reason="no_endpoint"),
        log_line(2, service="shop/other"),
        log_line(5, "request_refused", status=400, reason="malformed_line"),
    )
    put_log(api, "b", "node-2", log_line(0.5, "agent_ready", service=""), log_line(3, status=502))
    code, output, errors = meshctl(api, tmp_path, "cart", "-n", "shop")
    assert (code, errors) == (0, "")
    assert output.splitlines() == [
        "--- 2026-01-31",
        "19:00:01.000 request_failed     warning shop/cart:80 503 reason=no_endpoint node=node-1",
        "19:00:03.000 request_failed     warning shop/cart:80 502 node=node-2",
        "19:00:05.000 request_refused    warning shop/cart:80 400 reason=malformed_line node=node-1",
    ]
    (query, _) = api.queries("log", "Pod")
    assert query.items() >= {"container": "agent", "sinceSeconds": "600", "timestamps": "true"}.items()
    code, output, _ = meshctl(api, tmp_path, "cart", "-n", "shop", "--since", "2h", "-o", "json")
    lines = [json.loads(line) for line in output.splitlines()]
    assert [(line["node"], line["pod"], line["status"]) for line in lines] == [
        ("node-1", "a", 503),
        ("node-2", "b", 502),
        ("node-1", "a", 400),
    ]
    assert api.queries("log", "Pod")[-1]["sinceSeconds"] == "7200"


def test_filters(api: FakeApi, tmp_path: Path) -> None:
    put_log(
        api,
        "a",
        "node-1",
        log_line(1, reason="no_endpoint"),
        log_line(2, reason="connect_failed"),
        log_line(3, "endpoint_ejected", reason="connect_failed"),
    )
    put_log(api, "b", "node-2", log_line(4, reason="connect_failed"))

    def seconds(*arguments: str) -> list[str]:
        code, output, _ = meshctl(api, tmp_path, "cart", "-n", "shop", "-o", "json", *arguments)
        assert code == 0
        return [json.loads(line)["time"][18] for line in output.splitlines()]

    assert seconds() == ["1", "2", "3", "4"]
    assert seconds("--reason", "connect_failed") == ["2", "3", "4"]
    assert seconds("--reason", "connect_failed", "--event", "request_failed") == ["2", "4"]
    assert seconds("--event", "endpoint_ejected", "--event", "request_failed") == ["1", "2", "3", "4"]
    assert seconds("--node", "node-2") == ["4"]
    assert seconds("--tail", "2") == ["3", "4"]
    assert (
        "2 older lines are left out: --tail 2\n"
        in meshctl(api, tmp_path, "cart", "-n", "shop", "--tail", "2")[2]
    )
    assert meshctl(api, tmp_path, "cart")[:2] == (0, ""), "of the namespace default"


def test_a_log_that_cannot_be_read_hides_no_other(api: FakeApi, tmp_path: Path) -> None:
    put_log(api, "a", "node-1", log_line(1))
    put_log(api, "b", "node-2")
    api.logs["b"] = answer(403, status(403, "Forbidden", 'cannot get resource "pods/log"'))
    put_agent(api, "c", "node-3")
    code, output, errors = meshctl(api, tmp_path, "cart", "-n", "shop")
    assert code == 1
    assert "node=node-1" in output
    assert 'node-2 (b): status 403: cannot get resource "pods/log"\n' in errors
    assert "node-3 (c): status 404: the pod is not found\n" in errors


def test_no_agents_no_cluster_and_bad_words(api: FakeApi, tmp_path: Path) -> None:
    code, output, errors = meshctl(api, tmp_path, "cart", "--node", "node-7")
    assert (code, output) == (1, "")
    assert errors == "no agents: no pod in any namespace on node-7 matches app.kubernetes.io/name=svcmesh\n"
    assert meshctl(api, tmp_path, "Cart!")[0] == 2
    assert "not a duration" in meshctl(api, tmp_path, "cart", "--since", "10")[2]
    api.script("list", "Pod", answer(403, status(403, "Forbidden", "pods is forbidden")))
    code, _, errors = meshctl(api, tmp_path, "cart")
    assert code == 2
    assert "pods is forbidden" in errors


# -- lines -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ('{"event": "x", "service": "shop/cart"}', True),
        ('{"event": "x", "object": "Service shop/cart"}', True),
        ('{"event": "x", "service": "shop/cart2"}', False),
        ('{"event": "x", "path": "shop/cart"}', False),
        ('{"event": "x", "service": ["shop/cart"]}', False),
        ('{"event": "x", "service": "shop/cart"', True),  # cut short: shown as it is
        ('{"event":"x","service":"shop/cart","po', True),
        # By templates of --access-log-format:
        ('10.1.0.9 [shop/cart] "GET /" 200', True),
        ("service=shop/cart:80|/|200", True),
        ("shop/cart\t/\t200", True),
        ("shop/cart-2 / 200", False),
        ('shop/deployment/cart "GET /shop/cart" 200', False),
        ("10.1.0.9 GET / 200", False),
        ("19:02:16.821 request_failed     warning shop/cart:80 503 GET /broken", True),
        ('19:02:16.821 problem            warning object="Service shop/cart" field=x', True),
        ("19:02:16.821 request_failed     warning shop/cart2:80 503 GET /broken", False),
        ("", False),
        ("{", False),
    ],
)
def test_which_lines_are_about_a_service(text: str, meant: bool) -> None:
    assert (CART.read(POD, PodLine("", text)) is not None) is meant


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        (Wanted("shop/cart", frozenset({"request"})), True),
        (Wanted("shop/cart", frozenset({"request", "connection"}), frozenset({"timeout"})), True),
        (Wanted("shop/cart", frozenset({"request_failed"})), False),
        (Wanted("shop/cart", reasons=frozenset({"time"})), False),
        (Wanted("shop/other", frozenset({"request"})), False),
    ],
)
def test_words_of_a_template_are_looked_at_by_filters(wanted: Wanted, meant: bool) -> None:
    assert (wanted.read(POD, PodLine("", "request: shop/cart (timeout)")) is not None) is meant


def test_lines_without_a_time_have_that_of_the_container_runtime(api: FakeApi, tmp_path: Path) -> None:
    """Lines by a template stand among others, whether they have a time or not."""
    put_log(api, "a", "node-1", log_line(1, status=503), log_line(4, status=504))
    stamp = "2026-01-31T19:00:0{}.000000000Z"
    mine = 'shop/cart "GET /\\u001b[2J" 200\n'
    named = '{"service":"shop/cart","path":"/a"}\n'
    lines = [f"{stamp.format(2)} {mine}", f"{stamp.format(3)} {named}", f"{stamp.format(3)} GET / 200\n"]
    put_log(api, "b", "node-2", "".join(lines).encode())
    code, output, errors = meshctl(api, tmp_path, "cart", "-n", "shop")
    assert (code, errors) == (0, "")
    assert output.splitlines()[1:] == [
        "19:00:01.000 request_failed     warning shop/cart:80 503 node=node-1",
        'shop/cart "GET /\\u001b[2J" 200 node=node-2',
        "19:00:03.000 -                  shop/cart /a node=node-2",
        "19:00:04.000 request_failed     warning shop/cart:80 504 node=node-1",
    ]
    _, output, _ = meshctl(api, tmp_path, "cart", "-n", "shop", "-o", "json")
    assert json.loads(output.splitlines()[1]) == {
        "time": stamp.format(2),
        "text": mine.rstrip(),
        "node": "node-2",
        "pod": "b",
    }


@given(st.text(), st.text())
def test_no_line_is_a_reason_to_fail(stamp: str, text: str) -> None:
    line = CART.read(POD, PodLine(stamp, f"{text} shop/cart {text}"))
    if line is not None:
        json.loads(msgspec.json.encode(record_of(line)))
        assert all(shown.isprintable() for shown in TextForm(False, lambda: 0, "").lines(line))


@given(st.dictionaries(st.text(), st.text() | st.integers(-(2**60), 2**60) | st.lists(st.text())))
def test_whatever_an_event_holds_is_shown(fields: dict[str, Any]) -> None:
    said = {**fields, "service": "shop/cart", "traceback": ""}
    line = CART.read(POD, PodLine("2026-01-31T19:00:00.000000000Z", json.dumps(said)))
    assert line is not None
    json.loads(msgspec.json.encode(record_of(line)))
    shown = [part for text in TextForm(False, lambda: 0, "").lines(line) for part in text.split("\n")]
    assert all(part.isprintable() for part in shown)


@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line)), st.integers(1, 40))
def test_lines_are_the_same_in_any_pieces(lines: list[bytes], size: int) -> None:
    whole, splitter = b"".join(line + b"\n" for line in lines), LineSplitter()
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    assert [line for piece in pieces for line in splitter.feed(piece)] == [read_line(line) for line in lines]


def test_a_line_without_an_end_is_bounded() -> None:
    splitter = LineSplitter()
    for _ in range(5):
        assert splitter.feed(b"x" * LONGEST_LINE) == []
    (line,) = splitter.feed(b"y\n")
    assert len(line.text) == LONGEST_LINE
    assert splitter.feed(b"z\n") == [PodLine("", "z")]


@pytest.mark.parametrize(
    ("text", "stamp"),
    [
        ("2026-01-31T19:00:01Z", "2026-01-31T19:00:01.000000000Z"),
        ("2026-01-31T19:00:01.123456789Z", "2026-01-31T19:00:01.123456789Z"),
        ("2026-01-31T19:00:01.5+02:00", "2026-01-31T17:00:01.500000000Z"),
        ("2026-01-31T19:00:01.5-05:30", "2026-02-01T00:30:01.500000000Z"),
        ("2026-13-28T19:00:01Z", ""),
        ("0001-01-01T00:00:00+14:00", ""),
        ("yesterday", ""),
    ],
)
def test_stamps(text: str, stamp: str) -> None:
    assert utc_stamp(text) == stamp


# -- the order -------------------------------------------------------------------------------------------


def line(stamp: str) -> LogLine:
    return LogLine(stamp, "node-1", "a", "", None)


@given(st.lists(st.text("0123456789", min_size=3, max_size=3)), st.integers(1, 10))
def test_the_newest_lines_in_order(stamps: list[str], most: int) -> None:
    newest = Newest(most)
    for stamp in stamps:
        newest.add(line(stamp))
    assert [one.stamp for one in newest.lines()] == sorted(stamps)[-most:]
    assert newest.left_out == max(0, len(stamps) - most)


def test_a_line_waits_for_older_ones_of_others() -> None:
    merge = Merge(0.5, 100)
    merge.add(line("3"), 10.0)
    assert list(merge.take(10.4)) == []
    merge.add(line("1"), 10.4)
    merge.add(line("4"), 10.4)
    assert [one.stamp for one in merge.take(10.5)] == ["1", "3"], "the older one goes with it"
    assert [one.stamp for one in merge.take(10.9)] == ["4"]


@given(st.lists(st.tuples(st.integers(0, 99), st.floats(0, 1)), max_size=60), st.integers(1, 20))
def test_merging_loses_nothing_and_holds_no_more_than_it_may(
    lines: list[tuple[int, float]], most: int
) -> None:
    merge, shown, now = Merge(0.5, most), [], 0.0
    for number, wait in lines:
        now += wait
        merge.add(line(f"{number:02}"), now)
        shown += [one.stamp for one in merge.take(now)]
        assert len(merge) <= most
    shown += [one.stamp for one in merge.take(now + 0.5)]
    assert sorted(shown) == sorted(f"{number:02}" for number, _ in lines)


# -- following -------------------------------------------------------------------------------------------


def growing(lines: asyncio.Queue[bytes | None]) -> Answer:
    """A log that grows until None ends it."""

    async def send(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        while "follow" in request.query and (data := await lines.get()) is not None:
            await response.write(data)
        return response

    return send


async def following(
    api: FakeApi, tmp_path: Path, during: Callable[[list[str], list[LogFailure], LogReader], Any]
) -> None:
    """Follow all agents while `during` runs."""
    shown: list[str] = []
    told: list[LogFailure] = []
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    async with connect(Cluster(kubeconfig), 50, os.environ) as connection:
        reader = LogReader(connection, CART, 60.0)
        agents = WhichAgents(selector="app.kubernetes.io/name=svcmesh")
        task = asyncio.create_task(
            reader.follow(agents, lambda one: shown.append(one.stamp[17:19]), told.append)
        )
        try:
            await during(shown, told, reader)
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


@pytest.fixture
async def own_api() -> Any:
    server = FakeApi()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logreading, "LOOK_EVERY", 0.02)


async def test_agents_are_followed_as_they_come_and_go(own_api: FakeApi, tmp_path: Path) -> None:
    first: asyncio.Queue[bytes | None] = asyncio.Queue()
    second: asyncio.Queue[bytes | None] = asyncio.Queue()
    put_agent(own_api, "a", "node-1")
    own_api.logs["a"] = growing(first)

    async def during(shown: list[str], told: list[LogFailure], _: LogReader) -> None:
        await first.put(log_line(1) + log_line(2, service="shop/other") + log_line(3))
        await until_async(lambda: shown == ["01", "03"])
        put_agent(own_api, "b", "node-2")
        own_api.logs["b"] = growing(second)
        await second.put(log_line(4))
        await until_async(lambda: shown == ["01", "03", "04"])
        await first.put(None)  # its container has ended; the next log begins with what was seen
        await first.put(log_line(3) + log_line(5))
        await until_async(lambda: shown == ["01", "03", "04", "05"])
        assert own_api.queries("log", "Pod")[-1]["sinceTime"] == "2026-01-31T19:00:03.001000000Z"
        assert told == []

    await following(own_api, tmp_path, during)


async def test_a_failure_is_told_once_while_others_are_followed(own_api: FakeApi, tmp_path: Path) -> None:
    lines: asyncio.Queue[bytes | None] = asyncio.Queue()
    put_agent(own_api, "a", "node-1")
    put_agent(own_api, "b", "node-2")
    own_api.logs["a"] = growing(lines)
    own_api.logs["b"] = answer(403, status(403, "Forbidden", "no"))

    async def during(shown: list[str], told: list[LogFailure], _: LogReader) -> None:
        await until_async(lambda: own_api.count("log", "Pod") > 5)
        await lines.put(log_line(1))
        await until_async(lambda: shown == ["01"])
        assert told == [LogFailure("node-2", "b", "status 403: no")]

    await following(own_api, tmp_path, during)


async def test_an_api_server_that_goes_away_ends_nothing(own_api: FakeApi, tmp_path: Path) -> None:
    lines: asyncio.Queue[bytes | None] = asyncio.Queue()
    put_agent(own_api, "a", "node-1")
    own_api.logs["a"] = growing(lines)

    async def during(shown: list[str], told: list[LogFailure], _: LogReader) -> None:
        await lines.put(log_line(1))
        await until_async(lambda: shown == ["01"])
        port = own_api.port
        await own_api.stop()
        await until_async(lambda: len(told) > 0)
        await own_api.start(port)
        await lines.put(log_line(2))
        await until_async(lambda: shown == ["01", "02"])

    await following(own_api, tmp_path, during)


async def test_a_reader_that_has_gone_ends_it(own_api: FakeApi, tmp_path: Path) -> None:
    lines: asyncio.Queue[bytes | None] = asyncio.Queue()
    put_agent(own_api, "a", "node-1")
    own_api.logs["a"] = growing(lines)
    await lines.put(log_line(1))

    def show(_: LogLine) -> None:
        raise BrokenPipeError

    async with connect(Cluster(own_api.write_kubeconfig(tmp_path / "config")), 50, os.environ) as connection:
        reader = LogReader(connection, CART, 60.0)
        with pytest.raises(BrokenPipeError):
            await reader.follow(WhichAgents(selector="app.kubernetes.io/name=svcmesh"), show, lambda _: None)


def test_too_many_agents_to_follow() -> None:
    check_number([POD] * logreading.MOST_FOLLOWED)
    with pytest.raises(TooManyAgents, match="201 agents: 200 can be followed; choose one with --node"):
        check_number([POD] * (logreading.MOST_FOLLOWED + 1))
