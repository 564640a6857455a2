"""`python -m hack.compile tree FOLDER` compiles a copy of this tree; `wheel FOLDER` builds a wheel."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hack.compile.build import build_wheel, compile_in_place, stage

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m hack.compile", description=__doc__)
    parser.add_argument("what", choices=("tree", "wheel"))
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--python",
        default=sys.executable,
        help="of an environment that has what the agent depends on, for its types (default: this one)",
    )
    given = parser.parse_args()
    folder: Path = given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if given.what == "wheel":
        build_wheel(ROOT, folder, given.python)
    else:
        stage(ROOT, folder)
        compile_in_place(folder)
        print(f"Compiled: {folder}")


if __name__ == "__main__":
    main()
