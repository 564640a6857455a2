"""An explanation for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from nodeagent.explain.model import NOBODY, BackendView, Cause, Explanation


def text_lines(one: Explanation) -> Iterator[str]:
    """Yield the explanation, from the name to the endpoint."""
    source = one.source if one.source != NOBODY else "a client that nobody knows"
    yield f"{one.method} {one.url} from {source}"
    yield f"service   {one.service}, port {_named(one.port_name, one.port)}, at {one.address}"
    upstream = f", {one.upstream} to the endpoints" if one.upstream else ""
    yield f"protocol  {one.protocol}: {one.because}{upstream}"
    for rule in one.rules:
        yield f"rule      {'→' if rule.takes else ' '} {rule.name}: {rule.why}"
    for step in one.steps:
        of = f" of {step.backend}" if step.backend else ""
        yield f"layer     {step.name}{of}: {step.says}"
        yield from _causes(step.causes)
    if one.sent is not None:
        yield f"sent      {one.sent.method} {one.sent.target}"
        yield from (f"            {name}: {value}" for name, value in one.sent.fields)
    for backend in one.backends:
        yield from _backend(backend)
    yield f"answer    {_answer(one)}"
    for problem in one.problems:
        yield f"problem   {problem}"


def _backend(view: BackendView) -> Iterator[str]:
    share = f"{view.share:.0%} of the requests" if view.share else "only as described above"
    yield f"backend   {view.backend}, {share}, {view.balance or 'no balancer'}"
    yield f"            {view.how}"
    yield from _causes(view.causes)
    rows = [
        (
            "→" if one.address == view.chosen else " ",
            one.address,
            "-" if one.share is None else f"{one.share:.1%}",
            one.state,
            " ".join(filter(None, (one.pod, one.zone))),
        )
        for one in view.endpoints
    ]
    yield from (f"            {line}" for line in aligned(rows))


def _causes(causes: Sequence[Cause]) -> Iterator[str]:
    for cause in causes:
        yield f"            {cause.annotation}: {cause.value}  ({cause.where})"


def _answer(one: Explanation) -> str:
    if one.answer is not None:
        by = "the mesh" if one.answer.by == "mesh" else one.answer.by
        return f"{one.answer.grpc_status or one.answer.status} of {by} ({one.answer.reason})"
    if one.protocol == "tcp":
        return "the connection is passed to an endpoint" if one.backends else "none"
    if not one.perhaps:
        return "that of the endpoint"
    others = one.perhaps_grpc or tuple(map(str, one.perhaps))
    return f"that of the endpoint, or {', '.join(others)} as described above"


def _named(name: str, port: int) -> str:
    return f"{name} ({port})" if name else str(port)


def aligned(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield rows as lines whose columns stand below each other."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
