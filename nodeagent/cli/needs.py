"""What an agent needs and `meshctl` does not: Linux, and the packages of the extra `agent`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

AGENT_PACKAGES = ("asyncinotify", "pylsqpack", "pyroute2", "uvloop")
"""The packages of the extra `agent`, as they are imported."""


def unmet(platform: str, is_installed: Callable[[str], bool]) -> str:
    """Return in a sentence why no agent can run here, empty if one can; `platform` is `sys.platform`."""
    if platform != "linux":
        return (
            f"the agent needs Linux, and this is {platform}; meshctl works here, and the agent does in a "
            "Linux container or virtual machine"
        )
    missing = [name for name in AGENT_PACKAGES if not is_installed(name)]
    if missing:
        wheel = f"svcmesh-{version('svcmesh')}-py3-none-any.whl"
        return (
            f"the agent needs Python packages that are not installed ({', '.join(missing)}); install svcmesh "
            f"with its extra, as in: pip install '{wheel}[agent]'"
        )
    return ""
