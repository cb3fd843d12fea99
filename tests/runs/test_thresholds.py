"""Thresholds are read from results of the same settings only, and each error names the command."""

import json

import numpy as np
import pytest

from reid_jax.runs.thresholds import read_threshold
from tests.test_configs import load

THRESHOLDS = {"EER": 3.0, "0.1": 2.5, "0.01": 2.0, "0.001": 1.5, "0.0001": None}


@pytest.fixture
def config():
    return load("baseline_synthetic", "small")


@pytest.fixture
def results(config):
    return {
        "step": 7,
        "protocol": {
            "multi_query": None, "rerank": False, "flip": False, "normalize": False,
            "gallery_extra": 3,
        },
        "verification": {
            "thresholds": dict(THRESHOLDS), "image_size": list(config.data.image_size),
        },
    }  # fmt: skip


def write(folder, results):
    (folder / "eval").mkdir()
    text = results if isinstance(results, str) else json.dumps(results)
    (folder / "eval" / "results.json").write_text(text)


def test_the_threshold_of_each_rate(tmp_path, config, results):
    write(tmp_path, results)
    assert [read_threshold(tmp_path, config, 7, rate) for rate in (0.1, 1e-2, 1e-3)] == [
        2.5,
        2,
        1.5,
    ]
    assert read_threshold(tmp_path, config, 7, np.float32(0.1)) == 2.5
    with pytest.raises(ValueError, match=r"no threshold for fpr 0\.0001: .*choose a larger fpr"):
        read_threshold(tmp_path, config, 7, 1e-4)
    for rate in (0.2, "EER", None, float("nan")):
        with pytest.raises(ValueError, match=r"measured are 0\.1, 0\.01, 0\.001, 0\.0001$"):
            read_threshold(tmp_path, config, 7, rate)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["protocol"].update(rerank=True), "with rerank True, and .* rerank False"),
        (lambda r: r["protocol"].update(multi_query="max"), "with multi_query max, and"),
        (lambda r: r["protocol"].update(flip=True), "with flip True, and .* have flip False"),
        (lambda r: r["protocol"].update(normalize=True), "with normalize True, and"),
        (lambda r: r["verification"].update(image_size=[8, 8]), r"with image_size \[8, 8\], and"),
        (lambda r: r.update(step=6), "with step 6, and .* have step 7"),
        (lambda r: r.pop("verification"), "holds no verification"),
        (lambda r: r.pop("protocol"), "is damaged"),
        (lambda r: r["verification"].pop("thresholds"), "is damaged"),
        (lambda r: r["verification"]["thresholds"].update({"0.1": "x"}), "is damaged .*'x' is no"),
        (lambda r: r["verification"]["thresholds"].update({"0.1": float("inf")}), "is damaged"),
        (lambda r: r["verification"]["thresholds"].update({"none": 1}), "is damaged"),
    ],
)
def test_results_of_other_settings_are_refused(change, message, tmp_path, config, results):
    change(results)
    write(tmp_path, results)
    with pytest.raises(ValueError, match=message) as error:
        read_threshold(tmp_path, config, 7, 1e-3)
    assert f"`reid-jax eval --workdir='{tmp_path}' --checkpoint=7`" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "3", '{"verification": 3}', "[" * 100_000])
def test_damaged_results(text, tmp_path, config):
    write(tmp_path, text)
    with pytest.raises(ValueError, match=r"results.json' is damaged .*`reid-jax eval"):
        read_threshold(tmp_path, config, 7, 1e-3)


def test_a_run_that_was_not_evaluated(tmp_path, config):
    with pytest.raises(FileNotFoundError, match=r"results.json' is missing; measure it with `reid"):
        read_threshold(tmp_path, config, 7, 1e-3)
