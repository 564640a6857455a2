"""`meshctl stat` and `meshctl top`: one table over all agents, agents without an answer, narrow terminals."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.meshctl.graph import dot_lines, graph_lines
from nodeagent.meshctl.live import only, read_stats
from nodeagent.meshctl.main import main
from nodeagent.meshctl.screen import HELP, KEYS, LONGEST_FILTER, View, press, screen_lines
from nodeagent.meshctl.stat import (
    COLUMNS,
    DROPPED,
    SORTS,
    show_rate,
    show_seconds,
    show_share,
    sort_services,
    summary_lines,
    table_lines,
)
from nodeagent.meshctl.table import Table
from nodeagent.stats.overview import AgentSaid, Live, live_document, merge_nodes
from nodeagent.stats.signals import NodeStats, Promise
from tests.cli.stats import counted, node_stats
from tests.cli.test_status import put_agent
from tests.discovery.kube.fake_api import FakeApi, raw

ONE = node_stats(
    "node-1",
    {
        "shop/cart:80": {"shop/deployment/web": counted(good=990, bad=10, bucket=1)},
        "shop/pay:80": {"shop/deployment/cart": counted(good=5, bad=5, bucket=9)},
    },
)
TWO = node_stats("node-2", {"shop/cart:80": {"/node": counted(good=1000, bucket=1)}})


def put_stats(api: FakeApi, name: str, node: str, stats: NodeStats | None, **parts: Any) -> None:
    put_agent(api, name, node, **parts)
    if stats is not None:
        api.pages[f"{name}:15000", "stats"] = raw(200, msgspec.json.encode(stats), "application/json")


def meshctl(api: FakeApi, tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    result = CliRunner().invoke(main, [*arguments, "--kubeconfig", kubeconfig])
    return result.exit_code, result.stdout, result.stderr


def live_of(*nodes: NodeStats) -> Live:
    return Live(merge_nodes(nodes), tuple(AgentSaid(node.node, f"agent-{node.node}") for node in nodes))


@pytest.mark.parametrize("command", ["stat", "top"])
def test_all_agents_in_one_table(command: str, api: FakeApi, tmp_path: Path) -> None:
    put_stats(api, "agent-1", "node-1", ONE)
    put_stats(api, "agent-2", "node-2", TWO)
    assert meshctl(api, tmp_path, command, "--sort", "rate") == (
        0,
        _table(
            ("cart.shop", "200/s", "99.50%", "0.75ms", "0.97ms", "0.99ms", "10", "2", "2"),
            ("pay.shop", "1.0/s", "50.00%", "375ms", "488ms", "498ms", "5", "1", "1"),
        )
        + "2 Services used in the last 10 s; 2 of 2 agents have answered\n",
        "",
    )


def _table(*rows: tuple[str, ...]) -> str:
    table = [COLUMNS, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join([name.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]) for name, *rest in table)
    return "".join(f"{line}\n" for line in lines)


def test_whether_the_objective_is_met() -> None:
    """`pay` has promised nothing. Of `cart` 10 of 2,000 requests failed, over all nodes."""
    cells = [line.split() for line in table_lines(live_of(ONE, TWO))]
    assert [line[-1] for line in cells] == ["NODES", "2", "1"], "nobody has an objective"
    for promised, word in ((0.995, "met"), (0.996, "missed")):
        lines = list(table_lines(live_of(ONE, with_promise(TWO, "cart", Promise(promised)))))
        assert [line.split()[-1] for line in lines] == ["OBJECTIVE", word, "-"]
    narrow = list(table_lines(live_of(ONE, with_promise(TWO, "cart", Promise(0.9))), width=43))
    assert narrow[0].split() == ["SERVICE", "RATE", "SUCCESS", "P99"]


def test_json_says_what_was_promised_and_what_became_of_it() -> None:
    live = live_of(ONE, with_promise(TWO, "cart", Promise(0.996, 0.25, 0.9)))
    rows = {row["service"]: row for row in live_document(live, "services")["services"]}
    (port,) = rows["cart"]["objectives"]
    available, fast = port["goals"]
    assert (available["sli"], available["share"], available["got"]) == ("availability", 0.996, 0.995)
    assert (available["kept"], rows["cart"]["objective"]) == (False, "missed")
    assert (fast["sli"], fast["share"], fast["within"]) == ("latency", 0.9, 0.25)
    assert (rows["pay"]["objective"], rows["pay"]["objectives"]) == ("", [])


def with_promise(node: NodeStats, service: str, promise: Promise) -> NodeStats:
    ports = [
        msgspec.structs.replace(port, promise=promise) if port.service == service else port
        for port in node.ports
    ]
    return msgspec.structs.replace(node, ports=ports)


def test_agents_that_do_not_answer_are_named(api: FakeApi, tmp_path: Path) -> None:
    put_stats(api, "agent-1", "node-1", ONE)
    put_stats(api, "agent-2", "node-2", None)
    put_stats(api, "agent-3", "node-3", None, phase="Pending")
    put_agent(api, "agent-4", "node-4")
    api.pages["agent-4:15000", "stats"] = raw(200, b"hello", "text/plain")
    put_agent(api, "agent-5", "node-5", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    code, output, _ = meshctl(api, tmp_path, "stat", "cart", "-n", "shop")
    lines = output.splitlines()
    assert code == 1
    assert lines[1].startswith("cart.shop")
    assert lines[2].startswith("node-2 (agent-2): ")
    assert lines[3] == "node-3 (agent-3): the pod is Pending"
    assert lines[4].startswith("node-4 (agent-4): no page of this version of svc.mesh: ")
    assert lines[5:] == ["1 Service used in the last 10 s; 1 of 4 agents have answered"]


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_for_programs(form: str, api: FakeApi, tmp_path: Path) -> None:
    put_stats(api, "agent-1", "node-1", ONE)
    code, output, errors = meshctl(api, tmp_path, "stat", "pay", "-o", form)
    document = json.loads(output) if form == "json" else yaml.safe_load(output)
    assert (code, errors) == (0, "")
    assert list(document) == ["window", "services", "left_out", "agents", "total", "answered"]
    (row,) = document["services"]
    assert (row["service"], row["signals"]["requests"], row["signals"]["success"]) == ("pay", 10, 0.5)
    assert "durations" not in row["signals"]


def test_no_agents_and_no_cluster(api: FakeApi, tmp_path: Path) -> None:
    code, output, errors = meshctl(api, tmp_path, "stat")
    assert (code, output) == (1, "")
    assert errors.startswith("no agents: ")
    result = CliRunner().invoke(main, ["stat", "--kubeconfig", str(tmp_path / "none")])
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--agent", "node-1"], "is not the address of an agent"),
        (["--agent", "ftp://node-1"], "is not the address of an agent"),
        (["--agent", "http://[::1"], "is not the address of an agent"),
        (["--agent", "http://127.0.0.1:1", "--context", "x"], "--agent asks no cluster"),
        (["--window", "2m"], "--window"),
        (["--window", "soon"], "--window"),
        (["Cart!"], "is not the name of a Service"),
    ],
)
def test_what_cannot_be_asked(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["stat", *arguments])
    assert result.exit_code == 2
    assert said in result.stderr


def test_an_agent_that_is_not_there() -> None:
    result = CliRunner().invoke(main, ["stat", "--agent", "http://127.0.0.1:1"])
    assert result.exit_code == 1
    assert "(no node) (http://127.0.0.1:1): " in result.stdout
    assert "0 of 1 agents have answered" in result.stdout


def test_an_agent_with_other_histograms_is_not_added_up() -> None:
    changed = json.loads(msgspec.json.encode(ONE))
    changed["ports"][0]["sources"][0]["signals"]["durations"] = [1, 2]
    with pytest.raises(ValueError, match="another version"):
        read_stats(json.dumps(changed))


@given(st.text(max_size=80))
def test_any_page_is_stats_or_says_why_not(text: str) -> None:
    with contextlib.suppress(ValueError):
        read_stats(text)


def test_only_what_concerns_a_service() -> None:
    live = live_of(ONE, TWO)
    assert [one.service for one in only(live, "shop", "cart").overview.services] == ["cart"]
    assert [one.service for one in only(live, "bank", "").overview.services] == []
    assert only(live, "", "").overview == live.overview


names = st.from_regex(r"[a-z][a-z0-9-]{0,40}", fullmatch=True)
numbers = st.integers(0, 10**9)


@given(
    st.lists(st.tuples(names, names, numbers, numbers), max_size=8),
    st.integers(1, 120),
    st.sampled_from(SORTS),
)
def test_no_line_is_wider_than_the_terminal(
    rows: list[tuple[str, str, int, int]], width: int, sort: Any
) -> None:
    live = live_of(
        node_stats("n", {f"{ns}/{name}:80": {"/node": counted(good, bad)} for ns, name, good, bad in rows})
    )
    least = 45  # RATE, SUCCESS and P99 are never left out
    for line in table_lines(live, sort, max(width, least)):
        assert len(line) <= max(width, least)
    for height in (1, 4, 24):
        screen = screen_lines(live, View(sort), max(width, least), height, colour=False)
        assert len(screen) <= height
        assert all(len(line) <= max(width, least) for line in screen)


def test_a_terminal_of_60_columns_has_what_matters() -> None:
    name = "a-service-with-a-name-of-some-length.of-a-namespace"
    service, _, namespace = name.partition(".")
    live = live_of(node_stats("n", {f"{namespace}/{service}:80": {"/node": counted(5000, 1)}}))
    header, row = table_lines(live, width=60)
    assert [name for name in COLUMNS if name in header.split()] == header.split()
    assert {"SERVICE", "RATE", "SUCCESS", "P99"} <= set(header.split())
    assert row.startswith("a-service-w")
    widths = [len(next(table_lines(live, width=width)).split()) for width in range(100, 30, -1)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == len(COLUMNS) - len(DROPPED)


def test_a_line_is_marked_by_its_success() -> None:
    live = live_of(ONE)
    header, cart, pay = table_lines(live, colour=True)
    assert "\x1b[1m" in header
    assert "\x1b[" not in cart
    assert "\x1b[31m" in pay


def test_the_order_of_rows() -> None:
    services = live_of(ONE).overview.services
    first = {sort: sort_services(services, sort)[0].service for sort in SORTS}
    assert first == {
        "name": "cart", "rate": "cart", "success": "pay", "p50": "pay", "p95": "pay", "p99": "pay"
    }  # fmt: skip


def test_how_numbers_show() -> None:
    assert [show_rate(rate) for rate in (0, 0.04, 9.94, 9.96, 999.4, 999.6, 9999.6, 123456)] == [
        "0.0/s", "0.0/s", "9.9/s", "10/s", "999/s", "1.0k/s", "10k/s", "123k/s"
    ]  # fmt: skip
    assert [show_share(share) for share in (None, 1.0, 0.999999, 0.5, 0.0)] == [
        "-", "100%", "99.99%", "50.00%", "0.00%"
    ]  # fmt: skip
    assert [show_seconds(each) for each in (None, 0.0004, 0.0099, 0.01, 0.9994, 1.0, 10.0)] == [
        "-", "0.4ms", "9.9ms", "10ms", "999ms", "1.0s", "10.0s"
    ]  # fmt: skip


def test_the_keys() -> None:
    view = View()
    for key, sort in KEYS.items():
        assert press(view, key).sort == sort
    assert press(view, "x") == view
    assert press(press(view, " "), " ") == view
    typed = view
    for key in "/CArq\x7f":
        typed = press(typed, key)
    assert (typed.wanted, typed.typing, typed.ended) == ("car", True, False)
    assert press(typed, "\r") == View(wanted="car")
    assert press(typed, "\x1b") == view
    assert press(View(wanted="car"), "\x1b") == view
    assert len(press(View(wanted="x" * LONGEST_FILTER, typing=True), "y").wanted) == LONGEST_FILTER
    for key in ("q", "\x03"):
        assert press(view, key).ended
    assert press(View(typing=True), "\x03").ended


def test_the_screen_is_filtered() -> None:
    lines = screen_lines(live_of(ONE, TWO), View(wanted="pay"), 100, 24, colour=False)
    assert lines[0] == "svc.mesh  by rate  filter: pay"
    assert [line.split()[0] for line in lines[1:3]] == ["SERVICE", "pay.shop"]
    assert lines[-1] == HELP


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, *command: str, columns: int = 60, **environment: str) -> None:
        import fcntl
        import pty
        import struct
        import termios

        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 20, columns, 0, 0))
        unwanted = ("NO_COLOR", "COLUMNS", "LINES")
        inherited = {key: value for key, value in os.environ.items() if key not in unwanted}
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**inherited, "TERM": "xterm", **environment},
            start_new_session=True,
        )
        os.close(slave)
        self.seen = ""

    def expect(self, pattern: str) -> None:
        """Read until the pattern has come."""
        deadline = time.monotonic() + 30
        while not re.search(pattern, self.seen, re.DOTALL):
            assert time.monotonic() < deadline, self.seen
            if select.select([self.master], [], [], 1)[0]:
                try:
                    data = os.read(self.master, 65536)
                except OSError:
                    raise AssertionError(self.seen) from None
                self.seen += data.decode()

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def two_agents(api: FakeApi, tmp_path: Path) -> list[str]:
    put_stats(api, "agent-1", "node-1", ONE)
    put_stats(api, "agent-2", "node-2", TWO)
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    return [
        sys.executable,
        "-c",
        "from nodeagent.meshctl.main import main; main()",
        "top",
        "--kubeconfig",
        kubeconfig,
    ]


@pytest.mark.parametrize("end", ["q", "Ctrl-C"])
def test_top_on_a_terminal(two_agents: list[str], end: str) -> None:
    terminal = Terminal(*two_agents, "--every", "0.5")
    try:
        terminal.expect(r"by rate.*cart\.shop.*pay\.shop")
        terminal.press("s")
        terminal.expect(r"by success.*pay\.shop.*cart\.shop")
        terminal.press("/pay\r")
        terminal.expect(r"filter: pay\x1b\[K\r\n[^/]*pay\.shop[^/]*/s[^/]*\x1b\[K\r\n1 Service used")
        assert "\x1b[31m" in terminal.seen
        if end == "q":
            terminal.press("q")
        else:
            os.kill(terminal.process.pid, signal.SIGINT)
        terminal.expect(r"\x1b\[\?25h\x1b\[\?1049l$")
        assert terminal.process.wait(30) == 0
        assert "Traceback" not in terminal.seen
    finally:
        terminal.close()


def test_no_colours_if_nobody_wants_them(two_agents: list[str]) -> None:
    terminal = Terminal(*two_agents, NO_COLOR="1")
    try:
        terminal.expect(r"pay\.shop")
        terminal.press("q")
        assert terminal.process.wait(30) == 0
        assert not re.search(r"\x1b\[\d+m", terminal.seen)
    finally:
        terminal.close()


def test_no_text_commands_the_terminal() -> None:
    evil = "\x1b]0;taken\x07\x9b2J"
    nodes = node_stats(evil, {f"shop/{evil}:80": {f"shop/{evil}": counted(1)}})
    live = Live(merge_nodes([nodes]), (AgentSaid(evil, evil, f"refused {evil}"),))
    tables = [one for one in graph_lines(live.overview) if isinstance(one, Table)]
    graph = [line for table in tables for line in table.lines()]
    assert graph
    lines = [*table_lines(live), *summary_lines(live), *graph, *dot_lines(live.overview)]
    assert len(lines) > 8
    assert all(line.isprintable() for line in lines)
