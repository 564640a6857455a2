"""What `make smoke` checks of changes, made by writing the YAML as a person would."""

from __future__ import annotations

import asyncio
from collections import Counter

from hack.demo.exchange import resolve
from hack.demo.load import Load
from hack.demo.manifests import replace_file
from hack.demo.shop import RATE, SLOWER
from hack.demo.stage import Server
from hack.demo.visitor import Visitor, expect

LONG_BODY = 32 * 1024 * 1024
"""More than the sockets on its way hold, so that the response is surely in flight."""
ENABLED = "svc.mesh/enabled"
SLACK = 50
"""Further requests to wait for, so that failures show."""


async def rolled(visitor: Visitor) -> str:
    """All endpoints of a Service are replaced one after another under load; no request fails."""
    stage, stall = visitor.stage, visitor.stall("web")
    old = list(stall.servers)
    async with Load(visitor, "web") as load:
        for server in old:
            new = await stage.start_server(stall, stall.offer.servers + 1 + old.index(server))
            stage.write("web")
            await visitor.until(lambda new=new: _answers(load, new), f"{new.name} gets no request")  # type: ignore[misc]
            await _retire(visitor, server)
        enough = load.answered.total() + SLACK

        async def settled() -> bool:
            return load.answered.total() > enough

        await visitor.until(settled, "the load has stopped")
    total = load.answered.total()
    expect(not load.failures, f"{len(load.failures)} of {total} requests failed: {load.failures[:3]}")
    return f"{len(old)} of {len(old)} endpoints, 8 connections: 0 of {total} requests failed"


async def _answers(load: Load, server: Server) -> bool:
    return load.answered[server.name] > 0


async def _retire(visitor: Visitor, server: Server) -> None:
    """Take a server away as Kubernetes does: not ready any more, then asked to end, then not listed."""
    stage, stall = visitor.stage, visitor.stall("web")
    targets = [one.target for one in stall.servers if one is not server]
    leaving = type(server.target)(server.name, server.address, leaving=True)
    stage.write("web", targets=[*targets, leaving])

    async def unlisted() -> bool:
        plan = await stage.plan()
        return f'{server.address}:{server.port}"' not in str(plan).replace("'", '"')

    await visitor.until(unlisted, f"{server.name} is still in the plan")
    expect(await server.child.stop(10), f"{server.name} did not end by itself")
    stall.servers.remove(server)
    stage.write("web")


async def toggled(visitor: Visitor) -> str:
    """Without its annotation a Service is gone at once, except requests in flight; with it, it is back."""
    stage = visitor.stage
    name = visitor.stall("web").offer.mesh_name
    address, port = await visitor.address("web"), await visitor.mesh_port("web")
    connection = await visitor.connect("web")
    status, fields = await connection.begin(f"/?bytes={LONG_BODY}")

    async def gone() -> bool:
        found = await resolve(stage.dns_port, name)
        return found.code == "NXDOMAIN" and not await visitor.is_open("web", address, port)

    async def back() -> bool:
        return bool((await resolve(stage.dns_port, name)).answers)

    others = {key: value for key, value in visitor.stall("web").offer.annotations.items() if key != ENABLED}
    stage.write("web", annotations=others)
    try:
        await visitor.until(gone, "it still resolves, or its address accepts connections")
        size = len(await connection.finish(fields))
        await connection.close()
    finally:
        stage.write("web")
        await visitor.until(back, "it does not come back")
    expect(status == 200 and size > LONG_BODY, f"the request in flight: {status}, {size} bytes")
    visitor.answered["web", "2xx"] += 1
    expect((await visitor.ask("web"))[0].status == 200, "it does not answer after it came back")
    return f"off: NXDOMAIN and refused, {size >> 20} MiB in flight finished; on: serves again"


async def mistaken(visitor: Visitor) -> str:
    """A bad annotation is reported, the last good value stays in force, and everything is served."""
    stage = visitor.stage

    async def problems() -> list[dict[str, str]]:
        found: list[dict[str, str]] = (await stage.plan())["services"]["shop/web"]["problems"]
        return found

    async def solved() -> bool:
        return not await problems()

    good = visitor.stall("web").offer.annotations
    stage.write("web", annotations={**good, "svc.mesh/retry-attempts": "many"})
    try:
        await visitor.until(problems, "nothing is reported")
        (problem,) = await problems()
        service = (await stage.plan())["services"]["shop/web"]
        asked = await asyncio.gather(visitor.ask("web", 3), visitor.ask("catalog", 2))
    finally:
        stage.write("web")
    await visitor.until(solved, "it is still reported after it was mended")
    expect(problem["field"] == "svc.mesh/retry-attempts", f"reported: {problem}")
    in_force = service["annotations"].get("svc.mesh/retry-attempts")
    expect(in_force == "2", f"in force: {in_force}")
    expect(all(answer.status == 200 for answers in asked for answer in answers), "requests failed")
    return f"reported with its line ({problem['origin'].rpartition('/')[2]}); 2 stays in force, all is served"


async def slowed(visitor: Visitor) -> str:
    """The rate that the guide tells people to write shows at once: of nine requests one passes."""
    stage = visitor.stage
    file = stage.cluster / "orders.yaml"
    text = file.read_text()
    expect(RATE in text, f"there is no {RATE} in {file}")

    async def bursts() -> list[int]:
        (listener,) = (await stage.plan())["services"]["shop/orders"]["listeners"]
        return [layer["options"]["burst"] for layer in listener["layers"]]

    async def in_force(burst: int) -> bool:
        return await bursts() == [burst]

    async def one_passes() -> bool:
        statuses = Counter(answer.status for answer in await visitor.ask("orders", 9))
        return statuses == {200: 1, 429: 8}

    replace_file(file, text.replace(RATE, SLOWER))
    try:
        await visitor.until(lambda: in_force(1), f"{SLOWER} does not come into force, or lets more pass")
        await visitor.until(one_passes, f"with {SLOWER} it is not one of nine that passes")
    finally:
        replace_file(file, text)
    await visitor.until(lambda: in_force(5), f"{RATE} does not come into force again")
    return f"{SLOWER} in place of {RATE}: 1 of 9 requests passed"
