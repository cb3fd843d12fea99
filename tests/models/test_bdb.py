import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax.models import BDB, ResNet
from reid_jax.models.bdb import batch_drop
from tests import reference

SIZE = (96, 64)  # maps of 6x4 cells, of which 2x4 are dropped
LABELS = np.array([0, 0, 1, 1, 2, 2], np.int32)


def tiny(**settings):
    """A BDB that compiles in a second or two."""
    settings = {"global_dim": 3, "part_dim": 6, **settings}
    return BDB(num_classes=5, trunk=ResNet(depths=(1, 1, 1, 1), width=2), **settings)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).normal(size=(6, *SIZE, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def variables(images):
    shapes = jax.eval_shape(tiny().init, jax.random.key(0), images)
    return reference.random_variables(shapes, np.random.default_rng(2))


def rows_dropped(key):
    """The number of rows of a 6x4 map that 2x4 cells drop, found with a map of ones."""
    left = np.asarray(batch_drop(key, jnp.ones((1, 6, 4, 1)), (2, 4)))[0, :, :, 0]
    assert np.all((left == 0).sum(axis=1) % 4 == 0)  # whole rows
    (rows,) = np.nonzero(left[:, 0] == 0)
    return rows


def test_training_equals_numpy_in_float64(variables, images):
    key = jax.random.key(5)

    @jax.jit
    def run(variables, images):
        return tiny().apply(
            variables, images, LABELS, key, method="training", mutable=["batch_stats"]
        )

    (whole, part), _ = run(variables, images)
    params = reference.in_float64(variables["params"])
    res5 = reference.resnet(np.float64(images), params["trunk"], (1, 2, 2, 1))
    extra = reference.block(res5, params["extra"])
    rows = rows_dropped(key)
    assert len(rows) == 2
    assert rows[1] == rows[0] + 1
    extra[:, rows] = 0.0
    for output, features, name, pooling in (
        (whole, res5, "heads_0", "average"),
        (part, extra, "heads_1", "max"),
    ):
        embedding, logits = reference.stage_head(features, params[name], pooling)
        np.testing.assert_allclose(
            output.embedding, embedding, rtol=1e-4, atol=1e-4 * embedding.max()
        )
        np.testing.assert_allclose(
            output.logits, logits, rtol=1e-4, atol=1e-4 * np.abs(logits).max()
        )


def test_inference_drops_nothing(variables, images):
    params = reference.in_float64(variables["params"])
    stats = reference.in_float64(variables["batch_stats"])
    res5 = reference.resnet(np.float64(images), params["trunk"], (1, 2, 2, 1), stats["trunk"])
    extra = reference.block(res5, params["extra"], stats=stats["extra"])
    want = np.concatenate(
        [
            reference.stage_head(x, params[name], pooling, stats[name])[0]
            for x, name, pooling in (
                (res5, "heads_0", "average"),
                (extra, "heads_1", "max"),
            )
        ],
        axis=1,
    )
    got = jax.jit(tiny().apply)(variables, images)
    assert got.shape == (6, 9)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * want.max())


def test_all_images_lose_the_same_rectangle_at_a_uniform_place():
    features = jnp.ones((3, 5, 4, 2))
    draw = jax.jit(jax.vmap(lambda key: batch_drop(key, features, (2, 3))))
    drawn = np.asarray(draw(jax.random.split(jax.random.key(0), 4000)))
    assert np.all(drawn == drawn[:, :1, :, :, :1])
    maps = drawn[:, 0, :, :, 0]
    # The dropped cells are one rectangle of the requested size, wherever its first cell is.
    first = [np.argwhere(image == 0)[0] for image in maps]
    for image, (top, left) in zip(maps, first, strict=True):
        assert np.all(image[top : top + 2, left : left + 3] == 0)
    assert np.all((maps == 0).sum(axis=(1, 2)) == 6)
    counts = np.zeros((4, 2))
    np.add.at(counts, tuple(np.transpose(first)), 1)
    # Five standard deviations of a binomial.
    assert np.all(np.abs(counts - 500) < 5 * np.sqrt(500))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"drop_height": 1.0}, r"drop \(6, 4\) of \(6, 4\) cells"),
        ({"drop_width": 0.1}, r"drop \(2, 0\) of \(6, 4\) cells"),
    ],
)
def test_contradicting_settings_name_the_leaf(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(**settings).check(SIZE)
