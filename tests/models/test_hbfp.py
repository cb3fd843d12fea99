import functools
import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax import models, schedules
from reid_jax.configs import common
from reid_jax.models import HBFP, ResNet
from reid_jax.runtime.devices import place
from reid_jax.training import optimizer as optimizers
from reid_jax.training.state import create_state
from reid_jax.training.step import AXIS, make_step, pmap_step, shard
from tests import reference
from tests.slow import quick_only

SIZE = (96, 64)  # maps of 6x4 cells
LABELS = np.array([0, 0, 1, 1, 2, 2], np.int32)
STRIDES = (1, 2, 2, 1)
LAMBDAS = (0.0, 0.3, 0.5, 0.7, 1.0)
PAIRS = ("low&middle", "middle&high")
ALL = ("low", "middle", "high")
CLASSES = 5


def tiny(depths=(1, 1, 3, 2), block="bottleneck", ibn=False, **settings):
    """An HBFP-Net with two blocks of res4 and two of res5 in its second pass."""
    settings = {"correlation_dim": 4, "perception_dim": 6, **settings}
    trunk = ResNet(depths=depths, width=2, block=block, ibn=ibn)
    return HBFP(num_classes=CLASSES, trunk=trunk, **settings)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).normal(size=(6, *SIZE, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def variables(images):
    shapes = jax.eval_shape(tiny().init, jax.random.key(0), images)
    return reference.random_variables(shapes, np.random.default_rng(2))


def wanted(variables, images, train, levels=ALL, pairs=PAIRS, hierarchy=True):
    """In float64: the trunk's maps, those informed by BFP, and those that are pooled."""
    double = reference.in_float64(variables)
    params, stats = double["params"], double["batch_stats"]

    def block(x, name):
        return reference.block(x, params[name], stats=None if train else stats[name])

    def bfp(name, x, y):
        return reference.bfp(x, y, params[name], None if train else stats[name])

    blocks = reference.resnet_blocks(
        np.float64(images), params["trunk"], STRIDES, None if train else stats["trunk"]
    )
    low, middle, high = blocks["layer3_0"], blocks["layer3_2"], blocks["layer4_1"]
    trunk = {"low": low, "middle": middle, "high": high}
    informed = dict(trunk)
    if pairs == PAIRS:
        informed["low"], from_low = bfp("bfp_low_middle", low, middle)
        from_high, informed["high"] = bfp("bfp_middle_high", middle, high)
        informed["middle"] = from_low + from_high
    elif pairs == ("low&middle",):
        informed["low"], informed["middle"] = bfp("bfp_low_middle", low, middle)
    elif pairs == ("middle&high",):
        informed["middle"], informed["high"] = bfp("bfp_middle_high", middle, high)
    pooled = dict(informed)
    if hierarchy:
        x = block(block(informed["low"], "second_res4_0"), "second_res4_1")
        pooled["middle"] = x + informed["middle"]
        x = block(block(pooled["middle"], "second_res5_0"), "second_res5_1")
        pooled["high"] = x + informed["high"]
    return tuple([maps[level] for level in levels] for maps in (trunk, informed, pooled))


def pooled_in_float64(maps, lambdas=LAMBDAS):
    """Pool each map. Fails if a value is so near a threshold that float32 could choose
    otherwise."""
    for x in maps:
        low, spread = x.min(axis=(1, 2), keepdims=True), np.ptp(x, axis=(1, 2), keepdims=True)
        for threshold in set(lambdas) - {0.0, 1.0}:
            near = np.abs(x - low - threshold * spread) <= 1e-6 * spread
            assert not np.any(near & (spread > 0))
    return [reference.generalized_pool(x, lambdas) for x in maps]


def close(got, want):
    assert got.dtype == jnp.float32
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


def test_training_equals_numpy_in_float64(variables, images):
    """Figure 2 with batch statistics: trunk, both BFP, second pass, fusion, pooling, heads."""

    @jax.jit
    def run(variables, images):
        return tiny().apply(
            variables, images, LABELS, jax.random.key(5), method="training", mutable=["batch_stats"]
        )

    outputs, updates = run(variables, images)
    _, _, maps = wanted(variables, images, train=True)
    assert len(outputs) == 3
    for level, (output, want) in enumerate(zip(outputs, pooled_in_float64(maps), strict=True)):
        close(output.embedding, want)
        head = reference.in_float64(variables["params"][f"heads_{level}"]["classifier"])
        close(output.logits, want @ head["kernel"] + head["bias"])
    jax.tree.map(
        lambda new, old: np.testing.assert_array_less(0, np.abs(new - old).max()),
        updates["batch_stats"],
        variables["batch_stats"],
    )


@pytest.mark.slow
def test_gradients_do_not_depend_on_optimisation(variables, images):
    """A program that computes a map twice may round it in two ways."""
    network = tiny(lambdas=(1.0,))  # max pooling

    def loss(params):
        state = {"params": params, "batch_stats": variables["batch_stats"]}
        labels, key = jnp.arange(len(images)), jax.random.key(0)
        outputs, _ = network.apply(
            state, images, labels, key, method="training", mutable=["batch_stats"]
        )
        return sum(jnp.square(output.embedding - 1).sum() for output in outputs)

    lowered = jax.jit(jax.grad(loss)).lower(variables["params"])
    little, much = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(compiled(variables["params"]))])
        for compiled in (
            lowered.compile({"xla_backend_optimization_level": level}) for level in (0, 3)
        )
    )
    assert np.linalg.norm(little - much) < 1e-4 * np.linalg.norm(much)


def test_inference_equals_numpy_in_float64(variables, images):
    _, _, maps = wanted(variables, images, train=False)
    got = jax.jit(tiny().apply)(variables, images)
    assert got.shape == (6, 32 + 32 + 64)
    close(got, np.concatenate(pooled_in_float64(maps), axis=1))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("neck", ["none", "batch_norm"])
def test_reduction_and_neck_are_those_of_every_head(images, reduction, neck):
    """The trunk's maps without BFP are used, because the leaves do not affect BFP."""
    network = tiny(pairs=(), hierarchy=False, reduction=reduction, neck=neck)
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)
    variables = reference.random_variables(shapes, np.random.default_rng(2))
    _, _, maps = wanted(variables, images, train=False, pairs=(), hierarchy=False)
    want = pooled_in_float64(maps)
    if reduction == "mean":
        want = [x / len(LAMBDAS) for x in want]
    if neck == "batch_norm":
        double = reference.in_float64(variables)
        parts = double["params"], double["batch_stats"]
        heads = [[part[f"heads_{i}"]["neck"] for i in range(3)] for part in parts]
        want = [
            reference.batch_norm(x, {**scale, "bias": 0.0}, stats)
            for x, scale, stats in zip(want, *heads, strict=True)
        ]
    close(jax.jit(network.apply)(variables, images), np.concatenate(want, axis=1))


def test_the_initial_deviation_is_that_of_every_classifier():
    network = tiny(pairs=(), hierarchy=False, classifier_std=0.5)
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    for level in range(3):
        kernel = params[f"heads_{level}"]["classifier"]["kernel"]
        assert abs(float(kernel.std()) / 0.5 - 1) < 5 / np.sqrt(2 * kernel.size)


@pytest.mark.parametrize(("block", "ibn"), [("basic", True), ("bottleneck", True)])
def test_with_another_trunk_the_second_pass_has_its_blocks(images, block, ibn):
    """In res4 with IBN-a's norms, in res5 without, as in the trunk."""
    network = tiny(block=block, ibn=ibn)
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)
    variables = reference.random_variables(shapes, np.random.default_rng(2))
    for number in range(2):
        assert "instance" in variables["params"][f"second_res4_{number}"]["bn1"]
        assert "instance" not in variables["params"][f"second_res5_{number}"]["bn1"]
    _, _, maps = wanted(variables, images, train=False)
    got = jax.jit(network.apply)(variables, images)
    assert got.shape == (6, 8 + 8 + 16 if block == "basic" else 32 + 32 + 64)
    close(got, np.concatenate(pooled_in_float64(maps), axis=1))


# The rows of tables 2 and 3: the trained levels, the pairs that inform each other, whether there is
# a hierarchy, and the number of LAMBDAS.
ROWS = {
    "middle+high": ("middle high", "", False, 1),
    "low+middle+high": ("low middle high", "", False, 1),
    "bfp_low_middle+high": ("low middle high", "low&middle", False, 1),
    "bfp_middle_high": ("middle high", "middle&high", False, 1),
    "low+bfp_middle_high": ("low middle high", "middle&high", False, 1),
    "bfp_low_middle_high": ("low middle high", "low&middle middle&high", False, 1),
    "hbfp": ("low middle high", "low&middle middle&high", True, 1),
    "hbfp+gep": ("low middle high", "low&middle middle&high", True, 5),
    "gep_0": ("low middle high", "low&middle middle&high", True, 1),
    "gep_0.3": ("low middle high", "low&middle middle&high", True, 2),
    "gep_0.5": ("low middle high", "low&middle middle&high", True, 3),
    "gep_0.7": ("low middle high", "low&middle middle&high", True, 4),
    "gep_1": ("low middle high", "low&middle middle&high", True, 5),
}


def ablated(row):
    levels, pairs, hierarchy, count = ROWS[row]
    return {
        "levels": tuple(levels.split()),
        "pairs": tuple(pairs.split()),
        "hierarchy": hierarchy,
        "lambdas": LAMBDAS[:count],
    }


def parameters_of(variables, network, images):
    """The variables of a row, out of the whole network's; its heads are the first ones."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)
    level_of_head = [ALL.index(level) for level in network.levels]

    def pick(tree, names):
        return {
            name: tree[f"heads_{level_of_head[int(name[6:])]}" if name[:5] == "heads" else name]
            for name in names
        }

    return {kind: pick(tree, shapes[kind]) for kind, tree in variables.items()}


@pytest.mark.parametrize(
    "row", quick_only([row for row in ROWS if not ROWS[row][2]], "middle+high", "bfp_middle_high")
)
def test_rows_without_hierarchy_pool_what_bfp_informed(variables, images, row):
    """A level without a pair uses the trunk's own map."""
    settings = ablated(row)
    network = tiny(**settings)
    given = parameters_of(variables, network, images)
    lambdas = settings.pop("lambdas")
    trunk, informed, pooled = wanted(given, images, train=False, **settings)
    maps, cams, of_labels, descriptor = jax.jit(
        lambda v, x: (
            network.apply(v, x, train=False, method="maps"),
            network.apply(v, x, method="class_activations"),
            network.apply(v, x, LABELS, method="class_activations"),
            network.apply(v, x),
        )
    )(given, images)
    assert len(maps) == len(settings["levels"])
    paired = " ".join(settings["pairs"])
    for level, got, want, plain in zip(settings["levels"], maps, pooled, trunk, strict=True):
        close(got, want)
        assert (want is plain) == (level not in paired)
    close(descriptor, np.concatenate(pooled_in_float64(pooled, lambdas), axis=1))
    logits, weights = classified(given, pooled, lambdas)
    predicted = [x.argmax(axis=1) for x in logits]
    check_cams(cams, trunk, informed, weights, predicted)
    check_cams(of_labels, trunk, informed, weights, [LABELS] * len(trunk))
    for column, level in enumerate(settings["levels"]):
        same = np.array_equal(cams[:, 0, column], cams[:, -1, column])
        assert same == (level not in paired)
        # Average pooling reads the output of BFP: the mean of the map is the logit without the
        # bias.
        bias = given["params"][f"heads_{column}"]["classifier"]["bias"][predicted[column]]
        means = np.float64(cams[:, -1, column]).mean(axis=(1, 2))
        np.testing.assert_allclose(means + bias, logits[column].max(axis=1), rtol=1e-4)


def classified(variables, pooled, lambdas=LAMBDAS):
    """In float64: each head's logits (B, classes), and its classifier's weights (C, classes).

    Fails if two logits are so near each other that float32 could predict another class.
    """
    heads = reference.in_float64(variables["params"])
    logits, weights = [], []
    for number, embedding in enumerate(pooled_in_float64(pooled, lambdas)):
        head = heads[f"heads_{number}"]["classifier"]
        logits.append(embedding @ head["kernel"] + head["bias"])
        weights.append(head["kernel"])
        first, second = np.sort(logits[-1], axis=1)[:, :-3:-1].T
        assert np.all(first - second > 1e-3 * np.abs(first))
    return logits, weights


def check_cams(got, trunk, informed, weights, classes):
    """Check the maps of these classes, (B,) per level; a network without pairs has one row."""
    nothing_informed = all(x is y for x, y in zip(trunk, informed, strict=True))
    rows = [
        [
            reference.class_activation_map(x, kernel.T[chosen])
            for x, kernel, chosen in zip(maps, weights, classes, strict=True)
        ]
        for maps in ((trunk,) if nothing_informed else (trunk, informed))
    ]
    want = np.stack([np.stack(row, axis=1) for row in rows], axis=1)
    assert want.shape == (6, 1 if nothing_informed else 2, len(trunk), 6, 4)
    assert want.min() < 0 < want.max()  # CAM is not rectified.
    close(got, want)


def test_class_activations_are_those_of_the_trunk_and_of_bfp(variables, images):
    """Figure 5: the second pass gives the predicted classes; the maps are from before it."""
    trunk, informed, pooled = wanted(variables, images, train=False)
    logits, weights = classified(variables, pooled)
    predicted = [x.argmax(axis=1) for x in logits]
    assert len(np.unique(predicted, axis=0)) > 1  # A level uses its own head's prediction.
    face = jax.jit(functools.partial(tiny().apply, method="class_activations"))
    check_cams(face(variables, images), trunk, informed, weights, predicted)
    for labels in (LABELS, LABELS[::-1].copy()):
        check_cams(face(variables, images, labels), trunk, informed, weights, [labels] * 3)


def flat(tree):
    """The shapes of leaves by path."""
    return {
        "/".join(key.key for key in path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def bfp_shapes(d_1, d_2):
    """Shapes of a BFP's parameters for the paper's L = 512 and L' = 2048 (equations 1, 2, 4, 5)."""
    linear = {
        "u": (d_1, 512),
        "v": (d_2, 512),
        "u_prime": (d_1, 2048),
        "v_prime": (d_2, 2048),
        "p_x": (2048, d_1),
        "p_y": (2048, d_2),
    }
    shapes = {"p": (512,)}
    for side, channels in (("x", d_1), ("y", d_2)):
        shapes |= {f"mask_{side}/kernel": (channels, 1), f"mask_{side}/bias": (1,)}
    for name, (inputs, outputs) in linear.items():
        shapes[f"{name}/linear/kernel"] = (inputs, outputs)
        shapes |= {f"{name}/bn/{leaf}": (outputs,) for leaf in ("scale", "bias")}
    return shapes


# ResNet-50 without classifier; its layer4; any block of its layer3 except the first.
RESNET50, RES5, RES4_BLOCK = 23_508_032, 14_964_736, 1_117_184
# Masks + p + U and V + U' and V' + P_x and P_y, each linear map with its batch norm.
BFP_LOW_MIDDLE = 2 * 1_025 + 512 + 2 * 525_312 + 2 * 2_101_248 + 2 * 2_099_200
BFP_MIDDLE_HIGH = (
    1_025 + 2_049 + 512 + 525_312 + 1_049_600 + 2_101_248 + 4_198_400 + 2_099_200 + 4_198_400
)


def full_size(recipe, row):
    """The network of a recipe's row, and its variables' shapes for 751 identities."""
    config = importlib.import_module(f"reid_jax.configs.{recipe}").get_config(row)
    network = models.create(config.model, 751)
    network.check(config.data.image_size)
    images = jnp.zeros((1, *config.data.image_size, 3))
    return network, jax.eval_shape(network.init, jax.random.key(0), images)


@pytest.mark.parametrize(
    "row", quick_only(common.HBFP_ROWS, "middle+high", "bfp_low_middle_high", "hbfp", "hbfp+gep")
)
def test_a_row_of_the_tables_has_its_parameters(row):
    levels, pairs, hierarchy, _ = ROWS[row]
    levels, pairs = levels.split(), pairs.split()
    network, variables = full_size("hbfp_market", row)
    assert (tuple(network.levels), tuple(network.pairs)) == (tuple(levels), tuple(pairs))
    assert tuple(network.lambdas) == ablated(row)["lambdas"]
    params = variables["params"]
    bfps = {}
    if "low&middle" in pairs:
        bfps["bfp_low_middle"] = bfp_shapes(1024, 1024)
    if "middle&high" in pairs:
        bfps["bfp_middle_high"] = bfp_shapes(1024, 2048)
    seconds = {}
    if hierarchy:
        seconds = {f"second_res4_{number}": f"layer3_{number + 1}" for number in range(5)}
        seconds |= {f"second_res5_{number}": f"layer4_{number}" for number in range(3)}
    widths = [{"low": 1024, "middle": 1024, "high": 2048}[level] for level in levels]
    heads = {f"heads_{number}": width for number, width in enumerate(widths)}

    assert params.keys() == {"trunk", *bfps, *seconds, *heads}
    assert variables["batch_stats"].keys() == {"trunk", *bfps, *seconds}
    for name, shapes in bfps.items():
        assert flat(params[name]) == shapes
    for name, original in seconds.items():
        for kind in ("params", "batch_stats"):
            assert flat(variables[kind][name]) == flat(variables[kind]["trunk"][original])
    for name, width in heads.items():
        want = {"classifier/kernel": (width, 751), "classifier/bias": (751,)}
        assert flat(params[name]) == want
    total = RESNET50 + 751 * (sum(widths) + len(widths))
    total += BFP_LOW_MIDDLE * ("low&middle" in pairs) + BFP_MIDDLE_HIGH * ("middle&high" in pairs)
    total += (5 * RES4_BLOCK + RES5) * hierarchy
    assert sum(math.prod(shape) for shape in flat(params).values()) == total


def test_the_tables_rows_are_those():
    assert common.HBFP_ROWS.keys() == ROWS.keys()
    assert sorted(common.BASELINE_ROWS) == ["ls", "ls+cutout", "triplet"]
    _, variables = full_size("hbfp_market", "")
    count = sum(math.prod(shape) for shape in flat(variables["params"]).values())
    assert count == 70_766_865  # computed by hand


@pytest.mark.parametrize("row", common.BASELINE_ROWS)
def test_a_baseline_row_has_its_parameters(row):
    _, variables = full_size("baseline_market", row)
    heads = set() if row == "triplet" else {"heads_0"}
    assert variables["params"].keys() == {"trunk", *heads}
    assert variables["batch_stats"].keys() == {"trunk"}
    total = RESNET50 + (751 * (2048 + 1) if heads else 0)
    assert sum(math.prod(shape) for shape in flat(variables["params"]).values()) == total


@pytest.mark.parametrize("block", ["bottleneck", "basic"])
@pytest.mark.parametrize("ibn", [False, True])
def test_the_second_pass_starts_from_a_trunk_that_was_replaced(images, block, ibn):
    """As with a pretrained trunk: weights and batch statistics, block by block."""
    network = tiny(block=block, ibn=ibn)
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)
    variables, other = (
        reference.random_variables(shapes, np.random.default_rng(seed)) for seed in (2, 7)
    )
    given = {kind: {**variables[kind], "trunk": other[kind]["trunk"]} for kind in variables}
    untouched = jax.tree.map(np.copy, given)
    started = network.start(given)
    originals = {
        "second_res4_0": "layer3_1",
        "second_res4_1": "layer3_2",
        "second_res5_0": "layer4_0",
        "second_res5_1": "layer4_1",
    }
    jax.tree.map(np.testing.assert_array_equal, given, untouched)
    assert started.keys() == given.keys()
    # The copies have the shapes of the second pass.
    jax.tree.map(lambda x, y: np.testing.assert_equal(x.shape, y.shape), started, dict(shapes))
    for kind, tree in started.items():
        assert tree.keys() == given[kind].keys()
        for name, got in tree.items():
            want = other[kind]["trunk"]
            want = want[originals[name]] if name in originals else given[kind][name]
            jax.tree.map(np.testing.assert_array_equal, got, want)


def test_without_hierarchy_a_run_starts_from_what_it_was_given(variables, images):
    network = tiny(hierarchy=False)
    given = parameters_of(variables, network, images)
    jax.tree.map(np.testing.assert_array_equal, network.start(given), given)


# The trained configuration; the second pass has one block of each stage.
SHALLOW = (1, 1, 2, 1)
SECOND = {"second_res4_0": "layer3_1", "second_res5_0": "layer4_0"}


def training_config():
    config = common.hbfp()
    config.augment.cutout_size = 16
    config.optim.lr = 1e-3
    config.optim.weight_decay = 0.0  # It would change parameters without a gradient.
    return config


def build(axis_name, dtype=jnp.float32):
    config = training_config()
    trunk = ResNet(depths=SHALLOW, width=2, axis_name=axis_name, dtype=dtype)
    network = HBFP(
        num_classes=4,
        trunk=trunk,
        correlation_dim=4,
        perception_dim=6,
        axis_name=axis_name,
        dtype=dtype,
    )
    schedule = schedules.create_schedule(config.optim, 10)
    optimizer = optimizers.create_optimizer(config.optim, schedule)
    return network, optimizer, make_step(network, optimizer, schedule, config, axis_name)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (16, *SIZE, 3)).astype(np.uint8)
    return {"image": images, "label": np.repeat(np.arange(4), 4).astype(np.int32)}


@pytest.fixture(scope="module")
def created():
    """A run's first state, created as in the trainer, a copy of it, and its leaves' buffers."""
    with jax.numpy_dtype_promotion("standard"):
        network, optimizer, _ = build(AXIS)
        state = create_state(network, optimizer, SIZE, seed=0)
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    return {"state": state, "copy": jax.tree.map(np.array, state), "buffers": buffers}


@pytest.fixture(scope="module")
def trajectories(created, batch):
    """Metrics and states of two steps, on 4 devices and on 1, and whether states were donated."""
    found = {}
    with jax.numpy_dtype_promotion("standard"):
        for count in (4, 1):
            _, _, step = build(AXIS)
            step = pmap_step(step, jax.devices()[:count])
            state = place(created["state"], jax.devices()[:count])
            metrics, states, deleted = [], [], []
            for _ in range(2):
                before = state
                state, scalars = step(state, shard(batch, count))
                metrics.append(jax.device_get(scalars))
                states.append(jax.tree.map(np.array, jax.device_get(state)))
                deleted.append(all(x.is_deleted() for x in jax.tree.leaves(before.params)))
            found[count] = {"metrics": metrics, "states": states, "deleted": deleted}
    return found


@pytest.mark.slow
def test_a_created_state_has_two_copies_of_the_trunks_blocks(created):
    state = created["copy"]
    for tree in (state.params, state.batch_stats):
        for name, original in SECOND.items():
            jax.tree.map(np.testing.assert_array_equal, tree[name], tree["trunk"][original])
    # Initialisation would give different values, because it draws each block with its own key.
    kernels = [
        block["conv1"]["kernel"] for block in state.params["trunk"].values() if "conv3" in block
    ]
    assert len({kernel.tobytes() for kernel in kernels}) == sum(SHALLOW)


@pytest.mark.slow
def test_gradients_reach_every_parameter_and_the_copies_train_apart(trajectories):
    first = trajectories[1]["states"][0]
    for path, moment in jax.tree_util.tree_leaves_with_path(first.opt_state[1].mu):
        assert np.isfinite(moment).all()
        assert np.any(moment != 0), path
    for name, original in SECOND.items():
        for leaf, other in zip(
            *map(jax.tree.leaves, (first.params[name], first.params["trunk"][original])),
            strict=True,
        ):
            assert np.any(leaf != other)
        for leaf, other in zip(
            *map(jax.tree.leaves, (first.batch_stats[name], first.batch_stats["trunk"][original])),
            strict=True,
        ):
            assert np.any(leaf != other)


@pytest.mark.slow
def test_metrics_are_the_three_levels_losses(trajectories):
    metrics = trajectories[1]["metrics"][0]
    parts = [metrics[f"loss/{loss}_{level}"] for loss in ("id", "triplet") for level in (1, 2, 3)]
    np.testing.assert_allclose(metrics["loss"], sum(parts), rtol=1e-6)
    assert "loss/id_4" not in metrics
    # A classifier near zero predicts all classes equally: the loss is log C for any smoothing.
    for level in (1, 2, 3):
        assert abs(metrics[f"loss/id_{level}"] - math.log(4)) < 0.1


@pytest.mark.slow
def test_four_devices_train_as_one_does(trajectories):
    """Batch statistics and mining use the whole batch, also in the second pass."""
    one, four = trajectories[1], trajectories[4]
    assert one["metrics"][0].keys() == four["metrics"][0].keys()
    for name, value in one["metrics"][0].items():
        np.testing.assert_allclose(four["metrics"][0][name], value, rtol=1e-3, err_msg=name)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
        one["states"][0].batch_stats,
        four["states"][0].batch_stats,
    )
    # The first moment after one step is 0.1 of the gradient.
    moments = [run["states"][0].opt_state[1].mu for run in (one, four)]
    largest = max(np.linalg.norm(x) for x in jax.tree.leaves(moments[0]))
    for x, y in zip(*map(jax.tree.leaves, moments), strict=True):
        assert np.linalg.norm(x - y) <= 1e-2 * np.linalg.norm(x) + 1e-5 * largest
    losses = [run["metrics"][1]["loss"] for run in (one, four)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4])
def test_the_state_is_donated(created, trajectories, count):
    """No two leaves share a buffer, although the second pass starts with the trunk's values."""
    assert len(set(created["buffers"])) == len(created["buffers"])
    assert trajectories[count]["deleted"] == [True, True]


@pytest.mark.slow
def test_bfloat16_step_stays_near_float32(created, batch, trajectories, standard_promotion):
    _, _, step = build(None, jnp.bfloat16)
    state = jax.tree.map(jnp.asarray, created["copy"])
    state, metrics = jax.jit(step)(state, batch)
    assert all(x.dtype in (jnp.float32, jnp.int32) for x in jax.tree.leaves(state))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state, metrics)))
    want = trajectories[1]["metrics"][0]
    np.testing.assert_allclose(metrics["loss"], want["loss"], rtol=0.05)
    np.testing.assert_allclose(metrics["gradient_norm"], want["gradient_norm"], rtol=0.3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": ("middle", "high")}, r"model\.pairs has 'low&middle'.*model\.levels.*'low'"),
        ({"levels": ("low", "middle")}, r"model\.pairs has 'middle&high'.*model\.levels.*'high'"),
        ({"pairs": ("middle&high",)}, r"model\.hierarchy"),
        ({"pairs": ()}, r"model\.hierarchy"),
        ({"depths": (1, 1, 1, 1)}, r"model\.trunk\.depths is \(1, 1, 1, 1\)"),
    ],
)
def test_contradicting_settings_name_the_leaf(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(**settings).check(SIZE)


@pytest.mark.parametrize("row", ["hbfp", "middle+high"])
def test_levels_of_two_sizes_name_the_leaf(row):
    trunk = ResNet(depths=SHALLOW, width=2, strides=(1, 2, 2, 2))
    with pytest.raises(ValueError, match=r"model\.trunk\.strides is \(1, 2, 2, 2\)"):
        HBFP(num_classes=CLASSES, trunk=trunk, **ablated(row)).check(SIZE)


@pytest.mark.parametrize("row", ROWS)
def test_settings_of_the_tables_contradict_nothing(row):
    tiny(**ablated(row)).check(SIZE)
