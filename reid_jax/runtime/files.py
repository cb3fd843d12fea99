"""Files and folders that are written completely or not at all, even if the process is killed."""

import contextlib
import hashlib
import os
import pathlib
import re
import shutil
import uuid
from collections.abc import Iterator
from typing import TypeGuard

from reid_jax.runtime.messages import shown

# `gs://bucket/runs`; pathlib makes one slash of two. One letter is a drive of Windows.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")

# Bytes of the name of a file or folder, on the usual file systems.
_LONGEST_NAME = 255


def local_path(path: str | os.PathLike[str], name: str) -> str:
    """A path as the user gave it, on this machine, with `~` expanded.

    Args:
        path: of a file or a folder, which need not exist.
        name: of the argument, option or leaf, for the error.

    Raises:
        ValueError: it is empty, a URL, or in the home folder of an unknown user.
    """
    text = os.fsdecode(path)
    if not text:
        raise ValueError(f"{name} is empty; it must be the path of a file or folder")
    if _URL.match(text):
        raise ValueError(
            f"{name} is {shown(text)}, a URL; it must be a path on this machine: copy or mount "
            "what it names, and give its path"
        )
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        raise ValueError(
            f"{name} is {shown(text)}, but there is no user of this name; for a folder of this "
            f"name write {shown(f'./{text}')}"
        )
    return expanded


def write_text_atomically(path: str | os.PathLike[str], text: str, *, unique: bool = False) -> None:
    """Write a text file in UTF-8, see `write_atomically`. Lone surrogates are escaped."""
    write_atomically(path, text.encode("utf-8", "backslashreplace"), unique=unique)


def write_atomically(path: str | os.PathLike[str], data: bytes, *, unique: bool = False) -> None:
    """Write a file so that a kill at any moment leaves either the old or the new content.

    Args:
        path: the file, in an existing folder.
        data: its content.
        unique: see `replacing`.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path, unique=unique) as draft, draft.open("wb") as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, unique: bool = False) -> Iterator[pathlib.Path]:
    """Yield a file beside `path` to write to, which replaces `path` at the end.

    A symbolic link stays, and the file that it leads to is replaced. The draft is on disk before it
    is renamed. If an error is raised inside, the draft is removed and `path` is unchanged.

    Args:
        path: the file, in an existing folder.
        unique: whether several processes or threads may write the file at the same time, even on
            different machines. Each then has its own draft, and a kill may leave one behind.
            Otherwise the draft is `path` with `.tmp` appended (if that is too long, with a hash of
            its name), and the next draft replaces one that a kill left behind.

    Raises:
        OSError: the file cannot be written, or is a pipe or a device. The error names it, and not
            the draft.
    """
    path = pathlib.Path(path)
    # The system would rename a file to `/dev/null`, if the user may.
    if os.path.exists(path) and not (path.is_file() or path.is_dir()):
        raise FileExistsError(f"{shown(path)} is a pipe or a device: name a file")
    target = pathlib.Path(os.path.realpath(path)) if path.is_symlink() else path
    draft = target.with_name(f".{uuid.uuid4().hex}.part" if unique else _draft_name(target.name))
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        if _is_of(error, draft):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _is_of(error: BaseException, draft: pathlib.Path) -> TypeGuard[OSError]:
    """Whether an error is of the system and names a draft or, as that of a full disk, no file."""
    return (
        isinstance(error, OSError)
        and error.errno is not None
        and (error.filename is None or str(error.filename) == str(draft))
    )


def _draft_name(name: str) -> str:
    """The name of the draft of a file, also of one whose name is as long as names may be."""
    encoded = os.fsencode(name)
    if len(encoded) + len(".tmp") <= _LONGEST_NAME:
        return f"{name}.tmp"
    return f".{hashlib.sha256(encoded).hexdigest()}.tmp"


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yield a folder beside `path` to write into, which is renamed to `path` at the end.

    If an error is raised inside, the folder is removed and `path` is unchanged.

    Args:
        path: it must not exist, or be an empty folder. Its parents are created.

    Raises:
        OSError: `path` is a file, a folder that is not empty, the current folder or a mounted disk,
            or its parent cannot be written to.
        ValueError: see `local_path`.
    """
    target = pathlib.Path(os.path.realpath(local_path(path, "OUT")))
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise FileExistsError(
                f"{shown(path)} exists and is no empty folder: choose another OUT"
            )
        if target.exists() and target.samefile(os.curdir):  # Its replacement would be another.
            raise FileExistsError(f"{shown(path)} is the current folder: choose another OUT")
        if target.is_mount():  # A folder cannot be renamed to it.
            raise FileExistsError(f"{shown(path)} is a mounted disk: choose a folder in it")
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".reid-jax.{uuid.uuid4().hex}.partial")
        draft.mkdir()
    except FileExistsError as error:
        if error.errno is None:
            raise
        raise FileExistsError(f"cannot make the folder {shown(path)}: {error.strerror}") from error
    except OSError as error:
        raise OSError(f"cannot make the folder {shown(path)}: {error.strerror}") from error
    try:
        yield draft
        draft.rename(target)
    except OSError as error:
        if _is_of(error, draft):
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
