"""What `make smoke` checks of names and traffic. Each check returns what it saw, or raises `Wrong`."""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter

from hack.demo.exchange import resolve
from hack.demo.shop import MESHED
from hack.demo.visitor import Visitor, Wrong, expect

ECHOED = 256 * 1024
_SAMPLE = re.compile(
    r'^svcmesh_requests_total\{service="(\w+)",namespace="shop",.*,code_class="(\w+)"\} (\d+)',
    re.MULTILINE,
)


async def names(visitor: Visitor) -> str:
    """Every mesh name resolves over UDP and TCP to the address in the plan, and back."""
    port = visitor.stage.dns_port
    services = (await visitor.stage.plan())["services"]
    for offer in MESHED:
        address = services[f"shop/{offer.name}"]["address"]
        for over in ("udp", "tcp"):
            found = await resolve(port, offer.mesh_name.title(), over=over)  # names have no case
            expect(found.answers == (address,), f"{offer.mesh_name} over {over}: {found}, not {address}")
        reverse = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
        found = await resolve(port, reverse, "PTR")
        expect(found.answers == (f"{offer.mesh_name}.",), f"{address} is {found}")
    return f"{len(MESHED)} names, over UDP and TCP, and back"


async def invisible(visitor: Visitor) -> str:
    """The Service without annotations has no name, no address and no place in the plan."""
    stall = visitor.stall("office")
    found = await resolve(visitor.stage.dns_port, stall.offer.mesh_name)
    expect(found.code == "NXDOMAIN", f"its name: {found}")
    expect("office" not in await visitor.stage.read_admin("/plan"), "it is in the plan")
    address = stall.offer.cluster_ip(stall.block).replace("10.", "127.", 1)
    expect(not await visitor.is_open("office", address, stall.port), f"{address} accepts connections")
    server = stall.servers[0]
    expect(await visitor.is_open("office", server.address, server.port), "its own address is refused")
    return "NXDOMAIN, not in the plan, refused; its own address serves"


async def in_turn(visitor: Visitor) -> str:
    """Requests to an HTTP Service are answered by each of its endpoints in turn."""
    seen = []
    for name in ("web", "catalog"):
        servers = [server.name for server in visitor.stall(name).servers]
        answers = [answer.name for answer in await visitor.ask(name, 4 * len(servers))]
        expect(set(answers) == set(servers), f"{name}: answered by {sorted(set(answers))}")
        in_order = all(answers[i] == answers[i - len(servers)] for i in range(len(servers), len(answers)))
        expect(in_order, f"{name}: not in turn: {answers}")
        seen.append(f"{name}: {len(servers)} endpoints, 4 requests each")
    return "; ".join(seen)


async def echoes(visitor: Visitor) -> str:
    """A TCP Service greets first, sends back what it gets, and both ends close one after the other."""
    address, port = await visitor.address("chat"), await visitor.mesh_port("chat")
    sent = os.urandom(ECHOED)
    greeted: Counter[str] = Counter()
    servers = {server.name for server in visitor.stall("chat").servers}

    async def talk() -> None:
        reader, writer = await asyncio.open_connection(address, port)
        greeting = (await reader.readline()).decode()
        greeted[greeting.split(" ")[1]] += 1
        writer.write(sent)
        writer.write_eof()
        expect(await reader.read(-1) == sent, "what came back is not what was sent")
        writer.close()

    await asyncio.gather(*(talk() for _ in range(10)))
    expect(greeted.keys() == servers, f"greeted by {dict(greeted)}")
    by = ", ".join(f"{name} {greeted[name]}" for name in sorted(greeted))
    return f"10 connections ({by}), {ECHOED // 1024} KiB each way"


async def retries(visitor: Visitor) -> str:
    """An endpoint that is killed while its Service still lists it costs no client an error."""
    stall = visitor.stall("web")
    lost = stall.servers.pop()
    lost.child.kill()
    await lost.child.wait()
    try:
        answers = await visitor.ask("web", 30)
    finally:
        await lost.child.stop(0)
        await visitor.stage.start_server(stall, stall.offer.servers)
    failed = sum(answer.status != 200 for answer in answers)
    expect(not failed, f"{failed} of {len(answers)} requests failed")
    expect(lost.name not in {answer.name for answer in answers}, "a dead server answered")
    return f"{lost.name} killed: 0 of {len(answers)} requests failed"


async def rate_limited(visitor: Visitor) -> str:
    """Requests beyond the limit are answered with 429, and told when to come again."""
    answers = await visitor.ask("orders", 15)
    statuses = Counter(answer.status for answer in answers)
    expect(statuses.keys() == {200, 429}, f"answers by status: {dict(statuses)}")
    expect(statuses[200] <= 10, f"{statuses[200]} of 15 passed, the burst is 5")
    refused = next(answer for answer in answers if answer.status == 429)
    expect(
        "retry-after" in refused.fields and "svc.mesh" in refused.fields.get("proxy-status", ""), f"{refused}"
    )
    return f"15 at once: {statuses[200]} passed, {statuses[429]} got 429 with Retry-After"


async def circuit_opens(visitor: Visitor) -> str:
    """A Service that answers with errors only is left alone for a while."""
    answers = await visitor.ask(
        "catalog", 30, "/?status=500&delay=0.02"
    )  # its figures are looked at every 100 ms
    expect(answers[0].status == 500, f"the first answer was {answers[0].status}")
    refused = [answer for answer in answers if "circuit_open" in answer.fields.get("proxy-status", "")]
    statuses = Counter(answer.status for answer in answers)
    expect(
        refused and statuses == {500: len(answers) - len(refused), 503: len(refused)}, f"statuses {statuses}"
    )
    return f"{statuses[500]} answers 500, then {statuses[503]} times 503 from the mesh itself"


async def counted(visitor: Visitor) -> str:
    """The metrics have seen exactly the requests that were sent."""
    expected = dict(visitor.answered)
    seen: Counter[tuple[str, str]] = Counter()

    async def agree() -> bool:
        found = _SAMPLE.findall(await visitor.stage.read_admin("/metrics"))
        seen.clear()
        for service, group, number in found:  # once for each source
            if int(number):
                seen[service, group] += int(number)
        return seen == expected

    try:
        await visitor.until(agree, "")
    except Wrong:
        raise Wrong(f"sent {expected}, counted {seen}") from None
    return (
        f"{sum(expected.values())} requests sent, {sum(seen.values())} counted, by Service and status class"
    )
