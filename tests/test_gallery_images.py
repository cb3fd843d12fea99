"""Images of a gallery are replaced and removed, and searches see it."""

import gc
import weakref

import numpy as np
import pytest

from reid_jax.gallery import Gallery

NAMES = ["a", "b", "", "a", "c", ""]


@pytest.fixture
def gallery():
    gallery = Gallery("tests")
    gallery.add(np.arange(12.0).reshape(6, 2), pids=[1, 2, 3, 4, 0, -1], camids=1, names=NAMES)
    gallery.search(np.zeros(2))
    return gallery


def content(gallery):
    return gallery.features.tolist(), gallery.pids.tolist(), gallery.camids.tolist(), gallery.names


def test_images_are_replaced_by_name(gallery, tmp_path):
    before, names = content(gallery), gallery.names
    held = gallery.features, gallery.pids
    gallery.update([[100, 100], [200, 200.0]], names=["c", "b"])
    gallery.update([[300.0, 300]], names=["b"], pids=[9], camids=5)
    features, pids = np.array(before[0]), [1, 9, 3, 4, 0, -1]
    features[4], features[1] = 100, 300
    assert content(gallery) == (features.tolist(), pids, [1, 5, 1, 1, 1, 1], names)
    assert (held[0].tolist(), held[1].tolist()) == before[:2]
    assert gallery.search([300, 300], 1).names == (("b",),)
    assert gallery.search([2.0, 3], 1).distances[0, 0] > 0
    gallery.update(np.zeros((0, 2)), names=[])
    gallery.save(tmp_path / "a.gallery")
    assert content(Gallery.load(tmp_path / "a.gallery")) == content(gallery)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["b", "d"], "^no image of the gallery is named 'd'$"),
        (["d", "e"], "^no image of the gallery is named 'd', nor one of 1 more$"),
        (["b", "a"], "^2 images of the gallery are named 'a'; it must be one: remove them"),
        (["b", ""], "^no image of the gallery is named ''"),
        (["b", "b"], "^names holds 'b' twice; each must be given once$"),
        (["b"], "names must be 2, one per image, got 1"),
        ("bc", "names must be several texts"),
        ({"b", "c"}, "names must be in the order of the images, got a set"),
    ],
)
def test_a_failed_update_changes_nothing(gallery, names, message):
    before = content(gallery)
    with pytest.raises(ValueError, match=message):
        gallery.update([[5.0, 5], [6, 6]], names=names)
    assert content(gallery) == before


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (np.zeros((1, 3)), {}, "3 numbers do not match this gallery's images, of 2"),
        ([[np.nan, 0]], {}, "descriptor 0 holds NaN"),
        ([[1, 2]], {"pids": [1, 2]}, "pids must be 1 integers"),
        ([[1, 2]], {"camids": [1.5]}, "camids must be integers"),
    ],
)
def test_bad_replacements_are_named(gallery, features, options, message):
    before = content(gallery)
    with pytest.raises(ValueError, match=message):
        gallery.update(features, names=["b"], **options)
    assert content(gallery) == before


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ({"names": ["a", "c"]}, [1, 2, 5]),
        ({"names": ["a", "b", "a"], "identities": [1, 2]}, [2, 3, 4, 5]),
        ({"identities": -1}, [0, 1, 2, 3, 4]),
        ({"not_cameras": [1]}, [0, 1, 2, 3, 4, 5]),
        ({"cameras": [1], "identities": {2, 3}}, [0, 3, 4, 5]),
        ({"names": {"b", "c"}, "identities": {0, 2}}, [0, 2, 3, 5]),
        ({"names": []}, [0, 1, 2, 3, 4, 5]),
        ({"cameras": 1}, []),
    ],
)
def test_images_are_removed(gallery, filters, left):
    before, held = content(gallery), gallery.features
    assert gallery.remove(**filters) == 6 - len(left)
    assert content(gallery) == tuple(
        type(column)(column[i] for i in left) if left else type(column)() for column in before
    )
    assert held.tolist() == before[0]
    hits = gallery.search([0.0, 0], 6)
    assert [hits.names[0][i] for i in range(len(left))][: len(left) - (5 in left)] == [
        NAMES[i] for i in left if i != 5
    ]
    # The cached names and the index are of as many images, but of others.
    gallery.add(np.full((6 - len(left), 2), 50.0), names=["new"] * (6 - len(left)))
    assert gallery.names == (*(NAMES[i] for i in left), *["new"] * (6 - len(left)))
    assert gallery.search([50.0, 50], 1).names[0][0] == ("new" if len(left) < 6 else "c")


def test_an_empty_gallery_takes_descriptors_of_any_length(gallery):
    gallery.remove(cameras=1)
    assert (len(gallery), gallery.dim, gallery.features.shape) == (0, 0, (0, 0))
    gallery.add(np.ones((1, 5)))
    assert gallery.search(np.ones(5), 1).distances[0, 0] == 0


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({}, "remove needs names, identities, cameras or not_cameras"),
        ({"names": ["a", "d"]}, "no image of the gallery is named 'd'"),
        ({"names": [""]}, "no image of the gallery is named ''"),
        ({"cameras": 1.5}, "cameras must be integers"),
    ],
)
def test_a_failed_removal_changes_nothing(gallery, filters, message):
    before = content(gallery)
    with pytest.raises(ValueError, match=message):
        gallery.remove(**filters)
    assert content(gallery) == before


def test_arrays_of_removed_images_are_let_go(gallery):
    old = weakref.ref(gallery.features.base)
    gallery.remove(names=["b"])
    gc.collect()
    assert old() is None
