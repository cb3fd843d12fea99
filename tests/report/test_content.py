"""The content of a report."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax.data.augment import normalize
from reid_jax.report import content
from tests.report_page import NAMES, ROOT, Evaluation, Looks


def test_the_hardest_come_first_and_those_without_a_match_last():
    scores = np.array([0.5, np.nan, 0.1, 0.5, np.nan, 0.1, 1.0, 0.0])
    assert content.hardest_first(scores).tolist() == [7, 2, 5, 0, 3, 6, 1, 4]


def test_every_listed_image_is_there_once():
    found = np.array([[9, 4, -1], [4, 2, 9]], np.int32)
    distinct, lists = content.listed(found)
    assert distinct.tolist() == [2, 4, 9]
    assert lists.tolist() == [[2, 1, -1], [1, 0, 2]]
    assert lists.dtype == np.int32


def test_names_are_printable_and_below_the_root():
    paths = [f"{ROOT}/query/{name}" for name in NAMES] + ["/elsewhere/0.jpg", f"{ROOT}2/0.jpg"]
    for root in (ROOT, f"{ROOT}/"):
        shown = content.names(paths, root)
        assert all(name.isprintable() for name in shown)
        assert shown[0] == "query/<script>hacked=1</script>.jpg"
        assert shown[4] == r"query/no text \udcff\udced\udca0\udc80.jpg"
        assert shown[5:] == ["query/Ærlig 女 ✓.jpg", *paths[-2:]]


def test_only_numbers_that_are_called_otherwise_have_names():
    names = {1: "gina", 2: "2", 3: "line\nend"}
    called = content.called(np.array([3, 1, 2, 9, 1]), lambda n: names.get(n, str(n)))
    assert called == {1: "gina", 3: r"line\nend"}


def test_gradcam_is_of_every_query_each_scaled_by_its_maximum():
    evaluation = Evaluation(queries=23)
    evaluation.pixels["query"][5, ..., 0] = 0  # No red in this image.

    maps = content.gradcam_maps(evaluation, {}, print)
    assert maps.dtype == np.uint8
    assert maps.shape == (23, 2, 6, 3)
    assert set(evaluation.read) == {12}  # 10, rounded up for four devices; one shape
    expected = np.asarray(Looks().gradcams(normalize(jnp.asarray(evaluation.pixels["query"]))))
    largest = expected.max(axis=(2, 3), keepdims=True)
    expected = 255 * expected / np.where(largest > 0, largest, 1)
    np.testing.assert_allclose(maps, expected, atol=0.51)
    assert not maps[5, 0].any()
    assert (maps.max(axis=(2, 3)) == 255).sum() == 2 * 23 - 1


def test_a_map_that_is_not_finite_names_its_image(monkeypatch):
    def face(variables, images):
        maps = np.ones((len(images), 1, 2, 2), np.float32)
        maps[1, 0, 1, 1] = np.nan
        return maps

    monkeypatch.setattr(content, "pmap_face", lambda *arguments: face)
    with pytest.raises(ValueError, match=r"Grad-CAM of .*query/1_</script>.* is not finite"):
        content.gradcam_maps(Evaluation(), {}, print)


def test_arrays_that_do_not_go_together_are_an_error():
    images = content.Images(["a"], np.ones(1, int), np.ones(1, int))
    good = {
        "query": images, "gallery": images, "found": np.zeros((1, 2), np.int32),
        "distances": np.zeros((1, 2), np.float32), "average_precision": np.ones(1),
        "ranks": [np.ones(1, int)], "stages": ["I"], "maps": np.zeros((1, 1, 2, 2), np.uint8),
        "missed": -np.ones(1, np.int32), "missed_distances": np.full(1, np.inf, np.float32),
    }  # fmt: skip
    content.Lists(**good)
    for name, bad in {
        "average_precision": np.ones(2),
        "distances": np.zeros((1, 3), np.float32),
        "stages": [],
        "ranks": [],
        "missed": np.zeros(2, np.int32),
    }.items():
        with pytest.raises(ValueError, match="do not match"):
            content.Lists(**good | {name: bad})


def test_too_little_memory_names_the_leaf(monkeypatch):
    def face(variables, images):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(content, "pmap_face", lambda *arguments: face)
    with pytest.raises(MemoryError, match=r"lower eval\.batch_size"):
        content.gradcam_maps(Evaluation(), {}, print)
