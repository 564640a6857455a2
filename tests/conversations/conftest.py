"""The stage of tests/exchange, on which nothing may be left behind."""

from __future__ import annotations

from tests.exchange.conftest import wires

__all__ = ["wires"]
