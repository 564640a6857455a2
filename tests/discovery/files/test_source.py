"""The source `file:` with real files and real notifications: every way to change a file is seen."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import asyncinotify
import pytest
import uvloop
from structlog.testing import capture_logs

import discovery.files.bell
import discovery.files.reading
import discovery.files.source
from discovery.files.reading import NO_FILES, read_once
from discovery.files.source import FileSource
from discovery.model import MeshObject, ObjectKey
from discovery.source import Deleted, Event, Malformed, Source, SourceError, Stale, Synced, Upserted

QUEUE_LENGTH = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
DEADLINE = 20.0
"""Seconds; generous, for it decides only about failing."""


def manifest(name: str, port: int = 80) -> str:
    return f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n"


class Follower:
    """Follows a source, as its consumer does."""

    def __init__(self, path: Path) -> None:
        source: Source = FileSource(path)
        self.batches = source.watch()
        self.events: list[Event] = []
        self.objects: dict[tuple[type, ObjectKey], MeshObject] = {}
        self.problems: dict[str, list[str]] = {}
        self.stale = True

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                for event in await anext(self.batches):
                    self._take(event)

    async def until_ports(self, **ports: int) -> None:
        await self.until(lambda: self.ports() == ports)

    def ports(self) -> dict[str, int]:
        found = self.objects.values()
        return {o.key.name: getattr(o, "ports")[0].port for o in found if getattr(o, "ports")}  # noqa: B009

    def _take(self, event: Event) -> None:
        self.events.append(event)
        match event:
            case Upserted(object=found):
                self.objects[type(found.key), found.key] = found
            case Deleted(key=key):
                del self.objects[type(key), key]
            case Malformed(origin=origin, problems=problems):
                self.problems[origin] = [problem.reason for problem in problems]
                if not problems:
                    del self.problems[origin]
            case Synced():
                self.stale = False
            case Stale():
                self.stale = True


@pytest.fixture
async def follow(tmp_path: Path) -> AsyncIterator[Callable[[Path], Follower]]:
    followers: list[Follower] = []

    def start(path: Path) -> Follower:
        followers.append(Follower(path))
        return followers[-1]

    yield start
    for follower in followers:
        await follower.batches.aclose()  # type: ignore[attr-defined]


Follow = Callable[[Path], Follower]


async def test_a_folder_is_read_with_its_sub_folders(tmp_path: Path, follow: Follow) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "a.yaml").write_text(manifest("a"))
    (tmp_path / "deep" / "b.yml").write_text(manifest("b"))
    (tmp_path / "deep" / "er" / "c.json").write_text(
        '{"apiVersion":"v1","kind":"Service","metadata":{"name":"c"},"spec":{"ports":[{"port":80}]}}'
    )
    (tmp_path / ".hidden.yaml").write_text(manifest("x"))
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.yaml").write_text(manifest("x"))
    (tmp_path / "readme.md").write_text(manifest("x"))
    follower = follow(tmp_path)
    await follower.until(lambda: not follower.stale)
    assert follower.ports() == {"a": 80, "b": 80, "c": 80}
    assert {o.origin for o in follower.objects.values()} == {
        f"{tmp_path}/a.yaml:1",
        f"{tmp_path}/deep/b.yml:1",
        f"{tmp_path}/deep/er/c.json:1",
    }
    assert isinstance(follower.events[-1], Synced)


async def test_an_empty_folder_is_synced(tmp_path: Path, follow: Follow) -> None:
    follower = follow(tmp_path)
    await follower.until(lambda: not follower.stale)
    assert follower.events == [Synced()]


async def test_a_missing_path_is_an_error(tmp_path: Path) -> None:
    async with aclosing(FileSource(tmp_path / "none").watch()) as batches:  # type: ignore[type-var]
        with pytest.raises(SourceError, match="does not exist"):
            await anext(batches)
    with pytest.raises(SourceError, match="does not exist"):
        read_once(tmp_path / "none")


async def test_files_that_come_change_and_go(tmp_path: Path, follow: Follow) -> None:
    follower = follow(tmp_path)
    await follower.until(lambda: not follower.stale)
    (tmp_path / "a.yaml").write_text(manifest("a"))
    await follower.until_ports(a=80)
    (tmp_path / "a.yaml").write_text(manifest("a", 81))
    await follower.until_ports(a=81)
    (tmp_path / "new").write_text(manifest("a", 82))
    (tmp_path / "new").rename(tmp_path / "a.yaml")
    await follower.until_ports(a=82)
    (tmp_path / "a.yaml").rename(tmp_path / "b.yaml")
    await follower.until(lambda: {o.origin for o in follower.objects.values()} == {f"{tmp_path}/b.yaml:1"})
    (tmp_path / "b.yaml").unlink()
    await follower.until_ports()
    assert follower.problems == {}


async def test_a_file_replaced_by_way_of_a_backup_does_not_blink(tmp_path: Path, follow: Follow) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(manifest("a"))
    follower = follow(tmp_path)
    await follower.until(lambda: not follower.stale)
    path.rename(tmp_path / "a.yaml~")
    path.write_text(manifest("a", 81))
    await follower.until_ports(a=81)
    path.write_text("")
    path.write_text(manifest("a", 82))
    await follower.until_ports(a=82)
    assert not [event for event in follower.events if isinstance(event, Deleted)]


async def test_a_half_written_file_is_not_read(
    tmp_path: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery.files.source, "GRACE", 60.0)
    (tmp_path / "a.yaml").write_text(manifest("a"))
    follower = follow(tmp_path)
    await follower.until(lambda: not follower.stale)
    with (tmp_path / "b.yaml").open("w") as writing:
        writing.write(manifest("b")[:-8])
        writing.flush()
        (tmp_path / "c.yaml").write_text(manifest("c"))
        await follower.until_ports(a=80, c=80)
        writing.write(manifest("b")[-8:])
    await follower.until_ports(a=80, b=80, c=80)
    assert not [event for event in follower.events if isinstance(event, Malformed)]


async def test_folders_that_come_move_and_go(tmp_path: Path, follow: Follow) -> None:
    outside, top = tmp_path / "outside", tmp_path / "top"
    top.mkdir()
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "a.yaml").write_text(manifest("a"))
    follower = follow(top)
    await follower.until(lambda: not follower.stale)
    outside.rename(top / "in")
    await follower.until_ports(a=80)
    (top / "in" / "deep" / "a.yaml").write_text(manifest("a", 81))
    await follower.until_ports(a=81)
    (top / "in").rename(top / "renamed")
    await follower.until(
        lambda: next(o.origin for o in follower.objects.values()).startswith(f"{top}/renamed")
    )
    (top / "renamed" / "deep" / "a.yaml").write_text(manifest("a", 82))
    await follower.until_ports(a=82)
    (top / "renamed").rename(outside)
    await follower.until_ports()
    outside.rename(top / "back")
    await follower.until_ports(a=82)
    assert sum(isinstance(event, Deleted) for event in follower.events) == 1
    shutil.rmtree(top / "back")
    await follower.until_ports()


async def test_a_config_map_volume(tmp_path: Path, follow: Follow) -> None:
    def publish(version: str, port: int) -> None:
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}" / "a.yaml").write_text(manifest("a", port))
        (tmp_path / "..data_tmp").symlink_to(f"..{version}")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    publish("v1", 80)
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    follower = follow(tmp_path)
    await follower.until_ports(a=80)
    for version in range(2, 5):
        publish(f"v{version}", 80 + version)
        shutil.rmtree(tmp_path / f"..v{version - 1}")
        await follower.until_ports(a=80 + version)
    assert not [event for event in follower.events if isinstance(event, Deleted)]
    assert {o.origin for o in follower.objects.values()} == {f"{tmp_path}/a.yaml:1"}


async def test_links_are_followed_out_of_the_folder(tmp_path: Path, follow: Follow) -> None:
    top, elsewhere = tmp_path / "top", tmp_path / "elsewhere"
    top.mkdir()
    (elsewhere / "folder").mkdir(parents=True)
    (elsewhere / "a.yaml").write_text(manifest("a"))
    (elsewhere / "folder" / "b.yaml").write_text(manifest("b"))
    (top / "loop").symlink_to("..")
    (top / "dangling.yaml").symlink_to("nowhere")
    follower = follow(top)
    await follower.until(lambda: not follower.stale)
    (top / "a.yaml").symlink_to(elsewhere / "a.yaml")
    (top / "sub").symlink_to(elsewhere / "folder")
    await follower.until_ports(a=80, b=80)
    (elsewhere / "new").write_text(manifest("a", 81))
    (elsewhere / "new").rename(elsewhere / "a.yaml")
    await follower.until_ports(a=81, b=80)
    (elsewhere / "folder" / "b.yaml").write_text(manifest("b", 82))
    await follower.until_ports(a=81, b=82)


async def test_a_single_file(tmp_path: Path, follow: Follow) -> None:
    path = tmp_path / "mesh.conf"
    path.write_text(manifest("a"))
    follower = follow(path)
    await follower.until_ports(a=80)
    path.write_text(manifest("a", 81))
    await follower.until_ports(a=81)
    (tmp_path / "new").write_text(manifest("a", 82))
    (tmp_path / "new").rename(path)
    await follower.until_ports(a=82)


@pytest.mark.parametrize("kind", ["file", "folder"])
async def test_the_path_itself_goes_and_comes_back(tmp_path: Path, follow: Follow, kind: str) -> None:
    parent = tmp_path / "parent"
    top = parent / "a.yaml" if kind == "file" else parent / "top"
    path = top if kind == "file" else top / "a.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(manifest("a"))
    follower = follow(top)
    await follower.until_ports(a=80)
    await follower.until(lambda: not follower.stale)
    shutil.rmtree(parent)
    await follower.until(lambda: follower.stale)
    assert follower.ports() == {"a": 80}
    path.parent.mkdir(parents=True)
    path.write_text(manifest("a", 81))
    await follower.until(lambda: follower.ports() == {"a": 81} and not follower.stale)
    path.write_text(manifest("a", 82))
    await follower.until_ports(a=82)


async def test_what_is_broken_keeps_its_last_good_objects_until_it_is_mended(
    tmp_path: Path, follow: Follow
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"{manifest('a')}---\n{manifest('b')}")
    follower = follow(tmp_path)
    await follower.until_ports(a=80, b=80)
    path.write_text(f"{manifest('a', 81)}---\n{manifest('b')}oops: [\n")
    await follower.until_ports(a=81, b=80)
    assert list(follower.problems) == [str(path)]
    path.write_text(f"{manifest('a', 81)}---\n{manifest('b', 82)}")
    await follower.until_ports(a=81, b=82)
    assert follower.problems == {}


async def test_duplicates(tmp_path: Path, follow: Follow) -> None:
    (tmp_path / "b.yaml").write_text(manifest("web", 82))
    follower = follow(tmp_path)
    await follower.until_ports(web=82)
    (tmp_path / "a.yaml").write_text(manifest("web", 81))
    await follower.until_ports(web=81)
    assert list(follower.problems) == [f"{tmp_path}/b.yaml"]
    (tmp_path / "a.yaml").unlink()
    await follower.until_ports(web=82)
    assert follower.problems == {}


async def test_files_that_cannot_be_read(
    tmp_path: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery.files.reading, "MAX_BYTES", 1000)
    (tmp_path / "good.yaml").write_text(manifest("a"))
    (tmp_path / "large.yaml").write_text("#" * 1001)
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    follower = follow(tmp_path)
    await follower.until(lambda: not follower.stale)
    assert follower.ports() == {"a": 80}
    reasons = {Path(origin).name: reasons[0] for origin, reasons in follower.problems.items()}
    assert reasons.keys() == {"large.yaml", "binary.yaml", "loop.yaml", "pipe.yaml"}
    assert reasons["pipe.yaml"] == "is not a regular file"
    assert "larger than" in reasons["large.yaml"]
    assert "cannot be read" in reasons["loop.yaml"]
    (tmp_path / "large.yaml").write_text(manifest("b"))
    await follower.until_ports(a=80, b=80)
    (tmp_path / "large.yaml").write_text("#" * 1001)
    await follower.until(lambda: f"{tmp_path}/large.yaml" in follower.problems)
    assert follower.ports() == {"a": 80, "b": 80}


async def test_more_changes_than_the_queue_holds(tmp_path: Path, follow: Follow) -> None:
    (tmp_path / "a.yaml").write_text(manifest("a"))
    (tmp_path / "gone.yaml").write_text(manifest("gone"))
    follower = follow(tmp_path)
    await follower.until_ports(a=80, gone=80)
    await follower.until(lambda: not follower.stale)
    noise = [tmp_path / name for name in ("x", "y")]
    noise[0].touch()
    for turn in range(QUEUE_LENGTH // 2 + 1):  # a rename makes two events; nobody reads them meanwhile
        os.rename(noise[turn % 2], noise[1 - turn % 2])
    (tmp_path / "a.yaml").write_text(manifest("a", 81))
    (tmp_path / "gone.yaml").unlink()
    (tmp_path / "b.yaml").write_text(manifest("b"))
    await follower.until_ports(a=81, b=80)


@pytest.mark.parametrize("where", ["no instance", "no watch"])
async def test_without_inotify_changes_are_found_by_looking(
    tmp_path: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    if where == "no instance":
        monkeypatch.setattr(discovery.files.bell, "Inotify", refuse)
    else:
        monkeypatch.setattr(asyncinotify.Inotify, "add_watch", refuse)
    monkeypatch.setattr(discovery.files.source, "POLL", 0.01)
    (tmp_path / "a.yaml").write_text(manifest("a"))
    follower = follow(tmp_path)
    await follower.until_ports(a=80)
    for port in range(81, 85):
        (tmp_path / "a.yaml").write_text(manifest("a", port))
        await follower.until_ports(a=port)
    (tmp_path / "a.yaml").unlink()
    await follower.until_ports()


async def test_the_last_of_many_changes_counts(tmp_path: Path, follow: Follow) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(manifest("a", 1000))
    follower = follow(tmp_path)
    await follower.until_ports(a=1000)
    for turn in range(1001, 1301):
        path.write_text(manifest("a", turn))  # as long as the one before, and often in the same tick
        if turn % 10 == 0:
            await follower.until_ports(a=turn)


async def test_an_editor_s_files_beside_it_are_not_read(tmp_path: Path, follow: Follow) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(manifest("a"))
    follower = follow(tmp_path)
    await follower.until_ports(a=80)
    for name in (".a.yaml.swp", "a.yaml~", "#a.yaml#", "4913", ".#a.yaml"):
        (tmp_path / name).write_text(manifest("x"))
    (tmp_path / "a.yaml.tmp").write_text(manifest("a", 81))
    (tmp_path / "a.yaml.tmp").replace(path)
    await follower.until_ports(a=81)
    assert {event.object.key.name for event in follower.events if isinstance(event, Upserted)} == {"a"}


async def test_a_thousand_files_at_once(tmp_path: Path, follow: Follow) -> None:
    follower = follow(tmp_path)
    await follower.until(lambda: not follower.stale)
    for index in range(1000):
        (tmp_path / f"{index}.yaml").write_text(manifest(f"s{index}"))
    await follower.until(lambda: len(follower.objects) == 1000)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_on_both_loops_reading_lets_others_run(tmp_path: Path, run: Callable[..., None]) -> None:
    text = "---\n".join(manifest(f"s{index}") for index in range(2000))
    (tmp_path / "a.yaml").write_text(text)

    async def main() -> None:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        follower = Follower(tmp_path)
        await follower.until(lambda: not follower.stale)
        assert len(follower.objects) == 2000
        assert turns > 10
        (tmp_path / "a.yaml").write_text(text.replace("port: 80", "port: 81", 1))
        await follower.until(lambda: follower.ports()["s0"] == 81)
        counting.cancel()
        await follower.batches.aclose()  # type: ignore[attr-defined]

    run(main())


def test_reading_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(manifest("a"))
    (tmp_path / "b.yaml").write_text("oops: [")
    first, second, last = read_once(tmp_path)
    assert isinstance(first, Upserted)
    assert isinstance(second, Malformed)
    assert last == Synced()


def meshed(name: str) -> str:
    return manifest(name).replace("name: ", "annotations: {svc.mesh/enabled: 'true'}, name: ")


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, NO_FILES),
        ({".hidden.yaml": meshed("a"), "a.txt": meshed("b")}, NO_FILES),
        ({"a.yaml": ""}, "no Service in its files"),
        ({"a.yaml": manifest("a"), "b.yaml": manifest("b")},
         'none of its Services (2) is annotated with svc.mesh/enabled: "true"'),
        ({"a.yaml": manifest("a"), "b.yaml": meshed("b")}, ""),
    ],
)  # fmt: skip
async def test_a_folder_with_nothing_for_the_mesh_is_said_to_be_so_once(
    files: dict[str, str], reason: str, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    follower = Follower(tmp_path)
    with capture_logs() as lines:
        await follower.until(lambda: not follower.stale)
        (tmp_path / "more.yaml").write_text(manifest("more", 81))
        await follower.until(lambda: "more" in follower.ports())
    await follower.batches.aclose()  # type: ignore[attr-defined]
    assert [line["reason"] for line in lines if line["event"] == "source_empty"] == [reason] * bool(reason)


def test_read_once_wants_something_to_read(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no file named"):
        read_once(tmp_path)
    with pytest.raises(SourceError, match="<stdin> is empty"):
        read_once(texts={"<stdin>": b" "})
    assert read_once(texts={"<stdin>": manifest("a").encode()})[0] == read_once_of(tmp_path, manifest("a"))


def read_once_of(folder: Path, text: str) -> Event:
    (folder / "<stdin>").write_text(text)
    with contextlib.chdir(folder):
        return read_once("<stdin>")[0]


def test_of_a_text_so_much_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery.files.reading, "MAX_BYTES", 10)
    (malformed, _) = read_once(texts={"<stdin>": manifest("a").encode()})
    assert isinstance(malformed, Malformed)
    assert [problem.reason for problem in malformed.problems] == ["is larger than 32 MiB"]
