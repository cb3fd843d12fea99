import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from reid_jax.data import augment


def test_normalize_equals_float64(rng):
    images = rng.integers(0, 256, (2, 5, 4, 3)).astype(np.uint8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    want = (images / 255.0 - mean) / std
    np.testing.assert_allclose(augment.normalize(jnp.array(images)), want, rtol=1e-5, atol=1e-6)


def test_flip_has_its_probability_and_mirrors(rng):
    image = rng.normal(size=(4, 6, 3)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 2000)
    out = jax.vmap(augment.random_flip, in_axes=(0, None, None))(keys, image, 0.3)
    flipped = np.all(np.asarray(out) == image[:, ::-1], axis=(1, 2, 3))
    same = np.all(np.asarray(out) == image, axis=(1, 2, 3))
    assert np.all(flipped ^ same)
    assert abs(flipped.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 2000)


def test_cutout_is_one_whole_square_anywhere(rng):
    image = np.abs(rng.normal(size=(12, 8, 3)).astype(np.float32)) + 1
    keys = jax.random.split(jax.random.key(1), 3000)
    out = jax.vmap(augment.cutout, in_axes=(0, None, None, None))(keys, image, 0.5, 4)
    hole = np.all(np.asarray(out) == 0, axis=-1)
    assert np.all(np.isin(hole.sum(axis=(1, 2)), [0, 16]))
    cut = hole.any(axis=(1, 2))
    assert abs(cut.mean() - 0.5) < 5 * np.sqrt(0.25 / 3000)
    tops = hole[cut].any(axis=2).argmax(axis=1)
    lefts = hole[cut].any(axis=1).argmax(axis=1)
    for values, places in ((tops, 9), (lefts, 5)):
        counts = np.bincount(values, minlength=places)
        assert len(counts) == places
        assert np.all(np.abs(counts - cut.sum() / places) < 5 * np.sqrt(cut.sum() / places))
    # A square: every hole spans exactly four rows and four columns.
    assert np.all(hole[cut].any(axis=2).sum(axis=1) == 4)
    assert np.all(hole[cut].any(axis=1).sum(axis=1) == 4)


AREA, ASPECT = (0.02, 0.4), (0.3, 3.33)


def erase(count, probability, height=96, width=32, area=AREA, aspect=ASPECT, seed=3):
    """Where random erasing made `count` images zero: (count, height, width) bool."""
    keys = jax.random.split(jax.random.key(seed), count)

    @jax.jit
    def holes(keys):
        ones = jnp.ones((height, width, 3))
        run = jax.vmap(augment.random_erasing, in_axes=(0, None, None, None, None))
        return run(keys, ones, probability, area, aspect) == 0

    out = np.asarray(holes(keys))
    assert np.all(out == out[..., :1])  # all channels alike
    return out[..., 0]


def sides(holes):
    """Tops, lefts, heights and widths of the holes."""
    rows, columns = holes.any(axis=2), holes.any(axis=1)
    return rows.argmax(axis=1), columns.argmax(axis=1), rows.sum(axis=1), columns.sum(axis=1)


def erase_by_turns(rng, count, height, width):
    """Heights and widths as the authors' program draws them: again until a rectangle fits."""
    found = []
    while len(found) < count:
        area, aspect = rng.uniform(*AREA) * height * width, rng.uniform(*ASPECT)
        h, w = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if h < height and w < width:
            found.append((h, w))
    return np.array(found)


def test_erasing_is_one_whole_rectangle_with_its_probability():
    holes = erase(3000, 0.3)
    erased = holes.any(axis=(1, 2))
    assert abs(erased.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 3000)
    _, _, heights, widths = sides(holes[erased])
    np.testing.assert_array_equal(holes[erased].sum(axis=(1, 2)), heights * widths)
    assert not erase(100, 0.0).any()
    assert erase(100, 1.0).any(axis=(1, 2)).all()


def test_erasing_draws_the_rectangles_of_the_authors_program(rng):
    """Kolmogorov and Smirnov's distance of heights and of widths, at the 0.1 % level."""
    count = 4000
    _, _, heights, widths = sides(erase(count, 1.0))
    reference = erase_by_turns(rng, count, 96, 32)
    drawn = heights, widths, heights * widths
    for got, want in zip(drawn, (*reference.T, reference.prod(axis=1)), strict=True):
        places = np.arange(max(got.max(), want.max()) + 1)
        below = [(x[:, None] <= places).mean(axis=0) for x in (got, want)]
        assert np.abs(below[0] - below[1]).max() < 1.95 * np.sqrt(2 / count)


def test_erasing_is_uniform_over_places():
    holes = erase(3000, 1.0, height=12, width=10, area=(0.3, 0.3), aspect=(1.0, 1.0))
    tops, lefts, heights, widths = sides(holes)
    assert set(heights) == set(widths) == {6}
    for values, places in ((tops, 7), (lefts, 5)):
        counts = np.bincount(values, minlength=places)
        assert len(counts) == places
        assert np.all(np.abs(counts - 3000 / places) < 5 * np.sqrt(3000 / places))


def test_what_never_fits_is_not_erased():
    assert not erase(20, 1.0, height=8, width=8, area=(1.0, 1.0), aspect=(1.0, 1.0)).any()


CONFIG = ConfigDict(
    {
        "flip": 0.5,
        "erasing_probability": 0.5,
        "erasing_area": AREA,
        "erasing_aspect": ASPECT,
        "cutout_probability": 0.5,
        "cutout_size": 4,
    }
)


def test_erasing_and_cutout_are_drawn_apart(rng):
    """Of each combination a quarter of the images; erasing alone leaves other holes than cutout."""
    images = np.full((2000, 12, 8, 3), 255, np.uint8)
    config = ConfigDict({**CONFIG, "erasing_area": (0.02, 0.02), "erasing_aspect": (0.5, 0.5)})
    out = jax.jit(lambda x: augment.augment(jax.random.key(4), x, config))(images)
    sizes = (np.asarray(out) == 0).all(axis=-1).sum(axis=(1, 2))
    # Erasing takes 1x2 pixels, cutout 4x4; together 16 to 18.
    neither, erased = (sizes == 0).mean(), (sizes == 2).mean()
    assert set(sizes) <= {0, 2, 16, 17, 18}
    for share in (neither, erased, (sizes >= 16).mean() / 2):
        assert abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 2000)


def test_augmentation_does_not_depend_on_the_number_of_devices(rng):
    images = rng.integers(0, 256, (8, 12, 8, 3)).astype(np.uint8)
    key = jax.random.key(2)
    whole = jax.jit(lambda x: augment.augment(key, x, CONFIG))(images)
    parts = jax.pmap(lambda x: augment.augment(key, x, CONFIG, "batch"), axis_name="batch")(
        images.reshape(4, 2, 12, 8, 3)
    )
    np.testing.assert_allclose(np.asarray(parts).reshape(whole.shape), whole, atol=1e-6)


def test_probabilities_may_be_whole_numbers():
    whole = {"flip": 1, "erasing_probability": 0, "cutout_probability": 1}
    config = ConfigDict({**CONFIG, **whole})
    images = jax.ShapeDtypeStruct((2, 12, 8, 3), np.uint8)
    out = jax.eval_shape(lambda x: augment.augment(jax.random.key(0), x, config), images)
    assert out.dtype == np.float32
