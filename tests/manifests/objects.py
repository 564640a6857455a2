"""Kubernetes objects of the manifests, as YAML says them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
BASE = MANIFESTS / "base"

Object = dict[str, Any]


def parse(text: str) -> list[Object]:
    """Return the objects of a stream of YAML documents."""
    return [document for document in yaml.safe_load_all(text) if document]


def resources(folder: Path) -> list[Object]:
    """Return the objects that a kustomization without transformers lists, in its order."""
    (kustomization,) = parse((folder / "kustomization.yaml").read_text())
    return [
        document for name in kustomization["resources"] for document in parse((folder / name).read_text())
    ]


def only(objects: Iterable[Object], kind: str) -> Object:
    """Return the one object of a kind."""
    (found,) = [one for one in objects if one["kind"] == kind]
    return found


def by_identity(objects: Iterable[Object]) -> dict[tuple[str, str, str, str], Object]:
    """Return objects by what the API server tells them apart by; none may be there twice."""
    listed = [
        (
            (
                one["apiVersion"],
                one["kind"],
                one["metadata"].get("namespace", ""),
                one["metadata"]["name"],
            ),
            one,
        )
        for one in objects
    ]
    found = dict(listed)
    assert len(found) == len(listed)
    return found
