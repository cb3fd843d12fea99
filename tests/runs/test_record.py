import errno
import logging
import shutil

import pytest
from ml_collections import ConfigDict

from reid_jax import visualize
from reid_jax.runs.checkpoints import Checkpoints, CheckpointWriteError
from reid_jax.runs.metrics import read_metrics
from reid_jax.runs.record import Record
from reid_jax.runtime.messages import Preempted


@pytest.fixture
def record(tmp_path):
    """The record of a run whose workdir disappears after the last check."""
    (tmp_path / "run").mkdir()
    opened = Record(tmp_path / "run", keep=1)
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


def test_a_second_record_of_a_workdir_is_refused_until_the_first_is_closed(tmp_path):
    with Record(tmp_path, keep=1) as first:
        first.begin(ConfigDict({"seed": 0}), 8, {}, 0)
        first.write(7, "train", {"loss": 1.0})
        with pytest.raises(BlockingIOError, match=r"another program trains in .*: wait until"):
            Record(tmp_path / ".." / tmp_path.name, keep=1)
        first.write(8, "train", {"loss": 0.5})
    with Record(tmp_path, keep=1):
        assert [line["step"] for line in read_metrics(tmp_path)] == [7, 8]


def test_a_run_that_lost_its_checkpoints_keeps_its_metrics(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n{"step": 7}\n')
    with (
        Record(tmp_path, keep=1) as record,
        pytest.raises(FileNotFoundError, match=r"no checkpoint in .*, but .* holds step 7: put"),
    ):
        record.restore(None)
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n')  # As after a kill at the start.
    with Record(tmp_path, keep=1) as record:
        assert record.restore(None) is None


def test_curves_that_cannot_be_written_end_no_run(tmp_path, monkeypatch, caplog):
    def fail(figure, path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(visualize, "save", fail)
    with Record(tmp_path, keep=1) as record, caplog.at_level(logging.WARNING, logger="absl"):
        record.begin(ConfigDict({"seed": 0}), 8, {}, 0)
        record.write(1, "train", {"loss": 1.0})
        record.draw()
    assert caplog.messages == [f"cannot write '{tmp_path}/curves.png': No space left on device"]
