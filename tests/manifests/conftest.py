from __future__ import annotations

from pathlib import Path

import pytest

from tests.manifests.objects import BASE, Object, only, resources
from tests.manifests.tools import tool


@pytest.fixture(scope="session")
def base() -> list[Object]:
    return resources(BASE)


@pytest.fixture(scope="session")
def agent_pod(base: list[Object]) -> Object:
    pod: Object = only(base, "DaemonSet")["spec"]["template"]["spec"]
    return pod


@pytest.fixture(scope="session")
def agent_container(agent_pod: Object) -> Object:
    (container,) = agent_pod["containers"]
    assert isinstance(container, dict)
    return container


@pytest.fixture(scope="session")
def kustomize() -> Path:
    return tool("kustomize")


@pytest.fixture(scope="session")
def helm() -> Path:
    return tool("helm")
