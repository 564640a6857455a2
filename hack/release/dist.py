"""Builds what a release consists of: from a commit, so that it can be built again."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from hack.manifests.image_archive import read_files
from hack.release.archives import normalize
from hack.release.compiled import build_compiled_wheel
from hack.release.git import Repository
from hack.release.packages import build_sdist, build_wheel
from hack.release.sbom import image_bom, with_mypyc
from hack.release.tools import LeftOut, cyclonedx, has_docker, helm, run
from hack.release.versions import read_version

PARTS = ("packages", "compiled", "chart", "sbom", "image")
"""What is built, in this order; the checksums are of all that is there in the end."""
SUMS = "SHA256SUMS"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_IN_IMAGE = ("opt/svcmesh/sbom.cdx.json", "var/lib/dpkg/status", "usr/lib/os-release")


class Work(NamedTuple):
    """What every part is built from, and where to."""

    tree: Path
    """The files of the commit."""
    out: Path
    version: str
    moment: int
    """When the commit was made: the time in all archives."""
    tools: Path
    """A folder that is kept from one build to the next."""


def build_dist(
    repository: Repository, out: Path, without: Collection[str], say: Callable[[str], None]
) -> dict[str, str]:
    """Build the last commit into `out`, which is emptied first; return the parts left out, and why.

    Parts in `without` are left out without a word. `say` gets lines of progress.

    Raises:
        GitFailed, BuildFailed: there is no commit, or no package of it.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        repository.export("HEAD", tree)
        moment = repository.time_of("HEAD")
        work = Work(
            tree, out.resolve(), read_version(tree), moment, repository.root / "build" / "release-tools"
        )
        say(f"svc.mesh {work.version}, commit {repository.run('rev-parse', '--short', 'HEAD')}")
        for part in PARTS:
            if part in without:
                continue
            started = time.monotonic()
            try:
                for path in _BUILDERS[part](work):
                    took, started = time.monotonic() - started, time.monotonic()
                    say(f"  {path.name}: {show_size(path.stat().st_size)}, {took:.0f} s")
            except LeftOut as error:
                left_out[part] = str(error)
                say(f"  Left out: {part}: {error}")
    write_sums(out)
    say(f"  {SUMS}: `cd {out} && sha256sum -c {SUMS}` checks them")
    return left_out


def build_packages(work: Work) -> Iterator[Path]:
    """Build the source distribution, and the wheel from it."""
    sdist = _sdist(work, work.out)
    yield sdist
    yield build_wheel(sdist, work.out, work.moment)


def build_compiled(work: Work) -> Iterator[Path]:
    """Build the wheel with the data plane compiled, for this machine's processor and the running Python."""
    with tempfile.TemporaryDirectory() as folder:
        yield build_compiled_wheel(_sdist(work, Path(folder)), work.out, work.moment)


def _sdist(work: Work, out: Path) -> Path:
    # In a copy, because setuptools leaves files behind.
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tree"
        shutil.copytree(work.tree, copy, symlinks=True)
        return build_sdist(copy, out, work.moment)


def build_chart(work: Work) -> Iterator[Path]:
    """Build the chart's package."""
    chart = work.tree / "manifests" / "charts" / "svcmesh"
    run([str(helm()), "package", str(chart), "--destination", str(work.out)], "helm package")
    # Helm's own name differs from the source distribution's in two letters.
    path = (work.out / f"svcmesh-{work.version}.tgz").rename(work.out / f"svcmesh-chart-{work.version}.tgz")
    normalize(path, work.moment)
    yield path


def build_sbom(work: Work) -> Iterator[Path]:
    """Write the bill of materials of an agent: the packages it is locked to, and mypyc's library."""
    program = cyclonedx(work.tree, work.tools)
    path = work.out / f"svcmesh-{work.version}.cdx.json"
    options = ["--pyproject", "pyproject.toml", "--output-reproducible", "--output-format", "JSON"]
    lock = "hack/locks/runtime.txt"
    run([str(program), "requirements", *options, "--output-file", str(path), lock], "cyclonedx-py", work.tree)
    path.write_bytes(with_mypyc(path.read_bytes(), importlib.metadata.version("mypy")))
    yield path


def build_image(work: Work) -> Iterator[Path]:
    """Build the image for this machine's architecture, and write its bill of materials."""
    machine = platform.machine()
    name = f"svcmesh-agent-{work.version}-{_ARCHITECTURES.get(machine, machine)}"
    archive = work.out / f"{name}.tar"
    if has_docker():
        options = ["--tag", f"svcmesh-agent:{work.version}", "--output", f"type=docker,dest={archive}"]
        run(["docker", "buildx", "build", *options, "."], "docker buildx build", work.tree)
    else:
        run(["sh", "hack/manifests/image.sh", str(archive)], "hack/manifests/image.sh", work.tree)
    yield archive
    python, status, release = (read_files(archive, _IN_IMAGE)[path] for path in _IN_IMAGE)
    path = work.out / f"{name}.cdx.json"
    path.write_bytes(image_bom(python, status.decode(), release.decode(), "svcmesh-agent", work.version))
    yield path


_BUILDERS: dict[str, Callable[[Work], Iterator[Path]]] = {
    "packages": build_packages,
    "compiled": build_compiled,
    "chart": build_chart,
    "sbom": build_sbom,
    "image": build_image,
}


def write_sums(out: Path) -> None:
    """Write the checksums of all files, as `sha256sum -c` reads them."""
    lines = []
    for path in sorted(out.iterdir()):
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    (out / SUMS).write_text("".join(lines))


def show_size(size: int) -> str:
    """Return a size for people."""
    return f"{size / 1024 / 1024:.1f} MiB" if size >= 1024 * 1024 else f"{size / 1024:.0f} KiB"
