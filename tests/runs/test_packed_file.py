"""The file of a packed run: what it keeps, and what is damaged or foreign."""

import json
import os
import pickle

import numpy as np
import pytest
from safetensors.numpy import save

from reid_jax.runs import packed_file
from reid_jax.runs.packed_file import PackedRun
from reid_jax.runs.workdir import read_content, read_run


def packed(**changes):
    arrays = {
        "params/pool/p": np.float32(3.5),  # No axes.
        "params/kernel": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "batch_stats/mean": np.array([-0.0, np.pi], np.float32),
    }
    run = {"reid_jax": "0.1.0", "num_classes": 4, "config": {"lr": 0.1, "data": "Größe"}}
    results = {"mAP": 1 / 3, "step": 7, "verification": {"thresholds": {"0.1": 2.5}}}
    whole = PackedRun(7, run, {"layout": "folder", "images": None}, results, arrays)
    return whole._replace(**changes)


def test_all_survives_and_equal_runs_are_equal_bytes(tmp_path):
    path = tmp_path / "run.safetensors"
    path.write_bytes(packed_file.to_bytes(packed()))
    got = packed_file.read(path)
    assert got._replace(arrays={}) == packed(arrays={})
    assert set(got.arrays) == set(packed().arrays)
    for name, array in packed().arrays.items():
        assert (got.arrays[name].dtype, got.arrays[name].shape) == (array.dtype, array.shape)
        assert got.arrays[name].tobytes() == np.array(array, order="C").tobytes()
    assert packed_file.to_bytes(packed()) == packed_file.to_bytes(got) == path.read_bytes()
    assert packed_file.is_packed(path)
    assert not packed_file.is_packed(tmp_path)
    assert read_content(path) == (packed().run, path)


def test_every_cut_and_every_changed_byte_is_an_error_or_harmless(tmp_path):
    data, path = packed_file.to_bytes(packed()), tmp_path / "bad.safetensors"
    error = r"bad\.safetensors' is not a file of `reid-jax pack`, or is damaged"
    for length in range(0, len(data), 5):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=error) as raised:
            packed_file.read(path)
        assert "\n" not in str(raised.value)
    found = 0
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            # A changed blank or digit of the header may mean the same.
            assert packed_file.to_bytes(packed_file.read(path)) == data
        except ValueError:
            found += 1
    assert found > 0.9 * len(data)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("canary",)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"weights",
        pickle.dumps(Evil()),
        save({"x": np.zeros(3, np.float32)}),
        save({"x": np.zeros(3, np.float32)}, {"reid_jax": '{"format": "trunk 2"}'}),
        save({"x": np.zeros(3, np.float32)}, {"reid_jax": "[]"}),
        save({"x": np.zeros(3, np.float32)}, {"reid_jax": "[" * 100_000}),
        save({"x": np.zeros(3, np.float32)}, {"reid_jax": '{"format": "packed run 1"}'}),
    ],
)
def test_a_file_of_something_else_is_named(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.safetensors' is not a file of `reid-jax pack`"):
        read_run(path)
    assert os.listdir(tmp_path) == ["other.safetensors"]


def test_a_newer_format_asks_for_an_update(tmp_path):
    path = tmp_path / "new.safetensors"
    about = json.dumps({"format": "packed run 2", "weights": "elsewhere"})
    path.write_bytes(save({"x": np.zeros(3, np.float32)}, {"reid_jax": about}))
    with pytest.raises(ValueError, match=r"^'.*new\.safetensors' has the format 'packed run 2' of"):
        packed_file.read(path)


@pytest.mark.parametrize("changes", [{"step": "7"}, {"step": True}, {"run": [1]}])
def test_fields_of_other_types_are_an_error(changes, tmp_path):
    path = tmp_path / "odd.safetensors"
    path.write_bytes(packed_file.to_bytes(packed(**changes)))
    with pytest.raises(ValueError, match="no step or no recipe"):
        packed_file.read(path)


def test_a_recipe_of_others_is_checked(tmp_path):
    path = tmp_path / "odd.safetensors"
    path.write_bytes(packed_file.to_bytes(packed()))
    with pytest.raises(ValueError, match=r"odd\.safetensors"):
        read_run(path)
