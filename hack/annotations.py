"""Print docs/annotations.md: every annotation the mesh reads, from where each is parsed (`make docs`)."""

from __future__ import annotations

from collections.abc import Iterable

from discovery import annotations as discovery_annotations
from middleware.contract import Annotation, Middleware
from middleware.registry import MIDDLEWARES
from nodeagent.plan.annotations import SETTINGS

HEADER = """\
# Annotations of a Service

Everything a Service's owner can say to the mesh. A value that cannot be used affects only its own setting:
the last good value stays in force, else the default, and it is reported. `meshctl check` finds it beforehand.
Generated from the code by `make docs`.

Each annotation of a middleware (the sections below that link to a page in `middleware/`) can be given for
one port alone, with the port's name or number behind a dot: `svc.mesh/retry-attempts.admin: "0"`. On that
port it takes the place of the one for all ports.
"""


def render(middlewares: Iterable[Middleware] = MIDDLEWARES) -> str:
    """Return the page; middlewares that share a page of their own share a section here."""
    sections = [HEADER, section("The mesh", discovery_annotations.ANNOTATIONS)]
    for setting in SETTINGS:
        link = f"See [{setting.page}]({setting.page}.md)." if setting.page else ""
        sections.append(section(setting.name.capitalize(), setting.annotations, link))
    by_page: dict[str, list[Annotation]] = {}
    for middleware in middlewares:
        by_page.setdefault(middleware.page or middleware.name, []).extend(middleware.annotations)
    for page, shown in by_page.items():
        title = page.replace("-", " ").capitalize()
        sections.append(section(title, shown, f"See [{page}](middleware/{page}.md)."))
    return "\n".join(sections)


def section(
    title: str, annotations: Iterable[Annotation | discovery_annotations.Annotation], link: str = ""
) -> str:
    """Return one part of the page: a table, and an example of each annotation."""
    rows = [
        f"| `{a.name}` | {cell(a.values)} | {cell(a.default)} | {cell(a.summary)} | `{cell(a.example)}` |"
        for a in annotations
    ]
    head = [
        f"## {title}",
        "",
        "| annotation | values | default | what it does | example |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows, *(["", link] if link else []), ""])


def cell(text: str) -> str:
    """Escape what would end a table's cell."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(render(), end="")
