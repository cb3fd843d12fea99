import functools
import json
import logging
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import absl.logging
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint._src.path import atomicity
from orbax.checkpoint._src.serialization import type_handlers

from reid_jax.runs.checkpoint_items import DamagedCheckpointError
from reid_jax.runs.checkpoints import Checkpoints, CheckpointWriteError
from tests.runs.states import (
    assert_identical,
    make_state,
    model_of,
    save_all,
    steps_on_disk,
    truncate,
)

ROOT = pathlib.Path(__file__).parents[2]


def test_restored_state_is_bit_identical(two):
    with Checkpoints(two) as checkpoints:
        assert checkpoints.latest_step == 20
        assert_identical(checkpoints.restore(make_state(0)), make_state(20))


def test_restores_from_shapes_alone(two):
    with Checkpoints(two) as checkpoints:
        restored = checkpoints.restore(jax.eval_shape(lambda: make_state(0)))
    assert_identical(restored, make_state(20))


def test_keeps_the_newest_and_the_best(tmp_path):
    """The best checkpoint comes early, then many worse ones, some without evaluation."""
    maps = [0.2, 0.9, None, 0.3, 0.8, None, 0.4, 0.5]
    save_all(tmp_path, *enumerate(maps, start=1), keep=2)
    assert steps_on_disk(tmp_path) == [2, 7, 8]
    with Checkpoints(tmp_path, keep=2) as checkpoints:  # The metrics are on disk, too.
        assert (checkpoints.latest_step, checkpoints.best_step) == (8, 2)
        checkpoints.save(make_state(9), {"mAP": 0.95})
        checkpoints.save(make_state(10))
        checkpoints.save(make_state(11))
    assert steps_on_disk(tmp_path) == [9, 10, 11]


def test_newest_of_equals_is_best_and_nan_never(tmp_path):
    save_all(tmp_path, (1, float("nan")), (2, 0.5), (3, 0.5), (4, float("nan")), keep=9)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.best_step == 3


def test_without_metrics_the_newest_stay_and_best_means_newest(tmp_path):
    save_all(tmp_path, (1, None), (2, None), (3, None), keep=1)
    assert steps_on_disk(tmp_path) == [3]
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.best_step is None
        assert checkpoints.resolve("best") == 3


def test_metrics_lie_beside_the_arrays_as_json(two):
    assert json.loads((two / "10" / "evaluation" / "metadata").read_text()) == {
        "mAP": 0.9,
        "rank1": 0.5,
    }


def test_metrics_without_the_one_that_ranks_are_refused(tmp_path):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match=r"'mAP'.*'rank1'"):
        checkpoints.save(make_state(1), {"rank1": 0.5})
    assert steps_on_disk(tmp_path) == []


def test_keep_has_to_be_positive(tmp_path):
    with pytest.raises(ValueError, match="keep is 0"):
        Checkpoints(tmp_path, keep=0)


@pytest.fixture
def may_write(monkeypatch):
    """An event that Orbax's thread waits for before it writes the arrays."""
    event = threading.Event()
    write = type_handlers.NumpyHandler._background_serialize

    async def write_late(*args, **kwargs):
        assert event.wait(60)
        return await write(*args, **kwargs)

    monkeypatch.setattr(type_handlers.NumpyHandler, "_background_serialize", write_late)
    return event


@pytest.mark.parametrize("devices", [1, 4])
def test_state_may_be_donated_while_it_is_being_written(tmp_path, may_write, devices):
    """The step after `save` overwrites the arrays in place; the write begins only then."""
    pmap = functools.partial(
        jax.pmap,
        in_axes=(None, 0),
        out_axes=None,
        donate_argnums=0,
        devices=jax.devices()[:devices],
    )
    add = pmap(lambda state, x: jax.tree.map(lambda leaf: leaf + x.astype(leaf.dtype), state))
    state = add(make_state(5), jnp.zeros((devices,)))
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.save(state)
        for _ in range(3):
            state = add(state, jnp.ones((devices,)))
        jax.block_until_ready(state)
        jax.tree.map(lambda leaf: leaf.delete(), state)
        may_write.set()
    with Checkpoints(tmp_path) as checkpoints:
        assert_identical(checkpoints.restore(make_state(0)), make_state(5))


def test_save_does_not_wait_for_the_write(tmp_path, may_write):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state(1))
        assert steps_on_disk(tmp_path) == []
        may_write.set()
    assert steps_on_disk(tmp_path) == [1]


@pytest.mark.parametrize(("saved_on", "restored_on"), [(1, 4), (4, 1)])
def test_the_number_of_devices_may_change(tmp_path, saved_on, restored_on):
    def replicate(state, devices):
        identity = jax.pmap(
            lambda s, _: s, in_axes=(None, 0), out_axes=None, devices=jax.devices()[:devices]
        )
        return identity(state, jnp.zeros((devices,)))

    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(replicate(make_state(3), saved_on))
    with Checkpoints(tmp_path) as checkpoints:
        like = replicate(make_state(0), restored_on)
        restored = checkpoints.restore(like)
        assert_identical(restored, make_state(3))
        kernel = restored.params["stem"]["kernel"]
        assert kernel.sharding == like.params["stem"]["kernel"].sharding
        assert len(kernel.sharding.device_set) == restored_on
        # `create_state` puts its arrays on one device; the step distributes them.
        unplaced = checkpoints.restore(make_state(0))
        assert_identical(replicate(unplaced, restored_on), make_state(3))


def test_model_alone_needs_no_optimizer(two):
    shutil.rmtree(two / "10" / "optimizer")
    like = jax.eval_shape(lambda: model_of(make_state(0)))
    with Checkpoints(two) as checkpoints:
        assert_identical(checkpoints.restore_model(like), model_of(make_state(10)))
        assert_identical(checkpoints.restore_model(like, "latest"), model_of(make_state(20)))
        assert_identical(checkpoints.restore_model(like, 10), model_of(make_state(10)))


def test_reading_changes_nothing_in_the_folder(two):
    half_written = two / "30.orbax-checkpoint-tmp"
    half_written.mkdir()
    before = sorted(map(str, two.rglob("*")))
    with Checkpoints(two) as checkpoints:
        checkpoints.restore_model(model_of(make_state(0)))
    assert sorted(map(str, two.rglob("*"))) == before


@pytest.mark.parametrize("exists", [True, False])
def test_no_checkpoint(tmp_path, exists):
    folder = tmp_path / "ckpt"
    if exists:
        folder.mkdir()
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest_step is None
        assert checkpoints.best_step is None
        with pytest.raises(FileNotFoundError, match=f"no checkpoint in {folder}"):
            checkpoints.restore(make_state(0))
        with pytest.raises(FileNotFoundError, match=f"no checkpoint in {folder}"):
            checkpoints.restore_model(model_of(make_state(0)))
    assert folder.exists() == exists


def test_no_such_step(two):
    with Checkpoints(two) as checkpoints:
        with pytest.raises(FileNotFoundError, match=rf"step 15 in {two}, only \[10, 20\]"):
            checkpoints.restore_model(model_of(make_state(0)), 15)
        with pytest.raises(ValueError, match="'newest': say 'best', 'latest' or a step"):
            checkpoints.resolve("newest")
        with pytest.raises(ValueError, match=r"checkpoint 20\.0: say 'best', 'latest' or a step"):
            checkpoints.restore_model(model_of(make_state(0)), 20.0)
        with pytest.raises(ValueError, match="checkpoint True: say 'best', 'latest' or a step"):
            checkpoints.resolve(True)
        assert checkpoints.resolve(np.int64(20)) == 20


def files_of_arrays(checkpoint: pathlib.Path) -> list[pathlib.Path]:
    return [
        checkpoint / "model" / "_METADATA",
        checkpoint / "model" / "manifest.ocdbt",
        *(checkpoint / "optimizer" / "d").iterdir(),
    ]


@pytest.mark.parametrize("damage", [truncate, pathlib.Path.unlink])
@pytest.mark.parametrize("number", range(3))
def test_damaged_newest_falls_back_to_the_one_before(two, damage, number):
    damage(files_of_arrays(two / "20")[number])
    with Checkpoints(two) as checkpoints:
        with pytest.warns(UserWarning, match=f"{two}/20 is damaged.*{two}/10 is used instead"):
            restored = checkpoints.restore(make_state(0))
        assert_identical(restored, make_state(10))
        # The run continues from step 10 and reaches step 20 again.
        assert checkpoints.latest_step == 10
        assert checkpoints.save(make_state(20))
    assert sorted(os.listdir(two)) == ["10", "20", "20.damaged"]
    with Checkpoints(two) as checkpoints:
        assert_identical(checkpoints.restore(make_state(0)), make_state(20))


FULL_DISK = """
import resource, signal, sys
import jax.numpy as jnp
from reid_jax.runs.checkpoints import Checkpoints, CheckpointWriteError
from tests.runs.states import assert_identical, make_state
folder = sys.argv[1]
big = make_state(30, channels=100_000)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # Writes fail as they do on a full disk.
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
checkpoints = Checkpoints(folder)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
checkpoints.save(big)
while checkpoints._manager.is_saving_in_progress():
    pass
try:
    checkpoints.check()
except CheckpointWriteError as error:
    print(error)
checkpoints.close()
with Checkpoints(folder) as checkpoints:
    assert_identical(checkpoints.restore(make_state(0)), make_state(20))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoints.save(make_state(30))
with Checkpoints(folder) as checkpoints:
    assert_identical(checkpoints.restore(make_state(0)), make_state(30))
print("restored")
"""


def test_a_full_disk_is_told_at_once_and_leaves_the_last_good_one(two):
    program = [sys.executable, "-W", "ignore", "-c", FULL_DISK, str(two)]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    error, restored = done.stdout.splitlines()
    assert f"{two}/30 could not be written" in error
    assert f"The last good one is {two}/20" in error
    assert restored == "restored"


def test_a_workdir_that_is_gone_is_not_made_again(tmp_path):
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        checkpoints.save(make_state(1))
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(CheckpointWriteError, match=r"FileNotFoundError.*There is no other"):
            checkpoints.save(make_state(2))
    assert not (tmp_path / "run").exists()


def test_damaged_twice_keeps_both_wrecks(two):
    (two / "20.damaged").mkdir()
    truncate(two / "20" / "model" / "manifest.ocdbt")
    with Checkpoints(two) as checkpoints, pytest.warns(UserWarning, match="20.damaged1"):
        checkpoints.restore(make_state(0))
    assert sorted(os.listdir(two)) == ["10", "20.damaged", "20.damaged1"]


def test_all_damaged_is_an_error_and_loses_nothing(two):
    for step in (10, 20):
        truncate(two / str(step) / "model" / "manifest.ocdbt")
    with (
        Checkpoints(two) as checkpoints,
        pytest.raises(DamagedCheckpointError, match=f"{two}/20 is damaged"),
    ):
        checkpoints.restore(make_state(0))
    assert steps_on_disk(two) == [10, 20]


def test_evaluation_takes_no_other_checkpoint_than_asked_for(two):
    truncate(two / "10" / "model" / "manifest.ocdbt")
    with (
        Checkpoints(two) as checkpoints,
        pytest.raises(DamagedCheckpointError, match=f"{two}/10 is damaged"),
    ):
        checkpoints.restore_model(model_of(make_state(0)), "best")
    assert steps_on_disk(two) == [10, 20]


def test_damaged_metrics_do_not_keep_a_run_from_going_on(two):
    truncate(two / "10" / "evaluation" / "metadata")
    with pytest.warns(UserWarning, match=f"{two}/10 is damaged.*metrics"):
        checkpoints = Checkpoints(two)
    with checkpoints:
        assert checkpoints.best_step == 20
        assert_identical(checkpoints.restore(make_state(0)), make_state(20))


def test_relative_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_all("runs/ckpt", (1, 0.5))
    monkeypatch.chdir(tmp_path / "runs")
    with Checkpoints("ckpt") as checkpoints:
        monkeypatch.chdir("/")
        assert checkpoints.path(1) == tmp_path / "runs" / "ckpt" / "1"
        assert_identical(checkpoints.restore(make_state(0)), make_state(1))


def test_half_written_checkpoint_is_ignored(two, monkeypatch):
    """A kill can leave a write that never reached the rename that commits it."""

    def killed(*args, **kwargs):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(atomicity.AtomicRenameTemporaryPath, "finalize", killed)
        checkpoints = Checkpoints(two)
        checkpoints.save(make_state(30), {"mAP": 1.0})
        message = f"{two}/30 could not be written .RuntimeError: killed.*good one is {two}/20"
        with pytest.raises(CheckpointWriteError, match=message):
            checkpoints.close()  # It reports the asynchronous failure.
        checkpoints.close()  # The failure is reported only once.
    assert sorted(os.listdir(two)) == ["10", "20"]
    shutil.copytree(two / "20" / "model", two / "30.orbax-checkpoint-tmp" / "model")
    with Checkpoints(two) as checkpoints:
        assert (checkpoints.latest_step, checkpoints.best_step) == (20, 10)
        assert_identical(checkpoints.restore(make_state(0)), make_state(20))
        assert checkpoints.save(make_state(40))
        checkpoints._manager.wait_until_finished()
        assert sorted(os.listdir(two)) == ["10", "20", "40"]  # The next save has tidied up.
    with Checkpoints(two) as checkpoints:
        assert_identical(checkpoints.restore(make_state(0)), make_state(40))


def test_a_kill_while_an_old_checkpoint_is_deleted_leaves_no_half_of_it(tmp_path, monkeypatch):
    """It was the best; its metrics are already deleted, the rest is not."""
    save_all(tmp_path, (1, 0.1), keep=1)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path, **unused: None)
        save_all(tmp_path, (2, 0.2), keep=1)
    left_behind = set(os.listdir(tmp_path)) - {"2"}
    assert left_behind
    for name in left_behind:
        shutil.rmtree(tmp_path / name / "1" / "evaluation")
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        assert checkpoints.latest_step == checkpoints.best_step == 2
        assert checkpoints.resolve("best") == 2
        assert checkpoints.save(make_state(3))
    assert sorted(os.listdir(tmp_path)) == ["2", "3"]


def test_saving_a_step_again_changes_nothing(two):
    with Checkpoints(two) as checkpoints:
        assert not checkpoints.save(make_state(20), {"mAP": 1.0})
        assert checkpoints.best_step == 10
        assert checkpoints.save(make_state(21))
        assert not checkpoints.save(make_state(21))
    assert steps_on_disk(two) == [10, 20, 21]


def test_orbax_is_quiet_and_its_warnings_are_not(tmp_path, caplog):
    verbosity = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.INFO)
    logger = logging.getLogger("absl")
    logger.addHandler(caplog.handler)
    try:
        save_all(tmp_path, (1, 0.5))
        absl.logging.info("of the run itself")
        (tmp_path / "1" / "_CHECKPOINT_METADATA").unlink()
        save_all(tmp_path, (2, 0.5))
    finally:
        logger.removeHandler(caplog.handler)
        absl.logging.set_verbosity(verbosity)
    levels = {(r.levelno, "orbax" in r.pathname) for r in caplog.records}
    assert (logging.INFO, False) in levels
    assert (logging.INFO, True) not in levels
    assert (logging.WARNING, True) in levels
