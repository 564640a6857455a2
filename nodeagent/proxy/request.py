"""An exchange as its layers see it. Implements `middleware.contract.Request`.

The fields are set by its subclass `nodeagent.proxy.exchange_state.ExchangeState`: a constructor of its own
would cost every plain request a call.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from middleware.contract import Ended, ExchangeError, Handler, Journey, StageKind
from nodeagent.proxy.aside import Aside
from nodeagent.proxy.backend import Backend, Target
from nodeagent.proxy.deadlines import Deadline
from nodeagent.proxy.journey import Recorder
from nodeagent.proxy.listeners import RunningListener, RunningRule
from nodeagent.proxy.message import NO_BODY, Fields, RequestHead, check_target
from nodeagent.proxy.streams import ClientStream

_METHOD: Final = re.compile(r"(?!CONNECT\Z)[!#$%&'*+\-.^_`|~0-9A-Z]+")


class LayerRequest:
    """What layers read and change of a request, and what they ask for."""

    __slots__ = (
        "_at_end",
        "_backend",
        "_backend_name",
        "_head",
        "_journey",
        "_limits",
        "_rule",
        "_tried",
        "client",
        "completed",
        "listener",
        "replayable",
        "started",
    )

    grpc: ClassVar[bool] = False
    """Whether it is a call of gRPC: a `nodeagent.proxy.grpc_exchange.GrpcExchange`."""

    client: ClientStream
    listener: RunningListener
    started: float
    completed: float | None
    replayable: bool
    _head: RequestHead
    _rule: RunningRule | None
    _backend: Backend | None
    _backend_name: str
    _tried: tuple[Target, ...]
    _limits: list[Deadline] | None
    _at_end: list[Callable[[Ended], None]] | None
    _journey: Recorder | None

    @property
    def method(self) -> str:
        """The method."""
        return self._head.method.decode("ascii")

    @method.setter
    def method(self, method: str) -> None:
        if not _METHOD.fullmatch(method):
            raise ValueError(f"{method[:64]!r} is no method that can be passed on (RFC 9110 section 9.1)")
        self._head.method = method.encode("ascii")

    @property
    def target(self) -> str:
        """The request target in origin form."""
        return self._head.target.decode("ascii")

    @target.setter
    def target(self, target: str) -> None:
        self._head.target = check_target(target)

    @property
    def headers(self) -> Fields:
        """The end-to-end header fields."""
        return Fields(self._head)

    @property
    def source(self) -> str:
        """The client's address."""
        return self.client.source.address

    @property
    def head_only(self) -> bool:
        """Whether there is neither a body nor a change of protocols."""
        head = self._head
        return head.length == NO_BODY and not head.upgrade

    @property
    def workload(self) -> str:
        """What the client's pod belongs to; empty if that is not known."""
        return self.listener.runtime.workload(self.client.source.address)

    @property
    def backend(self) -> str:
        """The Service whose endpoints get the request; empty: the one that was asked."""
        return self._backend_name

    @backend.setter
    def backend(self, name: str) -> None:
        try:
            chosen = self.listener.backend_named(name) if name else self._own_backend()
        except LookupError:
            raise ValueError(f"{name!r} is none of the backends that this middleware named") from None
        if chosen is not self._backend:
            self._tried = ()
        self._backend, self._backend_name = chosen, name

    @property
    def chosen_backend(self) -> Backend | None:
        """Where it goes, for the layers of that backend."""
        return self._backend

    def within(self, seconds: float, error: Callable[[], ExchangeError]) -> Deadline:
        """Set a limit from now; see the contract."""
        limit = self.listener.runtime.deadlines.set(seconds, lambda: self.limit_passed(error()))
        if self._limits is None:
            self._limits = []
        self._limits.append(limit)
        return limit

    def after(self, seconds: float, call: Callable[[], None]) -> Deadline:
        """Have `call` called when this much time has passed, unless that is cancelled."""
        return self.listener.runtime.deadlines.set(seconds, call)

    def at_end(self, call: Callable[[Ended], None]) -> None:
        """Have `call` called when the exchange has ended."""
        if self._at_end is None:
            self._at_end = []
        self._at_end.append(call)

    def waited(self, kind: StageKind, start: float) -> None:
        """Note what it has waited for until now, if anybody wants to know."""
        if self._journey is not None:
            self._journey.waited(kind, start, self.listener.runtime.now())

    def follow_journey(self) -> Callable[[], Journey]:
        """Note the stages from now on, and return what tells them; see the contract."""
        recorder = self._journey or Recorder(self.started)
        self._journey = recorder
        now = self.listener.runtime.now
        return lambda: recorder.so_far(now())

    def aside(self, backend: str, seconds: float, done: Callable[[int], None]) -> bool:
        """Send a copy to another backend; see the contract."""
        body = self.whole_body()
        if body is None or self._head.upgrade:
            return False
        listener = self.listener

        def tell(status: int) -> None:
            try:
                done(status)
            except Exception as error:  # a layer's bug, in the midst of another's callback
                listener.runtime.observer.layer_failed(listener.service, listener.port, error)

        chosen = listener.backend_named(backend)
        Aside(listener.runtime, chosen, self._head, self.client.source, body, tell).start(seconds)
        return True

    @abc.abstractmethod
    def whole_body(self) -> Sequence[bytes] | None:
        """Return the request's body, if all of it has come and is kept; else None."""

    def apart(self, serve: Handler) -> None:
        """Have `serve` called with a copy that belongs to no client; see the contract."""
        self.listener.runtime.run_apart(self, serve)

    @abc.abstractmethod
    def limit_passed(self, error: ExchangeError) -> None:
        """End what is under way with this error."""

    def _own_backend(self) -> Backend | None:
        rule = self._rule
        return (rule.backend or rule.choose()) if rule is not None else None
