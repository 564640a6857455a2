"""Label selectors, checked before they are sent: a mistake should be found by who typed it, at start.

The grammar is that of Kubernetes ("Labels and Selectors"; `k8s.io/apimachinery/pkg/labels`, `Parse`): terms
separated by commas, all of which must hold: `key`, `!key`, `key=value`, `key==value`, `key!=value`,
`key in (a, b)`, `key notin (a, b)`, `key>1`, `key<1`. Pure.
"""

from __future__ import annotations

import re

_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_KEY = re.compile(rf"(?:(?=[^/]{{1,253}}/){_LABEL}(?:\.{_LABEL})*/)?{_NAME}")
_VALUE = re.compile(rf"(?:{_NAME})?")
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_SET = re.compile(r"(?P<key>[^\s(),=!<>]+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)")
_COMPARISON = re.compile(r"(?P<key>[^\s(),=!<>]+)\s*(?P<operator>==|=|!=|<|>)\s*(?P<value>[^\s(),=!<>]*)")
_PRESENCE = re.compile(r"!?\s*(?P<key>[^\s(),=!<>]+)")
_COMMA = re.compile(r",(?![^(]*\))")
EXAMPLE = "such as svc.mesh/watch=true or team in (shop, pay)"


def check_selector(text: str) -> str:
    """Return a label selector without the space around its terms.

    Raises:
        ValueError: it is none; the message names the term, what is wrong with it, and an example.
    """
    terms = [term.strip() for term in _COMMA.split(text)]
    for term in terms:
        reason = _why_wrong(term)
        if reason:
            raise ValueError(f"{text!r} is not a label selector: {reason}; {EXAMPLE}")
    return ",".join(terms)


def _why_wrong(term: str) -> str:
    """Return what is wrong with a term, empty if nothing is."""
    if not term:
        return "a term is empty"
    found = _SET.fullmatch(term) or _COMPARISON.fullmatch(term) or _PRESENCE.fullmatch(term)
    if found is None:
        return f"{term!r} is none of key, !key, key=value, key!=value, key in (a, b), key notin (a, b)"
    parts = found.groupdict()
    if not _KEY.fullmatch(parts["key"]):
        return f"{parts['key']!r} is not the key of a label"
    if parts.get("operator") in ("<", ">"):
        return "" if _NUMBER.fullmatch(parts["value"]) else f"{parts['value']!r} is not a whole number"
    for value in (parts.get("values") or parts.get("value") or "").split(","):
        if not _VALUE.fullmatch(value.strip()):
            return f"{value.strip()!r} is not the value of a label"
    return ""
