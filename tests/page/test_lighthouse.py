"""Lighthouse over the page with 500 Services, where somebody has installed it (docs/dashboard.md says how).

The scores of performance are printed and decide nothing: they depend on what else the machine does.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.cli.stats import counted, node_stats
from tests.page.browser import chromium
from tests.page.shown import FAILED, Shown, many
from tests.page.test_page import TOOLS

LIGHTHOUSE = TOOLS.parent / "lighthouse" / "node_modules" / ".bin" / "lighthouse"
VIEWS = ["map", "services", "failures", "explain", "service/team-1/service-1"]
MEASURES = (
    "first-contentful-paint",
    "largest-contentful-paint",
    "total-blocking-time",
    "cumulative-layout-shift",
)


@pytest.mark.parametrize("preset", ["phone", "desktop"])
@pytest.mark.parametrize("view", VIEWS)
async def test_scores(view: str, preset: str, tmp_path: Path) -> None:
    browser = chromium()
    if browser is None or not LIGHTHOUSE.exists():
        pytest.skip("run by hand: docs/dashboard.md says how to get Lighthouse")
    asked = {
        f"team-{number % 20}/service-{number}:80": {
            f"team-1/deployment/service-{number // 3}": counted(good=1000 - number)
        }
        for number in range(1, 500)
    }
    shown = Shown(many(500), node_stats("node-1", asked))
    shown.fail(*({**FAILED, "took_ms": number} for number in range(400)))
    await shown.server.start()
    try:
        said = await audit(browser, f"{shown.url}/ui/#/{view}", preset, tmp_path / "said.json")
    finally:
        await shown.server.close()
    scores = {name: one["score"] for name, one in said["categories"].items()}
    measured = [said["audits"][name]["displayValue"].replace("\xa0", " ") for name in MEASURES]
    print(f"{preset} {view}: {scores} {', '.join(measured)}")
    assert (scores["accessibility"], scores["best-practices"]) == (1, 1)


async def audit(browser: str, url: str, preset: str, out: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what Lighthouse says of a page."""
    process = await asyncio.create_subprocess_exec(
        LIGHTHOUSE,
        url,
        "--only-categories=accessibility,best-practices,performance",
        "--output=json",
        f"--output-path={out}",
        "--quiet",
        "--chrome-flags=--headless=new --no-sandbox --disable-gpu --no-proxy-server",
        *(["--preset=desktop"] if preset == "desktop" else []),
        env={**os.environ, "CHROME_PATH": browser},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said: dict[str, dict[str, dict[str, Any]]] = msgspec.json.decode(await asyncio.to_thread(out.read_bytes))
    return said
