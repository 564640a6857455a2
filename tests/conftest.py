"""What tests share that need more than Python: network namespaces, and a real Kubernetes API server."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

from hack.kube.assets import AssetsMissing, find_assets
from hack.kube.control_plane import ControlPlane
from hack.lab.sandbox import SandboxError, find_mode
from tests.sharing import place_of, unit_of

LEFT_OUT = pytest.StashKey[str]()
WORKER_LEFT_OUT = "svcmesh_left_out"

# How long an example takes depends on the machine, and decides nothing.
hypothesis.settings.register_profile("svcmesh", deadline=None)
hypothesis.settings.load_profile("svcmesh")


@pytest.fixture(scope="session")
def lab_possible() -> None:
    """Skip where neither root nor user namespaces nor nft are to be had."""
    try:
        find_mode()
    except SandboxError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[ControlPlane]:
    """One control plane for every test that only adds objects of names of its own."""
    with ControlPlane() as cluster:
        yield cluster


def pytest_configure() -> None:
    """Handle signals like a program that was started from a shell, however we were started.

    A background job ignores SIGINT, a container perhaps SIGCHLD, and all programs that a test starts would
    inherit that.
    """
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take the tests marked `kube` out where there is no API server for them; put what takes long first."""
    reason = _why_no_cluster()
    left_out = [item for item in items if reason and item.get_closest_marker("kube")]
    if left_out:
        items[:] = [item for item in items if not item.get_closest_marker("kube")]
        config.hook.pytest_deselected(items=left_out)
        config.stash[LEFT_OUT] = f"Left out: {len(left_out)} tests on a real Kubernetes API server: {reason}"
    if (output := getattr(config, "workeroutput", None)) is not None:
        output[WORKER_LEFT_OUT] = config.stash.get(LEFT_OUT, "")
        items.sort(key=lambda item: place_of(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share the tests out by file, or by folder (`tests.sharing`)."""
    from xdist.scheduler import LoadScopeScheduling

    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = unit_of
    return scheduler


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker has left out: each has looked at all tests."""
    output = getattr(node, "workeroutput", {})
    if line := output.get(WORKER_LEFT_OUT, ""):
        node.config.stash[LEFT_OUT] = line


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """Say in one line what was taken out, and how to get it."""
    if line := config.stash.get(LEFT_OUT, ""):
        terminalreporter.write_line(line, yellow=True)


def _why_no_cluster() -> str:
    if os.environ.get("SVCMESH_SKIP_KUBE"):
        return "SVCMESH_SKIP_KUBE is set"
    try:
        find_assets()
    except AssetsMissing as error:
        return str(error)
    return ""
