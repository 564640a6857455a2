"""Container images of one layer, as archives that `ctr images import` and `docker load` read."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_image(
    archive: Path, reference: str, programs: Mapping[str, Path], entrypoint: Sequence[str]
) -> None:
    """Write an image that holds these programs (path inside to path here) and starts the entry point."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for inside, here in programs.items():
            entry = tar.gettarinfo(str(here), arcname=inside.lstrip("/"))
            entry.mode, entry.uid, entry.gid, entry.uname, entry.gname = 0o755, 0, 0, "", ""
            with here.open("rb") as file:
                tar.addfile(entry, file)
    content = layer.getvalue()
    machine = platform.machine()
    config = {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": {"Entrypoint": list(entrypoint)},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(content).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    parts = {"config.json": json.dumps(config), "manifest.json": json.dumps(manifest)}
    with tarfile.open(archive, "w") as tar:
        for name, data in {**{k: v.encode() for k, v in parts.items()}, "layer.tar": content}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
