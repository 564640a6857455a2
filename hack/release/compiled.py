"""The wheel for Linux with the data plane compiled, for the Python that runs this and for its processor.

It has the same sources as the wheel that is Python only, with the compiled modules beside them. Its tag says
which systems can run it: auditwheel finds out, from the versions of the C library that the modules ask for.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from hack.release.packages import BuildFailed, unpack
from hack.release.tools import LeftOut


def build_compiled_wheel(sdist: Path, out: Path, moment: int) -> Path:
    """Build the wheel from the source distribution; return its path.

    Raises:
        LeftOut: this machine cannot compile modules of Python.
        BuildFailed: it can, and these do not compile, or no tag fits.
    """
    if missing := why_not():
        raise LeftOut(missing)
    with tempfile.TemporaryDirectory() as folder:
        tree, plain, tagged = unpack(sdist, Path(folder)), Path(folder) / "plain", Path(folder) / "tagged"
        # What is compiled does not depend on the order in which sets are read.
        settings = {"SOURCE_DATE_EPOCH": str(moment), "PYTHONPATH": "", "PYTHONHASHSEED": "0"}
        _run(["hack.compile", "wheel", str(plain)], tree, settings)
        (wheel,) = plain.iterdir()
        # The modules need no library but the C library: nothing is patched, only the tag is set.
        _run(
            ["auditwheel", "repair", "--patcher", "none", "--wheel-dir", str(tagged), str(wheel)],
            tree,
            settings,
        )
        (wheel,) = tagged.iterdir()
        return Path(shutil.move(wheel, out / wheel.name))


def why_not() -> str:
    """Return why modules of Python cannot be compiled here, and what to do; empty if they can."""
    if sys.platform != "linux":
        return "compiled wheels are made on Linux, for Linux"
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        return f"there is no C compiler here ({compiler}; Debian: gcc, libc6-dev)"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        return f"{header} is not there (Debian: python3-dev)"
    return ""


def _run(module: list[str], tree: Path, settings: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *module],
        cwd=tree,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BuildFailed(f"{' '.join(module[:2])} in {tree}: {(done.stderr or done.stdout)[-2000:]}")
