"""The section of a version in CHANGELOG.md: there has to be one, and a release gives it its date. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

UNRELEASED = "not released yet"


class NoSection(Exception):
    """The CHANGELOG does not say what is in the version."""


class Section(NamedTuple):
    """What the CHANGELOG says of a version."""

    text: str
    """All of the CHANGELOG, with the date in the heading."""
    body: str
    """What has changed."""


def release_section(changelog: str, version: str, date: str) -> Section:
    """Return the section of a version with the date of its release; one that has a date keeps it.

    Raises:
        NoSection: there is none, or it is empty.
    """
    heading = re.compile(rf"^## {re.escape(version)}, (.+)$", re.MULTILINE)
    found = heading.search(changelog)
    if found is None:
        raise NoSection(f"CHANGELOG.md has no section headed '## {version}, {UNRELEASED}': write what is new")
    following = re.search(r"^## ", changelog[found.end() :], re.MULTILINE)
    end = found.end() + following.start() if following else len(changelog)
    body = changelog[found.end() : end].strip()
    if not body:
        raise NoSection(f"the section {version} of CHANGELOG.md is empty: write what is new")
    when = date if found[1] == UNRELEASED else found[1]
    text = changelog[: found.start()] + f"## {version}, {when}" + changelog[found.end() :]
    return Section(text, body)
