"""Checkpoints in folders of any name, and the check that they can be read back."""

import os
import re

import pytest
from ml_collections import ConfigDict

from reid_jax.runs import plain_path
from reid_jax.runs.checkpoints import Checkpoints, CheckpointWriteError
from reid_jax.runs.record import Record
from tests.runs.states import assert_identical, make_state, save_all


@pytest.mark.parametrize(
    "name",
    ["lab [2]", "a*b", "what?", "**", "a\\b", "gs:", "实验", "a\nb", "~", os.fsdecode(b"\xff")],
)
def test_checkpoints_are_restored_from_folders_of_any_name(name, tmp_path):
    try:
        (tmp_path / name).mkdir()
    except OSError:
        pytest.skip("the file system does not take this name")
    (tmp_path / "axxb" / "runs" / "1").mkdir(parents=True)  # What `a*b` would find.
    folder = tmp_path / name / "runs"
    save_all(folder, (1, 0.9), (2, 0.1))
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.folder == folder
        assert (checkpoints.latest_step, checkpoints.best_step) == (2, 1)
        assert_identical(checkpoints.restore(make_state(0)), make_state(2))


def test_the_link_goes_when_the_checkpoints_are_closed(tmp_path, monkeypatch):
    links = tmp_path / "links"
    links.mkdir()
    monkeypatch.setattr(plain_path.tempfile, "tempdir", str(links))
    with Checkpoints(tmp_path / "[1]") as checkpoints:
        checkpoints.save(make_state(1))
        assert list(links.iterdir())
    assert not list(links.iterdir())


@pytest.fixture
def unreadable(monkeypatch):
    """Has Orbax write into a folder whose name it misreads."""
    monkeypatch.setattr(plain_path, "_PLAIN", re.compile(".*"))


def test_a_run_stops_if_its_first_checkpoint_cannot_be_read_back(unreadable, tmp_path):
    workdir = tmp_path / "[1]"
    workdir.mkdir()
    with Record(workdir, keep=1) as record:
        record.begin(ConfigDict({"seed": 0}), 8, {}, 0)
        with pytest.raises(CheckpointWriteError, match=r"1 is damaged.*Choose a --workdir"):
            record.save(make_state(1))


def test_only_the_first_checkpoint_is_read_back(tmp_path, monkeypatch):
    verified = []
    monkeypatch.setattr(Checkpoints, "verify", lambda self, state: verified.append(int(state.step)))
    with Record(tmp_path, keep=1) as record:
        record.begin(ConfigDict({"seed": 0}), 8, {}, 0)
        for step in (1, 2, 3):
            record.save(make_state(step))
    assert verified == [1]
