"""What one middleware says that it would do. It may be a user's own: what it says is checked."""

from __future__ import annotations

from typing import Any

from middleware.contract import Decision, ExchangeError
from middleware.registry import by_name
from nodeagent.explain.asked import AskedRequest
from nodeagent.plan.model import LayerSpec
from nodeagent.proxy.errors import printable


class Unknown(Exception):
    """The middleware cannot say what it would do; the message says why."""


def decide(spec: LayerSpec, asked: AskedRequest) -> Decision:
    """Return what the middleware would do, and change the request as it would.

    Raises:
        Unknown: it cannot say; the request is as it was.
    """
    explain = by_name(spec.name).explain
    if explain is None:
        raise Unknown("cannot say what it would do: it brings no `explain`")
    before = asked.copy()
    try:
        return _checked(explain(spec.options, asked))
    except ExchangeError as error:
        return Decision(str(error), error.status, reason=error.reason)
    except Exception as error:  # it may not be ours; nothing else is lost by it
        asked.head, asked.candidates = before.head, before.candidates
        raise Unknown(
            f"cannot say what it would do: its `explain` failed: {printable(repr(error))}"
        ) from error


def _checked(decision: Any) -> Decision:
    if not isinstance(decision, Decision):
        raise TypeError(f"it returns {type(decision).__name__}, not a Decision")
    for status in filter(None, (decision.status, *decision.perhaps)):
        if not 200 <= status <= 599:
            raise ValueError(f"a status is 200 to 599, not {status}")
    for name, weight in decision.shares:
        if weight <= 0:
            raise ValueError(f"the weight of {name!r} is {weight}")
    for name, value in decision.fields:
        f"{name}: {value}".encode("latin-1")
    return decision
