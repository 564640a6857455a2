"""The whole source against a server that misbehaves on demand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from discovery.kube.resource import watched_resources
from discovery.kube.source import KubeSource
from discovery.model import NamespaceKey, NamespaceObject, ServiceKey
from discovery.source import Deleted, SourceError, Synced, Upserted
from tests.discovery.kube.conftest import FAST, QUICKLY_STALE, Listen
from tests.discovery.kube.fake_api import (
    EXPIRED,
    PATHS,
    Answer,
    FakeApi,
    answer,
    cut_after,
    hang,
    hang_after_head,
    raw,
    status,
)
from tests.discovery.kube.objects import endpoint_slice, pod, service


async def test_tells_what_exists_then_synced_then_changes(api: FakeApi, listen: Listen) -> None:
    api.put(service("cart"))
    api.put(endpoint_slice("cart-1"))
    api.put(pod("cart-a"))
    listener = listen()
    await listener.until(lambda: listener.synced == 1)
    assert listener.names == {"Service cart", "Slice cart-1", "Pod cart-a"}
    assert isinstance(listener.events[-1], Synced)

    await listener.until(lambda: all(api.watching(kind) for kind in PATHS))
    api.put(service("till"))
    api.put(endpoint_slice("cart-1", address="10.1.0.2"))
    api.delete("Pod", "shop", "cart-a")
    await listener.until(lambda: listener.names == {"Service cart", "Service till", "Slice cart-1"})
    assert listener.synced == 1
    assert not listener.stale


async def test_asks_for_no_more_than_it_uses(api: FakeApi, listen: Listen) -> None:
    api.put(service("unlabelled"))
    api.put(endpoint_slice("of-nobody", service=""))
    api.put(pod("elsewhere", node="node-2"))
    api.put(pod("done", phase="Succeeded"))
    listener = listen(label_selector="team=shop")
    await listener.until(lambda: listener.synced == 1)
    assert listener.names == set()
    living = "spec.nodeName=node-1,status.phase!=Succeeded,status.phase!=Failed"
    asked = [query["fieldSelector"] for verb in ("list", "watch") for query in api.queries(verb, "Pod")]
    assert set(asked) == {living}


def test_a_host_name_that_stands_for_the_node_s_selects_nothing_else() -> None:
    (*_, pods) = watched_resources(r"a,b=c\d", "")
    living = r"spec.nodeName=a\,b\=c\\d,status.phase!=Succeeded,status.phase!=Failed"
    assert pods.field_selector == living


async def test_a_selector_goes_for_services_and_their_slices(api: FakeApi, listen: Listen) -> None:
    for name, label in (("cart", "shop"), ("till", "pay")):
        for document in (service(name), endpoint_slice(f"{name}-1", name)):
            document["metadata"].setdefault("labels", {})["team"] = label
            api.put(document)
    api.put(endpoint_slice("cart-by-hand"))
    listener = listen(label_selector="team=shop")
    await listener.until(lambda: listener.synced == 1)
    assert listener.names == {"Service cart", "Slice cart-1"}
    assert api.queries("list", "EndpointSlice")[0]["labelSelector"] == "kubernetes.io/service-name,team=shop"


async def test_a_selector_that_the_server_refuses_is_said_at_once(api: FakeApi, tmp_path: Path) -> None:
    reason = "unable to parse requirement: found 'shop', expected: in, notin, =, ==, !=, gt, lt"
    api.script("check", "Service", answer(400, status(400, "BadRequest", reason)))
    source = KubeSource(
        kubeconfig=api.write_kubeconfig(tmp_path / "config"), label_selector="team shop", timing=FAST
    )
    with pytest.raises(SourceError) as raised:
        await anext(aiter(source.watch()))
    assert "--service-selector 'team shop' is refused by the API server" in str(raised.value)
    assert reason in str(raised.value)


@pytest.mark.parametrize("code", [403, 500])
async def test_a_server_that_is_out_of_order_says_nothing_of_a_selector(
    api: FakeApi, listen: Listen, code: int
) -> None:
    api.script("check", "Service", answer(code, status(code, "Broken", "not now")))
    listener = listen(label_selector="team=shop")
    await listener.until(lambda: listener.synced == 1)


async def test_without_a_node_name_no_pods_are_watched(api: FakeApi, listen: Listen) -> None:
    listener = listen(node_name="")
    await listener.until(lambda: listener.synced == 1)
    assert api.count("list", "Pod") == 0


async def test_a_watch_asks_for_bookmarks_and_its_end(api: FakeApi, listen: Listen) -> None:
    listener = listen(timing=msgspec.structs.replace(FAST, watch_shortest=240, watch_longest=360))
    await listener.until(lambda: api.watching("Service") == 1)
    (query,) = api.queries("watch", "Service")
    assert query == {
        "watch": "1",
        "resourceVersion": "1000",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "300",
    }


async def test_lists_are_read_page_by_page(api: FakeApi, listen: Listen) -> None:
    for index in range(7):
        api.put(service(f"s{index}"))
    listener = listen(page_size=3)
    await listener.until(lambda: listener.synced == 1)
    assert len(listener.objects) == 7
    assert [query.get("continue") for query in api.queries("list", "Service")] == [None, "1007/3", "1007/6"]


async def test_a_list_that_expires_between_pages_is_read_at_once(api: FakeApi, listen: Listen) -> None:
    for index in range(4):
        api.put(service(f"s{index}"))

    async def first_page_then_compact(request: object) -> object:
        page = api._list("Service", {"limit": "2"})
        api.forget_history()
        return page

    api.script("list", "Service", first_page_then_compact)  # type: ignore[arg-type]
    listener = listen(page_size=2)
    await listener.until(lambda: listener.synced == 1)
    assert len(listener.objects) == 4
    assert [query.get("limit") for query in api.queries("list", "Service")] == ["2", "2", None]


async def test_an_ordinary_end_continues_without_a_list(api: FakeApi, listen: Listen) -> None:
    listener = listen()
    await listener.until(lambda: api.watching("Service") == 1)
    api.put(service("cart"))
    await listener.until(lambda: listener.names == {"Service cart"})
    api.end_watches("Service")
    await listener.until(lambda: api.count("watch", "Service") == 2 and api.watching("Service") == 1)
    api.put(service("till"))
    await listener.until(lambda: len(listener.names) == 2)
    assert api.count("list", "Service") == 1
    assert api.queries("watch", "Service")[1]["resourceVersion"] == "1001"
    assert listener.synced == 1


async def test_a_bookmark_moves_the_version(api: FakeApi, listen: Listen) -> None:
    listener = listen()
    await listener.until(lambda: api.watching("Service") == 1)
    api.put(endpoint_slice("other"))
    api.bookmark("Service")
    api.end_watches("Service")
    await listener.until(lambda: api.count("watch", "Service") == 2)
    assert [query["resourceVersion"] for query in api.queries("watch", "Service")] == ["1000", "1001"]


@pytest.mark.parametrize("where", ["status", "event"])
async def test_an_expired_version_lists_again_and_tells_only_what_changed(
    api: FakeApi, listen: Listen, where: str
) -> None:
    for name in ("stays", "changes", "goes"):
        api.put(service(name))
    listener = listen()
    await listener.until(lambda: all(api.watching(kind) for kind in PATHS))
    told = len(listener.events)
    # What happens while we do not look is found by the list alone.
    send, api.send = api.send, lambda kind, data: None  # type: ignore[method-assign]
    api.put(service("changes", "10.96.0.99"))
    api.delete("Service", "shop", "goes")
    api.put(service("comes"))
    api.send = send  # type: ignore[method-assign]
    api.forget_history()
    if where == "event":
        line = json.dumps({"type": "ERROR", "object": EXPIRED}).encode() + b"\n"
        api.send("Service", line)
    else:
        api.end_watches("Service")
    await listener.until(lambda: listener.synced == 2)
    assert listener.names == {"Service stays", "Service changes", "Service comes"}
    new = listener.events[told:]
    assert sorted(e.object.key.name for e in new if isinstance(e, Upserted)) == ["changes", "comes"]
    assert [e.key for e in new if isinstance(e, Deleted)] == [ServiceKey("shop", "goes")]
    assert not listener.stale


async def test_a_connection_cut_in_the_middle_of_an_event_loses_nothing(api: FakeApi, listen: Listen) -> None:
    listener = listen()
    await listener.until(lambda: api.watching("Service") == 1)
    api.cut_watches("Service", after=b'{"type":"ADDED","object":{"kind":"Serv')
    api.put(service("cart"))
    await listener.until(lambda: listener.names == {"Service cart"})
    assert api.count("list", "Service") == 1


async def test_a_watch_that_ends_in_the_middle_of_an_event_is_cut(api: FakeApi, listen: Listen) -> None:
    listener = listen()
    await listener.until(lambda: api.watching("Service") == 1)
    with capture_logs() as logs:
        api.send("Service", b'{"type":"ADDED"')
        api.end_watches("Service")
        await listener.until(lambda: api.count("watch", "Service") == 2)
    (line,) = [line for line in logs if line["event"] == "source_error"]
    assert (line["kind"], line["reason"]) == ("cut", "the connection ended in the middle of an event")
    assert api.count("list", "Service") == 1


async def test_a_line_that_is_no_event_lists_again(api: FakeApi, listen: Listen) -> None:
    listener = listen()
    await listener.until(lambda: api.watching("Service") == 1)
    api.send("Service", b"<html>surprise</html>\n")
    await listener.until(lambda: api.count("list", "Service") == 2 and api.watching("Service") == 1)


async def test_an_event_may_come_in_any_pieces(api: FakeApi, listen: Listen) -> None:
    listener = listen()
    await listener.until(lambda: api.watching("Service") == 1)
    line = json.dumps({"type": "ADDED", "object": service("cart")}).encode() + b"\n"
    for index in range(len(line)):
        api.send("Service", line[index : index + 1])
    await listener.until(lambda: listener.names == {"Service cart"})


async def test_a_watch_that_falls_silent_is_given_up(api: FakeApi, listen: Listen) -> None:
    api.script("watch", "Service", hang_after_head)
    listener = listen(
        timing=msgspec.structs.replace(FAST, watch_shortest=0.05, watch_longest=0.05, watch_grace=0.05)
    )
    await listener.until(lambda: api.count("watch", "Service") >= 2 and api.watching("Service") == 1)
    assert api.count("list", "Service") == 1


async def test_a_watch_without_its_bookmarks_is_given_up(api: FakeApi, listen: Listen) -> None:
    listener = listen(timing=msgspec.structs.replace(FAST, max_silence=0.05))
    await listener.until(lambda: api.watching("Service") == 1)
    api.bookmark("Service")
    await listener.until(lambda: api.count("watch", "Service") >= 2)


BAD_ANSWERS = {
    "unauthorized": answer(401, status(401, "Unauthorized", "Unauthorized")),
    "forbidden": answer(403, status(403, "Forbidden", "services is forbidden: User x cannot list")),
    "throttled": answer(429, status(429, "TooManyRequests", "slow down")),
    "refused": answer(404, status(404, "NotFound", "no such resource")),
    "refused-redirect": answer(302, {}, Location="/apis/discovery.k8s.io/v1/endpointslices"),
    "server_error": answer(500, status(500, "InternalError", "etcd leader changed")),
    "server_error-html": raw(502, b"<html>Bad Gateway</html>", "text/html"),
    "malformed": raw(200, b"<html>please log in</html>", "text/html"),
    "malformed-text": raw(200, b'{"kind":"ServiceList\xff","metadata":{"resourceVersion":"1"},"items":[]}'),
    "malformed-deep": raw(200, b'{"kind":' + b"[" * 100_000),
    "malformed-json": raw(200, b'{"kind":"Serv'),
    "malformed-empty": raw(200, b"{}"),
    "malformed-other": raw(200, b'{"kind":"Status","metadata":{},"status":"Success"}'),
    "timeout": hang,
    "cut": cut_after(b'{"kind":"ServiceList",'),
}


@pytest.mark.parametrize("kind", BAD_ANSWERS)
async def test_a_list_with_a_bad_answer_is_tried_again(api: FakeApi, listen: Listen, kind: str) -> None:
    api.put(service("cart"))
    api.script("list", "Service", BAD_ANSWERS[kind])
    with capture_logs() as logs:
        listener = listen(timing=msgspec.structs.replace(FAST, answer=0.3 if kind == "timeout" else 20))
        await listener.until(lambda: listener.synced == 1)
    assert listener.names == {"Service cart"}
    line = next(line for line in logs if line["event"] == "source_error" and line["resource"] == "Service")
    assert line["kind"] == kind.partition("-")[0]
    assert line["reason"]
    assert line["retry_in_ms"] >= 0


WATCH_ANSWERS: dict[str, Answer] = {
    "forbidden": BAD_ANSWERS["forbidden"],
    "throttled": BAD_ANSWERS["throttled"],
    "server_error": BAD_ANSWERS["server_error"],
    "cut": cut_after(b'{"type":"ADD'),
    "malformed": BAD_ANSWERS["malformed"],
    "expired": answer(410, EXPIRED),
    "too-new": answer(
        504,
        status(504, "Timeout", "Too large resource version", causes=[{"reason": "ResourceVersionTooLarge"}]),
    ),
}


@pytest.mark.parametrize("kind", WATCH_ANSWERS)
async def test_a_watch_with_a_bad_answer_goes_on(api: FakeApi, listen: Listen, kind: str) -> None:
    api.script("watch", "Service", WATCH_ANSWERS[kind])
    listener = listen()
    await listener.until(lambda: api.watching("Service") == 1)
    api.put(service("cart"))
    await listener.until(lambda: listener.names == {"Service cart"})
    relisted = kind in ("malformed", "expired", "too-new")
    assert api.count("list", "Service") == (2 if relisted else 1)


async def test_retry_after_is_obeyed(api: FakeApi, listen: Listen) -> None:
    reply = answer(429, status(429, "TooManyRequests", "slow down"), **{"Retry-After": "120"})
    api.script("list", "Service", reply)
    with capture_logs() as logs:
        listener = listen()
        await listener.until(lambda: any(line["event"] == "source_error" for line in logs))
    (line,) = [line for line in logs if line["event"] == "source_error"]
    assert 120_000 <= line["retry_in_ms"] <= 121_000


async def test_a_version_that_went_back_lists_again(api: FakeApi, listen: Listen) -> None:
    api.put(service("backed-up"))
    api.put(service("lost"))
    listener = listen()
    await listener.until(lambda: all(api.watching(kind) for kind in PATHS) and listener.synced == 1)
    del api.objects["Service", "shop", "lost"]
    api.restore(500)
    api.bookmark("Service")
    await listener.until(lambda: listener.names == {"Service backed-up"})
    await listener.until(lambda: api.watching("Service") == 1)
    assert api.queries("watch", "Service")[-1]["resourceVersion"] == "500"
    api.put(service("new"))
    await listener.until(lambda: "Service new" in listener.names)


async def test_lost_contact_is_said_once_and_ends_with_synced(api: FakeApi, listen: Listen) -> None:
    api.put(service("cart"))
    listener = listen(timing=QUICKLY_STALE)
    await listener.until(lambda: listener.synced > 0 and all(api.watching(kind) for kind in PATHS))
    stale, synced = len(listener.stale), listener.synced
    port = api.port
    await api.stop()
    await listener.until(lambda: len(listener.stale) > stale)
    assert listener.names == {"Service cart"}
    assert listener.synced == synced
    await api.start(port)
    await listener.until(lambda: listener.synced > synced)
    assert len(listener.stale) == stale + 1
    api.put(service("till"))
    await listener.until(lambda: len(listener.names) == 2)


async def test_a_server_that_comes_later_is_waited_for(api: FakeApi, listen: Listen) -> None:
    port = api.port
    await api.stop()
    with capture_logs() as logs:
        listener = listen(timing=QUICKLY_STALE)
        await listener.until(lambda: bool(listener.stale))
    assert {line["kind"] for line in logs if line["event"] == "source_error"} == {"connect"}
    api.put(service("cart"))
    await api.start(port)
    await listener.until(lambda: listener.synced == 1)
    assert listener.names == {"Service cart"}


async def test_a_broken_object_is_reported_alone_until_mended_or_deleted(
    api: FakeApi, listen: Listen
) -> None:
    broken = service("broken")
    broken["spec"]["ports"][0]["port"] = 70000
    api.put(broken)
    api.put(service("cart"))
    unusable = endpoint_slice("unusable")
    unusable["addressType"] = "Morse"
    api.put(unusable)
    listener = listen()
    await listener.until(lambda: listener.synced == 1)
    assert listener.names == {"Service broken", "Service cart"}
    assert set(listener.malformed) == {"Service shop/broken", "EndpointSlice shop/unusable"}
    assert listener.malformed["Service shop/broken"][0].field == "spec.ports[0].port"

    await listener.until(lambda: all(api.watching(kind) for kind in PATHS))
    api.put(service("broken"))
    api.delete("EndpointSlice", "shop", "unusable")
    await listener.until(lambda: not listener.malformed)


async def test_a_rejected_token_is_read_again(api: FakeApi, listen: Listen, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")
    api.token = "old"
    kubeconfig = api.write_kubeconfig(tmp_path / "with-token", {"tokenFile": str(token)})
    listener = listen(kubeconfig=kubeconfig, timing=msgspec.structs.replace(FAST, credentials_age=3600))
    await listener.until(lambda: all(api.watching(kind) for kind in PATHS))
    api.token = "new"
    token.write_text("new\n")
    api.put(service("cart"))
    api.end_watches("Service")
    await listener.until(lambda: api.count("watch", "Service") == 3 and api.watching("Service") == 1)
    assert api.count("list", "Service") == 1


async def test_many_changes_come_in_few_batches(api: FakeApi, listen: Listen) -> None:
    listener = listen()
    await listener.until(lambda: listener.synced == 1 and api.watching("Service") == 1)
    before = len(listener.batches)
    for index in range(3000):
        api.put(service(f"s{index}"))
    await listener.until(lambda: len(listener.objects) == 3000)
    batches = listener.batches[before:]
    assert max(len(batch) for batch in batches) <= 1000
    assert len(batches) < 1000


async def test_annotations_of_another_mesh_are_followed_where_they_are_read(
    api: FakeApi, listen: Listen
) -> None:
    def put(attempts: str) -> None:
        api.put(service("cart", **{"mesh.traefik.io/retry-attempts": attempts}))

    put("2")
    with_, without = listen(compat="traefik-mesh"), listen()
    await with_.until(lambda: with_.synced == 1)
    await without.until(lambda: without.synced == 1)
    await with_.until(lambda: api.watching("Service") == 2)
    put("3")
    api.put(service("till"))
    await with_.until(lambda: "Service till" in with_.names)
    await without.until(lambda: "Service till" in without.names)
    told = [e.object.key.name for e in without.events if isinstance(e, Upserted)]
    assert told == ["cart", "till"]
    told = [e.object.key.name for e in with_.events if isinstance(e, Upserted)]
    assert told == ["cart", "cart", "till"]


def _namespace(name: str, **annotations: str) -> dict[str, Any]:
    metadata = {"name": name, "annotations": {"team": "shop", **annotations}}
    return {"kind": "Namespace", "apiVersion": "v1", "metadata": metadata}


async def test_namespaces_are_told_with_what_they_say_of_services(api: FakeApi, listen: Listen) -> None:
    api.put(_namespace("shop", **{"svc.mesh/default.timeout": "5s", "svc.mesh/enabled": "true"}))
    listener = listen()
    await listener.until(lambda: listener.synced == 1)
    assert (
        Upserted(NamespaceObject(NamespaceKey("shop"), {"svc.mesh/default.timeout": "5s"})) in listener.events
    )
    await listener.until(lambda: api.watching("Namespace") == 1)
    api.delete("Namespace", "", "shop")
    await listener.until(lambda: Deleted(NamespaceKey("shop")) in listener.events)


async def test_without_the_right_to_read_namespaces_the_mesh_goes_on_and_says_so_once(
    api: FakeApi, listen: Listen
) -> None:
    forbidden = answer(403, status(403, "Forbidden", 'namespaces is forbidden: User "agent" cannot list'))
    api.script("list", "Namespace", *(forbidden for _ in range(3)))
    api.put(service("cart"))
    api.put(_namespace("shop", **{"svc.mesh/default.timeout": "5s"}))
    timing = msgspec.structs.replace(FAST, forbidden_optional=0.01)
    with capture_logs() as logs:
        listener = listen(timing=timing)
        await listener.until(lambda: listener.synced >= 1)
        assert "Service cart" in listener.names
        # Once it may, it reads them.
        await listener.until(lambda: api.watching("Namespace") == 1)
    assert not listener.stale
    (said,) = [entry for entry in logs if entry["event"] == "source_does_without"]
    assert (said["resource"], said["log_level"]) == ("Namespace", "warning")
    assert "svc.mesh/default.*" in said["effect"]
    assert not [entry for entry in logs if entry["event"] == "source_error"]
