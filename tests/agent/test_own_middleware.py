"""A user's own middleware in a whole agent: from a package, and from files of a folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from hack.kit.manifests import ENABLED
from hack.kit.waiting import until
from hack.release.packages import build_sdist, build_wheel
from tests.agent.harness import Agent, Whoami, endpoints, service
from tests.middleware.pages import blocks, page

SAMPLE = Path(__file__).parents[2] / "docs" / "middleware" / "delay"
DELAY = {**ENABLED, "svc.mesh/middleware": "delay", "svc.mesh/delay": "1ms", "svc.mesh/delay-every": "2"}

BAD = """
import time
import msgspec
from middleware.contract import Middleware

class Options(msgspec.Struct, frozen=True):
    pass

def build(options, context):
    def layer(handler):
        async def misbehave(request):
            if request.target == "/raise":
                raise LookupError("a bug")
            if request.target == "/block":
                time.sleep(1.6)
            return await handler(request)
        return misbehave
    return layer

MIDDLEWARE = Middleware("bad", (), Options, lambda annotations: Options(), build)
"""


@pytest.fixture
def run_agent(tmp_path: Path, start_whoami: Callable[[str], Whoami]) -> Callable[..., object]:
    """Return what runs an agent that serves `shop/web` with these annotations."""

    @contextmanager
    def run(annotations: Mapping[str, str], *arguments: str) -> Iterator[Agent]:
        cluster = tmp_path / "cluster"
        cluster.mkdir()
        (cluster / "web.yaml").write_text(
            service("web", annotations) + endpoints("web", [start_whoami("a").port])
        )
        agent = Agent(cluster, *arguments)
        try:
            until(agent.ready)
            yield agent
        finally:
            agent.stop()

    return run


def get(agent: Agent, path: str) -> int:
    connection = agent.connect()
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def test_the_packaged_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_agent: Callable[..., object]
) -> None:
    tree, site = tmp_path / "tree", tmp_path / "site"
    shutil.copytree(SAMPLE, tree)
    wheel = build_wheel(build_sdist(tree, tmp_path / "dist", 1_700_000_000), tmp_path / "dist", 1_700_000_000)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--quiet", "--target", str(site), str(wheel)], check=True)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    with run_agent(DELAY) as agent:  # type: ignore[attr-defined]
        for _ in range(6):
            assert get(agent, "/") == 200
        until(lambda: agent.metric("svcmesh_delayed_total") == 3)
        assert json.loads(agent.admin("/plan")[1])


def test_the_sample_is_that_of_the_page() -> None:
    module, test, *_ = blocks(page("writing-one"), "python")
    assert (SAMPLE / "acme_delay.py").read_text() == module
    own = test.replace("middleware.delay", "acme_delay")
    sample = (SAMPLE / "test_acme_delay.py").read_text()
    assert sorted(filter(None, sample.splitlines())) == sorted(filter(None, own.splitlines()))
    assert (SAMPLE / "pyproject.toml").read_text() == blocks(page("writing-one"), "toml")[0]


def test_the_samples_own_test_passes() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "."]
    done = subprocess.run(
        command,
        cwd=SAMPLE,
        env={**os.environ, "PYTHONPATH": str(SAMPLE.parents[2]), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_files_of_a_folder(tmp_path: Path, run_agent: Callable[..., object]) -> None:
    folder = tmp_path / "middlewares"
    folder.mkdir()
    shutil.copy(SAMPLE / "acme_delay.py", folder / "delay.py")
    (folder / "bad.py").write_text(BAD)
    annotations = {**DELAY, "svc.mesh/middleware": "delay bad"}
    with run_agent(annotations, "--middleware-path", str(folder)) as agent:  # type: ignore[attr-defined]
        assert [get(agent, path) for path in ("/", "/raise", "/", "/block", "/")] == [200, 500, 200, 200, 200]
        until(lambda: agent.metric("svcmesh_delayed_total") == 2)
        (failed,) = until(lambda: agent.events("middleware_failed"))
        assert "It passed through the middleware bad." in failed["traceback"]
        (blocks_now,) = until(lambda: agent.events("middleware_blocks"))
        assert (blocks_now["middleware"], blocks_now["service"]) == ("bad", "shop/web")
        assert "time.sleep(1.6)" in blocks_now["traceback"]
        (slow,) = until(lambda: agent.events("middleware_slow"))
        assert slow["middleware"] == "bad"
        assert slow["held_ms"] >= 1600


def test_a_file_that_cannot_be_used_refuses_where_it_is_chosen(
    tmp_path: Path, run_agent: Callable[..., object]
) -> None:
    folder = tmp_path / "middlewares"
    folder.mkdir()
    (folder / "guard.py").write_text("import nothing_like_that\n")
    annotations = {**ENABLED, "svc.mesh/middleware": "guard"}
    with run_agent(annotations, "--middleware-path", str(folder)) as agent:  # type: ignore[attr-defined]
        assert get(agent, "/") == 500
        assert agent.events("middleware_not_loaded")
