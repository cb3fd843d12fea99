import jax
import jax.numpy as jnp
import numpy as np
import pytest
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
    """Where random erasing set `count` images to zero: (count, height, width) bool."""
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
    """Heights and widths as in the authors' program, which draws until a rectangle fits."""
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


def crops(rng, padding, count, height=7, width=5):
    """An image, and crops of it with other keys."""
    image = rng.normal(size=(height, width, 3)).astype(np.float32)
    keys = jax.random.split(jax.random.key(6), count)
    run = jax.jit(jax.vmap(lambda key: augment.random_crop(key, image, padding)))
    return image, np.asarray(run(keys))


def test_a_crop_is_the_image_shifted_with_zeros_where_it_was_not(rng):
    """Each crop is one of the 49 of the padded image, and all are about equally frequent."""
    image, out = crops(rng, padding=3, count=4000)
    padded = np.zeros((13, 11, 3), np.float32)
    padded[3:10, 3:8] = image
    frequency = np.zeros((7, 7), int)
    for top, left in np.ndindex(7, 7):
        window = padded[top : top + 7, left : left + 5]
        frequency[top, left] = np.all(out == window, axis=(1, 2, 3)).sum()
    assert frequency.sum() == 4000
    assert np.all(np.abs(frequency - 4000 / 49) < 5 * np.sqrt(4000 / 49))


def jitter_in_float64(image, factors):
    """Brightness, contrast and saturation of RGB in [0, 1], from and to a normalised image."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    rgb = np.clip((image * std + mean) * factors[0], 0, 1)
    weights = np.array([0.299, 0.587, 0.114])
    grey = (rgb @ weights).mean()
    rgb = np.clip(factors[1] * rgb + (1 - factors[1]) * grey, 0, 1)
    grey = (rgb @ weights)[..., None]
    rgb = np.clip(factors[2] * rgb + (1 - factors[2]) * grey, 0, 1)
    return (rgb - mean) / std


def pixels_of(rng, count=1, height=6, width=4):
    pixels = rng.integers(0, 256, (count, height, width, 3)).astype(np.uint8)
    return pixels, augment.normalize(jnp.array(pixels))


def test_color_jitter_equals_float64(rng):
    """Also for clipped values, with the factors drawn from its key."""
    _, (image,) = pixels_of(rng)
    strengths = np.array([0.9, 0.7, 0.8])
    clipped = 0
    for seed in range(20):
        key = jax.random.key(seed)
        drawn = np.float64(jax.random.uniform(key, (3,), minval=-1.0, maxval=1.0))
        want = jitter_in_float64(np.float64(image), 1 + strengths * drawn)
        got = augment.color_jitter(key, image, *map(float, strengths))
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-5)
        clipped += np.isclose(want, (1 - 0.485) / 0.229)[..., 0].sum()
    assert clipped > 0


def test_each_strength_is_of_its_own_factor(rng):
    """Brightness keeps ratios, contrast keeps the mean luma, saturation keeps each luma."""
    pixels = rng.integers(90, 130, (1, 6, 4, 3)).astype(np.uint8)  # no value is clipped
    (image,) = augment.normalize(jnp.array(pixels))
    mean, std = np.array(augment.MEAN), np.array(augment.STD)

    def rgb(image):
        return np.float64(image) * std + mean

    before, weights, ranges = rgb(image), np.array(augment.LUMA), {}
    for leaf in ("brightness", "contrast", "saturation"):
        strengths = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, leaf: 0.5}
        factors = []
        for seed in range(200):
            after = rgb(augment.color_jitter(jax.random.key(seed), image, **strengths))
            if leaf == "brightness":
                start, moved = before, after
            elif leaf == "contrast":
                start, moved = (x - (before @ weights).mean() for x in (before, after))
            else:
                start, moved = (x - (before @ weights)[..., None] for x in (before, after))
            factor = (start * moved).sum() / (start * start).sum()
            np.testing.assert_allclose(moved, factor * start, atol=1e-5)
            factors.append(factor)
        ranges[leaf] = min(factors), max(factors)
    for low, high in ranges.values():
        assert 0.5 <= low + 1e-4 < 0.53
        assert 1.47 < high - 1e-4 <= 1.5


def test_the_luma_has_the_weights_of_bt_601():
    assert augment.LUMA == (0.299, 0.587, 0.114)


CONFIG = ConfigDict(
    {
        "flip": 0.5,
        "crop_padding": 0,
        "brightness": 0.0,
        "contrast": 0.0,
        "saturation": 0.0,
        "erasing_probability": 0.5,
        "erasing_area": AREA,
        "erasing_aspect": ASPECT,
        "cutout_probability": 0.5,
        "cutout_size": 4,
    }
)


def test_erasing_and_cutout_are_drawn_apart(rng):
    """Each combination has a quarter of the images, and the holes of erasing and cutout differ."""
    images = np.full((2000, 12, 8, 3), 255, np.uint8)
    config = ConfigDict({**CONFIG, "erasing_area": (0.02, 0.02), "erasing_aspect": (0.5, 0.5)})
    out = jax.jit(lambda x: augment.augment(jax.random.key(4), x, config))(images)
    sizes = (np.asarray(out) == 0).all(axis=-1).sum(axis=(1, 2))
    # Erasing takes 1x2 pixels, cutout 4x4; together 16 to 18.
    neither, erased = (sizes == 0).mean(), (sizes == 2).mean()
    assert set(sizes) <= {0, 2, 16, 17, 18}
    for share in (neither, erased, (sizes >= 16).mean() / 2):
        assert abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 2000)


STRONG = ConfigDict(
    {**CONFIG, "crop_padding": 2, "brightness": 0.3, "contrast": 0.2, "saturation": 0.4}
)


@pytest.mark.parametrize("config", [CONFIG, STRONG], ids=["papers", "strong"])
def test_augmentation_does_not_depend_on_the_number_of_devices(rng, config):
    images = rng.integers(0, 256, (8, 12, 8, 3)).astype(np.uint8)
    key = jax.random.key(2)
    whole = jax.jit(lambda x: augment.augment(key, x, config))(images)
    parts = jax.pmap(lambda x: augment.augment(key, x, config, "batch"), axis_name="batch")(
        images.reshape(4, 2, 12, 8, 3)
    )
    np.testing.assert_allclose(np.asarray(parts).reshape(whole.shape), whole, atol=1e-6)


def test_recipes_without_crop_and_colours_draw_what_they_drew_before(rng):
    """Bit for bit: flip, erasing and cutout use the same keys as before."""
    pixels = rng.integers(0, 256, (16, 12, 8, 3)).astype(np.uint8)
    key = jax.random.key(9)

    def before(image, index):
        flip, cutout, erasing = jax.random.split(jax.random.fold_in(key, index), 3)
        image = augment.normalize(augment.random_flip(flip, image, 0.5)[None])[0]
        image = augment.random_erasing(erasing, image, 0.5, AREA, ASPECT)
        return augment.cutout(cutout, image, 0.5, 4)

    want = jax.jit(jax.vmap(before))(pixels, jnp.arange(16))
    got = jax.jit(lambda x: augment.augment(key, x, CONFIG))(pixels)
    np.testing.assert_array_equal(got, want)
    assert (np.asarray(want) == 0).all(axis=-1).any(axis=(1, 2)).sum() > 4


def only(**leaves):
    """A recipe with only these augmentations."""
    nothing = {"flip": 0.0, "erasing_probability": 0.0, "cutout_probability": 0.0}
    return ConfigDict({**CONFIG, **nothing, **leaves})


def test_colours_and_crop_are_drawn_apart_from_flip_erasing_and_cutout(rng):
    """No two of them share random numbers, so their draws are independent."""
    count = 4000
    pixels = np.tile(rng.integers(60, 200, (1, 6, 6, 3)).astype(np.uint8), (count, 1, 1, 1))
    key = jax.random.key(1)

    def run(**leaves):
        config = only(**leaves)
        return np.asarray(jax.jit(lambda x: augment.augment(key, x, config))(pixels))

    plain = np.asarray(augment.normalize(jnp.array(pixels[:1])))
    erasing = {"erasing_area": (0.1, 0.1), "erasing_aspect": (1.0, 1.0)}
    erased = run(erasing_probability=0.5, **erasing)
    cut = run(cutout_probability=0.5, cutout_size=2)
    moved = run(crop_padding=2)
    draws = {
        "flip": (np.abs(run(flip=0.5) - plain) > 0.01).any(axis=(1, 2, 3)),
        "erasing": (erased == 0).any(axis=(1, 2, 3)),
        "cutout": (cut == 0).any(axis=(1, 2, 3)),
        "row": (moved == 0).all(axis=(2, 3)).argmin(axis=1),
        "column": (moved == 0).all(axis=(1, 3)).argmin(axis=1),
        "light": run(brightness=0.2).mean(axis=(1, 2, 3)),
    }
    matrix = np.corrcoef([np.float64(values) for values in draws.values()])
    apart = np.abs(matrix - np.eye(len(draws)))
    assert apart.max() < 5 / np.sqrt(count), (list(draws), matrix.round(2))


def test_what_is_cropped_has_its_new_colours_and_the_rest_is_the_mean_colour(rng):
    """The crop comes after the colours, because a border would change the contrast's mean."""
    pixels = rng.integers(0, 256, (32, 6, 4, 3)).astype(np.uint8)
    key = jax.random.key(3)
    colours = {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5}
    colored = np.asarray(augment.augment(key, pixels, only(**colours)))
    both = np.asarray(augment.augment(key, pixels, only(**colours, crop_padding=2)))
    padded = np.zeros((32, 10, 8, 3), np.float32)
    padded[:, 2:8, 2:6] = colored
    windows = [padded[:, t : t + 6, lft : lft + 4] for t, lft in np.ndindex(5, 5)]
    same = [np.isclose(both, window, atol=1e-6).all(axis=(1, 2, 3)) for window in windows]
    assert np.any(same, axis=0).all()
    assert (both != colored).any()


def test_probabilities_may_be_whole_numbers():
    whole = {"flip": 1, "erasing_probability": 0, "cutout_probability": 1}
    config = ConfigDict({**CONFIG, **whole})
    images = jax.ShapeDtypeStruct((2, 12, 8, 3), np.uint8)
    out = jax.eval_shape(lambda x: augment.augment(jax.random.key(0), x, config), images)
    assert out.dtype == np.float32
