"""Compare the files of two images: kind, mode, owner, size, content, extended attributes, not times.

`python -m hack.manifests.compare_images ONE.tar OTHER.tar` prints a line for each difference and exits with 1
if there is one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from hack.manifests.image_archive import Entry, file_system


def differences(one: Mapping[str, Entry], other: Mapping[str, Entry]) -> Iterator[str]:
    """Yield a line for each path that is not the same in both."""
    for path in sorted({*one, *other}):
        here, there = one.get(path), other.get(path)
        if here is None or there is None:
            yield f"{'only in the second' if here is None else 'only in the first'}: /{path}"
        elif here != there:
            fields = [
                f"{name} {mine or '-'} and {theirs or '-'}"
                for name, mine, theirs in zip(Entry._fields, here, there, strict=True)
                if mine != theirs
            ]
            yield f"/{path}: {', '.join(fields)}"


def main() -> int:
    """Compare the two archives that the command line names."""
    one, other = (file_system(Path(name)) for name in sys.argv[1:3])
    found = list(differences(one, other))
    for line in found:
        print(line)
    print(f"{len(one)} and {len(other)} paths, {len(found)} differences")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
