"""Objectives on the page: met or missed in words and signs, with figures that are never rounded up."""

from __future__ import annotations

import pytest

from nodeagent.stats.signals import Promise
from tests.page.browser import Page
from tests.page.shown import Shown, shop_stats, with_promises
from tests.page.test_page import show

PROMISES = {"cart": Promise(0.975), "stock": Promise(0.99, 0.25, 0.95), "pay": Promise(0.4, 0.25, 0.999)}
CELLS = (
    "Object.fromEntries([...document.querySelectorAll('#services tbody tr')]"
    ".map(one => [one.dataset.key, one.querySelector('.objective').innerText]))"
)
VISIBLE = "getComputedStyle(document.querySelector('#services tbody .objective')).display"


async def test_the_list_says_met_or_missed_with_the_figure(page: Page, shop: Shown) -> None:
    shop.now = with_promises(shop.now, PROMISES)
    await show(page, shop, "services", "missed")
    cells = await page.run(CELLS)
    assert cells["shop/cart"] == "✖ missed, 97 %"
    assert cells["shop/stock"] == "✓ met, 100 %"
    assert cells["shop/pay"] == "✖ missed, 0 % in 250 ms"
    assert cells["shop/front"] == "– none"
    heads = "[...document.querySelectorAll('#services thead button')]"
    await page.run(f"{heads}.find(one => one.textContent === 'Objective').click()")
    keys = await page.run("[...document.querySelectorAll('#services tbody tr')].map(one => one.dataset.key)")
    assert keys[:3] == ["shop/cart", "shop/pay", "shop/stock"]
    await page.look_like(320)
    assert await page.run(VISIBLE) == "table-cell"
    assert await page.run("document.documentElement.scrollWidth") <= 320


async def test_without_objectives_there_is_no_such_column(page: Page, shop: Shown) -> None:
    await show(page, shop, "services", "stock")
    assert await page.run(VISIBLE) == "none"
    shop.now = with_promises(shop.now, PROMISES)
    await page.until(f"{VISIBLE} === 'table-cell'")


async def test_a_service_shows_what_was_promised_and_what_was(page: Page, shop: Shown) -> None:
    shop.now = with_promises(shop_stats(), PROMISES)
    rows = "[...document.querySelectorAll('[aria-label=Objective] tbody tr')].map(one => one.innerText)"
    await show(page, shop, "service/shop/pay", "Promised")
    assert await page.run(rows) == [
        "80\t✓ met\t40 % succeed\t50 %",
        "80\t✖ missed\t99.9 % take no longer than 250 ms\t0 %",
    ]
    await show(page, shop, "service/shop/front", "Called by")
    assert await page.run(rows) == []


@pytest.mark.parametrize(
    ("share", "shown"),
    [("0.999", "99.9 %"), ("0.9989999", "99.899 %"), ("0.99999", "99.999 %"), ("1", "100 %"), ("null", "–")],
)
async def test_no_figure_is_rounded_up_to_the_promise(
    page: Page, shop: Shown, share: str, shown: str
) -> None:
    await show(page, shop, "nodes")
    assert await page.run(f"import('./format.js').then(one => one.exact({share}))") == shown
