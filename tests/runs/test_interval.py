import json

import numpy as np
import pytest

from reid_jax.runs.interval import ITEM, Interval


def test_losses_and_shares_are_averaged_and_nothing_else():
    interval = Interval()
    for loss, lr in ((1.0, 0.1), (4.0, 0.2)):
        interval.add({"loss": loss, "accuracy_1": loss / 4, "ordered_2": 1.0, "lr": lr})
    assert interval.means() == {"loss": 2.5, "accuracy_1": 0.625, "ordered_2": 1.0}
    interval.restart()
    assert (interval.steps, interval.means()) == (0, {})


def write(folder, text):
    (folder / ITEM).mkdir()
    (folder / ITEM / "metadata").write_text(text)


def test_saved_sums_continue_bit_for_bit(tmp_path, rng):
    whole, first = Interval(), Interval()
    values = [{"loss": float(x)} for x in rng.standard_normal(9).astype(np.float32)]
    for value in values:
        whole.add(value)
    for value in values[:4]:
        first.add(value)
    write(tmp_path, json.dumps(first.saved()))
    resumed = Interval.read(tmp_path)
    for value in values[4:]:
        resumed.add(value)
    assert (resumed.steps, resumed.means()) == (whole.steps, whole.means())


def test_a_checkpoint_without_sums_begins_at_zero(tmp_path):
    assert Interval.read(tmp_path).steps == 0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"steps": "x", "sums": {}}', '{"sums": 3}'])
def test_damaged_sums_are_no_sums(tmp_path, text):
    write(tmp_path, text)
    with pytest.warns(UserWarning, match=r"interval/metadata is damaged .*of fewer steps"):
        assert Interval.read(tmp_path).steps == 0


def test_sums_that_cannot_be_read_are_not_called_damaged(tmp_path):
    (tmp_path / ITEM / "metadata").mkdir(parents=True)
    with pytest.warns(UserWarning, match=r"metadata cannot be read \(Is a directory\): the next"):
        assert Interval.read(tmp_path).steps == 0
