"""The form that explains a request: by keyboard, errors in words at their field, and no markup from input."""

from __future__ import annotations

import json

import pytest

from tests.page.browser import Page
from tests.page.shown import MARKUP, Shown
from tests.page.test_page import show

FOCUS = "document.activeElement.id"


async def fill(page: Page, **values: str) -> None:
    for name, value in values.items():
        await page.run(f"document.getElementById('explain-{name}').value = {json.dumps(value)}")
    await page.run("document.getElementById('explain-form').requestSubmit()")


async def test_with_the_keyboard_alone(page: Page, shop: Shown) -> None:
    await show(page, shop, "explain", "Nothing is sent")
    for _ in range(30):
        await page.press("Tab")
        if await page.run(FOCUS) == "explain-url":
            break
    for letter in "http://front.shop.svc.mesh/x":
        await page.press(letter, letter)
    await page.press("Enter", "\r")
    await page.until("document.body.innerText.includes('Backend shop/front:80')")
    assert await page.run(FOCUS) == "explanation"
    text = await page.run("document.getElementById('explanation').innerText")
    for said in (
        "Answer: that of the endpoint", "port http (80)", "Middleware retry", "svc.mesh/retry-attempts: 2",
        "Service shop/front", "GET /x", "10.1.0.1:8080", "✓ in use", "50 %",
    ):  # fmt: skip
        assert said in text, said
    assert page.complaints == []


@pytest.mark.parametrize(
    ("values", "field", "said"),
    [
        ({"url": ""}, "url", "Write the URL"),
        ({"url": "http://front.shop.svc.mesh/", "method": "GET IT"}, "method", "one word"),
        (
            {"url": "http://front.shop.svc.mesh/", "headers": "a: b\nnonsense"},
            "headers",
            "Line 2 is no header",
        ),
        ({"url": "http://front.shop.svc.mesh/", "from": "shop/none"}, "from", "nor a pod that is known"),
        ({"url": "http://none.shop.svc.mesh/"}, "url", "is not in the mesh"),
        ({"url": "ftp://x/"}, "url", "is none of http://"),
    ],
)
async def test_what_is_wrong_stands_at_its_field(
    page: Page, shop: Shown, values: dict[str, str], field: str, said: str
) -> None:
    await show(page, shop, "explain", "Nothing is sent")
    await fill(page, **values)
    await page.until(
        f"document.getElementById('explain-{field}-error').innerText.includes({json.dumps(said)})"
    )
    assert await page.run(FOCUS) == f"explain-{field}"
    assert await page.run("[...document.querySelectorAll('[aria-invalid=true]')].map(one => one.id)") == [
        f"explain-{field}"
    ]
    await fill(
        page, url="http://front.shop.svc.mesh/", method="", headers="x-user: 7", **{"from": "shop/front-1"}
    )
    await page.until("document.body.innerText.includes('x-user: 7')")
    assert await page.run("document.querySelectorAll('[aria-invalid=true]').length") == 0


async def test_markup_stays_text(page: Page, shop: Shown) -> None:
    await show(page, shop, "explain", "Nothing is sent")
    await fill(
        page, url=f"http://front.shop.svc.mesh/{MARKUP.replace(' ', '%20')}", headers=f"x-user: {MARKUP}"
    )
    await page.until("document.getElementById('explanation').innerText.includes('<script>')")
    await fill(page, url=MARKUP)
    await page.until("document.getElementById('explain-url-error').innerText.includes('<img')")
    assert await page.run("document.querySelectorAll('main img, main script').length") == 0
    assert await page.run("typeof window.hacked") == "undefined"


async def test_a_refusal_of_the_mesh_is_the_answer(page: Page, shop: Shown) -> None:
    await show(page, shop, "explain", "Nothing is sent")
    await fill(page, url="http://ledger.bank.svc.mesh/")
    await page.until("document.body.innerText.includes('▲ 503 of the mesh (no_endpoint)')")


async def test_an_agent_that_does_not_answer(page: Page, shop: Shown) -> None:
    await show(page, shop, "explain", "Nothing is sent")
    await shop.server.close()
    await fill(page, url="http://front.shop.svc.mesh/")
    await page.until("document.getElementById('explanation').innerText.includes('The agent does not answer')")
