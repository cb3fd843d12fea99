import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax.models.resnet import ResNet, kaiming_fan_out
from tests import reference


def randomised(variables, rng):
    """Variables in which nothing is zero or one by chance of initialisation."""

    def change(path, x):
        noise = rng.normal(size=x.shape)
        noise = np.abs(noise) if path[-1].key == "var" else noise
        return jnp.array(x + 0.1 * noise, jnp.float32)

    return jax.tree_util.tree_map_with_path(change, variables)


@pytest.mark.parametrize("train", [True, False])
def test_equals_numpy_in_float64(rng, train):
    trunk = ResNet(depths=(1, 2, 2, 1), width=4)
    images = rng.normal(size=(3, 48, 32, 3)).astype(np.float32)
    variables = randomised(trunk.init(jax.random.key(0), jnp.array(images), train=False), rng)
    double = jax.tree.map(lambda x: np.asarray(x, np.float64), variables)
    want = reference.resnet(
        images.astype(np.float64),
        double["params"],
        (1, 2, 2, 1),
        None if train else double["batch_stats"],
    )
    apply = jax.jit(
        lambda v, x: trunk.apply(v, x, train, mutable=["batch_stats"])[0].res5,
    )
    got = np.asarray(apply(variables, images))
    assert got.shape == want.shape == (3, 3, 2, 128)
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    assert error < 1e-5, error


@pytest.mark.parametrize(
    "path",
    [
        ("conv1", "kernel"),
        ("bn1", "scale"),
        ("layer1_0", "conv1", "kernel"),
        ("layer2_0", "conv2", "kernel"),
        ("layer2_0", "downsample_conv", "kernel"),
        ("layer4_0", "bn3", "bias"),
    ],
)
def test_compiled_gradients_equal_differences_of_float64(rng, gradients, path):
    """Along a random direction of one parameter; the whole backward pass is one program."""
    variables, images, dy, got = gradients
    double = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])

    def leaf(tree):
        for name in path:
            tree = tree[name]
        return tree

    direction = rng.normal(size=leaf(double).shape)
    ends = []
    for sign in (1, -1):
        moved = jax.tree.map(np.copy, double)
        leaf(moved)[...] += sign * 1e-6 * direction
        ends.append((reference.resnet(images.astype(np.float64), moved, (1, 2, 2, 1)) * dy).sum())
    want = (ends[0] - ends[1]) / 2e-6
    slope, length = (leaf(got) * direction).sum(), np.linalg.norm(leaf(got))
    # Near a kink of a maximum two roundings may take different sides: one such is 0.3 % here.
    assert abs(slope - want) < 1e-2 * length, (slope, want)


@pytest.fixture(scope="module")
def gradients():
    """Of the trunk in training: variables, images, a cotangent and the parameters' gradients."""
    rng = np.random.default_rng(1)
    trunk = ResNet(depths=(1, 1, 1, 1), width=4)
    images = rng.normal(size=(4, 48, 32, 3)).astype(np.float32)
    variables = randomised(trunk.init(jax.random.key(0), jnp.array(images), train=False), rng)
    dy = rng.normal(size=(4, 3, 2, 128)).astype(np.float32)

    def total(params):
        updated = {"params": params, "batch_stats": variables["batch_stats"]}
        maps, _ = trunk.apply(updated, images, True, mutable=["batch_stats"])
        return (maps.res5 * dy).sum()

    return variables, images, dy, jax.device_get(jax.jit(jax.grad(total))(variables["params"]))


def test_resnet50_has_torchvisions_parameters():
    """23.5 million without the classifier, and maps of 24x8 at 384x128."""
    trunk = ResNet()
    shapes = jax.eval_shape(
        lambda: trunk.init(jax.random.key(0), jnp.zeros((2, 384, 128, 3)), train=False)
    )
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == 23_508_032
    maps = jax.eval_shape(
        lambda v: trunk.apply(v, jnp.zeros((2, 384, 128, 3)), train=False), shapes
    )
    assert [m.shape for m in maps] == [(2, 24, 8, 1024), (2, 24, 8, 1024), (2, 24, 8, 2048)]
    assert trunk.map_size((384, 128)) == (24, 8)
    assert trunk.features == 2048


def test_the_last_two_strides_are_settings():
    trunk = ResNet(depths=(1, 1, 1, 1), width=4, strides=(1, 2, 1, 1))
    x = jnp.zeros((1, 64, 32, 3))
    maps, _ = jax.eval_shape(lambda: trunk.init_with_output(jax.random.key(0), x, train=False))
    assert maps.res5.shape == (1, 8, 4, 128)
    assert trunk.map_size((64, 32)) == (8, 4)


def test_bfloat16_stays_near_float32(standard_promotion, rng):
    images = jnp.array(rng.normal(size=(4, 48, 32, 3)), jnp.float32)
    trunk = ResNet(depths=(1, 1, 1, 1), width=8)
    variables = trunk.init(jax.random.key(0), images, train=False)
    half = trunk.clone(dtype=jnp.bfloat16)
    want = trunk.apply(variables, images, True, mutable=["batch_stats"])[0].res5
    got, updates = half.apply(variables, images, True, mutable=["batch_stats"])
    assert got.res5.dtype == jnp.bfloat16
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(updates))
    got = np.asarray(got.res5, np.float32)
    assert np.linalg.norm(got - want) / np.linalg.norm(want) < 0.05


@pytest.mark.parametrize("shape", [(7, 7, 3, 4), (3, 3, 6, 8), (12, 20)])
def test_kernels_start_as_flax_would_start_them(shape):
    usual = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    got, want = (
        jax.jit(initializer, static_argnums=(1, 2))(jax.random.key(3), shape, jnp.float32)
        for initializer in (kaiming_fan_out, usual)
    )
    np.testing.assert_array_equal(got, want, strict=True)
