"""Reads a Namespace (v1): what it says of the Services in it."""

from __future__ import annotations

from discovery.manifest.annotations import hold_too_much, read_annotations
from discovery.manifest.fields import LABEL, Fields
from discovery.model import NAMESPACE_PREFIXES, NamespaceKey, NamespaceObject


def read_namespace(fields: Fields) -> NamespaceObject | None:
    """Return the Namespace, or None if it has no usable name."""
    metadata = fields.identify(LABEL)
    if metadata is None:
        return None
    # A Namespace is in none; its problems are found where those of its Services are.
    fields.namespace = fields.name
    written = fields.mapping(metadata, "annotations", "metadata.annotations")
    if hold_too_much(fields, written, NAMESPACE_PREFIXES, "none of them is read"):
        written = {}
    annotations, _ = read_annotations(fields, written, NAMESPACE_PREFIXES)
    return NamespaceObject(
        key=NamespaceKey(fields.name), annotations=annotations, origin=fields.origin, lines=fields.lines()
    )
