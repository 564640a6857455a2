"""Fields of a Kubernetes object, read one by one: a bad one is reported and does no harm."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from discovery.address import canonical_address
from discovery.bounds import MOST_PROBLEMS, bounded, more_problems, shorten
from discovery.model import Problem, Severity
from discovery.position import Lines, shifted

PROTOCOLS = ("TCP", "UDP", "SCTP")

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""RFC 1123 section 2.1, in lower case, as Kubernetes wants it of Services, namespaces and port names."""
SUBDOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_SHOWN = 80
MAX_ADDRESSES = 8
"""Of a Service or Pod; Kubernetes gives one of each family."""
LONGEST_TEXT = 512
"""Characters of a field; Kubernetes takes fewer in every one that is read."""


def show(value: object) -> str:
    """Return a value as a person would write it in YAML, shortened."""
    if isinstance(value, str):
        return value if len(value) <= _SHOWN else value[: _SHOWN - 1] + "…"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of more than 64 bits"
    if isinstance(value, int | float):
        return str(value)
    return f"({describe_type(value)})"


def describe_type(value: object) -> str:
    """Return what sort of YAML value this is, with its article."""
    if value is None:
        return "null"
    for type_, word in _TYPE_WORDS:
        if isinstance(value, type_):
            return word
    return type(value).__name__


_TYPE_WORDS: tuple[tuple[Any, str], ...] = (
    (str, "a string"),
    (bool, "a boolean"),
    (int | float, "a number"),
    (Mapping, "a mapping"),
    (list | tuple, "a list"),
)
_NOTHING: Mapping[str, Any] = {}


class Layout(Protocol):
    """How an object is laid out in its file."""

    def offset(self, field: str) -> int:
        """Return how many lines below its first line a field is, or else the nearest one above it."""
        ...

    def lines(self, kind: str) -> Lines:
        """Return the lines of those fields that may be asked for after the object has been read."""
        ...


class Fields:
    """The object that is read, who it is, and what was found wrong with it so far.

    `field` is everywhere the path of a field as people write it, such as `spec.ports[0].name`.
    """

    def __init__(
        self, document: Mapping[str, Any], kind: str, origin: str, layout: Layout | None = None
    ) -> None:
        self.document = document
        self.kind = kind
        self.origin = origin
        self.layout = layout
        self._problems: list[Problem] = []
        self._more = 0
        self.namespace = "default"
        self.name = ""

    def identify(self, pattern: re.Pattern[str]) -> Mapping[str, Any] | None:
        """Read namespace and name; None if the object has no usable ones."""
        metadata = self.mapping(self.document, "metadata", "metadata")
        name, namespace = metadata.get("name"), metadata.get("namespace")
        left_out = f"the {self.kind} is left out"
        # A namespace of null or "" is what templates leave behind; kubectl takes the default for both.
        if namespace is not None and namespace != "":
            if not isinstance(namespace, str) or not LABEL.fullmatch(namespace):
                self.name = shorten(name) if isinstance(name, str) else ""
                self.report("metadata.namespace", namespace, _why_no_name(namespace), "shop", left_out)
                return None
            self.namespace = namespace
        if not isinstance(name, str) or not pattern.fullmatch(name):
            if not self._problems:
                self.report("metadata.name", name, _why_no_name(name), "whoami", left_out)
            return None
        self.name = name
        return metadata

    def report(
        self,
        field: str,
        value: object,
        reason: str,
        expected: str,
        effect: str,
        severity: Severity = "error",
    ) -> None:
        """Take note of a problem, once; of more than can be told of an object, only that there are."""
        if len(self._problems) > MOST_PROBLEMS:
            self._more += 1
            return
        found = Problem(
            namespace=self.namespace,
            name=self.name,
            field=field,
            value="" if value is None else show(value),
            reason=reason,
            expected=expected,
            effect=effect,
            kind=self.kind,
            origin=shifted(self.origin, self.layout.offset(field)) if self.layout else self.origin,
            severity=severity,
        )
        if found not in self._problems:
            self._problems.append(found)

    def lines(self) -> Lines:
        """Return where the fields stand that may be asked for later; nothing for what is in no file."""
        return self.layout.lines(self.kind) if self.layout is not None else ()

    def problems(self) -> tuple[Problem, ...]:
        """Return what was found wrong so far, within bounds."""
        if not self._more:
            return bounded(self._problems)
        told = self._problems[:MOST_PROBLEMS]
        return bounded([*told, more_problems(self._problems[-1], self._more + 1, MOST_PROBLEMS)])

    def first(self, items: list[Any], most: int, field: str, what: str) -> list[Any]:
        """Return the items of a list up to `most`; the others are left out, which is reported."""
        if len(items) > most:
            reason = f"there are more than the {most} that are read"
            self.report(field, None, reason, f"at most {most}", f"the {what} after those are left out")
        return items[:most]

    def mapping(self, parent: Mapping[str, Any], name: str, field: str) -> Mapping[str, Any]:
        """Return a mapping, an empty one if it is none."""
        value = parent.get(name)
        if value is None:
            return _NOTHING
        if isinstance(value, Mapping):
            return value
        self.report(field, value, f"is {describe_type(value)}", "a mapping", "it is ignored")
        return _NOTHING

    def items(self, parent: Mapping[str, Any], name: str, field: str) -> list[Any]:
        """Return a list, an empty one if it is none."""
        value = parent.get(name)
        if value is None:
            return []
        if isinstance(value, list):
            return value
        self.report(field, value, f"is {describe_type(value)}", "a list", "it is ignored")
        return []

    def mappings(self, items: list[Any], field: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the mappings of a list, each with its path."""
        for index, item in enumerate(items):
            at = f"{field}[{index}]"
            if isinstance(item, Mapping):
                yield at, item
            else:
                self.report(at, item, f"is {describe_type(item)}", "a mapping", "it is left out")

    def text(self, parent: Mapping[str, Any], name: str, field: str) -> str:
        """Return a string, an empty one if it is none."""
        value = parent.get(name)
        if value is None:
            return ""
        if isinstance(value, str) and len(value) <= LONGEST_TEXT:
            return value
        if isinstance(value, str):
            reason, expected = f"has {len(value)} characters", f"at most {LONGEST_TEXT}"
        else:
            reason, expected = f"is {describe_type(value)}", "a string, in quotes"
        self.report(field, value, reason, expected, "it is ignored")
        return ""

    def choice(
        self, parent: Mapping[str, Any], name: str, field: str, choices: tuple[str, ...], default: str
    ) -> str:
        """Return one of the choices, the default if it is none."""
        value = parent.get(name)
        if value is None or value == "":
            return default
        if value in choices:
            return str(value)
        self.report(field, value, "is not known", f"one of {', '.join(choices)}", f"{default} is in force")
        return default

    def addresses(self, found: Iterable[tuple[str, object]], example: str) -> tuple[str, ...]:
        """Return those values that are IP addresses, each once; `found` has the path of each."""
        addresses = []
        for field, value in found:
            address = canonical_address(value)
            if address is None:
                self.report(field, value, "is not an IP address", example, "it is ignored")
            else:
                addresses.append(address)
        return tuple(dict.fromkeys(addresses))

    def port(self, item: Mapping[str, Any], field: str) -> tuple[str, int, str] | None:
        """Read name, number and protocol; None if the port cannot be used."""
        left_out = "the port is left out"
        number, name, protocol = item.get("port"), item.get("name"), item.get("protocol")
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= 65535:
            reason = "is missing" if number is None else "is not a port number"
            self.report(f"{field}.port", number, reason, "a number from 1 to 65535", left_out)
            return None
        if name is None:
            name = ""
        if not isinstance(name, str) or (name and not LABEL.fullmatch(name)):
            self.report(f"{field}.name", name, _why_no_name(name), "http", left_out)
            return None
        if protocol is None or protocol == "":
            protocol = "TCP"
        if protocol not in PROTOCOLS:
            self.report(f"{field}.protocol", protocol, "is not a protocol", "TCP, UDP or SCTP", left_out)
            return None
        return name, number, protocol


def _why_no_name(value: object) -> str:
    if value is None or value == "":
        return "is missing"
    if not isinstance(value, str):
        return f"is {describe_type(value)}, not a string: put it in quotes"
    return "is not a name: lower-case letters, digits and '-' (RFC 1123)"
