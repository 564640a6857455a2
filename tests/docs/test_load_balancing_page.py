"""docs/load-balancing.md says what the code does: its example, tables and bounds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from discovery.model import ServiceKey, ServicePort
from hack.bench.balance_case import MILLISECONDS, WORKER_COUNTS
from hack.bench.balance_simulation import p99_ms
from hack.bench.http_cases import CONNECTIONS
from hack.bench.outlier_simulation import SECONDS, SEEDS, mean_failed
from hack.bench.uneven_backend import AT_ONCE
from nodeagent.plan.balancing import (
    BALANCING,
    LEAST_FACTOR,
    LOAD_BALANCING,
    MOST_FACTOR,
    POLICIES,
    SESSION_AFFINITY,
    SLOW_START,
    Balancing,
    default_cookie,
    parse_balancing,
)
from nodeagent.plan.model import Affinity, Balance, HashKey
from nodeagent.proxy.balance.consistent_hash import MOST, POINTS
from nodeagent.proxy.balance.ewma import DECAY, FAILED, UNHEARD
from nodeagent.proxy.balance.slow_start import LEAST

PAGE = (Path(__file__).parents[2] / "docs" / "load-balancing.md").read_text()
FLOWING = " ".join(PAGE.split())


def rows(first: str) -> list[list[str]]:
    """Return the cells of the rows of the table whose first heading this is."""
    table = re.search(rf"^\| {first} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert table, first
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]


def parsed(annotations: dict[str, str]) -> Balancing:
    found = parse_balancing(annotations)
    assert isinstance(found, Balancing), found
    return found


def test_the_example() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    service = yaml.safe_load(example)
    found = parsed(service["metadata"]["annotations"])
    ports = [ServicePort(port["name"], port["port"]) for port in service["spec"]["ports"]]
    assert [found.balance_of(port) for port in ports] == [
        Balance("least-request", slow_start=30.0),
        Balance("ewma", decay=5.0, slow_start=30.0),
        Balance("consistent-hash", HashKey("query", "name"), 150),
    ]
    key = ServiceKey("shop", "catalog")
    cookies = [found.affinity_of(key, port, "") for port in ports]
    assert cookies == [Affinity(default_cookie(key, 80), 3600.0), None, None]


def test_the_balancers_are_all_there_are() -> None:
    assert [row[0].strip("`").split()[0] for row in rows("value")] == list(POLICIES)
    for annotation in BALANCING.annotations:
        assert annotation.name.partition(".<")[0] in PAGE


@pytest.mark.parametrize("row", rows("key"), ids=lambda row: row[0])
def test_the_keys(row: list[str]) -> None:
    written = row[0].strip("`").replace("NAME", "user")
    key = parsed({LOAD_BALANCING: f"consistent-hash {written}"}).balance_of(ServicePort("http", 80)).key
    assert key is not None
    assert written.startswith(f"{key.place}=")


def test_the_settings_of_the_cookie() -> None:
    names = [row[0].strip("`") for row in rows("setting")]
    assert names == ["name=NAME", "max-age=DURATION"]
    parsed({SESSION_AFFINITY: "cookie name=a max-age=8760h"})
    assert re.fullmatch(r"svcmesh-affinity-\w{8}", default_cookie(ServiceKey("shop", "web"), 80))


def test_the_bounds() -> None:
    assert Balance("ewma").decay == DECAY == 10.0
    for text in ("decay=10s", "decay=100ms", "decay=10m"):
        parsed({LOAD_BALANCING: f"ewma {text}"})
    assert "(10s by default, from 100ms to 10m)" in FLOWING
    assert (FAILED, UNHEARD) == (0.1, 1.0)
    assert "at least 100ms, and at least the average" in FLOWING
    assert "unless all others take longer than a second" in FLOWING
    assert f"It may be {LEAST_FACTOR} to {MOST_FACTOR}." in FLOWING
    assert f"has {POINTS} places on a ring" in FLOWING
    assert f"The ring has at most {MOST:,} endpoints." in FLOWING
    assert LEAST == 0.1
    assert "a tenth of its share at first" in FLOWING
    for text in ("1s", "1h"):
        parsed({SLOW_START: text})


@pytest.mark.parametrize("row", rows("balancer"), ids=lambda row: row[0])
def test_what_workers_lose(row: list[str]) -> None:
    """The simulation has no clock, so its figures are the same everywhere."""
    policy, *shown = row
    assert (*MILLISECONDS, CONNECTIONS, AT_ONCE) == (5.0, 5.0, 5.0, 50.0, 32, 4)
    means = [ms / 1e3 for ms in MILLISECONDS]
    measured = [p99_ms(policy.strip("`"), workers, means, CONNECTIONS) for workers in WORKER_COUNTS]
    assert [int(one) for one in shown] == [round(one) for one in measured]


@pytest.mark.parametrize("row", rows("requests and failures"), ids=lambda row: row[0])
def test_what_outlier_detection_loses(row: list[str]) -> None:
    """A seed gives the same figures everywhere, here too."""
    case, *shown = row
    rate, failing = case.removesuffix(" %").split("/s, ")
    assert f"It is the mean of {SEEDS} runs" in FLOWING
    assert SECONDS == 60.0
    measured = [mean_failed(workers, int(rate), int(failing) / 100) for workers in WORKER_COUNTS]
    assert [int(one) for one in shown] == [round(one) for one in measured]
