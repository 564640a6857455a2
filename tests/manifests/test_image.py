"""The Dockerfile agrees with the manifests, the locks and the tree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from hack.manifests.confine import USER
from tests.manifests.objects import ROOT, Object
from tests.manifests.test_base import VERSION

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_it_runs_as_the_user_of_the_manifests() -> None:
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == [f"{USER}:{USER}"]


def test_it_starts_the_program_whose_arguments_the_manifests_give(agent_container: Object) -> None:
    assert DOCKERFILE.rstrip().endswith(
        'ENTRYPOINT ["/opt/svcmesh/bin/agent-python", "-m", "nodeagent"]\nCMD ["run"]'
    )
    assert agent_container["args"] == ["run"]
    assert "command" not in agent_container


def test_it_has_the_version_that_the_manifests_ask_for(agent_container: Object) -> None:
    assert f'org.opencontainers.image.version="{VERSION}"' in DOCKERFILE
    assert agent_container["image"].endswith(f":{VERSION}")


def test_everything_it_copies_is_there_and_gets_past_dockerignore() -> None:
    lines = (ROOT / ".dockerignore").read_text().split()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert copied == allowed
    assert [name for name in sorted(copied) if not (ROOT / name).exists()] == []


def test_it_contains_every_package_of_the_program() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages <= set(re.findall(r"^COPY (\w+) \w+$", DOCKERFILE, re.MULTILINE))


def test_nothing_is_installed_without_a_hash() -> None:
    joined = DOCKERFILE.replace("\\\n", " ")
    installs = [part for part in re.split(r"&&|\n", joined) if re.search(r"\bpip\b.* install ", part)]
    assert len(installs) == 3
    assert [part for part in installs if "--require-hashes" not in part and "--no-index" not in part] == []


def test_locks_of_the_image_have_hashes_for_every_package() -> None:
    for lock in ("runtime.txt", "image.txt"):
        requirements = Path(ROOT / "hack" / "locks" / lock).read_text().replace("\\\n", " ").splitlines()
        assert [line for line in requirements if line and "--hash=sha256:" not in line] == []


def test_the_lock_of_the_image_has_what_the_agent_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["agent"]]
    lock = (ROOT / "hack" / "locks" / "runtime.txt").read_text()
    locked = set(re.findall(r"^([\w-]+)==", lock, re.MULTILINE))
    assert {requirement.partition(">=")[0] for requirement in wanted} <= locked


def test_the_build_without_docker_uses_this_dockerfile_and_changes_the_base_alone() -> None:
    script = (ROOT / "hack" / "manifests" / "image.sh").read_text().replace("\\\n", " ")
    (build,) = re.findall(r"^buildah bud (.*)$", script, re.MULTILINE)
    assert build.endswith(" .")
    assert re.search(r"(-f|--file|--target)\b", build) is None, "another Dockerfile, or a part of it"
    assert re.findall(r"--build-arg \S+", build) == ['--build-arg "BASE=$base"']
    assert re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE) == ["BASE"]


def test_what_is_given_to_builds_as_a_secret_is_used_in_the_first_stage_alone() -> None:
    _, first, last = DOCKERFILE.split("\nFROM ")
    assert len(re.findall(r"--mount=type=secret", first)) == 2
    assert "--mount" not in last
