"""`--token-store` and its password file."""

from __future__ import annotations

import pytest

from nodeagent.cli.flags import Given, resolve_settings
from nodeagent.cli.flagvalues import store_address
from nodeagent.settings import StoreAddress


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://limits", StoreAddress("limits", 6379, "", 0, "/p")),
        ("redis://10.0.0.1:7000/3", StoreAddress("10.0.0.1", 7000, "", 3, "/p")),
        ("redis://me%40shop@limits/", StoreAddress("limits", 6379, "me@shop", 0, "/p")),
    ],
)
def test_addresses(url: str, address: StoreAddress) -> None:
    assert store_address(url, "/p") == address


@pytest.mark.parametrize(
    "url", ["", "limits:6379", "http://limits", "redis://", "redis://h/x", "redis://h?a=b", "redis://h:99999"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        store_address(url, "")


def test_a_password_belongs_into_a_file() -> None:
    with pytest.raises(ValueError, match="--token-store-password-file") as error:
        store_address("redis://u:s3cret@limits", "")
    assert "s3cret" not in str(error.value)


def test_settings() -> None:
    given = Given(source="file:x", capture="loopback")
    assert resolve_settings(given).token_store is None
    with pytest.raises(ValueError, match="has no meaning without --token-store"):
        resolve_settings(Given(source="file:x", capture="loopback", token_store_password_file="/p"))
