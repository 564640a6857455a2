"""One real node for all tests of this folder, with the image of the agent that is in the tree now."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.kube.archive import write_image
from hack.kube.assets import AssetsMissing
from hack.kube.one_node import IMAGE, ROOT, OneNode
from tests.manifests.tools import tool
from tests.node.installation import Installation
from tests.node.workloads import COREDNS_IMAGE, coredns, shop


def _image() -> Path:
    if not IMAGE.exists():
        pytest.skip("there is no image of the agent: `make image` builds it (as root)")
    newest = max(_sources(), key=lambda path: path.stat().st_mtime)
    if newest.stat().st_mtime > IMAGE.stat().st_mtime:
        pytest.skip(f"the agent's image is older than {newest.relative_to(ROOT)}: `make image` builds it")
    return IMAGE


def _sources() -> list[Path]:
    """Return what the image is made of."""
    packages = [ROOT / name for name in ("nodeagent", "discovery", "middleware", "hack/compile")]
    modules = [path for package in packages for path in package.rglob("*.py")]
    return [*modules, ROOT / "Dockerfile", ROOT / "pyproject.toml", ROOT / "hack" / "locks" / "runtime.txt"]


@pytest.fixture(scope="package")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    """A node with the cluster's DNS, two whoami pods and clients, all ready; the mesh is not there."""
    dns = tmp_path_factory.mktemp("images") / "coredns.tar"
    write_image(dns, COREDNS_IMAGE, {"/coredns": tool("coredns")}, ["/coredns"])
    try:
        node = OneNode([_image(), dns])
    except AssetsMissing as error:
        pytest.skip(str(error))
    with node:
        for document in (*coredns(), *shop()):
            node.kubectl("apply", "-f", "-", text=json.dumps(document))
        node.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=60s")
        node.kubectl("rollout", "status", "deployment/whoami", "--timeout=60s")
        node.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
        yield node


@pytest.fixture
def installed(node: OneNode) -> Installation:
    """The node with the mesh installed by Helm, as docs/install.md says."""
    installation = Installation(node, tool("helm"))
    installation.install()
    return installation
