"""Files that are written: what may be replaced, what stays of it, and what is left where that fails."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from expert_placement import Placement, Topology, formats

pytest.importorskip("torch", reason="tables of placements need torch")

NAMES = {
    "native": "p.json",
    "sglang": "p.json",
    "deepseek": "p.npy",
    "vllm_ascend": "p.json",
    "tensorrt_llm": "p.yaml",
}


def make(table: Any = ((0, 1, 1, 0),)) -> Placement:
    return Placement.from_physical_to_logical(table, 2, Topology(2))


def as_saved(placement: Placement, path: Path, name: str) -> None:
    assert name == "native"
    placement.save(path)


WRITERS = [pytest.param(name, formats.write, id=name) for name in NAMES] + [
    pytest.param("native", as_saved, id="save"),
]


@pytest.mark.parametrize(("name", "write"), WRITERS)
def test_a_pipe_is_refused_and_stays(tmp_path: Path, name: str, write: Any) -> None:
    path = tmp_path / NAMES[name]
    os.mkfifo(path)
    link = tmp_path / f"link{path.suffix}"
    link.symlink_to(path)
    for named in (path, link):
        with pytest.raises(ValueError, match="this is no regular file") as caught:
            write(make(), named, name)
        assert str(caught.value) == f"`{named}`: this is no regular file, expected one, or a new path"
    assert stat.S_ISFIFO(path.lstat().st_mode)
    assert link.is_symlink()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(("name", "write"), WRITERS)
def test_a_link_is_followed_and_stays(tmp_path: Path, name: str, write: Any) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    file, link, second = folder / NAMES[name], tmp_path / f"a{NAMES[name]}", tmp_path / f"b{NAMES[name]}"
    link.symlink_to(Path("folder") / NAMES[name])
    second.symlink_to(link.name)
    # A link to nothing makes the file that it names.
    for path, table in ((link, [[0, 1, 1, 0]]), (second, [[1, 0, 0, 1]])):
        write(make(table), path, name)
        assert (link.is_symlink(), second.is_symlink(), file.is_symlink()) == (True, True, False)
        assert formats.read(file, name, topology=Topology(2)) == make(table)
    assert [entry.name for entry in folder.iterdir()] == [file.name]
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(("name", "write"), WRITERS)
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444])
def test_a_file_that_is_replaced_hands_its_permissions_on(tmp_path: Path, name: str, write: Any, mode: int) -> None:
    path = tmp_path / NAMES[name]
    path.write_text("old")
    path.chmod(mode)
    write(make(), path, name)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert formats.read(path, name, topology=Topology(2)) == make()
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.touch()
    make().save(tmp_path / "p.json")
    assert (tmp_path / "p.json").stat().st_mode == other.stat().st_mode


def test_a_name_of_any_length_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * (os.pathconf(tmp_path, "PC_NAME_MAX") - len(".json")) + ".json")
    make().save(path)
    assert Placement.load(path) == make()


@pytest.mark.parametrize(("name", "write"), WRITERS)
def test_a_path_of_no_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, write: Any) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "native":
        with pytest.raises(ValueError, match=r"\A``: the path is empty, expected that of a file\Z"):
            write(make(), "", name)
    with pytest.raises(ValueError, match=r"\A`a\\x00b[.a-z]*`: embedded null byte\Z"):
        write(make(), f"a\0b{Path(NAMES[name]).suffix}", name)
    loop = tmp_path / NAMES[name]
    loop.symlink_to(loop.name)
    with pytest.raises(OSError, match=f"'{loop}'"):
        write(make(), loop, name)
    assert list(tmp_path.iterdir()) == [loop]


def test_a_write_that_fails_leaves_nothing_and_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.json"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "elsewhere")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left") as caught:
        make().save(path)
    assert caught.value.filename == str(path)
    assert (path.read_text(), list(tmp_path.iterdir())) == ("old", [path])
