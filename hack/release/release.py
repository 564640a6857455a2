"""Makes a release: version, CHANGELOG, commit, `dist/`, tag. Nothing is pushed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection

from hack.release.changelog import Section, release_section
from hack.release.dist import build_dist
from hack.release.git import Repository
from hack.release.versions import parse_version, read_version, set_version


class NotReleased(Exception):
    """A release cannot be made; the message says why, and what was changed so far."""


def make_release(
    repository: Repository, version: str, without: Collection[str], say: Callable[[str], None]
) -> None:
    """Release the last commit as `version`, with all parts but those in `without`.

    Raises:
        NotReleased, BadVersion, NoSection: there is something to be mended first; nothing was changed, or the
            message says what.
        GitFailed, BuildFailed: git or a builder failed.
    """
    section, before = check(repository, version), repository.run("rev-parse", "--short", "HEAD")
    set_version(repository.root, version)
    (repository.root / "CHANGELOG.md").write_text(section.text, "utf-8")
    if repository.changes():
        repository.run("commit", "--all", "--message", f"Release {version}")
        say(f"Committed: Release {version}")
    left_out = build_dist(repository, repository.root / "dist", without, say)
    if left_out:
        raise NotReleased(
            f"no tag was made, because of what was left out: {', '.join(left_out)}. The commit that sets the "
            "version stays. Mend what is missing and run the same command again, or release without it: "
            f"WITHOUT='{' '.join(left_out)}'"
        )
    repository.run("tag", "--annotate", f"v{version}", "--message", f"svc.mesh {version}\n\n{section.body}")
    say(next_steps(version, before))


def check(repository: Repository, version: str) -> Section:
    """Return what the CHANGELOG says of a version that can be released; nothing is changed.

    Raises:
        NotReleased, BadVersion, NoSection: it cannot.
        GitFailed: this is no working tree.
    """
    wanted, current = parse_version(version), read_version(repository.root)
    if wanted < parse_version(current):
        raise NotReleased(f"{version} is lower than {current}, which this tree has already")
    if changes := repository.changes():
        raise NotReleased(f"the tree has changes that are not committed: {', '.join(changes[:5])}")
    if repository.has_tag(f"v{version}"):
        raise NotReleased(f"v{version} was released already: there is a tag of that name")
    changelog = (repository.root / "CHANGELOG.md").read_text("utf-8")
    return release_section(changelog, version, dt.datetime.now(dt.UTC).date().isoformat())


def next_steps(version: str, before: str) -> str:
    """Return what is left to a person; `before` is the commit on which the release was made."""
    return f"""\
Tagged: v{version}. Nothing has been pushed or published. What is next:
  1. Look at it:  git show v{version}; ls dist
  2. Push it:     git push origin HEAD v{version}
  3. The image:   docker buildx build --platform linux/amd64,linux/arm64 \\
                    --tag REGISTRY/svcmesh-agent:{version} --push .
  4. The chart:   helm push dist/svcmesh-chart-{version}.tgz oci://REGISTRY/charts
  5. Put the files of dist where people get them, SHA256SUMS too.
To take it back before it is pushed: git tag --delete v{version} && git reset --hard {before}"""
