"""Bills of materials (CycloneDX 1.6): of an image, and of what mypyc compiles into wheels. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

Document = dict[str, Any]


def image_bom(python_bom: bytes, dpkg_status: str, os_release: str, name: str, version: str) -> bytes:
    """Return the bill of materials of an image.

    `python_bom` is that of its Python packages as cyclonedx-py wrote it; the others are Debian's
    `/var/lib/dpkg/status` and `/etc/os-release`.
    """
    bom: Document = json.loads(python_bom)
    release = dict(line.partition("=")[::2] for line in os_release.splitlines())
    distro = f"{_plain(release, 'ID')}-{_plain(release, 'VERSION_ID')}"
    vendor = _plain(release, "ID")
    debian = [_component(fields, vendor, distro) for fields in _installed(dpkg_status)]
    bom["components"] = sorted([*bom.get("components", []), *debian], key=lambda one: str(one["bom-ref"]))
    of_image = {"type": "container", "bom-ref": f"{name}:{version}", "name": name, "version": version}
    bom["metadata"] = {**bom.get("metadata", {}), "component": of_image}
    # The root of the graph was the environment; Debian's dependencies are not told apart here.
    known = {str(one["bom-ref"]) for one in bom["components"]}
    bom["dependencies"] = [one for one in bom.get("dependencies", []) if one["ref"] in known]
    return json.dumps(bom, indent=2, sort_keys=True).encode() + b"\n"


def with_mypyc(bom: bytes, version: str) -> bytes:
    """Return a bill of materials with what mypyc, of this version of mypy, puts into compiled modules."""
    document: Document = json.loads(bom)
    name, purl = f"mypyc-lib-rt=={version}", f"pkg:pypi/mypy@{version}"
    component = {
        "type": "library",
        "bom-ref": name,
        "name": "mypyc-lib-rt",
        "version": version,
        "purl": purl,
        "description": "The C library of mypyc, compiled into the modules of the wheels for Linux only",
        "licenses": [{"license": {"id": "MIT"}}],
    }
    components = [*document.get("components", []), component]
    document["components"] = sorted(components, key=lambda one: str(one["bom-ref"]))
    document["dependencies"] = sorted(
        [*document.get("dependencies", []), {"ref": name}], key=lambda one: str(one["ref"])
    )
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


def _plain(release: Document, key: str) -> str:
    return str(release.get(key, "")).strip('"')


def _installed(status: str) -> Iterator[Document]:
    """Yield the fields of each package that is installed."""
    for paragraph in status.split("\n\n"):
        lines = [line for line in paragraph.splitlines() if line[:1].strip()]
        fields = dict(line.partition(": ")[::2] for line in lines)
        if fields.get("Status", "").endswith(" installed"):
            yield fields


def _component(fields: Document, vendor: str, distro: str) -> Document:
    name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
    # deb in https://github.com/package-url/purl-spec
    purl = f"pkg:deb/{vendor}/{quote(name)}@{quote(version, safe=':')}?arch={architecture}&distro={distro}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "description": fields.get("Description", ""),
    }
