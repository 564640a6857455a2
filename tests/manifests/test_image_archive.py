"""What is in an image's archive: layers upon each other, whiteouts, capabilities; and two images compared."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from hack.manifests import compare_images
from hack.manifests.compare_images import differences
from hack.manifests.image_archive import Entry, file_system, read_files

Member = tuple[tarfile.TarInfo, bytes]


def file(name: str, content: bytes = b"", mode: int = 0o644, **xattrs: str) -> Member:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    member.pax_headers = {f"SCHILY.xattr.security.{key}": value for key, value in xattrs.items()}
    return member, content


def folder(name: str) -> Member:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, 0o755
    return member, b""


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Member:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = kind, target, 0o777
    return member, b""


def pack(members: list[Member]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


def image(path: Path, *layers: list[Member]) -> Path:
    names = [f"{number}.tar" for number in range(len(layers))]
    manifest = json.dumps([{"Layers": names}]).encode()
    packed = [file(name, pack(layer)) for name, layer in zip(names, layers, strict=True)]
    path.write_bytes(pack([*packed, file("manifest.json", manifest)]))
    return path


def test_later_layers_cover_earlier_ones(tmp_path: Path) -> None:
    archive = image(
        tmp_path / "image.tar",
        [folder("./etc"), file("./etc/a", b"old"), file("./etc/b", b"b"), file("./etc/c", b"c")],
        [file("etc/a", b"new", mode=0o600), file("etc/.wh.b"), link("etc/c", "a")],
    )
    found = file_system(archive)
    assert set(found) == {"etc", "etc/a", "etc/c"}
    assert (found["etc/a"].mode, found["etc/a"].size, found["etc/c"].content) == ("0600", 3, "a")
    assert read_files(archive, ["etc/a", "etc/none"]) == {"etc/a": b"new"}


def test_whole_folders_are_whitened(tmp_path: Path) -> None:
    first = [folder("a"), file("a/x"), file("ab"), folder("b"), file("b/x"), folder("c"), file("c/x")]
    second = [file(".wh.a"), folder("b"), file("b/.wh..wh..opq"), file("b/y"), file("c")]
    assert set(file_system(image(tmp_path / "image.tar", first, second))) == {"ab", "b", "b/y", "c"}


def test_a_hard_link_is_the_file_that_it_leads_to(tmp_path: Path) -> None:
    found = file_system(image(tmp_path / "i.tar", [file("a", b"a"), link("b", "./a", tarfile.LNKTYPE)]))
    assert found["a"] == found["b"]


def test_differences_name_what_differs(tmp_path: Path) -> None:
    one = file_system(image(tmp_path / "1.tar", [file("a", b"1"), file("b"), file("nft", capability="x")]))
    other = file_system(image(tmp_path / "2.tar", [file("a", b"1", 0o755), file("c"), file("nft")]))
    assert list(differences(one, other)) == [
        "/a: mode 0644 and 0755",
        "only in the first: /b",
        "only in the second: /c",
        "/nft: xattrs (('security.capability', '78'),) and -",
    ]
    assert list(differences(one, one)) == []


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = image(tmp_path / "1.tar", [file("a")]), image(tmp_path / "2.tar", [file("a", b"x")])
    for second, code in ((one, 0), (other, 1)):
        monkeypatch.setattr("sys.argv", ["compare_images", str(one), str(second)])
        assert compare_images.main() == code
    assert capsys.readouterr().out.splitlines()[-1] == "1 and 1 paths, 1 differences"
    assert file_system(one)["a"] == Entry("file", "0644", "0:0", 0, EMPTY, ())


EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
