"""Fixtures of the tests of a worker: a data plane on a loop that is moved by hand."""

from tests.exchange.conftest import wires

__all__ = ["wires"]
