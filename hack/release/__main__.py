"""`python -m hack.release dist` builds the last commit into dist/; `release X.Y.Z` makes a release of it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hack.release.changelog import NoSection
from hack.release.dist import PARTS, build_dist
from hack.release.git import GitFailed, Repository
from hack.release.packages import BuildFailed
from hack.release.release import NotReleased, make_release
from hack.release.versions import BadVersion

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m hack.release", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    dist = commands.add_parser("dist", help="build the last commit into dist/")
    release = commands.add_parser("release", help="set the version, commit, build into dist/, tag")
    release.add_argument("version", metavar="X.Y.Z")
    for command in (dist, release):
        command.add_argument(
            "--without", nargs="*", choices=PARTS, default=[], metavar="PART", help=", ".join(PARTS)
        )
    given = parser.parse_args()
    repository = Repository(ROOT)
    try:
        if given.command == "release":
            make_release(repository, given.version, given.without, say)
        else:
            if repository.changes():
                say("Changes that are not committed are left out: what is built is the last commit.")
            build_dist(repository, ROOT / "dist", given.without, say)
    except (BadVersion, BuildFailed, GitFailed, NoSection, NotReleased) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def say(line: str) -> None:
    """Print a line of progress."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
