"""Live requests in a Service's view: they come, are bounded and told apart, and nobody is watched unseen."""

from __future__ import annotations

import json

import pytest

from hack.kit.waiting import until_async
from nodeagent.control.tap import MOST_WATCHES, TapFilter
from tests.page.browser import Page
from tests.page.shown import ANSWERED, FAILED, MARKUP, Shown, manifest
from tests.page.test_page import AXE, show

WATCH = "document.querySelector('#view-service .watch')"
BUTTON = f"{WATCH}.querySelector('button')"
PAUSE = f"{WATCH}.querySelectorAll('button')[1]"
LIST = "document.querySelector('#view-service .watch').parentElement.querySelector('ol')"
HIDE = (
    "(hidden => { Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden });"
    " document.dispatchEvent(new Event('visibilitychange')); })"
)


async def watches(shown: Shown, count: int) -> list[TapFilter]:
    """Wait until so many watch; an agent notices within seconds that one has left."""

    async def there() -> bool:
        return len(shown.watchers.watches) == count

    await until_async(there, 30.0)
    return [watch.filter for watch in shown.watchers.watches]


async def watch(page: Page, shown: Shown, service: str = "shop/cart") -> None:
    await show(page, shown, f"service/{service}", "Watch requests")
    await page.run(f"{BUTTON}.click()")
    await page.until("document.body.innerText.includes('Watching. Requests appear as they end.')")
    await watches(shown, 1)


async def lines(page: Page, count: int) -> list[str]:
    await page.until(f"{LIST}.children.length === {count}")
    found: list[str] = await page.run(f"[...{LIST}.querySelectorAll('summary')].map(one => one.innerText)")
    return found


async def fill(page: Page, label: str, value: str) -> None:
    labels = f"[...{WATCH}.querySelectorAll('label')]"
    control = f"document.getElementById({labels}.find(one => one.innerText === '{label}').htmlFor)"
    await page.run(
        f"(one => {{ one.value = {json.dumps(value)};"
        f" one.dispatchEvent(new Event('change', {{ bubbles: true }})); }})({control})"
    )


async def test_requests_come_newest_first_with_their_ends(page: Page, shop: Shown) -> None:
    await watch(page, shop)
    shop.tell(
        ANSWERED, {**ANSWERED, "status": 404}, FAILED, {**ANSWERED, "grpc_status": "NOT_FOUND"}, dropped=17
    )
    first, second, third, fourth = await lines(page, 4)
    assert "✓ NOT_FOUND GET /items 13 ms from shop/deployment/front" in first
    assert "✖ 503 POST /orders 900 ms from shop/deployment/front; connect_failed; 2 tries" in second
    assert "▲ 404" in third
    assert "✓ 200" in fourth
    await page.until("document.body.innerText.includes('▲ 17 more were left out: there were too many')")
    assert "4 requests came; 4 shown" in await page.run("document.body.innerText")
    assert page.complaints == []


async def test_the_journey_of_one_is_drawn_and_new_ones_wait_meanwhile(page: Page, shop: Shown) -> None:
    await watch(page, shop)
    shop.tell(ANSWERED)
    await lines(page, 1)
    await page.run(f"{LIST}.querySelector('summary').click()")
    await page.until(f"{LIST}.querySelectorAll('.stage').length === 6")
    assert "waited in a queue" in await page.run(f"{LIST}.innerText")
    shop.tell({**ANSWERED, "path": "/new"})
    await page.until("document.body.innerText.includes('Show 1 new one')")
    assert len(await lines(page, 1)) == 1
    await page.run(
        "[...document.querySelectorAll('button')].find(one => one.innerText === 'Show 1 new one').click()"
    )
    assert "/new" in (await lines(page, 2))[0]
    assert await page.run(f"{LIST}.querySelectorAll('details')[1].open"), "what was open stays"


async def test_a_request_without_stages_says_why(page: Page, shop: Shown) -> None:
    await watch(page, shop)
    shop.tell({name: value for name, value in ANSWERED.items() if name != "stages"})
    await lines(page, 1)
    await page.run(f"{LIST}.querySelector('summary').click()")
    await page.until("document.body.innerText.includes('It began before it was watched')")


async def test_filters_go_to_the_agent(page: Page, shop: Shown) -> None:
    await watch(page, shop)
    for label, value in (
        ("Status", "5xx"),
        ("Method", "post"),
        ("Path begins with", "/a?&"),
        ("Caller", "web"),
    ):
        await fill(page, label, value)

    async def asked() -> bool:
        return TapFilter("shop/cart", "web", "5xx", "/a?&", "POST") in [
            one.filter for one in shop.watchers.watches
        ]

    await until_async(asked)
    await watches(shop, 1)
    await fill(page, "Method", "not a method")
    await page.until("document.body.innerText.includes('▲ Not watched: method \"NOT A METHOD\" is none')")
    await watches(shop, 0)


async def test_enter_in_a_filter_begins(page: Page, shop: Shown) -> None:
    await show(page, shop, "service/shop/cart", "Watch requests")
    await page.run(f"{WATCH}.querySelector('input').focus()")
    await page.press("Enter", "\r")
    await watches(shop, 1)
    await page.press("Enter", "\r")
    assert await page.run(f"{BUTTON}.innerText") == "Stop watching", "it ends by its button"


async def test_it_ends_with_the_view_and_its_button(page: Page, shop: Shown) -> None:
    await watch(page, shop)
    await page.run(f"{BUTTON}.click()")
    await watches(shop, 0)
    await page.run(f"{BUTTON}.click()")
    await watches(shop, 1)
    await page.run("location.hash = '#/service/shop/stock'")
    await watches(shop, 0)
    await page.until(f"{BUTTON}.innerText === 'Watch requests'")
    await page.run(f"{BUTTON}.click()")
    assert (await watches(shop, 1))[0].service == "shop/stock"
    shop.put(manifest("shop", "front"))
    shop.now = type(shop.now)(shop.now.node, shop.now.window, [], 0)
    await page.until("document.body.innerText.includes('There is no Service shop/stock')")
    await watches(shop, 0)


async def test_a_pause_and_a_hidden_window_keep_no_worker_busy(page: Page, shop: Shown) -> None:
    await watch(page, shop)
    shop.tell(ANSWERED)
    await lines(page, 1)
    await page.run(f"{PAUSE}.click()")
    await watches(shop, 0)
    assert await page.run(f"{PAUSE}.getAttribute('aria-pressed')") == "true"
    await page.run(f"{HIDE}(true)")
    await page.run(f"{HIDE}(false)")
    assert "Paused" in await page.run("document.body.innerText"), "a pause outlasts a window that was hidden"
    await page.run(f"{PAUSE}.click()")
    await watches(shop, 1)
    await page.run(f"{HIDE}(true)")
    await watches(shop, 0)
    assert "Stopped while this window is hidden" in await page.run("document.body.innerText")
    await page.run(f"{HIDE}(false)")
    await watches(shop, 1)
    shop.tell(ANSWERED)
    await lines(page, 2)


async def test_what_the_agent_refuses_is_said(page: Page, shop: Shown) -> None:
    taken = [shop.watchers.open(TapFilter("shop/cart")) for _ in range(MOST_WATCHES)]
    await show(page, shop, "service/shop/cart", "Watch requests")
    await page.run(f"{BUTTON}.click()")
    await page.until("document.body.innerText.includes('▲ Not watched: 10 others watch requests')")
    for one in taken:
        one.close()
    await show(page, shop, "service/shop/gone", "Watch requests")
    await page.run(f"{BUTTON}.click()")
    await page.until("document.body.innerText.includes('no Service \"shop/gone\" is in the mesh')")
    await page.until(f"{BUTTON}.innerText === 'Watch requests'")


async def test_a_watch_that_the_agent_ends_is_not_begun_again(page: Page, shop: Shown) -> None:
    await watch(page, shop)
    shop.tell(ANSWERED, {"ended": "the longest time of a watch is over"}, ANSWERED)
    await page.until("document.body.innerText.includes('has ended: the longest time of a watch is over.')")
    await watches(shop, 0)
    assert len(await lines(page, 1)) == 1, "what came before stays"
    await page.run(f"{HIDE}(true)")
    await page.run(f"{HIDE}(false)")
    assert await page.run(f"{BUTTON}.innerText") == "Watch requests"
    assert len([url for url in page.requested if "/tap?" in url]) == 1


async def test_an_agent_that_goes_is_told_and_not_asked_without_end(page: Page, shop: Shown) -> None:
    await watch(page, shop)
    await shop.server.close()
    await page.until(f"{BUTTON}.innerText === 'Watch requests'")
    assert len([url for url in page.requested if "/tap?" in url]) == 1


async def test_a_plan_that_changes_stops_nothing(page: Page, shop: Shown) -> None:
    await watch(page, shop)
    shop.tell(ANSWERED)
    await lines(page, 1)
    shop.put(manifest("shop", "cart", {"svc.mesh/timeout": "7s"}))
    await page.until("document.getElementById('view-service').innerText.includes('svc.mesh/timeout')")
    assert len(await lines(page, 1)) == 1
    assert len([url for url in page.requested if "/tap?" in url]) == 1


async def test_markup_in_a_request_stays_text(page: Page, shop: Shown) -> None:
    await watch(page, shop)
    shop.tell({name: MARKUP if isinstance(value, str) else value for name, value in ANSWERED.items()})
    await lines(page, 1)
    await page.run(f"{LIST}.querySelector('summary').click()")
    await page.until(f"{LIST}.innerText.includes('<img src=x')")
    assert await page.run("document.querySelectorAll('main img, main script').length") == 0
    assert await page.run("typeof window.hacked") == "undefined"


async def test_600_requests_at_once_are_200_lines(page: Page, shop: Shown) -> None:
    await watch(page, shop)
    for round_ in range(10):
        shop.tell(*({**ANSWERED, "path": f"/{round_}/{number}"} for number in range(60)))
        await page.until(f"document.body.innerText.includes('{(round_ + 1) * 60} requests came')")
    found = await lines(page, 200)
    assert "/9/59" in found[0]
    assert "600 requests came; 200 shown" in await page.run("document.body.innerText")


async def test_pieces_of_a_stream_become_lines(page: Page, shop: Shown) -> None:
    await show(page, shop, "nodes")
    script = (
        "import('./watching.js').then(one => { const lines = new one.LineReader();"
        " return ['{\"a\"', ':1}\\n\\n', '{\"a\":2}\\n{\"a', '\":3}', '\\n'].map(one => lines.take(one)); })"
    )
    assert await page.run(script) == [[], [{"a": 1}], [{"a": 2}], [], [{"a": 3}]]
    endless = (
        "import('./watching.js').then(one => { try { new one.LineReader().take('x'.repeat(300000)); }"
        " catch (error) { return error.message; } })"
    )
    assert await page.run(endless) == "the agent sent a line that is too long"


@pytest.mark.parametrize(("width", "dark"), [(320, True), (1280, False)])
async def test_for_every_reader(page: Page, shop: Shown, width: int, dark: bool) -> None:
    await page.look_like(width, dark=dark)
    await page.call("Page.setBypassCSP", enabled=True)  # axe makes elements of its own
    await watch(page, shop)
    shop.tell(ANSWERED, {**ANSWERED, "status": 404, "path": "/" + "x" * 300}, FAILED, dropped=2)
    await lines(page, 3)
    await page.run(f"[...{LIST}.querySelectorAll('summary')].forEach(one => one.click())")
    await page.until(f"{LIST}.querySelectorAll('.journey').length === 3")
    assert await page.run("document.documentElement.scrollWidth") <= width
    if not AXE.exists():
        pytest.skip("no axe-core here (make page-tools)")
    await page.run(AXE.read_text() + "; true")
    found = await page.run(
        "axe.run(document).then(said => said.violations.map("
        "one => [one.id, one.nodes.map(node => node.html + ' ' + node.failureSummary)]))"
    )
    assert found == []
