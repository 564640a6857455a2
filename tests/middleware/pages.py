"""Reads the pages of docs/middleware, so that tests can play what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from middleware.contract import Middleware

DOCS = Path(__file__).parents[2] / "docs"


def page(name: str) -> str:
    """Return the text of a page."""
    return (DOCS / "middleware" / f"{name}.md").read_text()


def page_of(middleware: Middleware) -> str:
    """Return the text of the page of a middleware, which may be that of several."""
    return page(middleware.page or middleware.name)


def blocks(text: str, language: str) -> list[str]:
    """Return the examples in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def rows(text: str, header: str) -> list[list[str]]:
    """Return the rows of the table whose first line is `header`."""
    table = text.split(f"{header}\n", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]


def options_of_example(middleware: Middleware) -> Any:
    """Return the options that the example of its page means, which has a Service in YAML."""
    (example,) = blocks(page_of(middleware), "yaml")
    return middleware.parse(yaml.safe_load(example)["metadata"]["annotations"])
