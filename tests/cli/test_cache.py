"""`meshctl cache`: what a purge writes into a Service, who may not, and what caches of all nodes do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from middleware.cache_purge import MOST_PURGES, PURGE, Purge, new_purges, parse_purges
from nodeagent.meshctl.cachestat import AgentCaches, CacheCounts, merge_counts, read_counts
from nodeagent.meshctl.main import main
from nodeagent.meshctl.purge import plan_purge
from tests.cli.test_status import put_agent
from tests.discovery.kube.fake_api import FakeApi, answer, cut_after, raw, status

CACHED = {"svc.mesh/enabled": "true", "svc.mesh/cache": "on"}


def put_service(api: FakeApi, annotations: dict[str, str] | None = None) -> None:
    metadata: dict[str, Any] = {"namespace": "shop", "name": "catalog"}
    if annotations is not None:
        metadata["annotations"] = annotations
    api.put({"kind": "Service", "apiVersion": "v1", "metadata": metadata, "spec": {}})


def written(api: FakeApi) -> dict[str, str]:
    return dict(api.objects["Service", "shop", "catalog"]["metadata"].get("annotations", {}))


def meshctl(api: FakeApi, tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    result = CliRunner().invoke(main, ["cache", *arguments, "--kubeconfig", kubeconfig])
    return result.exit_code, result.stdout, result.stderr


def test_a_purge_is_a_new_mark(api: FakeApi, tmp_path: Path) -> None:
    put_service(api, dict(CACHED))
    code, output, errors = meshctl(api, tmp_path, "purge", "catalog", "-n", "shop")
    (first,) = parse_purges(written(api)[PURGE])
    assert (code, errors) == (0, "")
    assert output == f"catalog.shop: all caches forget all responses (mark {first.mark})\n"
    code, output, _ = meshctl(
        api, tmp_path, "purge", "catalog", "-n", "shop", "--path", "/images/", "-o", "json"
    )
    document = json.loads(output)
    both = parse_purges(written(api)[PURGE])
    assert code == 0
    assert both == (first, Purge(document["mark"], "/images/"))
    assert document == {
        "namespace": "shop",
        "service": "catalog",
        "path": "/images/",
        "mark": both[1].mark,
        "annotations": {PURGE: written(api)[PURGE]},
        "doubts": [],
    }
    assert {name: written(api)[name] for name in CACHED} == CACHED


def test_a_service_without_a_cache_is_doubted(api: FakeApi, tmp_path: Path) -> None:
    put_service(api)
    code, _, errors = meshctl(api, tmp_path, "purge", "catalog", "-n", "shop")
    assert code == 0
    assert errors == (
        "Warning: Service shop/catalog may have no cache: it has no annotation svc.mesh/enabled: true\n"
        "Warning: Service shop/catalog may have no cache: it has no annotation svc.mesh/cache\n"
    )
    assert PURGE in written(api)


def test_somebody_else_changes_the_service_meanwhile(api: FakeApi, tmp_path: Path) -> None:
    put_service(api, dict(CACHED))
    taken = answer(409, status(409, "Conflict", "the object has been modified"))
    api.script("patch", "Service", taken)
    assert meshctl(api, tmp_path, "purge", "catalog", "-n", "shop")[0] == 0
    assert api.count("patch", "Service") == 2
    api.script("patch", "Service", *[taken] * 5)
    code, _, errors = meshctl(api, tmp_path, "purge", "catalog", "-n", "shop")
    assert code == 1
    assert errors == (
        "Error: Service shop/catalog was changed by others 5 times in a row; nothing was purged, try again\n"
    )


def test_what_cannot_be_purged(api: FakeApi, tmp_path: Path) -> None:
    code, _, errors = meshctl(api, tmp_path, "purge", "catalog", "-n", "shop")
    assert (code, errors) == (1, "Error: Service shop/catalog does not exist; nothing was purged\n")
    put_service(api, dict(CACHED))
    said = 'services "catalog" is forbidden: User "eve" cannot patch resource "services"'
    api.script("patch", "Service", answer(403, status(403, "Forbidden", said)))
    code, _, errors = meshctl(api, tmp_path, "purge", "catalog", "-n", "shop")
    assert code == 1
    assert errors.startswith("Error: Service shop/catalog: ")
    assert said in errors
    api.script("get", "Service", answer(500, status(500, "InternalError", "etcd is away")))
    code, _, errors = meshctl(api, tmp_path, "purge", "catalog", "-n", "shop")
    assert code == 2
    assert "Service shop/catalog: " in errors
    assert "etcd is away" in errors
    assert written(api) == CACHED


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["purge", "Catalog"], "'Catalog' is not the name of a Service"),
        (["purge", "catalog", "-n", "a/b"], "'a/b' is not the name of a namespace"),
        (["purge", "catalog", "--path", "images"], 'path="images" is not how a target begins'),
        (["purge", "catalog", "--path", "/a b"], 'path="/a b" is not how a target begins'),
        (["purge"], "Missing argument"),
    ],
)
def test_wrong_calls(api: FakeApi, tmp_path: Path, arguments: list[str], said: str) -> None:
    code, _, errors = meshctl(api, tmp_path, *arguments)
    assert code == 2
    assert said in errors
    assert not api.requests


@given(
    st.dictionaries(
        st.sampled_from((PURGE, f"{PURGE}.http", f"{PURGE}.81", "other/name")),
        st.sampled_from(("", "/bad", "1", "1 path=/a 2", " ".join(map(str, range(MOST_PURGES))))),
    )
)
def test_every_cache_of_the_service_sees_a_new_mark(before: dict[str, str]) -> None:
    service = {"metadata": {"annotations": before, "resourceVersion": "7"}}
    patch = plan_purge(service, Purge("new", "/a"))
    assert patch.document["metadata"]["resourceVersion"] == "7"
    assert set(patch.annotations) == {PURGE, *(name for name in before if name.startswith(PURGE))}
    for value in patch.annotations.values():
        assert parse_purges(value)[-1] == Purge("new", "/a")
    for name in ("", ".http", ".81"):
        old, new = before.get(PURGE + name, ""), patch.annotations.get(PURGE + name)
        if new is not None and old not in ("", "/bad"):
            assert new_purges(parse_purges(old), parse_purges(new)) == (Purge("new", "/a"),)


METRICS = """\
# HELP svcmesh_build_info Which agent this is; always 1.
# TYPE svcmesh_build_info gauge
svcmesh_build_info{{version="0.1.0",node="node-1"}} 1.0
# HELP svcmesh_cache_hits Requests.
# TYPE svcmesh_cache_hits counter
svcmesh_cache_hits_total{{service="catalog",namespace="shop",port="80"}} {hits}
svcmesh_cache_misses_total{{service="catalog",namespace="shop",port="80"}} 10
svcmesh_cache_purged_total{{service="catalog",namespace="shop",port="80"}} 3
svcmesh_cache_bytes{{service="catalog",namespace="shop",port="80"}} {bytes}
svcmesh_cache_hits_total{{service="other",namespace="",port=""}} 5
svcmesh_cache_hits_total{{service="web",namespace="home",port="80"}} 0
svcmesh_requests_total{{service="catalog",namespace="shop",port="80"}} 99
"""


def put_metrics(api: FakeApi, name: str, hits: int, size: int) -> None:
    page = METRICS.format(hits=hits, bytes=size)
    api.pages[f"{name}:15000", "metrics"] = raw(200, page.encode(), "text/plain")


def test_what_caches_do(api: FakeApi, tmp_path: Path) -> None:
    for number, (hits, size) in enumerate(((90, 4096), (0, 8192)), 1):
        put_agent(api, f"agent-{number}", f"node-{number}")
        put_metrics(api, f"agent-{number}", hits, size)
    code, output, errors = meshctl(api, tmp_path, "stat")
    assert (code, errors) == (0, "")
    assert [" ".join(line.split()) for line in output.splitlines()] == [
        "SERVICE PORT NODES HIT-RATE HITS STALE MISSES COLLAPSED STORED EVICTED PURGED BYTES",
        "web.home 80 2 - 0 0 0 0 0 0 0 0",
        "catalog.shop 80 2 81.8% 90 0 20 0 0 0 6 8192",
        "2 ports with a cache; 2 of 2 agents have answered",
    ]
    only = ("catalog", "-n", "shop", "--node", "node-2")
    code, output, _ = meshctl(api, tmp_path, "stat", *only, "-o", "json")
    document = json.loads(output)
    assert code == 0
    (cache,) = document["caches"]
    assert (cache["service"], cache["misses"], cache["bytes"], cache["hit_rate"]) == ("catalog", 10, 8192, 0)
    assert [agent["node"] for agent in document["agents"]] == ["node-2"]
    assert (document["total"], document["answered"]) == (1, 1)


def test_agents_that_do_not_answer(api: FakeApi, tmp_path: Path) -> None:
    for number in range(5):
        put_agent(api, f"agent-{number}", f"node-{number}", phase="Pending" if number == 3 else "Running")
    put_metrics(api, "agent-0", 1, 1)
    api.pages["agent-1:15000", "metrics"] = cut_after(b"# HELP")
    api.pages["agent-2:15000", "metrics"] = raw(200, b"<html>", "text/html")
    forbidden = answer(403, status(403, "Forbidden", "pods/proxy is forbidden"))
    api.pages["agent-4:15000", "metrics"] = forbidden
    code, output, _ = meshctl(api, tmp_path, "stat")
    assert code == 1
    assert "\nnode-1 (agent-1): " in output
    assert "\nnode-2 (agent-2): no svc.mesh agent answers there\n" in output
    assert "\nnode-3 (agent-3): the pod is Pending\n" in output
    assert "\nnode-4 (agent-4): " in output
    assert "pods/proxy is forbidden" in output
    assert output.endswith("2 ports with a cache; 1 of 5 agents have answered\n")


def test_no_agents_and_no_cluster(api: FakeApi, tmp_path: Path) -> None:
    code, output, errors = meshctl(api, tmp_path, "stat", "--node", "node-7")
    assert (code, output) == (1, "")
    assert errors.startswith("no agents: no pod in any namespace on node-7 matches ")
    api.script("list", "Pod", answer(403, status(403, "Forbidden", "pods is forbidden")))
    code, _, errors = meshctl(api, tmp_path, "stat")
    assert code == 2
    assert "pods is forbidden" in errors


COUNTS = st.builds(
    CacheCounts,
    namespace=st.just("shop"),
    service=st.sampled_from(("a", "b")),
    port=st.sampled_from((80, 81)),
    hits=st.integers(0, 9),
    bytes=st.integers(0, 9),
)


@given(st.lists(st.lists(COUNTS, max_size=4).map(tuple), max_size=4))
def test_counts_are_summed_and_bytes_are_the_greatest(nodes: list[tuple[CacheCounts, ...]]) -> None:
    merged = merge_counts(AgentCaches(str(number), "", "", caches) for number, caches in enumerate(nodes))
    every = [one for caches in nodes for one in caches]
    assert sum(one.hits for one in merged) == sum(one.hits for one in every)
    assert max((one.bytes for one in merged), default=0) == max((one.bytes for one in every), default=0)
    assert len({(one.service, one.port) for one in merged}) == len(merged)


def test_a_page_without_any_cache() -> None:
    assert read_counts("svcmesh_build_info 1\n") == ()
    with pytest.raises(ValueError, match="agent answers there"):
        read_counts("")
