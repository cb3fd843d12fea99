import json
import os
import pathlib
import subprocess
import sys

import jax
import matplotlib
import pytest

from reid_jax.runtime import compilation_cache

ROOT = pathlib.Path(__file__).parents[2]

# A program started as users start it. It counts JAX's cache events, measures time, and records
# whether freed memory is kept.
COUNTED = """
import collections, json, runpy, sys, time, jax
from reid_jax.runtime import allocator
counts = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: counts.update([event.rsplit("/")[-1]]))
allocator.keep_freed_memory = lambda: counts.update(["keep_freed_memory"])
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps({**counts, "seconds": time.process_time()}))
"""


def start(cache, program, *arguments):
    """Start a program with its own cache folder; return the counts and the rest of its output."""
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(cache),
        "MPLCONFIGDIR": matplotlib.get_cachedir(),  # saves the search for fonts
        "XLA_FLAGS": "--xla_backend_optimization_level=0",  # The compiled code does not matter.
    }
    del environment["JAX_COMPILATION_CACHE_DIR"]
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, program, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    *said, counts = done.stdout.splitlines()
    return json.loads(counts), said


def files(folder):
    return {path.relative_to(folder): path.stat().st_mtime for path in folder.rglob("*-cache")}


@pytest.mark.slow
def test_second_start_compiles_nothing(tmp_path):
    arguments = (
        "--config=configs/baseline_synthetic.py:small",
        f"--config.data.root={tmp_path / 'pedestrians'}",
        "--config.data.synthetic.test_identities=3",
        "--config.data.loader=memory",
        "--config.epochs=1",
    )
    cache = tmp_path / "cache"
    first, first_said = start(cache, "train.py", *arguments, f"--workdir={tmp_path / 'first'}")
    kept = files(cache)
    assert first["cache_misses"] == len(kept) > 0

    second, said = start(cache, "train.py", *arguments, f"--workdir={tmp_path / 'second'}")
    assert second["cache_hits"] == second["compile_requests_use_cache"] > 0
    assert "cache_misses" not in second
    assert files(cache) == kept
    # CPU time, because others may use the machine; the only step runs before the end.
    assert second["seconds"] < 15
    # No message about the cache, and after the line that names the workdir the same losses and
    # scores.
    assert said[0].startswith("loading JAX to train")
    assert said[1:] == first_said[1 - len(said) :]

    evaluation, _ = start(cache, "eval.py", f"--workdir={tmp_path / 'first'}")
    assert evaluation["cache_hits"] > 0
    assert first["keep_freed_memory"] == evaluation["keep_freed_memory"] == 1


COMPILING = """
import jax
from reid_jax.runtime.compilation_cache import keep_compiled
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event.endswith("cache_hits")))
keep_compiled()
for number in (2, 3):
    jax.jit(lambda x: x * number)(1.0)
print(sum(hits))
"""


def test_entries_that_a_kill_cut_off_are_made_again(tmp_path):
    """No start warns about them, and the next one finds all entries."""

    def compile_all():
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
        del environment["JAX_COMPILATION_CACHE_DIR"]
        program = [sys.executable, "-W", "error", "-c", COMPILING]
        return int(subprocess.check_output(program, cwd=ROOT, env=environment, text=True))

    assert compile_all() == 0
    whole = {path: path.stat().st_size for path in tmp_path.rglob("*-cache")}
    assert len(whole) >= 2
    first, *_, last = whole
    os.truncate(first, whole[first] // 2)
    os.truncate(last, 0)
    assert compile_all() == len(whole) - 2
    assert {path: path.stat().st_size for path in tmp_path.rglob("*-cache")}.keys() == whole.keys()
    assert compile_all() == len(whole)


@pytest.fixture
def config(monkeypatch, tmp_path):
    """JAX with a user's default settings, and a cache folder that does not exist yet."""
    values = {
        name: getattr(jax.config, name)
        for name in ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    }
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield jax.config
    for name, value in values.items():
        jax.config.update(name, value)


def test_folder_is_the_users(config, tmp_path, monkeypatch, capsys):
    compilation_cache.keep_compiled()
    folder = pathlib.Path(config.jax_compilation_cache_dir)
    assert folder.parent == tmp_path / "cache" / "reid_jax" / "compiled"
    assert folder.parent.stat().st_mode & 0o077 == 0  # Its content is executed.
    assert not list(folder.iterdir())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("relative", [None, "", "somewhere"])
def test_home_where_no_cache_folder_is_named(relative, config, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    if relative is None:
        monkeypatch.delenv("XDG_CACHE_HOME")
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", relative)
    compilation_cache.keep_compiled()
    folder = pathlib.Path(config.jax_compilation_cache_dir)
    assert folder.parent == tmp_path / ".cache" / "reid_jax" / "compiled"
    assert folder.is_dir()


def test_users_settings_go_first(config, tmp_path):
    for name, value in (
        ("jax_compilation_cache_dir", str(tmp_path / "own")),
        ("jax_enable_compilation_cache", False),
    ):
        before = getattr(config, name)
        config.update(name, value)
        kept = config.values.copy()
        compilation_cache.keep_compiled()
        assert config.values == kept
        config.update(name, before)
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_made(config, tmp_path, capsys):
    (tmp_path / "cache").touch()
    compilation_cache.keep_compiled()
    assert config.jax_compilation_cache_dir is None
    said = capsys.readouterr().out
    assert said.startswith("compiled programs are not kept for the next start: ")
    assert said.count("\n") == 1
    assert str(tmp_path / "cache") in said


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_folder_that_others_may_write_to(mode, config, tmp_path, capsys):
    """Others could put programs there."""
    folder = tmp_path / "cache" / "reid_jax" / "compiled"
    folder.mkdir(parents=True)
    folder.chmod(mode)
    compilation_cache.keep_compiled()
    assert config.jax_compilation_cache_dir is None
    assert f"others may write to {folder}" in capsys.readouterr().out


def test_folder_of_another_user(config, monkeypatch, capsys):
    monkeypatch.setattr(os, "getuid", lambda: os.stat(ROOT).st_uid + 1)
    compilation_cache.keep_compiled()
    assert config.jax_compilation_cache_dir is None
    assert "others may write to" in capsys.readouterr().out


def test_folder_that_cannot_be_written(config, tmp_path, monkeypatch, capsys):
    def refuse(dir):
        raise PermissionError(13, "Permission denied", str(dir))  # Root is otherwise never refused.

    monkeypatch.setattr(compilation_cache.tempfile, "TemporaryFile", refuse)
    compilation_cache.keep_compiled()
    assert config.jax_compilation_cache_dir is None
    assert str(tmp_path / "cache") in capsys.readouterr().out


def test_user_without_a_home(config, monkeypatch, capsys):
    def homeless(cls):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(pathlib.Path, "home", classmethod(homeless))
    compilation_cache.keep_compiled()
    assert config.jax_compilation_cache_dir is None
    assert "home" in capsys.readouterr().out


def test_what_was_not_used_for_longest_goes_first(config, tmp_path, monkeypatch):
    folder = tmp_path / "cache" / "reid_jax" / "compiled"
    (folder / "inner").mkdir(parents=True)
    folder.chmod(0o700)
    # (created, used): the system may record a use late or never.
    times = {"a": (50, 50), "b": (10, 80), "inner/c": (20, 20), "d": (30, 0)}
    for name, (made, used) in times.items():
        (folder / name).write_bytes(bytes(100))
        os.utime(folder / name, (used, made))
    monkeypatch.setattr(compilation_cache, "MAX_BYTES", 250)
    compilation_cache.keep_compiled()
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {"a", "b"}


@pytest.mark.parametrize("line", ["flags\t\t: fpu avx2", "Features\t: fp asimd"])
def test_processors_do_not_share_a_folder(line, config, monkeypatch):
    def folder_of(cpuinfo):
        monkeypatch.setattr(pathlib.Path, "read_text", lambda path: cpuinfo)
        jax.config.update("jax_compilation_cache_dir", None)
        compilation_cache.keep_compiled()
        return config.jax_compilation_cache_dir

    one = folder_of(f"processor: 0\n{line}\ncpu MHz: 2000\n")
    assert folder_of(f"processor: 0\n{line}\ncpu MHz: 3000\nprocessor: 1\n{line}\n") == one
    assert folder_of(f"processor: 0\n{line} sve avx512f\ncpu MHz: 2000\n") != one
