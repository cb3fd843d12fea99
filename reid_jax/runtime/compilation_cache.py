"""Compiled programs kept on disk: whoever starts a run again does not wait for XLA again."""

import hashlib
import os
import pathlib
import platform
import tempfile

import jax

from reid_jax.runtime.files import replacing
from reid_jax.runtime.messages import say

# What the folder may hold at a start, in bytes. The step of a small network is about a megabyte.
MAX_BYTES = 2**30


def keep_compiled() -> None:
    """Has JAX keep what it compiles in the user's cache folder, where the next start finds it.

    To be called before JAX compiles anything, by programs and not by libraries: the setting is the
    process's. JAX's own settings go first: with `JAX_COMPILATION_CACHE_DIR` set, or
    `JAX_ENABLE_COMPILATION_CACHE=false`, nothing happens. A folder that cannot be written costs a
    line and no more.
    """
    given = jax.config.values["jax_compilation_cache_dir"] is not None
    if given or not jax.config.values["jax_enable_compilation_cache"]:
        return
    try:
        compiled = _user_cache() / "reid_jax" / "compiled"
        folder = compiled / _processor()
        for path in (compiled, folder):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_own(path)
        tempfile.TemporaryFile(dir=folder).close()
        _forget(compiled, MAX_BYTES)
        _mend(folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home.
        say(f"compiled programs are not kept for the next start: {error}")
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # JAX's default, a second, leaves out the small programs, which are most of a start's.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _check_own(folder: pathlib.Path) -> None:
    """Raises PermissionError where others can write: what lies there is executed."""
    status = folder.stat()
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
        raise PermissionError(f"others may write to {folder}. Remove it, or take their rights")


def _user_cache() -> pathlib.Path:
    """As the XDG base directory specification has it: a relative path is none."""
    folder = pathlib.Path(os.environ.get("XDG_CACHE_HOME", ""))
    return folder if folder.is_absolute() else pathlib.Path.home() / ".cache"


def _processor() -> str:
    """A name for this type of processor.

    Machines may share the user's folders, and JAX does not say that it tells their types apart:
    what was compiled for one may use instructions that another lacks.
    """
    description = platform.processor()
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    told = ("model name", "flags", "CPU part", "Features")  # x86's two, and ARM's.
    description += "".join(sorted({line for line in lines if line.startswith(told)}))
    return f"{platform.machine()}-{hashlib.sha256(description.encode()).hexdigest()[:8]}"


def _forget(folder: pathlib.Path, max_bytes: int) -> None:
    """Removes the files that were not used for longest until at most `max_bytes` are left."""
    files = [(path, path.stat()) for path in folder.rglob("*") if path.is_file()]
    # Times of last use are rough where the system spares writing them, but never before creation.
    files.sort(key=lambda file: max(file[1].st_atime, file[1].st_mtime))
    excess = sum(stat.st_size for _, stat in files) - max_bytes
    for path, stat in files:
        if excess <= 0:
            break
        path.unlink(missing_ok=True)
        excess -= stat.st_size


def _mend(folder: pathlib.Path) -> None:
    """Removes entries that a kill cut off while they were written.

    JAX never runs one, for they carry a checksum, but warns of it at every start, and does not
    write it again. Only what came since the last start is read.
    """
    try:
        from jax._src.compilation_cache import decompress_executable
    except ImportError:  # It is JAX's own affair, and may go; then the warnings stay.
        return
    entries = list(folder.glob("*-cache"))
    if not entries:
        return
    last = folder / "checked"
    # File systems may tell no more than two seconds apart.
    since = last.stat().st_mtime - 2 if last.exists() else 0
    with replacing(last, unique=True) as this:
        this.touch()  # Before the entries are read: others may write more meanwhile.
        for path in entries:
            try:
                if path.stat().st_mtime >= since:
                    decompress_executable(path.read_bytes())
            except FileNotFoundError:
                continue
            except Exception:  # zlib's, or zstandard's where that is installed.
                path.unlink(missing_ok=True)
