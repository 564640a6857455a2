"""A load for a lab's pods: `python -m tests.e2e.load URL CONNECTIONS SECONDS [REQUESTS]`, result as JSON.

Keep-alive connections, one thread each, GET after GET until the time is up or SIGTERM; a new connection after
every REQUESTS requests, if given. A request fails if its connection does, or if its status is not 200; the
connection is then made anew.
"""

from __future__ import annotations

import http.client
import itertools
import json
import signal
import sys
import threading
import time
from urllib.parse import urlsplit


class Outcome:
    """What all connections together have seen."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ok = 0
        self.failures: list[tuple[float, str]] = []
        self.slowest = 0.0

    def note(self, reason: str, took: float) -> None:
        """Count one request; `reason` is empty if it succeeded."""
        with self.lock:
            if reason:
                self.failures.append((time.monotonic(), reason))
            else:
                self.ok += 1
                self.slowest = max(self.slowest, took)

    def document(self) -> dict[str, object]:
        """Return the figures; `failing_seconds` lie between the first and the last failure."""
        times = [moment for moment, _ in self.failures]
        return {
            "ok": self.ok,
            "failed": len(self.failures),
            "reasons": sorted({reason for _, reason in self.failures}),
            "failing_seconds": round(max(times) - min(times), 3) if times else 0.0,
            "slowest_seconds": round(self.slowest, 3),
        }


def run(host: str, port: int, path: str, renew: int, stop: threading.Event, outcome: Outcome) -> None:
    """Ask until `stop` is set."""
    connection = http.client.HTTPConnection(host, port, timeout=30)
    for number in itertools.count(1):
        if stop.is_set():
            break
        if renew and number % renew == 0:
            connection.close()
        started = time.monotonic()
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            reason = "" if response.status == 200 else f"status {response.status}"
        except (OSError, http.client.HTTPException) as error:
            reason = f"{type(error).__name__}: {error}"
            connection.close()
            stop.wait(0.005)
        outcome.note(reason, time.monotonic() - started)
    connection.close()


def main() -> None:
    """Run the load of the command line."""
    url, connections, seconds = urlsplit(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    outcome = Outcome()
    renew = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    target = (url.hostname or "", url.port or 80, url.path or "/", renew, stop, outcome)
    threads = [threading.Thread(target=run, args=target) for _ in range(connections)]
    for thread in threads:
        thread.start()
    print("started", flush=True)
    stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    print(json.dumps(outcome.document()), flush=True)


if __name__ == "__main__":
    main()
