"""The list of failures on the page: live without jumps, filtered, of one Service; and a request's journey."""

from __future__ import annotations

from typing import Any

from tests.page.browser import Page
from tests.page.shown import FAILED, MARKUP, SOME_FAILURES, Shown
from tests.page.test_page import show

LINES = "[...document.querySelectorAll('#failures summary')].map(one => one.innerText)"


async def lines(page: Page, count: int) -> list[str]:
    await page.until(f"document.querySelectorAll('#failures li').length === {count}")
    found: list[str] = await page.run(LINES)
    return found


async def test_newest_first_with_reasons_and_what_is_missing(page: Page, shop: Shown) -> None:
    shop.fail(*SOME_FAILURES, left_out=17)
    await show(page, shop, "failures", "of 17 nothing is kept")
    first, second, third = await lines(page, 3)
    assert "▲ refused connection no Service no_route: no Service has this address" in first
    assert "▲ refused 429 shop/pay GET /<img" in second
    assert "✖ failed 503 shop/cart POST /orders connect_failed: 10.1.0.2:8080 refused" in third
    assert "20 failed or were refused" in await page.run("document.getElementById('failures').innerText")
    assert page.complaints == []


async def test_markup_in_any_field_stays_text(page: Page, shop: Shown) -> None:
    """As it may come in a gRPC message, a trace id, a reason of an endpoint, a name."""
    stage = {"kind": "try", "start_ms": 0, "end_ms": 9, "endpoint": MARKUP, "try": 1, "outcome": MARKUP}
    evil: dict[str, object] = {key: MARKUP for key, value in FAILED.items() if isinstance(value, str)}
    evil |= dict.fromkeys(("layer", "grpc_status", "protocol", "destination", MARKUP), MARKUP)
    stages = [stage, {**stage, "kind": MARKUP}]
    shop.fail({**FAILED, **evil, "time": FAILED["time"], "service": "shop/cart", "stages": stages})
    shop.fail({**FAILED, **evil, "stages": MARKUP})
    for view in ("failures", "service/shop/cart"):
        await show(page, shop, view, "onerror=window.hacked")
        await page.run(
            "document.querySelectorAll('.failures summary, #failures summary').forEach(one => one.click())"
        )
        await page.until("document.querySelectorAll('main details[open]').length > 0")
        assert await page.run("document.querySelectorAll('main img, main script').length") == 0
        assert await page.run("typeof window.hacked") == "undefined"


async def test_nothing_has_failed(page: Page, shop: Shown) -> None:
    await show(page, shop, "failures", "✓ Nothing has failed or was refused.")


async def test_an_agent_without_failures_says_so_and_its_numbers_are_not_old(page: Page, shop: Shown) -> None:
    await show(page, shop, "nodes")
    await page.run(
        "(known => { window.fetch = async (url, ...more) => String(url).startsWith('../failures')"
        " ? new Response('there is no /failures here', { status: 404 }) : known(url, ...more); })"
        "(window.fetch)"
    )
    for view in ("failures", "service/shop/cart"):
        await page.run(f"location.hash = '#/{view}'")
        await page.until("document.body.innerText.includes('This agent does not keep failures')")
    assert "Old numbers" not in await page.run("document.body.innerText")


async def test_the_filter_takes_reasons_statuses_and_clients(page: Page, shop: Shown) -> None:
    shop.fail(*SOME_FAILURES)
    await show(page, shop, "failures", "no_route")
    for wanted, count in (("429", 1), ("rate-limit", 1), ("deployment/front", 1), ("10.1.0", 3), ("none", 0)):
        await page.run(f"document.getElementById('filter').value = '{wanted}'")
        await page.run("document.getElementById('filter').dispatchEvent(new Event('input'))")
        await lines(page, count)


async def test_new_ones_wait_while_one_is_open(page: Page, shop: Shown) -> None:
    shop.fail(FAILED)
    await show(page, shop, "failures", "connect_failed")
    shop.fail({**FAILED, "time": "2026-01-01T09:31:00Z", "reason": "pool_full"})
    assert "pool_full" in (await lines(page, 2))[0], "what is new comes by itself"
    await page.run("document.querySelectorAll('#failures summary')[1].click()")
    await page.until("document.querySelector('#failures svg.journey') !== null")
    shop.fail({**FAILED, "time": "2026-01-01T09:32:00Z", "reason": "queue_timeout"})
    await page.until("document.body.innerText.includes('Show 1 new one')")
    assert len(await lines(page, 2)) == 2
    await page.run("[...document.querySelectorAll('#failures button')][0].click()")
    assert "queue_timeout" in (await lines(page, 3))[0]
    assert await page.run("document.querySelectorAll('#failures details')[2].open"), "what was open stays"


async def test_a_journey_is_drawn_and_told(page: Page, shop: Shown) -> None:
    shop.fail(FAILED)
    await show(page, shop, "failures", "connect_failed")
    await page.run("document.querySelector('#failures summary').click()")
    await page.until("document.querySelectorAll('#failures .stage').length === 6")
    rows = await page.run(
        "[...document.querySelectorAll('#failures .stages tbody tr')]"
        ".map(one => [...one.cells].map(cell => cell.innerText))"
    )
    assert rows[0] == ["Q", "0 ms", "120 ms", "waited in a queue"]
    assert rows[2] == [
        "E", "200 ms", "300 ms",
        "the endpoint had it, try 1, 10.1.0.1:8080, its answer began at 480 ms, ended with 502",
    ]  # fmt: skip
    assert (
        await page.run("document.querySelector('#failures svg.journey').getAttribute('aria-hidden')")
        == "true"
    )
    assert "svc.mesh/access-log: errors" not in await page.run("document.body.innerText")


async def test_where_no_journey_is_kept_the_page_says_how_to_have_one(page: Page, shop: Shown) -> None:
    shop.fail({name: value for name, value in FAILED.items() if name != "stages"})
    await show(page, shop, "failures", "connect_failed")
    await page.run("document.querySelector('#failures summary').click()")
    await page.until("document.body.innerText.includes('svc.mesh/access-log: errors')")
    assert await page.run("document.querySelectorAll('#failures .stage').length") == 1


async def test_bars_of_any_stages_are_within_the_picture(page: Page, shop: Shown) -> None:
    await show(page, shop, "failures")
    bars: list[dict[str, Any]] = await page.run(
        "import('./journey.js').then(one => one.barsOf([{start_ms: 0, end_ms: 0},"
        " {start_ms: 999.9, end_ms: 1000}, {start_ms: 0, end_ms: 1000}], 300))"
    )
    assert all(bar["x"] >= 0 and bar["width"] >= 3 and bar["x"] + bar["width"] <= 300.001 for bar in bars)
    nothing = await page.run(
        "import('./journey.js').then(one => one.barsOf([{start_ms: 0, end_ms: 0}], 300))"
    )
    assert nothing == [{"x": 0, "width": 3}]


async def test_a_service_has_a_list_of_its_own(page: Page, shop: Shown) -> None:
    shop.fail(*SOME_FAILURES)
    await show(page, shop, "service/shop/cart", "Failures and refusals")
    await page.until("document.querySelectorAll('#view-service .failures li').length === 1")
    await show(page, shop, "service/shop/stock", "Nothing has failed")


async def test_a_list_that_is_held_is_another_for_another_service(page: Page, shop: Shown) -> None:
    shop.fail(*SOME_FAILURES)
    await show(page, shop, "failures", "no_route")
    await page.run("document.getElementById('hold').click()")
    shop.fail({**FAILED, "reason": "pool_full"})
    await page.run("location.hash = '#/service/shop/cart'")
    await page.until("document.querySelectorAll('#view-service .failures li').length === 2")
    shop.fail({**FAILED, "reason": "queue_timeout"})
    await page.run("location.hash = '#/service/shop/stock'")
    await page.until("document.getElementById('view-service').innerText.includes('Nothing has failed')")
    await page.run("location.hash = '#/service/shop/cart'")
    await page.until("document.querySelectorAll('#view-service .failures li').length === 3")


async def test_500_failures(page: Page, shop: Shown) -> None:
    shop.fail(*({**FAILED, "took_ms": number} for number in range(600)))
    await show(page, shop, "failures", "200 shown")
    assert "600 failed or were refused" in await page.run("document.getElementById('failures').innerText")
    assert "the latest 500 are kept" in await page.run("document.getElementById('failures').innerText")
