import shutil

import pytest
from ml_collections import ConfigDict

from reid_jax.runs.checkpoints import Checkpoints, CheckpointWriteError
from reid_jax.runs.record import Record
from reid_jax.runtime.messages import Preempted


@pytest.fixture
def record(tmp_path):
    """The record of a run whose workdir disappears after the last check."""
    opened = Record(tmp_path / "run", keep=1)
    (tmp_path / "run").mkdir()
    opened.begin(ConfigDict({"seed": 0}), 8, {}, 0)
    shutil.rmtree(tmp_path / "run")
    return opened


def end_by(record, error=None):
    with record:
        if error is not None:
            raise error


@pytest.mark.parametrize("error", [None, Preempted("its checkpoint is written")])
def test_no_run_ends_well_whose_workdir_is_gone(record, error):
    with pytest.raises(FileNotFoundError, match=r"run/metrics\.jsonl is gone"):
        end_by(record, error)


def test_it_does_not_hide_what_ended_the_run(record, monkeypatch):
    def fail(checkpoints):
        raise CheckpointWriteError("the disk is full")

    monkeypatch.setattr(Checkpoints, "close", fail)
    with (
        pytest.raises(FloatingPointError, match="not finite"),
        pytest.warns(UserWarning, match="the disk is full"),
    ):
        end_by(record, FloatingPointError("not finite at step 7"))


def test_a_run_that_never_began_has_nothing_to_miss(tmp_path):
    with pytest.raises(ValueError, match="another network"):
        end_by(Record(tmp_path, keep=1), ValueError("of another network"))
