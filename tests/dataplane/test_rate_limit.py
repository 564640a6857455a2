"""`svc.mesh/rate-limit` on a real data plane: whose limit it is, and what responses say."""

from __future__ import annotations

from middleware.rate_limit import RATE_LIMITED
from tests.dataplane.harness import Mesh, answering

GET = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n%s\r\n"


async def test_workloads_and_what_is_left(mesh: Mesh) -> None:
    workloads = {"127.0.0.1": "default/deployment/web"}
    mesh.proxy.runtime.workload = lambda address: workloads.get(address, "")
    annotations = {"svc.mesh/rate-limit": "1/h burst=2 per=workload headers=on"}
    await mesh.serve(await mesh.endpoint(answering()), annotations=annotations)
    answers = [await mesh.ask(GET % b"") for _ in range(3)]
    assert [answer.split(b" ")[1] for answer in answers] == [b"200", b"200", b"429"]
    assert all(b'\r\nRateLimit-Policy: "svc.mesh";q=2;w=7200\r\n' in answer for answer in answers)
    for answer, left in zip(answers, (b"r=1;t=3600", b"r=0;t=7200", b"r=0;t=7200"), strict=True):
        assert b'\r\nRateLimit: "svc.mesh";' + left + b"\r\n" in answer
    workloads["127.0.0.1"] = "default/deployment/other"
    assert (await mesh.ask(GET % b"")).startswith(b"HTTP/1.1 200 ")
    assert mesh.metric("rate-limit", RATE_LIMITED.name) == 1


async def test_values_of_a_header(mesh: Mesh) -> None:
    annotations = {"svc.mesh/rate-limit": "1/h burst=1 per=header:x-tenant"}
    await mesh.serve(await mesh.endpoint(answering()), annotations=annotations)
    tenants = [b"X-Tenant: a\r\n", b"x-tenant: b\r\n", b"x-tenant: a\r\n", b"", b""]
    statuses = [(await mesh.ask(GET % tenant)).split(b" ")[1] for tenant in tenants]
    assert statuses == [b"200", b"200", b"429", b"200", b"429"]
