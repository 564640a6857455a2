"""Questions as they come: from the query of a page, or from a command line."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

from discovery.model import PodObject
from nodeagent.explain.model import NOBODY, Question, Unexplained

KNOWN = ("url", "method", "header", "from")
"""What a query may have. `header` may have several fields, on lines of their own."""
Pods = Mapping[str, PodObject]
"""By address."""


def workload_of(pods: Pods, address: str) -> str:
    """Return what the pod with this address belongs to, `namespace/deployment/name`; empty: unknown."""
    pod = pods.get(address)
    return f"{pod.key.namespace}/{pod.workload}" if pod is not None and pod.workload else ""


def read_question(query: Mapping[str, Sequence[str]], pods: Pods) -> Question:
    """Read a question from a query.

    Raises:
        Unexplained: it says what is wrong.
    """
    strange = next((name for name in query if name not in KNOWN), None)
    if strange is not None:
        raise Unexplained(f"there is no {strange[:40]!r} here, but {', '.join(KNOWN)}")
    if "url" not in query:
        raise Unexplained("url= is missing, such as ?url=http://catalog.shop.svc.mesh/")
    source = query["from"][0] if "from" in query else NOBODY
    return Question(
        query["url"][0],
        query["method"][0] if "method" in query else "GET",
        tuple(read_field(line) for text in query.get("header", ()) for line in text.split("\n")),
        read_source(source, pods),
    )


def read_field(text: str) -> tuple[str, str]:
    """Read a header field, `NAME: VALUE`; raises Unexplained."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise Unexplained(f"{text[:80]!r} is no header field: NAME: VALUE")
    return name.strip(), value.strip()


def read_source(text: str, pods: Pods) -> str:
    """Return the address that is meant by an address, or by `NAMESPACE/POD`; raises Unexplained."""
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        pass
    namespace, _, name = text.rpartition("/")
    key = (namespace or "default", name)
    found = next((address for address, pod in pods.items() if (pod.key.namespace, pod.key.name) == key), None)
    if found is None:
        raise Unexplained(f"{text[:80]!r} is neither an IPv4 address nor a pod that is known: NAMESPACE/POD")
    return found
