import dataclasses
import errno
import os
import pathlib
import re
import shutil
import warnings

import jax
import jax.numpy as jnp
import optax
import pytest

from reid_jax.runs.checkpoint_items import can_be_resumed
from reid_jax.runs.checkpoints import Checkpoints
from tests.runs.states import (
    assert_identical,
    make_state,
    model_of,
    steps_on_disk,
    truncate,
)
from tests.slow import quick_only


def test_model_without_batch_statistics(tmp_path):
    state = dataclasses.replace(make_state(1), batch_stats={})
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state)
    with Checkpoints(tmp_path) as checkpoints:
        assert_identical(checkpoints.restore(state), state)


def drop_bias(state):
    params = {**state.params, "heads_0": {"kernel": state.params["heads_0"]["kernel"]}}
    return dataclasses.replace(state, params=params)


def add_head(state):
    return dataclasses.replace(state, params={**state.params, "heads_1": state.params["heads_0"]})


def halve_precision(state):
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), state.params)
    return dataclasses.replace(state, params=params)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: make_state(0, channels=6),
            r"20/model .*batch_stats/bn/mean is float32\[4\] in the checkpoint and "
            r"float32\[6\] in this run",
        ),
        (drop_bias, r"params/heads_0/bias is float32\[7\] in the checkpoint and absent in this"),
        (add_head, r"params/heads_1/bias is absent in the checkpoint and float32\[7\] in this"),
        (halve_precision, r"float32\[7\] in the checkpoint and bfloat16\[7\] in this run"),
        (
            lambda state: dataclasses.replace(state, opt_state=optax.sgd(0.1).init(state.params)),
            r"20/optimizer .*opt_state/1/count is int32\[\] in the checkpoint and absent",
        ),
    ],
)
def test_checkpoint_of_another_network_names_the_leaf(two, change, message):
    with Checkpoints(two) as checkpoints, pytest.raises(ValueError, match=message):
        checkpoints.restore(change(make_state(0)))
    assert steps_on_disk(two) == [10, 20]


def flip(path: pathlib.Path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x55
    path.write_bytes(data)


@pytest.mark.parametrize("damage", quick_only([truncate, flip, pathlib.Path.unlink], truncate))
def test_damage_to_any_file_gives_the_checkpoint_itself_or_the_one_before(two, tmp_path, damage):
    names = [path.relative_to(two) for path in (two / "20").rglob("*") if path.is_file()]
    assert len(names) > 8
    fell_back = 0
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        shutil.copytree(two, folder)
        damage(folder / name)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with Checkpoints(folder) as checkpoints:
                restored = checkpoints.restore(make_state(0))
        said = " ".join(str(warning.message) for warning in caught)
        if int(restored.step) == 20:
            assert_identical(restored, make_state(20))
        else:
            fell_back += 1
            assert_identical(restored, make_state(10))
            assert f"{folder}/20 is damaged" in said
    assert fell_back >= 4  # Some metadata are not needed and may be damaged without loss.


@pytest.mark.parametrize(
    "name", ["_CHECKPOINT_METADATA", "model/manifest.ocdbt", "optimizer/_METADATA"]
)
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_a_file_that_cannot_be_read_now_is_no_damage(two, monkeypatch, name, number):
    """Root may read every file, so opening this one raises the error."""
    path, opened = two / "20" / name, pathlib.Path.open

    def fail(self, *args, **kwargs):
        if self == path:
            raise OSError(number, os.strerror(number), str(self))
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(pathlib.Path, "open", fail)
    with Checkpoints(two) as checkpoints:
        with pytest.raises(OSError, match=re.escape(str(path))) as error:
            checkpoints.restore(make_state(0))
        assert error.value.errno == number
        assert steps_on_disk(two) == [10, 20]
        monkeypatch.undo()
        assert_identical(checkpoints.restore(make_state(0)), make_state(20))


def test_metrics_that_cannot_be_read_now_are_not_lost(two, monkeypatch):
    """Without them, the best checkpoint could be deleted."""
    path, opened = two / "10" / "evaluation" / "metadata", pathlib.Path.open

    def fail(self, *args, **kwargs):
        file = opened(self, *args, **kwargs)
        if self == path:
            file.close()
            read, write = os.pipe()
            os.close(read)
            return open(write, "rb", buffering=0)  # Reading fails with an error without a name.
        return file

    monkeypatch.setattr(pathlib.Path, "open", fail)
    with pytest.raises(OSError, match=re.escape(str(path))):
        Checkpoints(two)


def test_a_missing_item_is_damage(two):
    shutil.rmtree(two / "20" / "model" / "d")
    with Checkpoints(two) as checkpoints, pytest.warns(UserWarning, match="20 is damaged"):
        assert_identical(checkpoints.restore(make_state(0)), make_state(10))


def test_weights_alone_are_evaluated_and_not_resumed(tmp_path):
    state = make_state(3)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save_model(model_of(state))
        assert checkpoints.latest_step == 0
        assert_identical(checkpoints.restore_model(model_of(make_state(0))), model_of(state))
        with pytest.raises(ValueError, match=r"/0 holds only weights, which reid-jax eval"):
            checkpoints.restore(make_state(0))
    assert steps_on_disk(tmp_path) == [0]
    with pytest.raises(ValueError, match="only weights"):
        can_be_resumed(tmp_path)


def test_a_lost_optimizer_is_damage(two):
    """The checkpoint was written with an optimizer, so it does not count as weights only."""
    shutil.rmtree(two / "20" / "optimizer")
    assert can_be_resumed(two)
    with (
        Checkpoints(two) as checkpoints,
        pytest.warns(UserWarning, match="20 is damaged .*is used instead"),
    ):
        assert_identical(checkpoints.restore(make_state(0)), make_state(10))
    assert not can_be_resumed(two / "none")
