"""How long a connection attempt takes to be refused: `python -m tests.e2e.refusal ADDRESS PORT`, in ms."""

from __future__ import annotations

import socket
import sys
import time


def main() -> None:
    """Print the error's name and the milliseconds it took."""
    started = time.monotonic()
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10):
            outcome = "connected"
    except OSError as error:
        outcome = type(error).__name__
    print(outcome, round((time.monotonic() - started) * 1000, 2))


if __name__ == "__main__":
    main()
