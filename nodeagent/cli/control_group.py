"""The limits of this process's control group and of those above it (cgroup v2; cgroups(7))."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

MEMBERSHIP: Final = Path("/proc/self/cgroup")
HIERARCHY: Final = Path("/sys/fs/cgroup")


class ControlGroup(NamedTuple):
    """Where the kernel says which group this process is in, and where the groups are."""

    membership: Path = MEMBERSHIP
    hierarchy: Path = HIERARCHY

    def limits(self, name: str) -> Iterator[str]:
        """Yield the content of the file `name` in each group that this process is in, the innermost first."""
        group = self._own()
        for folder in (group, *group.parents):
            if text := _read(self.hierarchy / folder / name).strip():
                yield text

    def _own(self) -> Path:
        """Return the path of the v2 control group below the hierarchy's root (/proc/[pid]/cgroup)."""
        for line in _read(self.membership).splitlines():
            if line.startswith("0::"):
                group = Path(line.removeprefix("0::").lstrip("/"))
                # A namespace that was entered from outside shows paths above its root, which we cannot see.
                return Path() if ".." in group.parts else group
        return Path()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
