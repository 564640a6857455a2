"""The page `/ui/` in a real Chromium: what it shows, what it asks for, and that nothing in it is ever run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nodeagent.admin.ui import POLICY
from tests.cli.stats import counted, node_stats
from tests.page.browser import Page
from tests.page.shown import MARKUP, SHOP, SOME_FAILURES, Shown, manifest, many, shop_stats

TOOLS = Path(os.environ.get("SVCMESH_TOOLS") or Path.home() / ".cache" / "svcmesh" / "bin")
AXE = TOOLS.parent / "page" / "node_modules" / "axe-core" / "axe.min.js"
PLACES = (
    "Object.fromEntries([...document.querySelectorAll('#map .node')]"
    ".map(one => [one.querySelector('.name').textContent, one.getAttribute('transform')]))"
)
VIEWS = [
    "map", "services", "problems", "failures", "explain", "nodes", "service/shop/cart", "service/shop/gone",
    "service/no/such",
]  # fmt: skip
OPEN_ALL = (
    "document.querySelectorAll('#failures summary, #view-service .failures summary').forEach(one => {"
    " if (!one.parentElement.open) one.click(); })"
)


async def show(page: Page, shown: Shown, view: str, text: str = "") -> None:
    await page.open(f"{shown.url}/ui/#/{view}")
    await page.until("document.readyState === 'complete' && /last \\d+ second/.test(document.body.innerText)")
    if text:
        await page.until(f"document.body.innerText.includes({json.dumps(text)})")


async def test_the_map(page: Page, shop: Shown) -> None:
    await show(page, shop, "map", "100/s 97.00 %")
    names = await page.run(f"Object.keys({PLACES}).sort()")
    assert names == sorted(
        ["node", "unknown", "front", "cart", "stock", "pay", "ledger", "gone", f"{MARKUP[:15]}…"]
    )
    labels = await page.run(
        "[...document.querySelectorAll('#map .label')].map(one => one.textContent).sort()"
    )
    assert "▲ 100/s 97.00 % 24 ms" in labels
    assert "✖ 10/s 50.00 % 2.4 s" in labels
    assert "✓ 50/s 2.4 ms" in labels, "a source that is a Service is drawn as that Service"
    assert page.complaints == []


async def test_an_update_moves_nothing(page: Page, shop: Shown) -> None:
    await show(page, shop, "map", "100/s 97.00 %")
    before = await page.run(PLACES)
    shop.now = node_stats(
        "node-1",
        {
            "shop/front:80": {"/node": counted(good=10)},
            "shop/new:80": {"shop/deployment/front": counted(good=70)},
        },
    )
    await page.until(f"'new' in {PLACES}")
    after = await page.run(PLACES)
    assert {name: after[name] for name in before} == before
    silent = "[...document.querySelectorAll('#map .node.idle .name')].map(one => one.textContent).sort()"
    assert await page.run(silent) == ["cart", "gone", "ledger", "pay", "stock"]
    assert len(set(after.values())) == len(after), "no two stand in one place"


async def test_a_service_with_all_there_is_to_know(page: Page, shop: Shown) -> None:
    await show(page, shop, "service/shop/cart", "Called by")
    text = await page.run("document.getElementById('view-service').innerText")
    for said in (
        "97.00 %", "deployment/front", "Calls", "✖ unhealthy", "connection refused", "✓ in use",
        "10.1.0.2:8080", "svc.mesh/request-headers", "the Service", "Port 80 (http), http", "retry is off",
    ):  # fmt: skip
        assert said in text, said
    await show(page, shop, "service/shop/pay", "▲ ejected")
    await show(page, shop, "service/bank/ledger", "There are none: requests are answered with 503")


async def test_a_service_that_goes_while_it_is_looked_at(page: Page, shop: Shown) -> None:
    await show(page, shop, "service/shop/stock", "Mesh address")
    shop.put(manifest("shop", "front"))
    shop.now = node_stats("node-1", {})
    await page.until("document.body.innerText.includes('There is no Service shop/stock in the mesh now.')")
    for address in ("service/%E0%A4%A/x", "service/shop%2Fstock/x"):
        await show(page, shop, address, "no Service")


async def test_an_unchanged_plan_is_not_sent_again(page: Page, shop: Shown) -> None:
    await show(page, shop, "services", "stock")
    asked = "performance.getEntriesByType('resource').filter(one => one.name.includes('/plan'))"
    await page.until(f"{asked}.length >= 3")
    sizes = await page.run(f"{asked}.map(one => one.decodedBodySize)")
    assert sizes[0] > 0
    assert set(sizes[1:]) == {0}
    assert shop.plans == 1


async def test_markup_from_a_cluster_stays_text(page: Page, shop: Shown) -> None:
    shop.fail(*SOME_FAILURES)
    for view in VIEWS:
        await show(page, shop, view)
        await page.until("document.querySelectorAll('main section:not([hidden])').length === 1")
        await page.run(OPEN_ALL)
        assert await page.run("document.querySelectorAll('main img, main script, main b').length") == 0
    await show(page, shop, "service/shop/cart", MARKUP)
    await show(page, shop, "problems", MARKUP)
    await show(page, shop, f"service/shop/{MARKUP}")
    await page.run(f"document.getElementById('filter').value = {json.dumps(MARKUP)}")
    await page.run("document.getElementById('filter').dispatchEvent(new Event('input'))")
    assert await page.run("typeof window.hacked") == "undefined"
    attempt = (
        "(() => { try { document.body.innerHTML = '<b>x</b>'; return 1; } catch { return 'refused'; } })()"
    )
    assert await page.run(attempt) == "refused", "the page's own policy lets no text become markup"


async def test_nothing_from_elsewhere_is_asked_for(page: Page, shop: Shown) -> None:
    for view in VIEWS:
        await show(page, shop, view)
    assert {url for url in page.requested if not url.startswith(f"{shop.url}/")} <= {"data:,", "about:blank"}
    assert "unsafe" not in POLICY
    assert page.complaints == []


async def test_with_the_keyboard_alone(page: Page, shop: Shown) -> None:
    await show(page, shop, "services", "stock")
    await page.press("/", "/")
    assert await page.run("document.activeElement.id") == "filter"
    for letter in "stock":
        await page.press(letter, letter)
    await page.until("document.querySelectorAll('#services tbody tr').length === 1")
    for _ in range(40):
        await page.press("Tab")
        if await page.run("document.activeElement.matches('#services tbody a')"):
            break
    await page.press("Enter", "\r")
    await page.until("location.hash === '#/service/shop/stock'")
    await page.until("document.body.innerText.includes('Mesh address')")


async def test_the_table_is_sorted_and_filtered(page: Page, shop: Shown) -> None:
    await show(page, shop, "services", "stock")
    names = "[...document.querySelectorAll('#services tbody a')].map(one => one.textContent.split(' ')[0])"
    assert await page.run(names) == ["ledger", "cart", "front", "gone", "pay", "stock"]
    heads = "[...document.querySelectorAll('#services thead button')]"
    await page.run(f"{heads}.find(one => one.textContent === 'Rate').click()")
    assert (await page.run(names))[:3] == ["front", "cart", "stock"]
    assert await page.run("document.querySelector('#services [aria-sort=descending]').innerText") == "Rate"


async def test_an_agent_that_has_gone(page: Page, shop: Shown) -> None:
    await show(page, shop, "services", "stock")
    await shop.server.close()
    await page.until("document.getElementById('state').textContent.startsWith('✖ Old numbers')")
    assert "stock" in await page.run("document.body.innerText"), "what was known stays"


@pytest.mark.parametrize("width", [320, 1280])
async def test_the_page_itself_never_scrolls_sideways(page: Page, shop: Shown, width: int) -> None:
    await page.look_like(width)
    shop.fail(*SOME_FAILURES)
    for view in VIEWS:
        await show(page, shop, view)
        if view == "failures":
            await page.until("document.querySelectorAll('#failures li').length === 3")
        await page.run(OPEN_ALL)
        assert await page.run("document.documentElement.scrollWidth") <= width, view


async def test_500_services(page: Page) -> None:
    asked = {
        f"team-{number % 20}/service-{number}:80": {
            f"team-{number // 3 % 20}/deployment/service-{number // 3}": counted(good=1000 - number)
        }
        for number in range(1, 500)
    }
    shown = Shown(many(500), node_stats("node-1", asked))
    await shown.server.start()
    try:
        await page.open(f"{shown.url}/ui/#/services")
        await page.until("document.querySelectorAll('#services tbody tr').length === 500")
        paint = await page.run("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        print(f"first paint after {paint:.0f} ms")
        await show(page, shown, "map", "more calls are not drawn")
        assert await page.run("document.querySelectorAll('#map .node').length") <= 80
    finally:
        await shown.server.close()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_accessibility(page: Page, shop: Shown, dark: bool) -> None:
    if not AXE.exists():
        pytest.skip("no axe-core here (make page-tools)")
    await page.call("Page.setBypassCSP", enabled=True)  # axe makes elements of its own
    await page.look_like(1280, dark=dark)
    shop.fail(*SOME_FAILURES)
    for view in VIEWS:
        await show(page, shop, view)
        if view == "failures":
            await page.until("document.querySelectorAll('#failures li').length === 3")
        if view == "explain":
            await page.run("document.getElementById('explain-form').requestSubmit()")
            await page.until("document.querySelector('[aria-invalid=true]') !== null")
        await page.run(OPEN_ALL)
        await page.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        await page.run(AXE.read_text() + "; true")
        found = await page.run(
            "axe.run(document).then(said => said.violations.map("
            "one => [one.id, one.nodes.map(node => node.html + ' ' + node.failureSummary)]))"
        )
        assert found == [], view


async def test_a_plan_that_changes_is_shown(page: Page, shop: Shown) -> None:
    await show(page, shop, "services", "stock")
    shop.put(SHOP + manifest("shop", "brand-new"))
    shop.now = shop_stats(cart_fails=0)
    await page.until("document.body.innerText.includes('brand-new')")
    await page.until("!document.body.innerText.includes('97.00 %')")
