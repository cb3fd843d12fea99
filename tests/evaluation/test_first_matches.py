"""The first match of every query, against the whole ranking."""

import numpy as np
import pytest

from reid_jax.evaluation.first_matches import first_matches
from reid_jax.evaluation.ranking import match_ranks, nearest
from tests.evaluation.test_ranking import random_set


@pytest.mark.parametrize("integers", [True, False])  # Integers have many ties.
@pytest.mark.parametrize("rescored", [False, True])
def test_it_is_the_best_ranked_image_of_the_person(rng, integers, rescored):
    query = random_set(rng, 30, integers=integers)
    gallery = random_set(rng, 60, integers=integers)
    offsets = rng.normal(size=(30, 60))
    rescore = (lambda i: (0.5, offsets[i])) if rescored else None
    indices, distances = first_matches(query, gallery, rescore)
    order, values = nearest(query, gallery, 60, rescore=rescore)
    ranks = match_ranks(query, gallery, rescore=rescore)
    matched = [len(r) > 0 for r in ranks]
    assert any(matched)
    assert not all(matched)
    for i, own in enumerate(ranks):
        place = (i, own[0] - 1) if len(own) else None
        assert indices[i] == (order[place] if place else -1)
        assert distances[i] == (values[place] if place else np.inf)
    assert indices.dtype == np.int32
    assert distances.dtype == np.float32
