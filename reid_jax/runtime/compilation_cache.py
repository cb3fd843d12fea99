"""Keeps compiled programs on disk, so that a restarted run does not wait for XLA again."""

import hashlib
import pathlib
import platform
import tempfile

import jax

from reid_jax.runtime.files import replacing
from reid_jax.runtime.messages import say
from reid_jax.runtime.user_cache import forget, private_folder, user_cache

# The size to which the folder is reduced at a start, in bytes. A small network's step has about a
# megabyte.
MAX_BYTES = 2**30


def keep_compiled() -> None:
    """Make JAX keep compiled programs in the user's cache folder for later starts.

    Call it before JAX compiles, in programs and not in libraries, because the setting applies to
    the process. JAX's own settings have priority: with `JAX_COMPILATION_CACHE_DIR` or
    `JAX_ENABLE_COMPILATION_CACHE=false`, the call has no effect. If the folder cannot be written
    to, one line is printed.
    """
    given = jax.config.values["jax_compilation_cache_dir"] is not None
    if given or not jax.config.values["jax_enable_compilation_cache"]:
        return
    try:
        # Others must not write there, because the content is executed.
        compiled = user_cache("compiled")
        folder = private_folder(compiled / _processor())
        tempfile.TemporaryFile(dir=folder).close()
        forget(compiled, MAX_BYTES)
        _mend(folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home.
        say(f"compiled programs are not kept for the next start: {error}")
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # JAX's default, a second, would exclude the small programs, which are most of a start's.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _processor() -> str:
    """A name for this type of processor.

    Machines may share the user's folders, and JAX does not document that it distinguishes their
    types: code compiled for one may use instructions that another lacks.
    """
    description = platform.processor()
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    prefixes = ("model name", "flags", "CPU part", "Features")  # x86's two, and ARM's
    description += "".join(sorted({line for line in lines if line.startswith(prefixes)}))
    return f"{platform.machine()}-{hashlib.sha256(description.encode()).hexdigest()[:8]}"


def _mend(folder: pathlib.Path) -> None:
    """Remove entries that a kill truncated while they were written.

    JAX never runs such an entry, because entries have checksums, but it warns about it at every
    start and does not write it again. Only entries since the last start are read.
    """
    try:
        from jax._src.compilation_cache import decompress_executable
    except ImportError:  # A private function of JAX, which may disappear; then the warnings stay.
        return
    entries = list(folder.glob("*-cache"))
    if not entries:
        return
    last = folder / "checked"
    # The time stamps of some file systems have a resolution of two seconds.
    since = last.stat().st_mtime - 2 if last.exists() else 0
    with replacing(last, unique=True) as this:
        this.touch()  # Before the entries are read, because others may write more meanwhile.
        for path in entries:
            try:
                if path.stat().st_mtime >= since:
                    decompress_executable(path.read_bytes())
            except FileNotFoundError:
                continue
            except Exception:  # from zlib, or from zstandard if it is installed
                path.unlink(missing_ok=True)
