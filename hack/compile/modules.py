"""Which modules are compiled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

PATTERNS: Final = (
    "nodeagent/proxy/*.py",
    "nodeagent/proxy/balance/*.py",
    "nodeagent/proxy/http1/*.py",
    "nodeagent/proxy/http2/*.py",
    "nodeagent/stats/cells.py",
    "nodeagent/stats/windows.py",
    "nodeagent/worker/access_log.py",
    "nodeagent/worker/line_choices.py",
    "nodeagent/worker/line_fields.py",
    "nodeagent/log/access_lines.py",
    "nodeagent/log/stamps.py",
    "nodeagent/log/template_form.py",
    "nodeagent/log/writer.py",
)
"""What a request passes through, its line in the access log included; but for middleware, which others may
subclass and extend."""
PLAIN: Final = frozenset(
    {"nodeagent/proxy/errors.py", "nodeagent/proxy/observer.py", "nodeagent/proxy/resume.py"}
)
"""Exceptions have class attributes that subclasses replace, which a compiled class cannot have; what an
observer is told is values that msgspec makes, for classes outside of the data plane; and `resume` catches an
exception for each request, which is slow where it is compiled."""
DOUBLES: Final = ("tests/http2/outflow.py",)
"""Of the tests: an interpreted class cannot inherit from a compiled one."""


def modules(tree: Path, doubles: bool = False) -> Iterator[str]:
    """Yield the paths of the modules, relative to the tree; with those of tests that must be compiled too."""
    for pattern in PATTERNS:
        for path in sorted(tree.glob(pattern)):
            name = path.relative_to(tree).as_posix()
            if path.name != "__init__.py" and name not in PLAIN:
                yield name
    if doubles:
        yield from DOUBLES
