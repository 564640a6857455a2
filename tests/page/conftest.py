"""A browser and what is shown in it; without a browser these tests are left out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.page.browser import Page, chromium, open_browser
from tests.page.shown import SHOP, Shown, shop_stats


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    program = chromium()
    if program is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    opener: Callable[[], Any]
    async with open_browser(program) as opener, opener() as opened:
        await opened.look_like(1280)
        yield opened


@pytest.fixture
async def shop() -> AsyncIterator[Shown]:
    shown = Shown(SHOP, shop_stats())
    await shown.server.start()
    yield shown
    await shown.server.close()
