"""What the platform team says of the Services of a namespace or of the whole cluster: defaults and limits.

`svc.mesh/default.NAME` on a Namespace is the value of `svc.mesh/NAME` for Services whose owners say nothing
of it, `svc.mesh/limit.NAME` the highest number that an owner may set there. `--default` and `--limit` say the
same for the cluster. A Service's own annotation goes before the default of its namespace, and that before the
cluster's; of two limits the lower one holds, for defaults too. Neither puts a Service into the mesh. Pure.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from discovery.bounds import shorten
from discovery.model import (
    ANNOTATION_PREFIX,
    DEFAULT_PREFIX,
    LIMIT_PREFIX,
    NamespaceObject,
    Problem,
    ServiceObject,
)
from middleware import contract
from nodeagent.plan.annotations import SETTINGS
from nodeagent.plan.port_layers import annotation_for_all
from nodeagent.plan.problems import service_problem
from nodeagent.plan.setting import Reader, parse_safely

_WITHOUT_NUMBER: Final = ("off", "none", "false")
"""First words of values that turn a setting off."""


class Said(msgspec.Struct, frozen=True):
    """A value, and who said it."""

    value: str
    where: str
    """`svc.mesh/default.timeout of Namespace shop`."""


class Policy(msgspec.Struct, frozen=True):
    """The defaults and limits that hold for a Service, by the full name of the annotation."""

    defaults: Mapping[str, Said] = {}
    limits: Mapping[str, Said] = {}

    @property
    def says_anything(self) -> bool:
        """Whether there is any default or limit."""
        return bool(self.defaults or self.limits)


class Applied(msgspec.Struct, frozen=True):
    """The annotations of a Service as they are with the policy."""

    annotations: Mapping[str, str]
    origins: Mapping[str, str]
    """Where values come from that its owner has not written, by annotation."""
    problems: tuple[Problem, ...]


class Fault(msgspec.Struct, frozen=True):
    """Something in a policy that cannot be used."""

    field: str
    """`svc.mesh/default.timeout`."""
    value: str
    reason: str
    expected: str


class Rules:
    """What can be said in a policy, as the middlewares and settings that are installed have it."""

    def __init__(self, middlewares: Sequence[contract.Middleware]) -> None:
        readers: list[Reader] = [*SETTINGS, *middlewares]
        by_name = {one.name: (reader, one) for reader in readers for one in reader.annotations}
        self._readers = {
            name: reader
            for name, (reader, one) in by_name.items()
            if "<" not in name and not one.individual  # the rest are those of single ports
        }
        self._limits = {name: one.limit for name, (_, one) in by_name.items() if one.limit is not None}

    @property
    def defaultable(self) -> list[str]:
        """The annotations that may have defaults."""
        return list(self._readers)

    @property
    def limitable(self) -> Mapping[str, contract.Limit]:
        """The annotations that may have limits."""
        return self._limits

    def fault_in_default(self, field: str, name: str, value: str) -> Fault | None:
        """Return what is wrong with a default of the annotation `name`."""
        reader = self._readers.get(name)
        if reader is None:
            return _unknown(field, value, name, self._readers, "default")
        found = parse_safely(reader, {name: value})
        if isinstance(found, contract.Problem) and not found.incomplete:
            return Fault(field, value, found.reason, found.expected)
        return None

    def fault_in_limit(self, field: str, name: str, value: str) -> Fault | None:
        """Return what is wrong with a limit of the annotation `name`."""
        limit = self._limits.get(name)
        if limit is None:
            return _unknown(field, value, name, self._limits, "limit")
        try:
            limit.read(value)
        except ValueError as error:
            reason, expected = getattr(error, "reason", str(error)), getattr(error, "expected", "")
            return Fault(field, value, reason, expected)
        return None

    def joined(self, namespace: Policy, cluster: Policy) -> Policy:
        """Return what holds in a namespace."""
        limits = dict(cluster.limits)
        for name, said in namespace.limits.items():
            read = self._limits[name].read
            if name not in limits or read(said.value) <= read(limits[name].value):
                limits[name] = said
        return Policy({**cluster.defaults, **namespace.defaults}, limits)


class Governor:
    """Applies the policy of one namespace to the Services in it."""

    def __init__(self, rules: Rules, policy: Policy) -> None:
        self._policy = policy
        self._limits = rules.limitable

    def apply(self, service: ServiceObject, annotations: Mapping[str, str]) -> Applied:
        """Return a Service's annotations with defaults where there are none, and held within the limits."""
        result = dict(annotations)
        origins: dict[str, str] = {}
        for name, said in self._policy.defaults.items():
            if name not in result:
                result[name], origins[name] = said.value, said.where
        problems = list(self._hold(service, result, origins))
        return Applied(result, origins, tuple(problems))

    def explain(
        self, service: ServiceObject, in_force: Mapping[str, str], origins: Mapping[str, str]
    ) -> Mapping[str, str]:
        """Return `origins` with those of defaults that are in force in place of a bad value."""
        found = dict(origins)
        for name, said in self._policy.defaults.items():
            mended = name not in found and service.annotations.get(name) != in_force.get(name)
            if mended and in_force.get(name) == said.value:
                found[name] = said.where
        return found

    def _hold(
        self, service: ServiceObject, result: dict[str, str], origins: dict[str, str]
    ) -> Iterator[Problem]:
        for name, said in self._policy.limits.items():
            limit = self._limits[name]
            if name not in result and limit.absent > limit.read(said.value):
                result[name], origins[name] = said.value, said.where
        for name in sorted(result):
            for_all = name if name in self._policy.limits else annotation_for_all(name)
            if for_all not in self._policy.limits:
                continue
            said, written = self._policy.limits[for_all], result[name]
            held = clamp(self._limits[for_all], written, said.value)
            if held == written:
                continue
            result[name] = held
            if name not in origins:
                yield service_problem(
                    service,
                    name,
                    written,
                    f"is above {said.where}, {said.value}",
                    f"at most {said.value}",
                    f"{name}={held} is in force",
                    severity="warning",
                )
            origins[name] = said.where


def read_annotations(rules: Rules, namespace: NamespaceObject) -> tuple[Policy, list[Problem]]:
    """Return what a Namespace says, and what is wrong with it."""
    defaults: dict[str, Said] = {}
    limits: dict[str, Said] = {}
    problems = []
    for field in sorted(namespace.annotations):
        value = namespace.annotations[field]
        default = field.startswith(DEFAULT_PREFIX)
        prefix, said = (DEFAULT_PREFIX, defaults) if default else (LIMIT_PREFIX, limits)
        name = f"{ANNOTATION_PREFIX}{field.removeprefix(prefix)}"
        fault = (rules.fault_in_default if default else rules.fault_in_limit)(field, name, value)
        if fault is None:
            said[name] = Said(value, f"{field} of Namespace {namespace.key.name}")
        else:
            problems.append(_problem(namespace, fault))
    return Policy(defaults, limits), problems


def cluster_policy(defaults: Mapping[str, str], limits: Mapping[str, str]) -> Policy:
    """Return what the agent's settings say; `rules` have found nothing wrong with it."""

    def said(flag: str, values: Mapping[str, str]) -> dict[str, Said]:
        return {
            name: Said(value, f"{flag} {name.removeprefix(ANNOTATION_PREFIX)} of the agents")
            for name, value in values.items()
        }

    return Policy(said("--default", defaults), said("--limit", limits))


class Policies:
    """The policies of namespaces, each read once; for one plan."""

    def __init__(self, cluster: Policy, middlewares: Sequence[contract.Middleware]) -> None:
        self._cluster = cluster
        self._rules = Rules(middlewares)
        self._of_cluster = Governor(self._rules, cluster) if cluster.says_anything else None
        self._read: dict[str, tuple[Governor, list[Problem]]] = {}

    def of(self, namespace: NamespaceObject | None) -> Governor | None:
        """Return what holds for a Service that has this Namespace; None: nothing does."""
        return self._of_cluster if namespace is None else self._joined(namespace)[0]

    def problems(self, namespaces: Iterable[NamespaceObject]) -> tuple[Problem, ...]:
        """Return what is wrong with what Namespaces say."""
        return tuple(problem for one in namespaces for problem in self._joined(one)[1])

    def _joined(self, namespace: NamespaceObject) -> tuple[Governor, list[Problem]]:
        found = self._read.get(namespace.key.name)
        if found is None:
            own, problems = read_annotations(self._rules, namespace)
            governor = Governor(self._rules, self._rules.joined(own, self._cluster))
            found = self._read[namespace.key.name] = governor, problems
        return found


def clamp(limit: contract.Limit, value: str, most: str) -> str:
    """Return a value of an annotation with its number held down to `most`; one that is wrong stays so."""
    words = value.split()
    if not words or words[0] in _WITHOUT_NUMBER:
        return value
    highest = limit.read(most)
    first = _number(limit, words[0])
    if first is not None:
        return value if first <= highest else " ".join([most, *words[1:]])
    if not limit.setting:
        return value
    prefix = f"{limit.setting}="
    for index, word in enumerate(words):
        if word.startswith(prefix):
            number = _number(limit, word.removeprefix(prefix))
            held = number is None or number <= highest
            return value if held else " ".join([*words[:index], f"{prefix}{most}", *words[index + 1 :]])
    return value if limit.unset <= highest else f"{value} {prefix}{most}"


def _number(limit: contract.Limit, word: str) -> float | None:
    try:
        number = limit.read(word)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _unknown(field: str, value: str, name: str, known: Mapping[str, object], word: str) -> Fault:
    shown = shorten(name)
    close = difflib.get_close_matches(shown, known, n=1, cutoff=0.75)
    if close:
        prefix = field.removesuffix(name.removeprefix(ANNOTATION_PREFIX))  # of a flag there is none
        expected = f"{prefix}{close[0].removeprefix(ANNOTATION_PREFIX)}, perhaps"
    else:
        expected = "one of those in docs/defaults.md"
    return Fault(field, value, f"{shown} is no annotation that can have a {word}", expected)


def _problem(namespace: NamespaceObject, fault: Fault) -> Problem:
    return Problem(
        namespace=namespace.key.name,
        name=namespace.key.name,
        field=fault.field,
        value=fault.value,
        reason=fault.reason,
        expected=fault.expected,
        effect="it is ignored; Services are as without it",
        kind="Namespace",
        origin=namespace.place(fault.field),
    )
