"""A fake API server for commands that read a cluster."""

from tests.cli.conftest import api

__all__ = ["api"]
