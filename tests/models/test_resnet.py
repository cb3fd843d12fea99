import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from reid_jax import models
from reid_jax.models.resnet import ResNet
from tests import reference
from tests.slow import quick_only
from tests.test_configs import load

# Leaves of trunks other than the papers': kinds of blocks, each plain or with IBN-a, wide
# bottlenecks behind a stem of another width, and strides of v1.
OTHERS = {
    "basic": {"block": "basic"},
    "basic-ibn": {"block": "basic", "ibn": True},
    "bottleneck-ibn": {"ibn": True},
    "wide": {"base_width": 128, "stem_width": 10},
    "v1": {"stride_in_1x1": True, "stem_width": 5},
}
of_each_trunk = pytest.mark.parametrize("leaves", OTHERS.values(), ids=OTHERS.keys())


def randomised(variables, rng):
    """Variables without the zeros and ones of initialisation."""

    def change(path, x):
        noise = rng.normal(size=x.shape)
        noise = np.abs(noise) if path[-1].key == "var" else noise
        return jnp.array(x + 0.1 * noise, jnp.float32)

    return jax.tree_util.tree_map_with_path(change, variables)


@pytest.mark.parametrize("train", [True, False])
def test_equals_numpy_in_float64(rng, train):
    trunk = ResNet(depths=(1, 2, 2, 1), width=4)
    images = rng.normal(size=(3, 48, 32, 3)).astype(np.float32)
    init = jax.jit(lambda: trunk.init(jax.random.key(0), jnp.array(images), train=False))
    variables = randomised(init(), rng)
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
    # Near a kink of a maximum two roundings may end on different sides; one such is 0.3 % here.
    assert abs(slope - want) < 1e-2 * length, (slope, want)


@pytest.fixture(scope="module")
def gradients():
    """In training: the trunk's variables, images, a cotangent and the parameters' gradients."""
    rng = np.random.default_rng(1)
    trunk = ResNet(depths=(1, 1, 1, 1), width=4)
    images = rng.normal(size=(4, 48, 32, 3)).astype(np.float32)
    init = jax.jit(lambda: trunk.init(jax.random.key(0), jnp.array(images), train=False))
    variables = randomised(init(), rng)
    dy = rng.normal(size=(4, 3, 2, 128)).astype(np.float32)

    def total(params):
        updated = {"params": params, "batch_stats": variables["batch_stats"]}
        maps, _ = trunk.apply(updated, images, True, mutable=["batch_stats"])
        return (maps.res5 * dy).sum()

    return variables, images, dy, jax.device_get(jax.jit(jax.grad(total))(variables["params"]))


@pytest.mark.parametrize(
    "name", quick_only([*OTHERS, "basic-2-2-2-3"], "basic-ibn", "bottleneck-ibn", "v1")
)
def test_other_trunks_equal_numpy_in_float64(rng, name):
    leaves = {"depths": (1, 2, 2, 1), **OTHERS.get(name, {})}
    if name == "basic-2-2-2-3":
        leaves = {"depths": (2, 2, 2, 3), "block": "basic"}
    """In inference, in training, and in the running statistics after training."""
    trunk = ResNet(width=6, **leaves)
    images = rng.normal(size=(3, 48, 32, 3)).astype(np.float32)
    shapes = jax.eval_shape(lambda: trunk.init(jax.random.key(0), images, train=False))
    variables = reference.random_variables(shapes, rng)
    params, stats = (reference.in_float64(variables[kind]) for kind in ("params", "batch_stats"))

    def check(got, stats):
        want = reference.resnet_blocks(
            np.float64(images), params, trunk.strides, stats, trunk.stride_in_1x1
        )
        names = "layer3_0", f"layer3_{trunk.depths[2] - 1}", f"layer4_{trunk.depths[3] - 1}"
        for x, name in zip(got, names, strict=True):
            assert x.shape == want[name].shape
            error = np.linalg.norm(x - want[name]) / np.linalg.norm(want[name])
            assert error < 1e-5, (name, error)

    check(jax.jit(lambda v, x: trunk.apply(v, x, train=False))(variables, images), stats)
    apply = jax.jit(lambda v, x: trunk.apply(v, x, train=True, mutable=["batch_stats"]))
    got, updates = apply(variables, images)
    of_batch = reference.empty_stats()
    check(got, of_batch)
    of_batch, remembered = (flatten_dict(tree) for tree in (of_batch, updates["batch_stats"]))
    assert of_batch.keys() == remembered.keys()
    for path, before in flatten_dict(stats).items():
        want = 0.9 * before + 0.1 * of_batch[path]
        np.testing.assert_allclose(remembered[path], want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("block", "depths", "count"),
    [
        ("basic", (2, 2, 2, 2), 11_176_512),
        ("basic", (3, 4, 6, 3), 21_284_672),
        ("bottleneck", (3, 4, 23, 3), 42_500_160),
        ("bottleneck", (3, 8, 36, 3), 58_143_808),
    ],
)
@pytest.mark.parametrize("ibn", [False, True])
def test_resnet18_34_101_and_152_have_torchvisions_parameters(block, depths, count, ibn):
    """Without the classifier; IBN-a's norms have as many parameters as those that they replace."""
    trunk = ResNet(depths=depths, block=block, ibn=ibn)
    images = jax.ShapeDtypeStruct((1, 384, 128, 3), np.float32)
    maps, shapes = jax.eval_shape(
        lambda x: trunk.init_with_output(jax.random.key(0), x, train=False), images
    )
    params, stats = shapes["params"], shapes["batch_stats"]
    assert sum(x.size for x in jax.tree.leaves(params)) == count
    low, high = (256, 512) if block == "basic" else (1024, 2048)
    assert [m.shape for m in maps] == [(1, 24, 8, low), (1, 24, 8, low), (1, 24, 8, high)]
    assert trunk.features == high
    # The first block of res2 has a projection if the number of channels changes.
    assert ("downsample_conv" in params["layer1_0"]) == (block == "bottleneck")
    names = {"conv1", "bn1", "conv2", "bn2", "downsample_conv", "downsample_bn"}
    names |= {"conv3", "bn3"} if block == "bottleneck" else set()
    assert params["layer2_0"].keys() == params["layer4_0"].keys() == names
    for stage, depth in enumerate(depths):
        for number in range(depth):
            norm = params[f"layer{stage + 1}_{number}"]["bn1"]
            remembered = stats[f"layer{stage + 1}_{number}"]["bn1"]
            if not ibn or stage == 3:
                assert norm.keys() == {"scale", "bias"}
                continue
            half = (32 << stage,)
            assert norm.keys() == {"instance", "batch"}
            assert {x.shape for x in jax.tree.leaves(norm)} == {half}
            assert remembered.keys() == {"batch"}
            assert {x.shape for x in jax.tree.leaves(remembered)} == {half}


@pytest.mark.parametrize(
    ("leaves", "count"),
    [
        ({"base_width": 128}, 66_834_240),  # wide_resnet50_2
        ({"base_width": 128, "depths": (3, 4, 23, 3)}, 124_837_696),  # wide_resnet101_2
        ({"stride_in_1x1": True}, 23_508_032),  # ResNet-50's: strides have no weights
        # ResNet-18's parameters, and those of one more block in res5.
        ({"block": "basic", "depths": (2, 2, 2, 3)}, 11_176_512 + 2 * (9 * 512**2 + 2 * 512)),
        # A wider stem has a kernel, a norm, and two 1x1 convolutions that read its map.
        ({"stem_width": 96}, 23_508_032 + 32 * (7 * 7 * 3 + 2 + 64 + 256)),
        ({"stem_width": 64}, 23_508_032),
    ],
)
def test_wide_trunks_and_other_stems_have_the_parameters_that_they_should(leaves, count):
    """torchvision's wide ResNets without their classifiers; maps have the usual channels."""
    trunk = ResNet(**leaves)
    images = jax.ShapeDtypeStruct((1, 384, 128, 3), np.float32)
    maps, shapes = jax.eval_shape(
        lambda x: trunk.init_with_output(jax.random.key(0), x, train=False), images
    )
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == count
    high = 512 if trunk.block == "basic" else 2048
    assert [m.shape for m in maps] == [(1, 24, 8, high // 2)] * 2 + [(1, 24, 8, high)]
    assert trunk.features == high


@pytest.mark.parametrize("name", quick_only(models.NETWORKS, "pmm"))
@of_each_trunk
def test_every_network_takes_every_trunk(name, leaves):
    """Shapes of descriptor, Grad-CAM and training; the extra block is like one of res5."""
    config = load(f"{name}_market")
    config.model.trunk.update({"depths": (1, 1, 2, 2), **leaves})
    network = models.create(config.model, 751)
    network.check((384, 128))
    images = jnp.zeros((2, 384, 128, 3))
    variables = jax.eval_shape(network.init, jax.random.key(0), images)
    width = 512 if network.trunk.block == "basic" else 2048
    sizes = {"baseline": width, "bdb": 512 + 1024, "pmm": 3 * 512, "hbfp": 2 * width}
    descriptors = jax.eval_shape(network.apply, variables, images)
    assert descriptors.shape == (2, sizes[name])
    cams = jax.eval_shape(lambda v: network.apply(v, images, method="gradcams"), variables)
    assert cams.shape == (2, len(network.stage_names), 24, 8)
    labels = jnp.array([0, 1])

    def train(variables, key):
        return network.apply(
            variables, images, labels, key, method="training", mutable=["batch_stats"]
        )

    outputs, updates = jax.eval_shape(train, variables, jax.random.key(0))
    assert all(output.logits.shape == (2, 751) for output in outputs)
    shapes = jax.tree.map(lambda x: x.shape, variables)
    assert jax.tree.map(lambda x: x.shape, updates["batch_stats"]) == shapes["batch_stats"]
    jax.tree.map(lambda x, y: None, network.start(shapes), shapes)  # The structures are equal.
    if name in ("bdb", "pmm"):
        assert shapes["params"]["extra"] == shapes["params"]["trunk"]["layer4_1"]


def test_an_unknown_kind_of_block_is_named():
    config = load("pmm_market")
    config.model.trunk.block = "wide"
    with pytest.raises(ValueError, match=r"model\.trunk\.block is 'wide'; .*'bottleneck', 'basic'"):
        models.create(config.model, 751)


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


@pytest.mark.parametrize("name", quick_only(["bottleneck", "basic-ibn"], "bottleneck"))
def test_bfloat16_stays_near_float32(standard_promotion, rng, name):
    leaves = OTHERS.get(name, {})
    images = jnp.array(rng.normal(size=(4, 48, 32, 3)), jnp.float32)
    trunk = ResNet(depths=(1, 1, 1, 1), width=8, **leaves)
    variables = jax.jit(lambda: trunk.init(jax.random.key(0), images, train=False))()

    def maps(trunk):
        return jax.jit(lambda v: trunk.apply(v, images, True, mutable=["batch_stats"]))(variables)

    want = maps(trunk)[0].res5
    got, updates = maps(trunk.clone(dtype=jnp.bfloat16))
    assert got.res5.dtype == jnp.bfloat16
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(updates))
    got = np.asarray(got.res5, np.float32)
    assert np.linalg.norm(got - want) / np.linalg.norm(want) < 0.05
