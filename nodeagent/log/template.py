"""Templates for lines of the access log: text with `{key}` where a value is to stand. Pure.

A template is read once, at the start, where a mistake in it still has somebody who reads the message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from middleware.values import nearest

CLF_TIME: Final = "clf_time"
KEYS: Final = (
    *("time", CLF_TIME, "level", "event", "service", "port", "method", "path", "status", "grpc_status"),
    *("reason", "detail", "endpoint", "destination", "took_ms", "queue_ms", "connect_ms", "upstream_ms"),
    *("middleware_ms", "backoff_ms", "tries", "decided", "protocol", "received", "sent", "trace_id"),
    *("source", "source_port", "source_pod", "source_workload", "worker"),
)
"""What may stand in braces: the keys of lines about requests and connections, and `clf_time`, which is `time`
as web servers write it: `28/Nov/2026:19:02:21 +0000`."""

COMMON: Final = '{source} - {source_workload} [{clf_time}] "{method} {path} {protocol}" {status} {sent}'
NAMED: Final[Mapping[str, str]] = {"common": COMMON, "combined": f'{COMMON} "-" "-"'}
"""Templates that have a name: the formats of Apache, with the client's workload as the user. Referer and
User-Agent, the last two of `combined`, are header values, which the mesh never writes."""

OTHER_FORMS: Final = ("json", "console")
"""What may be given in place of a template: the forms of all other lines."""
LONGEST: Final = 2000
"""Characters of a template."""
LONGEST_KEY: Final = max(map(len, KEYS)) + 5
"""Characters of what stands in braces that are looked at, and shown, if it is no key."""
_BRACES: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class Template(msgspec.Struct, frozen=True):
    """A template as it was read: texts and keys in turn, a text first and last."""

    texts: tuple[str, ...]
    keys: tuple[str, ...]


class InvalidTemplate(ValueError):
    """Something that is no template; the message says what is wrong, and what would be right."""


def parse_template(text: str) -> Template:
    """Read a template, or the name of one. A brace that is meant as text is written twice.

    Each key can stand once: so a line is never much longer than the same one as JSON.

    Raises:
        InvalidTemplate: it is none.
    """
    text = NAMED.get(text, text)
    _check_characters(text)
    texts: list[str] = []
    keys: list[str] = []
    before = ""
    end = 0
    for found in _BRACES.finditer(text):
        before += text[end : found.start()]
        end = found.end()
        if found[0] in ("{{", "}}"):
            before += found[0][0]
        elif found[0] in ("{", "}"):
            raise InvalidTemplate(
                f"the {found[0]} at character {found.start() + 1} has no other brace that belongs to it; "
                f"a brace that is meant as text is written {found[0] * 2}"
            )
        else:
            keys.append(_checked(found[1], keys))
            texts.append(before)
            before = ""
    if not keys:
        close = nearest(text[:LONGEST_KEY].strip().lower(), names := (*OTHER_FORMS, *NAMED))
        raise InvalidTemplate(
            f"{_short(text)!r} is none of {', '.join(names)}, and no template, as it has no key in braces, "
            f"such as {{path}}{f'; did you mean {close}?' if close else ''}"
        )
    return Template((*texts, before + text[end:]), tuple(keys))


def _check_characters(text: str) -> None:
    if not text:
        raise InvalidTemplate("the template is empty")
    if len(text) > LONGEST:
        raise InvalidTemplate(f"the template has {len(text)} characters; {LONGEST} are the most")
    for place, character in enumerate(text, 1):
        if not character.isprintable() and character != "\t":
            raise InvalidTemplate(
                f"character {place} is {character!a}; apart from tabs a line has printable characters only"
            )


def _checked(key: str, before: list[str]) -> str:
    """Return the key, if it may stand behind these."""
    if key not in KEYS:
        close = nearest(key.strip().lower()[:LONGEST_KEY], KEYS)
        hint = f"did you mean {{{close}}}?" if close else f"there are {', '.join(KEYS)}"
        raise InvalidTemplate(f"{{{_short(key)}}} is no key of the access log; {hint}")
    if key in before:
        raise InvalidTemplate(f"{{{key}}} stands twice; each key can stand once")
    return key


def _short(key: str) -> str:
    return key if len(key) <= LONGEST_KEY else key[:LONGEST_KEY] + "…"
