"""A real Chromium without a window, driven over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from hack.kit.waiting import until_async

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 30.0
NETWORK_CHANGED = "net::ERR_NETWORK_CHANGED"
"""Chromium gives up all that it loads when an interface of the machine comes or goes, and tests of nodes make
interfaces (https://issues.chromium.org/issues/41465264)."""
MOST_RELOADS = 20


def chromium() -> str | None:
    """Return the program; None if there is none here."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Failed(Exception):
    """The browser refused something, or a script in it has failed."""


class Page:
    """A tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._calls = 0
        self._network_changes = 0
        """Requests that the browser gave up because of one."""
        self.requested: list[str] = []
        """The addresses that were asked for."""
        self.complaints: list[str] = []
        """What stands in the console as an error, and scripts that failed."""
        self._reading = asyncio.create_task(self._read())

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        async for message in self._socket:
            said = msgspec.json.decode(message.data)
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
            elif said["method"] == "Network.requestWillBeSent":
                self.requested.append(said["params"]["request"]["url"])
            elif said["method"] == "Runtime.exceptionThrown":
                self.complaints.append(str(said["params"]["exceptionDetails"]))
            elif said["method"] == "Log.entryAdded" and said["params"]["entry"]["level"] == "error":
                entry = str(said["params"]["entry"])
                if NETWORK_CHANGED in entry:
                    self._network_changes += 1
                else:
                    self.complaints.append(entry)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        self._calls += 1
        number = self._calls
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        asked = {"id": number, "method": method, "params": parameters}
        await self._socket.send_str(msgspec.json.encode(asked).decode())
        async with asyncio.timeout(PATIENCE):
            said = await answer
        if "error" in said:
            raise Failed(f"{method}: {said['error']}")
        result: dict[str, Any] = said["result"]
        return result

    async def run(self, script: str) -> Any:
        """Return the value of an expression, awaited if it is a promise."""
        said = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in said:
            raise Failed(f"{script[:200]}: {said['exceptionDetails']}")
        return said["result"].get("value")

    async def until(self, script: str) -> Any:
        """Wait until an expression is true."""

        async def look() -> Any:
            return await self.run(script)

        try:
            return await until_async(look, PATIENCE, every=0.05)
        except TimeoutError:
            body = await self.run("document.body?.innerText ?? ''")
            raise TimeoutError(f"never true: {script}\n{body[:2000]}\n{self.complaints}") from None

    async def open(self, url: str) -> None:
        """Go somewhere; again, as a person would, where something of it was lost to a change of network."""
        for _ in range(MOST_RELOADS):
            before = self._network_changes
            said = await self.call("Page.navigate", url=url)
            await self.until("document.readyState === 'complete' && document.body !== null")
            if NETWORK_CHANGED not in said.get("errorText", "") and self._network_changes == before:
                return
        raise Failed(f"{url}: the network changes all the time")

    async def look_like(self, width: int, height: int = 900, dark: bool = False) -> None:
        """Take the size of a window, and colours."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def press(self, key: str, text: str = "") -> None:
        """Press and release a key."""
        codes = {"Tab": 9, "Enter": 13}
        code = {"windowsVirtualKeyCode": codes[key]} if key in codes else {}
        kind = "keyDown" if text else "rawKeyDown"
        await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, text=text, **code)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, **code)

    async def picture(self, path: Path, whole: bool = False) -> None:
        """Write a PNG."""
        said = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(said["data"]))


@asynccontextmanager
async def open_browser(program: str) -> AsyncIterator[Callable[[], Any]]:
    """Start a browser with a profile of its own; what is given opens tabs in it."""
    with tempfile.TemporaryDirectory(prefix="svcmesh-chromium-", ignore_cleanup_errors=True) as profile:
        flags = (
            "--headless=new", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-proxy-server", "--disable-background-networking", "--disable-component-update",
            "--remote-debugging-port=0",
        )  # fmt: skip
        root = ("--no-sandbox",) if os.geteuid() == 0 else ()
        process = await asyncio.create_subprocess_exec(
            program,
            *flags,
            *root,
            f"--user-data-dir={profile}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            said = Path(profile) / "DevToolsActivePort"

            async def listens() -> list[str]:
                lines = said.read_text().split() if said.exists() else []
                return lines if len(lines) == 2 else []

            port = (await until_async(listens))[0]
            async with aiohttp.ClientSession() as session:
                yield lambda: _open_page(session, port)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, 9)
            await process.wait()


@asynccontextmanager
async def _open_page(session: aiohttp.ClientSession, port: str) -> AsyncIterator[Page]:
    async with session.put(f"http://127.0.0.1:{port}/json/new?about:blank") as response:
        url = (await response.json())["webSocketDebuggerUrl"]
    async with session.ws_connect(url, max_msg_size=0) as socket:
        page = Page(socket)
        try:
            for domain in ("Page", "Network", "Runtime", "Log"):
                await page.call(f"{domain}.enable")
            yield page
        finally:
            await page.close()
