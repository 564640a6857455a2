"""The access log of a worker: which requests and connections have a line, and the lines.

A Service says which with `svc.mesh/access-log`; `--access-log` speaks for those that say nothing. `all` is
all: no line is left out as long as the log takes them (`nodeagent.log.writer`), which itself says where some
are missing. Lines that are chosen because something failed, or was slow, have a budget of `LINES_PER_SECOND`
for each port of a Service, so that a storm at one does not hide another; what is left out is said once a
second, with its number (`tick`).

The client's pod is looked up when a line is written. If the pod has gone by then, the line has only its
address.
"""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

import msgspec
import structlog

from middleware.contract import Ended
from nodeagent.log.budget import LineBudgets
from nodeagent.log.stamps import Stamps, utc
from nodeagent.plan.model import LineChoice, Listener, ListenerKey
from nodeagent.proxy.observer import ALL, FAILURES, NO_STATUS, Circulation, Closed, Refused
from nodeagent.settings import AccessLog
from nodeagent.worker.line_choices import LineChoices
from nodeagent.worker.line_fields import failure_of, request_line
from nodeagent.worker.sources import SourcePods

LINES_PER_SECOND: Final = 20
"""For each port of a Service and each worker: lines about failures under `errors`, and tracebacks always."""

USUAL: Final[Mapping[AccessLog, LineChoice]] = {
    "all": LineChoice(all=True),
    "errors": LineChoice(errors=True),
    "off": LineChoice(),
}
"""What `--access-log` says of Services that say nothing."""
_LOWEST = {"all": ALL, "errors": FAILURES, "off": NO_STATUS}


class Lines(Protocol):
    """Where lines go: `nodeagent.log.access_lines.AccessLines`."""

    def takes(self, level: str) -> bool:
        """Return whether lines of this level are written."""
        ...

    def info(self, event: str, about: str, fields: Mapping[str, object]) -> None:
        """Write a line about a Service."""
        ...

    def warning(self, event: str, about: str, fields: Mapping[str, object]) -> None:
        """Write a line about a Service that something is wrong with."""
        ...

    def write(self, level: str, about: str, line: msgspec.Struct) -> None:
        """Write a line about a Service that has all its keys already, `time` and `level` among them."""
        ...


class AccessLogger:
    """Writes the access log. Implements `nodeagent.proxy.observer.Observer`.

    `off` leaves the tracebacks of middleware, which are no lines about a request.
    """

    def __init__(
        self,
        mode: AccessLog,
        worker: int,
        sources: SourcePods,
        lines: Lines,
        now: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if mode == "all" and not lines.takes("info"):
            mode = "errors"
        self.wants_all = mode == "all"
        self.from_status = _LOWEST[mode]
        self.left_out = 0
        """Lines over the budget, since the beginning."""
        self._usual = USUAL[mode]
        self._choices = LineChoices()
        self._random = random
        self._worker = worker
        self._lines = lines
        self._log = structlog.get_logger().bind(worker=worker)
        self._sources = sources
        self._budgets = LineBudgets(LINES_PER_SECOND)
        self._now = now
        self._wall = wall
        self._stamp = Stamps()

    def ended(self, ended: Ended) -> None:
        """Write a line for an exchange, if it is to have one."""
        failure = failure_of(ended)
        if not self._chosen(ended.service, ended.port, failure is not None, ended.took):
            return
        names = self._sources.names(ended.source)
        stamp = self._stamp.at(self._wall())
        if failure is None:
            line = request_line("request", "info", ended, None, names, self._worker, stamp)
            self._lines.write("info", ended.service, line)
        else:
            line = request_line("request_failed", "warning", ended, failure, names, self._worker, stamp)
            self._lines.write("warning", ended.service, line)

    def closed(self, closed: Closed) -> None:
        """Write a line for a connection to a tcp port."""
        if not self._chosen(closed.service, closed.port, closed.failed, closed.took):
            return
        fields: dict[str, object] = {
            "service": closed.service,
            "port": closed.port,
            "protocol": "tcp",
            "reason": closed.reason,
            **({"detail": closed.detail} if closed.detail else {}),
            "endpoint": closed.endpoint,
            "received": closed.received,
            "sent": closed.sent,
            "took_ms": round(closed.took * 1000, 2),
        }
        if closed.failed:
            fields["destination"] = closed.destination
        self._describe(fields, closed.source, closed.source_port)
        if closed.failed:
            self._lines.warning("connection_failed", closed.service, fields)
        else:
            self._lines.info("connection", closed.service, fields)

    def refused(self, refused: Refused) -> None:
        """Write a line for a request or connection that was refused."""
        if not self._chosen(refused.service, refused.port, True, 0.0):
            return
        error = refused.error
        fields: dict[str, object] = {}
        if refused.service:
            fields |= {"service": refused.service, "port": refused.port}
        if error.status and not refused.connection:
            fields["status"] = error.status
        fields |= {"reason": error.reason, "detail": error.detail}
        if refused.destination:
            fields["destination"] = refused.destination
        self._describe(fields, refused.source, refused.source_port)
        if refused.connection:
            self._lines.warning("connection_refused", refused.service, fields)
        else:
            self._lines.warning("request_refused", refused.service, fields)

    def layer_failed(self, service: str, port: int, error: Exception) -> None:
        """Write the traceback of a middleware's bug."""
        if self._budgets.spend((service, port), self._now()):
            self._log.error(
                "middleware_failed",
                service=service,
                port=port,
                traceback="".join(traceback.format_exception(error)),
            )
        else:
            self.left_out += 1

    def circulated(self, circulation: Circulation) -> None:
        """Write that outlier detection has ejected an endpoint, or uses it again."""
        about = (circulation.service, circulation.port)
        if not self._budgets.spend(about, self._now()):
            self.left_out += 1
            return
        fields = {
            "service": circulation.service,
            "port": circulation.port,
            "endpoint": circulation.endpoint,
            "reason": circulation.reason,
            "ejection_ms": round(circulation.seconds * 1000),
            "times": circulation.times,
            "left": circulation.left,
        }
        if circulation.ejected:
            self._log.warning("endpoint_ejected", **fields)
        else:
            self._log.info("endpoint_returned", **fields)

    def tick(self) -> None:
        """Once a second, and at the end: say which lines were left out since."""
        now = self._now()
        for gap in self._budgets.gaps(now):
            service, port = gap.port
            lasted = now - gap.since
            self._log.warning(
                "access_log_gap",
                **({"service": service, "port": port} if service else {}),
                lines=gap.lines,
                reason=f"more than {LINES_PER_SECOND} lines a second about this port",
                since=utc(time.time() - lasted),
                lasted_ms=round(lasted * 1000),
            )

    def follow(self, upserted: Iterable[Listener], removed: Iterable[ListenerKey]) -> None:
        """Learn which lines the Services of a changed plan want."""
        self._choices.follow(upserted, removed)

    def _chosen(self, service: str, port: int, failed: bool, took: float) -> bool:
        """Whether something that ended so has a line. Lines over the budget are counted."""
        choice = self._choices.of(service, port)
        if choice is None:
            choice = self._usual
        if choice.all:
            return True
        if not choice.takes(failed, took, chance := self._random()):
            return False
        if not choice.takes(False, 0.0, chance) and not self._budgets.spend((service, port), self._now()):
            self.left_out += 1
            return False
        return True

    def _describe(self, fields: dict[str, object], source: str, port: int) -> None:
        """Add the keys that say who the client is, its pod if that is known, and which worker served it."""
        fields["source"] = source
        fields["source_port"] = port
        names = self._sources.names(source)
        if names is not None:
            fields["source_pod"], fields["source_workload"] = names
        fields["worker"] = self._worker
