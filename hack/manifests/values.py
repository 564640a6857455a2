"""Print the chart's README.md: every value, from the comments in values.yaml (`make docs`).

A value is a key with a comment directly above it, also if it is a mapping; its default is what stands in the
file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

CHART = Path(__file__).resolve().parents[2] / "manifests" / "charts" / "svcmesh"

HEADER = """\
# The Helm chart of svc.mesh

```console
$ helm install svcmesh manifests/charts/svcmesh --namespace svcmesh --create-namespace \\
    --set image.repository=REGISTRY/svcmesh-agent
```

One agent on each node, in the namespace of the release. With the default values, in the namespace `svcmesh`,
it renders the objects of `manifests/base` but for the namespace, and with `monitoring.enabled` those of
`manifests/monitoring` too. What cannot work (a namespace that forbids the agent's pods, a second
installation, values that contradict each other) fails before anything is made, with a sentence that says what
to type. See [install](../../../docs/install.md) and [what the agent may do](../../../docs/security.md).
`values.schema.json` checks values. Generated from `values.yaml` by `make docs`.

| value | default | is |
|---|---|---|
"""


class Value(NamedTuple):
    """A row: the path with dots, the default, and what the comment says."""

    path: str
    default: object
    summary: str


def documented_values(text: str) -> Iterator[Value]:
    """Yield the values of a values.yaml in order.

    Raises:
        ValueError: a value has no comment.
    """
    tree = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(tree, yaml.MappingNode)
    yield from _values(tree, text.splitlines(), "")


def _values(mapping: yaml.MappingNode, lines: list[str], prefix: str) -> Iterator[Value]:
    for key, node in mapping.value:
        path = prefix + key.value
        summary = _comment_above(lines, key.start_mark.line)
        if summary:
            yield Value(path, yaml.safe_load(yaml.serialize(node)), summary)
        elif isinstance(node, yaml.MappingNode) and node.value:
            yield from _values(node, lines, f"{path}.")
        else:
            raise ValueError(f"{path} has no comment above it")


def _comment_above(lines: list[str], number: int) -> str:
    first = number
    while first and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return " ".join(line.strip().removeprefix("#").strip() for line in lines[first:number])


def render() -> str:
    """Return the page."""
    rows = [
        f"| `{value.path}` | `{_cell(json.dumps(value.default))}` | {_cell(value.summary)} |"
        for value in documented_values((CHART / "values.yaml").read_text())
    ]
    return HEADER + "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(render(), end="")
