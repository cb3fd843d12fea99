"""The two identity numbers that do not stand for a person."""

import numpy as np

from reid_jax.data import layouts
from reid_jax.data.identities import DISTRACTOR, JUNK
from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.evaluation.ranking import evaluate_ranking


def test_in_market_1501_distractors_stay_and_junk_goes(tmp_path):
    names = {
        "bounding_box_train": [
            f"000{pid}_c{camera}s1_000001_00.jpg" for pid in (1, 3) for camera in (1, 2)
        ],
        "query": ["0002_c1s1_000001_00.jpg"],
        "bounding_box_test": [
            "-1_c1s1_000001_00.jpg",
            "0000_c1s1_000001_00.jpg",
            "0002_c2s1_000001_00.jpg",
        ],
    }
    for folder, files in names.items():
        (tmp_path / folder).mkdir()
        for name in files:
            (tmp_path / folder / name).touch()
    gallery = layouts.read("market1501", tmp_path).gallery
    assert gallery.pids.tolist() == [DISTRACTOR, 2]  # Junk is left out.


def test_junk_is_ignored_and_a_distractor_is_no_match():
    query = Descriptors(np.zeros((1, 2), np.float32), np.array([5]), np.array([1]))

    def first_match(nearest):
        gallery = Descriptors(
            np.array([[0.1, 0], [0.2, 0]], np.float32), np.array([nearest, 5]), np.array([2, 2])
        )
        return evaluate_ranking(query, gallery).cmc[0]

    assert first_match(JUNK) == 1
    assert first_match(DISTRACTOR) == 0
