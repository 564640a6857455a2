"""How nft's answers are told, with a program of the same name in its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.capture.nft import NftError, run_nft

REFUSAL = """\
/dev/stdin:1:24-32: Error: Could not process rule: No such file or directory
flush chain ip svcmesh owner-0badcafe-240.0.0.0/4
                       ^^^^^^^^^
"""


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    program = folder / "nft"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


async def test_the_script_arrives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path, f'echo "$@" > {tmp_path}/arguments; cat > {tmp_path}/script')
    script = "add element ip svcmesh workers { }\n" * 30_000
    await run_nft(script)
    assert (tmp_path / "arguments").read_text() == "-f -\n"
    assert (tmp_path / "script").read_text() == script


async def test_a_refusal_says_what_was_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "refusal").write_text(REFUSAL)
    install(monkeypatch, tmp_path, f"cat > /dev/null; cat {tmp_path}/refusal >&2; exit 1")
    with pytest.raises(NftError) as refused:
        await run_nft("anything")
    assert str(refused.value) == (
        "Could not process rule: No such file or directory "
        "(flush chain ip svcmesh owner-0badcafe-240.0.0.0/4)"
    )


async def test_a_refusal_without_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path, "cat > /dev/null; exit 3")
    with pytest.raises(NftError, match="nft ended with 3"):
        await run_nft("anything")


async def test_a_refusal_is_cut(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    elements = "250.96.0.10 . 80, " * 20_000
    (tmp_path / "refusal").write_text(f"1:1-2: Error: no\nadd element {elements}\n^^\n")
    install(monkeypatch, tmp_path, f"cat > /dev/null; cat {tmp_path}/refusal >&2; exit 1")
    with pytest.raises(NftError) as refused:
        await run_nft("anything")
    assert len(str(refused.value)) < 200


async def test_nft_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NftError, match="nft cannot be run: No such file or directory"):
        await run_nft("anything")
