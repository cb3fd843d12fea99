import errno
import os
import pathlib

import pytest

from reid_jax.runtime.files import new_folder, replacing, write_atomically, write_text_atomically


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "file"
    for data in (b"first, and longer", b"second"):
        write_atomically(path, data)
        assert path.read_bytes() == data
    write_text_atomically(str(path), "é")
    assert path.read_bytes() == "é".encode()
    write_text_atomically(path, "\udcff")
    assert path.read_bytes() == rb"\udcff"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("unique", [False, True])
def test_a_failure_leaves_the_old_file_alone(unique, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write():
        with replacing(path, unique=unique) as draft:
            draft.write_bytes(b"half")
            assert names(tmp_path) == sorted(["file", draft.name])
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write()
    assert (names(tmp_path), path.read_bytes()) == (["file"], b"old")


def test_the_file_is_on_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, pathlib.Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append("fsync"), fsync(file)))
    monkeypatch.setattr(
        pathlib.Path, "replace", lambda *paths: (calls.append("replace"), replace(*paths))
    )
    write_atomically(tmp_path / "file", b"data")
    assert calls == ["fsync", "replace"]


def test_a_draft_that_a_kill_left_is_replaced(tmp_path):
    (tmp_path / "file.tmp").write_bytes(b"half, and longer")
    write_atomically(tmp_path / "file", b"data")
    assert (names(tmp_path), (tmp_path / "file").read_bytes()) == (["file"], b"data")


def test_drafts_of_several_writers_are_several_files(tmp_path):
    path = tmp_path / "file"
    # Processes in different containers may share a process ID, and threads always do.
    with (
        replacing(path, unique=True) as one,
        replacing(path, unique=True) as another,
        replacing(path) as last,
    ):
        assert len({one, another, last}) == 3
        for draft in (last, another, one):
            draft.write_bytes(draft.name.encode())
    assert (names(tmp_path), path.read_bytes()) == (["file"], one.name.encode())


@pytest.mark.parametrize("unique", [False, True])
@pytest.mark.parametrize("name", ["x" * 251, "x" * 252, "x" * 255, "é" * 127])
def test_a_draft_of_the_longest_name_can_be_written(unique, name, tmp_path):
    for data in (b"first", b"second"):
        write_atomically(tmp_path / name, data, unique=unique)
        assert (names(tmp_path), (tmp_path / name).read_bytes()) == ([name], data)
    drafts = []
    for _ in range(2):
        with replacing(tmp_path / name, unique=unique) as draft:
            draft.touch()
            drafts.append(draft)
    assert (drafts[0] != drafts[1]) == unique


@pytest.mark.parametrize("unique", [False, True])
def test_errors_name_the_file_and_not_its_draft(unique, tmp_path, monkeypatch):
    path = tmp_path / "file"
    with pytest.raises(FileNotFoundError, match=r"directory: '.*/nowhere/file'$"):
        write_atomically(tmp_path / "nowhere" / "file", b"data", unique=unique)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match=r"directory: '.*/folder'$"):
        write_atomically(tmp_path / "folder", b"data", unique=unique)
    with (
        pytest.raises(PermissionError, match=r"denied: 'other'$"),
        replacing(path, unique=unique),
    ):
        raise PermissionError(errno.EACCES, "Permission denied", "other")

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/file'$"):
        write_atomically(path, b"data", unique=unique)
    assert names(tmp_path) == ["folder"]


def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(FileExistsError, match=rf"{name}' is a pipe or a device: name a file$"):
            write_atomically(tmp_path / name, b"new")
        assert (tmp_path / name).is_fifo()
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]


@pytest.mark.parametrize("unique", [False, True])
def test_a_link_stays_and_its_file_is_replaced(unique, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk/file")
    for data in (b"new", b"newer"):
        write_atomically(tmp_path / "link", data, unique=unique)
        assert (tmp_path / "disk" / "file").read_bytes() == data
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path) == ["disk", "link"]
    assert names(tmp_path / "disk") == ["file"]
    (tmp_path / "lost").symlink_to("nowhere/file")
    with pytest.raises(FileNotFoundError, match=r"/lost'$"):
        write_atomically(tmp_path / "lost", b"new", unique=unique)


@pytest.mark.parametrize("there", [False, True])
def test_a_new_folder_appears_at_the_end(there, tmp_path):
    path = tmp_path / "parent" / "folder"
    if there:
        path.mkdir(parents=True)
    with new_folder(path) as draft:
        (draft / "file").write_text("x")
        assert names(path) == [] if there else not path.exists()
    assert names(path) == ["file"]
    assert names(path.parent) == ["folder"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_folder_has_the_mode_of_other_folders(tmp_path, mask):
    before = os.umask(mask)
    try:
        with new_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~mask


def test_a_new_folder_that_fails_goes(tmp_path):
    def write():
        with new_folder(tmp_path / "folder") as draft:
            (draft / "file").write_text("x")
            raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        write()
    assert names(tmp_path) == []


def test_an_error_without_a_file_names_the_new_folder(tmp_path):
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*folder'"),
        new_folder(tmp_path / "folder"),
    ):
        raise OSError(28, "No space left on device")
    with pytest.raises(OSError, match=r"^a message$"), new_folder(tmp_path / "folder"):
        raise OSError("a message")
    assert not list(tmp_path.iterdir())


def test_a_new_folder_replaces_nothing(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "file").touch()
    for name in ("full", "file"):
        with pytest.raises(FileExistsError, match=f"{name}' exists and is no empty folder"):
            new_folder(tmp_path / name).__enter__()
    with pytest.raises(OSError, match=r"cannot make the folder .*file/below"):
        new_folder(tmp_path / "file" / "below").__enter__()
    assert names(tmp_path) == ["file", "full"]


def test_a_mounted_disk_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(pathlib.Path, "is_mount", lambda path: path == tmp_path)
    with pytest.raises(FileExistsError, match="is a mounted disk: choose a folder in it"):
        new_folder(tmp_path).__enter__()
    with new_folder(tmp_path / "folder"):
        pass
    assert names(tmp_path) == ["folder"]


def test_the_current_folder_is_refused_as_a_new_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (".", tmp_path, f"../{tmp_path.name}"):
        with pytest.raises(FileExistsError, match="is the current folder: choose another OUT"):
            new_folder(path).__enter__()
    with new_folder("below"):
        pass
    assert (names(tmp_path), os.getcwd()) == (["below"], str(tmp_path))


def test_a_new_folder_of_the_longest_name(tmp_path):
    with new_folder(tmp_path / ("x" * 255)):
        pass
    assert names(tmp_path) == ["x" * 255]
