r"""`svc.mesh/rewrite: strip /api; host catalog.internal`: endpoints see another path or host.

Of the operations on paths, the first that fits a request is done. Regular expressions are a part of Python's
whose cost has a bound: no alternatives, nothing repeated that has been repeated, and few repetitions, so that
a match takes at most in the order of the square of the path's length, and that has a bound too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, cast

import msgspec

from middleware.contract import (
    Annotation,
    Asked,
    Context,
    Decision,
    Handler,
    Layer,
    Metric,
    Middleware,
    Problem,
    Request,
    Response,
)
from middleware.paths import PATH, PREFIX, has_prefix
from middleware.values import InvalidValue, parse_annotation, parse_choice, quote

REWRITE: Final = "svc.mesh/rewrite"
REWRITTEN: Final = Metric("svcmesh_rewrites", "Requests whose path was rewritten.")
MOST_OPERATIONS: Final = 16
LONGEST_VALUE: Final = 4096
LONGEST_PATH: Final = 512
"""Characters of a path that a regular expression is tried on; longer paths do not fit it."""
LONGEST_EXPRESSION: Final = 256
MOST_REPETITIONS: Final = 3
MOST_UNBOUNDED: Final = 2

Verb = Literal["strip", "prefix", "regex"]

_AUTHORITY: Final = re.compile(r"(?:[A-Za-z0-9._~-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_PIECE: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)
"""One item of a regular expression: an escape, a set, or a character."""
_REFERENCE: Final = re.compile(r"\\([1-9])")


class Operation(msgspec.Struct, frozen=True):
    """One change of a path: `old` is a prefix or a regular expression."""

    verb: Verb
    old: str
    new: str = ""


class Options(msgspec.Struct, frozen=True):
    """What to change."""

    paths: tuple[Operation, ...] = ()
    host: str = ""


def parse(annotations: Mapping[str, str]) -> Options | Problem | None:
    """Read `svc.mesh/rewrite`."""
    return parse_annotation(annotations, REWRITE, parse_rewrite)


def parse_rewrite(text: str) -> Options:
    """Read operations, on lines of their own or with `;` between them.

    Raises:
        InvalidValue: it says which of them is wrong, and why.
    """
    if len(text) > LONGEST_VALUE:
        raise InvalidValue(f"it has {len(text)} characters", f"at most {LONGEST_VALUE}")
    paths, host = [], ""
    for verb, *words in filter(None, (piece.split() for piece in re.split("[;\n]", text))):
        if parse_choice(verb, tuple(SHAPES)) != "host":
            paths.append(_operation(cast("Verb", verb), words))
            continue
        if host:
            raise InvalidValue("host is given twice", "host once")
        if len(words) != 1 or not _AUTHORITY.fullmatch(words[0]):
            raise InvalidValue(f"{quote(' '.join((verb, *words)))} is not a host", SHAPES["host"])
        host = words[0]
    if not paths and not host:
        raise InvalidValue("it contains no operation", "; ".join(SHAPES.values()))
    if len(paths) > MOST_OPERATIONS:
        raise InvalidValue(f"there are {len(paths)} operations", f"at most {MOST_OPERATIONS}")
    return Options(tuple(paths), host)


SHAPES: Final = {
    "strip": "strip /PREFIX",
    "prefix": "prefix /OLD /NEW",
    "regex": r"regex EXPRESSION /NEW, such as regex /item/([0-9]+) /items/\1",
    "host": "host NAME, perhaps with :PORT",
}


def _operation(verb: Verb, words: list[str]) -> Operation:
    if len(words) != (1 if verb == "strip" else 2):
        raise InvalidValue(f"{quote(' '.join((verb, *words)))} is not a complete operation", SHAPES[verb])
    old, new = words[0], words[1] if len(words) == 2 else ""
    if new and not new.startswith("/"):
        raise InvalidValue(f"{quote(new)} does not begin with /", SHAPES[verb])
    if new and not PATH.fullmatch(_REFERENCE.sub("", new) if verb == "regex" else new):
        raise InvalidValue(f"{quote(new)} is not a path", "a path such as /new, without a query")
    if verb == "regex":
        _check_expression(old, new)
    elif not PREFIX.fullmatch(old) or not old.strip("/"):
        raise InvalidValue(f"{quote(old)} is not the beginning of a path", "a path such as /old")
    return Operation(verb, old if verb == "regex" else old.rstrip("/"), new)


def _check_expression(expression: str, new: str) -> None:
    """Refuse a regular expression that is none, or whose cost has no bound."""
    expected = SHAPES["regex"]
    if len(expression) > LONGEST_EXPRESSION:
        raise InvalidValue(f"it has {len(expression)} characters", f"at most {LONGEST_EXPRESSION}")
    repetitions, unbounded, before = 0, 0, ""
    for piece in _PIECE.findall(expression):
        if piece == "|" or (piece == "?" and before == "(") or re.fullmatch(r"\\[0-9]", piece):
            raise InvalidValue(
                f"{quote(expression)} has alternatives, a group with (? or a reference to a group",
                "a regular expression without them; give several operations in place of alternatives",
            )
        if piece == "{":
            raise InvalidValue(f"{quote(expression)} has a counted repetition", "*, + or ?")
        if piece in "*+?":
            if before == ")" and piece != "?":
                raise InvalidValue(f"{quote(expression)} repeats a group", "repetitions inside of groups")
            if before not in ("*", "+", "?"):  # else it says how the repetition before it goes about it
                repetitions += 1
                unbounded += piece != "?"
        before = piece
    if repetitions > MOST_REPETITIONS or unbounded > MOST_UNBOUNDED:
        raise InvalidValue(
            f"{quote(expression)} has {repetitions} repetitions, {unbounded} of them by * or +",
            f"at most {MOST_REPETITIONS}, and {MOST_UNBOUNDED} by * or +",
        )
    try:
        groups = re.compile(expression).groups
    except re.error as error:
        raise InvalidValue(f"{quote(expression)} is not a regular expression: {error}", expected) from None
    for number in _REFERENCE.findall(new):
        if int(number) > groups:
            raise InvalidValue(f"{quote(new)} names group {number} of {groups}", expected)


class Rewrite:
    """What becomes of paths."""

    def __init__(self, operations: tuple[Operation, ...]) -> None:
        self._operations = [
            (one.verb, one.old, one.new, re.compile(one.old) if one.verb == "regex" else None)
            for one in operations
        ]

    def path(self, path: str) -> tuple[str, str] | None:
        """Return the path in place of this one and the prefix that was stripped; None: nothing fits."""
        for verb, old, new, expression in self._operations:
            if expression is not None:
                match = expression.fullmatch(path) if len(path) <= LONGEST_PATH else None
                if match is not None:
                    return _filled(new, match), ""
            elif has_prefix(path, old):
                rest = path[len(old) :]
                return (rest or "/", old) if verb == "strip" else (new.rstrip("/") + rest or "/", "")
        return None


def _filled(new: str, match: re.Match[str]) -> str:
    """Put what groups have matched in the place of references to them."""
    return _REFERENCE.sub(lambda reference: match[int(reference[1])] or "", new)


def change(request: Asked, policy: Rewrite | None, host: str) -> bool:
    """Change a request; return whether an operation on paths fitted."""
    if host:
        request.headers.set("Host", host)
    if policy is None:
        return False
    path, question, query = request.target.partition("?")
    found = policy.path(path)
    if found is None:
        return False
    new, stripped = found
    request.target = f"{new}{question}{query}"
    if stripped:
        request.headers.set("X-Forwarded-Prefix", stripped)
    return True


def explain(options: Options, asked: Asked) -> Decision:
    """Say what endpoints see."""
    before = asked.target
    fitted = change(asked, Rewrite(options.paths), options.host)
    said = [f"the path {before} becomes {asked.target}"] if fitted else []
    said += ["no operation fits the path"] if options.paths and not fitted else []
    said += [f"Host becomes {options.host}"] if options.host else []
    return Decision("; ".join(said))


def build(options: Options, context: Context) -> Layer:
    """Return the layer for one port of a Service."""
    policy = Rewrite(options.paths) if options.paths else None
    rewritten = context.counter(REWRITTEN)
    host = options.host

    def layer(handler: Handler) -> Handler:
        async def rewrite(request: Request) -> Response:
            if change(request, policy, host):
                rewritten(1)
            return await handler(request)

        return rewrite

    return layer


MIDDLEWARE = Middleware(
    name="rewrite",
    annotations=(
        Annotation(
            name=REWRITE,
            values=(
                "strip /PREFIX, prefix /OLD /NEW, regex EXPRESSION /NEW, host NAME; separated by ; or on "
                "lines of their own"
            ),
            default="endpoints see what clients ask for",
            summary=(
                "Which path and host endpoints see. Of the operations on paths the first that fits is done."
            ),
            example="svc.mesh/rewrite: strip /api; host catalog.internal",
            individual=True,
        ),
    ),
    options=Options,
    parse=parse,
    build=build,
    explain=explain,
    metrics=(REWRITTEN,),
)
