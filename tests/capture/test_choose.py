from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from nodeagent.capture import choose
from nodeagent.capture.contract import CaptureError
from nodeagent.capture.loopback import LoopbackCapture, first_bindable_port
from nodeagent.capture.nftables import NftablesCapture
from nodeagent.capture.privileges import CAP_NET_ADMIN, CAP_NET_BIND_SERVICE, has_capability
from nodeagent.settings import Settings

SETTINGS = Settings(
    source="file:unused",
    capture="loopback",
    mesh_range="127.64.0.0/10",
    zone="svc.mesh",
    alias_zones=(),
    dns_listen=("127.0.0.1", 10053),
    admin_listen=("127.0.0.1", 15000),
    workers=1,
    node_name="laptop",
    drain_timeout=30.0,
    log_level="info",
    log_format="json",
)


@pytest.mark.parametrize(
    ("nft", "admin", "kind", "reason"),
    [
        ("/usr/sbin/nft", True, "nftables", "nft is installed and CAP_NET_ADMIN is effective"),
        ("/usr/sbin/nft", False, "loopback", "the process has no CAP_NET_ADMIN"),
        (None, True, "loopback", "the program nft is not installed"),
    ],
)
def test_auto(monkeypatch: pytest.MonkeyPatch, nft: str | None, admin: bool, kind: str, reason: str) -> None:
    monkeypatch.setattr("nodeagent.capture.choose.shutil.which", lambda _: nft)
    monkeypatch.setattr(choose, "has_capability", lambda number: admin and number == CAP_NET_ADMIN)
    assert choose.choose_capture("auto") == (kind, reason)


def test_what_is_asked_for_is_not_second_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "has_capability", lambda _: False)
    assert choose.choose_capture("nftables") == ("nftables", "asked for")
    assert choose.choose_capture("loopback") == ("loopback", "asked for")


def test_make_capture() -> None:
    assert isinstance(choose.make_capture(SETTINGS), LoopbackCapture)
    nftables = msgspec.structs.replace(SETTINGS, capture="nftables", mesh_range="240.0.0.0/4")
    assert isinstance(choose.make_capture(nftables), NftablesCapture)


@pytest.mark.parametrize(
    ("line", "bind", "admin"),
    [
        ("CapEff:\t000001ffffffffff", True, True),
        ("CapEff:\t0000000000000400", True, False),
        ("CapEff:\t0000000000001000", False, True),
        ("CapEff:\t0000000000000000", False, False),
        ("CapPrm:\t000001ffffffffff", False, False),
    ],
)
def test_capabilities(tmp_path: Path, line: str, bind: bool, admin: bool) -> None:
    status = tmp_path / "status"
    status.write_text(f"Name:\tnodeagent\n{line}\nSeccomp:\t0\n")
    assert has_capability(CAP_NET_BIND_SERVICE, status) is bind
    assert has_capability(CAP_NET_ADMIN, status) is admin


def test_no_proc(tmp_path: Path) -> None:
    assert has_capability(CAP_NET_ADMIN, tmp_path / "absent") is False
    assert first_bindable_port(tmp_path / "absent", privileged=False) == 1024


@pytest.mark.parametrize(
    ("text", "privileged", "port"),
    [
        ("1024\n", False, 1024),
        ("1024\n", True, 1),
        ("0\n", False, 1),
        ("80\n", False, 80),
        ("?", False, 1024),
    ],
)
def test_first_bindable_port(tmp_path: Path, text: str, privileged: bool, port: int) -> None:
    sysctl = tmp_path / "ip_unprivileged_port_start"
    sysctl.write_text(text)
    assert first_bindable_port(sysctl, privileged) == port


async def test_loopback_takes_a_local_range() -> None:
    capture = LoopbackCapture(SETTINGS)
    await capture.start()
    await capture.apply([("127.64.0.10", 80)])
    await capture.verify()
    await capture.close()


async def test_loopback_refuses_a_range_that_is_not_local() -> None:
    capture = LoopbackCapture(msgspec.structs.replace(SETTINGS, mesh_range="203.0.113.0/24"))
    with pytest.raises(CaptureError, match=r"mesh range 203\.0\.113\.0/24: 203\.0\.113\.1 is not an address"):
        await capture.start()
