"""The program `nft`, run beside the loop. One script is one transaction: all of it happens, or nothing."""

from __future__ import annotations

import asyncio
import os

TIMEOUT = 30.0
"""Seconds; 20,000 elements take 0.15."""


class NftError(Exception):
    """nft or the kernel refused a script; nothing of it is in force. The message is nft's own."""


async def run_nft(script: str, *, check: bool = False) -> None:
    """Give `script` to `nft -f -`; with `check` the kernel says whether it would take it, and forgets it.

    Raises:
        NftError: it was refused, or nft cannot be run.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            "nft",
            *(("-c",) if check else ()),
            "-f",
            "-",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)},
        )
    except OSError as error:
        raise NftError(f"nft cannot be run: {error.strerror}") from error
    try:
        async with asyncio.timeout(TIMEOUT):
            _, refusal = await process.communicate(script.encode())
    except TimeoutError:
        raise NftError(f"nft did not end within {TIMEOUT:g}s and was stopped") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise NftError(_summary(refusal.decode(errors="replace")) or f"nft ended with {process.returncode}")


def _summary(refusal: str) -> str:
    """Return nft's messages without the source lines it repeats: these can be thousands of elements long."""
    messages = [line.split("rror: ", 1)[1] for line in refusal.splitlines() if "rror: " in line]
    commands = [line[:100] for line in refusal.splitlines() if line.startswith(_COMMANDS)]
    pairs = [f"{message} ({command})" for message, command in zip(messages, commands, strict=False)]
    return "; ".join((pairs or messages or [refusal.strip()[:200]])[:3])


_COMMANDS = ("table ", "add ", "delete ", "flush ", "\t")
