"""Corefiles, read only as far as needed to add a server block and to take it away again, byte for byte.

The syntax is that of `caddyfile` in github.com/coredns/caddy (lexer.go, parse.go): words divided by white
space, `"` quotes, `#` comments; a server block is its keys, `{` at the end of their line, one directive a
line, and `}` on a line of its own; `(name) { ... }` is a snippet; `import` takes a snippet or a file pattern.
What CoreDNS would refuse or might read in another way is an error here: nobody may edit what was not
understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

BEGIN = "# svcmesh begin: made by `meshctl dns install`, taken away by `meshctl dns remove`"
END = "# svcmesh end"

# White space as Go's unicode.IsSpace has it; Python's has four more.
_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_TOKEN = re.compile(rf'[{_SPACE}]+|#[^\n]*|"((?:[^"\\]|\\.)*)"|([^{_SPACE}#"][^{_SPACE}#]*)', re.DOTALL)
_MARKED = re.compile(rf"^{re.escape(BEGIN)}\n(.*?)^{re.escape(END)}(\n|\Z)", re.DOTALL | re.MULTILINE)


class CorefileNotUnderstood(Exception):
    """A Corefile that must not be edited; the message says why and, where it can, in which line."""


class Directive(msgspec.Struct, frozen=True):
    """A line of a server block; what stands in its own braces is among `args`."""

    name: str
    args: tuple[str, ...]


class ServerBlock(msgspec.Struct, frozen=True):
    """What is answered for the zones of its keys, such as `.:53`."""

    keys: tuple[str, ...]
    directives: tuple[Directive, ...]


class Corefile(msgspec.Struct, frozen=True):
    """A whole file; `imports` are the patterns imported outside of server blocks."""

    servers: tuple[ServerBlock, ...]
    snippets: dict[str, tuple[Directive, ...]]
    imports: tuple[str, ...]

    def directives(self, server: ServerBlock) -> Iterator[Directive]:
        """Yield a server block's directives with those of the snippets that it imports in their place."""
        for directive in server.directives:
            snippet = self.snippets.get(directive.args[0]) if directive.name == "import" else None
            yield from (directive,) if snippet is None else snippet


class Address(msgspec.Struct, frozen=True):
    """A key of a server block: zone in lower case without the final dot (the root is empty), and port."""

    zone: str
    port: str


class _Token(msgspec.Struct, frozen=True):
    text: str
    line: int
    last_line: int


def read_corefile(text: str) -> Corefile:
    """Read a Corefile.

    Raises:
        CorefileNotUnderstood: CoreDNS would refuse it, or we are not sure what it makes of it.
    """
    return _Reader(tuple(_tokens(text))).read()


def read_address(key: str) -> Address | None:
    """Read a key of a server block; None if it is another protocol than plain DNS."""
    scheme, found, rest = key.rpartition("://")
    if found and scheme.lower() != "dns":
        return None
    zone, colon, port = rest.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]+(-[0-9]+)?", port):
        zone, port = rest, "53"
    return Address(zone.lower().removesuffix("."), port)


def insert_block(text: str, block: str) -> str:
    """Return the file with a marked block at its end; `block` is made of whole lines.

    A file without a line feed at its end has none afterwards: so `remove_block` can give the same bytes.
    """
    marked = f"{BEGIN}\n{block}{END}"
    return f"{text}{marked}\n" if text.endswith("\n") else f"{text}\n{marked}"


def remove_block(text: str) -> str:
    """Return the file without the marked block; the same text if there is none.

    Raises:
        CorefileNotUnderstood: the marks are not one pair.
    """
    found = _find(text)
    if found is None:
        return text
    before, after = text[: found.start()], text[found.end() :]
    # Without a line feed behind it, the one before it was put there by `insert_block`.
    return before + after if found[2] else before.removesuffix("\n")


def find_block(text: str) -> str | None:
    """Return what is between the marks.

    Raises:
        CorefileNotUnderstood: the marks are not one pair.
    """
    found = _find(text)
    return None if found is None else found[1]


def _find(text: str) -> re.Match[str] | None:
    marks = [line for line in text.split("\n") if line.strip().startswith(("# svcmesh begin", END))]
    if not marks:
        return None
    found = _MARKED.search(text)
    if found is None or marks != [BEGIN, END]:
        raise CorefileNotUnderstood("the marks of `meshctl dns install` are not one pair any more")
    return found


def _tokens(text: str) -> Iterator[_Token]:
    line, position = 1, 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise CorefileNotUnderstood(f"line {line}: a quote without an end")
        last = line + found[0].count("\n")
        if found[1] is not None:
            yield _Token(found[1].replace('\\"', '"'), line, last)
        elif found[2] is not None:
            yield _Token(found[2], line, last)
        elif re.search(r"\r(?!\n)", found[0]):
            raise CorefileNotUnderstood(f"line {line}: a carriage return without a line feed")
        line, position = last, found.end()


class _Reader:
    """One pass over the tokens."""

    def __init__(self, tokens: tuple[_Token, ...]) -> None:
        self._tokens = tokens
        self._at = 0

    def read(self) -> Corefile:
        servers: list[ServerBlock] = []
        snippets: dict[str, tuple[Directive, ...]] = {}
        imports: list[str] = []
        while self._at < len(self._tokens):
            if self._tokens[self._at].text == "import":
                imports.append(self._import())
                continue
            keys = self._keys()
            directives = tuple(self._directives())
            if len(keys) == 1 and keys[0].startswith("(") and keys[0].endswith(")"):
                snippets[keys[0][1:-1]] = directives
            else:
                servers.append(ServerBlock(keys, directives))
        return Corefile(tuple(servers), snippets, tuple(imports))

    def _new_line(self) -> bool:
        """Whether the present token is the first of its line."""
        return self._at == 0 or self._tokens[self._at - 1].last_line < self._tokens[self._at].line

    def _take(self, wanted: str) -> _Token:
        if self._at >= len(self._tokens):
            raise CorefileNotUnderstood(f"it ends where {wanted} should be")
        self._at += 1
        return self._tokens[self._at - 1]

    def _import(self) -> str:
        line = self._take("import").line
        pattern = self._take("the pattern of import")
        if pattern.line != line or (self._at < len(self._tokens) and not self._new_line()):
            raise CorefileNotUnderstood(f"line {line}: import takes one pattern")
        return pattern.text

    def _keys(self) -> tuple[str, ...]:
        keys: list[str] = []
        more = True
        while True:
            token = self._take("{")
            if token.text == "{":
                break
            if not more and self._tokens[self._at - 2].last_line < token.line:
                raise CorefileNotUnderstood(f"line {token.line}: a server block without braces")
            more = token.text.endswith(",")
            keys.append(token.text.removesuffix(","))
        if "" in keys:  # CoreDNS takes it for the root zone
            raise CorefileNotUnderstood(f"line {token.line}: an empty zone")
        if not keys or more:
            raise CorefileNotUnderstood(f"line {token.line}: {{ without a zone before it")
        if self._at < len(self._tokens) and not self._new_line():
            raise CorefileNotUnderstood(f"line {token.line}: something behind {{")
        return tuple(keys)

    def _directives(self) -> Iterator[Directive]:
        while (name := self._take("}")).text != "}":
            args: list[str] = []
            depth = 0
            while self._at < len(self._tokens) and (depth or not self._new_line()):
                text = self._take("}").text
                depth += (text == "{") - (text == "}")
                if depth < 0:
                    raise CorefileNotUnderstood(f"line {name.line}: }} that closes nothing")
                args.append(text)
            if depth:
                raise CorefileNotUnderstood(f"line {name.line}: {{ of {name.text} is never closed")
            if name.text == "{" or (name.text == "import" and len(args) != 1):
                raise CorefileNotUnderstood(f"line {name.line}: {name.text} is not expected here")
            yield Directive(name.text, tuple(args))
        if self._at < len(self._tokens) and not self._new_line():
            raise CorefileNotUnderstood(f"line {name.line}: something behind }}")
