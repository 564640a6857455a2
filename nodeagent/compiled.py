"""Whether the data plane of this installation is compiled (`hack/compile`): the same code both ways."""

from __future__ import annotations

import importlib.machinery
import importlib.util


def is_compiled() -> bool:
    """Whether this installation's data plane is compiled; nothing of it is imported."""
    spec = importlib.util.find_spec("nodeagent.proxy.exchange")
    suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    return spec is not None and (spec.origin or "").endswith(suffixes)


def describe() -> str:
    """Return it in words."""
    return "data plane compiled" if is_compiled() else "data plane not compiled"
