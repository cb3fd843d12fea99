"""The recipes: strict strings, the papers' settings, shapes at full size."""

import functools
import importlib
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from reid_jax import models
from reid_jax.configs import common, sizes
from reid_jax.runs.settings import check
from reid_jax.schedules import create_schedule
from reid_jax.training.optimizer import create_optimizer
from reid_jax.training.state import create_state
from reid_jax.training.step import make_step

FOLDER = pathlib.Path(common.__file__).parent
# Every recipe in several forms; all rows of a table with one dataset.
STRINGS = {
    "pmm_market": [
        "",
        "small",
        "half",
        *common.PAPER_MIXINGS,
        *(f"{name},small" for name in common.PAPER_MIXINGS),
    ],
    "pmm_duke": ["", "small"],
    "pmm_cuhk03": ["", "detected", "labeled", "detected,small", "labeled,small", "small"],
    "pmm_synthetic": ["", "small"],
    "bdb_market": ["", "small", "half"],
    "bdb_duke": ["", "small"],
    "bdb_cuhk03": ["", "detected,small", "labeled,small"],
    "bdb_synthetic": ["", "small"],
    "hbfp_market": ["", "small", "half", *(f"{row},small" for row in common.HBFP_ROWS)],
    "hbfp_duke": ["", "small"],
    "hbfp_cuhk03": ["", "detected,small", "labeled,small"],
    "hbfp_synthetic": ["", "small"],
    "baseline_market": ["", "small", "half", *(f"{row},small" for row in common.BASELINE_ROWS)],
    "baseline_duke": ["", "small"],
    "baseline_cuhk03": ["", "detected,small", "labeled,small"],
    "baseline_synthetic": ["", "small"],
    "strong_market": ["", "small", "half"],
    "strong_duke": ["", "small"],
    "strong_cuhk03": ["", "detected,small", "labeled,half"],
    "strong_synthetic": ["", "small"],
}
RECIPES = [(name, string) for name, strings in STRINGS.items() for string in strings]
# Without a mark: each network at full size.
STEPS = [
    pytest.param(
        *(name, string),
        marks=[] if name.endswith("_market") and not string else [pytest.mark.slow],
    )
    for name, string in RECIPES
]
# Tracing a trunk takes seconds at its full depth, which one recipe of each network keeps.
SHALLOW = (1, 1, 2, 1)

# The strong baseline's leaves, with the values at which the papers' networks are unchanged.
PLAIN_AUGMENT = {"crop_padding": 0, "brightness": 0, "contrast": 0, "saturation": 0}
PLAIN_LOSS = {"triplet_weight": 1, "metric": "euclidean", "id_margin": 0}
WHOLE_NETWORK = {"trunk_lr": 1, "frozen_epochs": 0}


def load(name, string=""):
    return importlib.import_module(f"reid_jax.configs.{name}").get_config(string)


def test_every_file_is_tested():
    files = {path.stem for path in FOLDER.glob("*.py")} - {"common", "sizes", "__init__"}
    assert files == set(STRINGS)


@pytest.fixture(scope="module")
def traced():
    """A function that traces the step and the network of a recipe.

    It returns the network, and the shapes of the state, of the state and metrics after a step, and
    of what the network makes of two images. Recipes that differ only in their data and lengths
    have the same ones, and are traced once.
    """
    found = {}

    def trace(config):
        size = config.data.image_size
        count = config.data.identities_per_batch * config.data.images_per_identity
        parts = (config.model, config.augment, config.loss, config.optim)
        key = (*(part.to_json() for part in parts), tuple(size), count)
        if key not in found:
            found[key] = trace_step(config, tuple(size), count)
        return found[key]

    return trace


def trace_step(config, size, count):
    network = models.create(config.model, num_classes=751)
    schedule = create_schedule(config.optim, 47)
    optimizer = create_optimizer(config.optim, schedule, 47)
    state = jax.eval_shape(lambda: create_state(network, optimizer, size, config.seed))
    batch = {
        "image": jax.ShapeDtypeStruct((count, *size, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((count,), jnp.int32),
    }
    after = jax.eval_shape(make_step(network, optimizer, schedule, config, None), state, batch)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    images = jnp.zeros((2, *size, 3))
    made = [jax.eval_shape(network.apply, variables, images)]
    if network.classifies:
        gradcams = functools.partial(network.apply, method="gradcams")
        made.append(jax.eval_shape(gradcams, variables, images))
    return network, state, after, made


@pytest.mark.parametrize(("name", "string"), STEPS)
def test_a_step_of_every_recipe_has_shapes(name, string, traced, standard_promotion):
    config = load(name, string)
    check(config)
    if string or not name.endswith("_market"):
        depths = zip(config.model.trunk.depths, SHALLOW, strict=True)
        config.model.trunk.depths = tuple(min(pair) for pair in depths)
    network, state, (new_state, metrics), (descriptor, *cams) = traced(config)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), new_state) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert metrics["loss"].dtype == jnp.float32
    assert descriptor.shape == (2, descriptor_size(config.model))
    assert descriptor.dtype == jnp.float32
    stages = sum(name.startswith("loss/id") for name in metrics)
    assert len(cams) == (stages > 0)
    for cam in cams:
        assert cam.shape == (2, stages, *network.trunk.map_size(config.data.image_size))


def descriptor_size(model):
    """Numbers in a descriptor, from the papers."""
    if model.name == "pmm":
        return 3 * model.embedding_dim
    if model.name == "bdb":
        return model.global_dim + model.part_dim
    width = 16 * model.trunk.width  # res4's; res5's is twice as large
    if model.name == "baseline":
        return (model.whole_dim or 2 * width) + model.stripes * (model.stripe_dim or 2 * width)
    return sum({"low": width, "middle": width, "high": 2 * width}[level] for level in model.levels)


def test_every_row_of_hbfps_tables_is_a_string_of_every_recipe():
    for data in ("market", "duke", "cuhk03", "synthetic"):
        for row, settings in common.HBFP_ROWS.items():
            model = load(f"hbfp_{data}", row).model.to_dict()
            assert settings.items() <= model.items()
        for row in common.BASELINE_ROWS:
            config = load(f"baseline_{data}", row)
            assert config.model.classifier == (row != "triplet")
            if data != "synthetic":
                assert config.augment.cutout_probability == (0.5 if row == "ls+cutout" else 0.0)


@pytest.mark.parametrize("name", ["hbfp_market", "hbfp_duke", "hbfp_cuhk03", "baseline_market"])
def test_hbfps_paper_settings(name):
    config = load(name)
    assert tuple(config.model.trunk.depths) == (3, 4, 6, 3)
    assert tuple(config.data.image_size) == (384, 128)
    assert (config.data.identities_per_batch, config.data.images_per_identity) == (16, 4)
    assert config.loss.to_dict() == PLAIN_LOSS | {"triplet_margin": 0.3, "label_smoothing": 0.3}
    assert config.epochs == 500
    assert config.optim.to_dict() == {
        **WHOLE_NETWORK,
        "schedule": "exponential",
        "lr": 2e-4,
        "weight_decay": 5e-4,
        "warmup_epochs": 0,
        "decay_from": 200,
        "decay_until": 500,
        "final": 1e-3,
    }
    augment = config.augment
    assert (augment.flip, augment.erasing_probability, augment.cutout_probability) == (0.5,) * 3
    assert PLAIN_AUGMENT.items() <= augment.to_dict().items()
    model = config.model
    assert (model.neck, model.classifier_std) == ("none", 1e-3)
    if model.name == "baseline":
        assert (model.pooling, model.stripes, model.cosine_scale) == ("average", 0, 0)
    if config.model.name == "hbfp":
        assert (config.model.correlation_dim, config.model.perception_dim) == (512, 2048)
        assert tuple(config.model.lambdas) == (0, 0.3, 0.5, 0.7, 1)
        assert tuple(config.model.levels) == ("low", "middle", "high")
        assert config.model.hierarchy
        assert config.model.reduction == "sum"


@pytest.mark.parametrize(("name", "top_k"), [("pmm_market", 3), ("pmm_duke", 6), ("pmm_cuhk03", 8)])
def test_the_papers_settings(name, top_k):
    config = load(name)
    assert config.model.top_k == top_k
    assert tuple(config.model.block) == (3, 2)
    assert tuple(config.model.trunk.depths) == (3, 4, 6, 3)
    assert tuple(config.data.image_size) == (384, 128)
    assert config.data.identities_per_batch * config.data.images_per_identity == 64
    # A margin of 0 is the soft margin.
    assert config.loss.to_dict() == PLAIN_LOSS | {"triplet_margin": 0, "label_smoothing": 0.1}
    assert WHOLE_NETWORK.items() <= config.optim.to_dict().items()
    assert config.epochs == 400
    assert (config.model.stages, config.model.mixing) == (3, "hardmix")
    assert config.model.embedding_dim == 512
    assert tuple(config.model.trunk.strides) == (1, 2, 2, 1)
    assert config.data.identities_per_batch == 16
    assert config.augment.to_dict() == PLAIN_AUGMENT | {
        "flip": 0.5,
        "cutout_probability": 0.5,
        "cutout_size": 64,
        "erasing_probability": 0.0,
        "erasing_area": (0.02, 0.4),
        "erasing_aspect": (0.3, 3.33),
    }
    variables = jax.eval_shape(
        lambda: models.create(config.model, 751).init(
            jax.random.key(0), jnp.zeros((1, 384, 128, 3))
        )
    )
    # Trunk, extra bottleneck (3.15 M and 1x1s), three heads of 2048-512-751.
    assert abs(sum(np.prod(x.shape) for x in jax.tree.leaves(variables["params"])) - 32.3e6) < 0.2e6


@pytest.mark.parametrize("name", ["bdb_market", "bdb_duke", "bdb_cuhk03"])
def test_bdb_is_trained_as_pmm_is(name):
    """Table 2 of PMM's paper compares both under the same settings."""
    config, pmm = load(name), load(name.replace("bdb", "pmm"))
    assert (config.model.global_dim, config.model.part_dim) == (512, 1024)
    assert (config.model.drop_height, config.model.drop_width) == (0.33, 1.0)
    assert models.create(config.model, 751)._rectangle((24, 8)) == (8, 8)
    config.model = pmm.model
    assert config == pmm


NETWORKS = ["pmm", "bdb", "hbfp", "baseline", "strong"]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("data", ["market", "duke", "cuhk03"])
def test_every_recipe_of_real_data_has_every_size(name, data):
    found = {}
    for word in sizes.SIZES:
        config = load(f"{name}_{data}", word)
        check(config)
        found[word] = (config.model.trunk.width, tuple(config.data.image_size), config.epochs)
    assert len(set(found.values())) == len(sizes.SIZES)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("word", "epochs"), [("half", 16), ("half40", 40)])
def test_half_is_a_half_width_trunk_with_a_short_schedule(name, word, epochs):
    config, full = load(f"{name}_cuhk03", word), load(f"{name}_cuhk03")
    trunk = config.model.trunk
    assert (trunk.width, trunk.stem_width, trunk.stride_in_1x1) == (32, 64, True)
    for leaf in ("depths", "strides", "block", "ibn"):
        assert trunk[leaf] == full.model.trunk[leaf]
    assert tuple(config.data.image_size) == ((256, 128) if name == "strong" else (192, 64))
    batch = ("identities_per_batch", "images_per_identity")
    assert [config.data[leaf] for leaf in batch] == [full.data[leaf] for leaf in batch]
    assert config.epochs == epochs
    assert epochs % config.eval.every_epochs == 0  # The last epoch is evaluated.
    rate = create_schedule(config.optim, 10)
    rates = np.array([rate(jnp.int32(step)) for step in range(0, 10 * epochs, 5)])
    # The whole schedule fits: the highest rate is reached, and the last epoch has a low one.
    assert np.isclose(rates.max(), config.optim.lr)
    assert 0 < rates[-1] < 0.2 * config.optim.lr


def test_half_divides_what_is_counted_in_cells_and_pixels():
    assert load("pmm_cuhk03", "half").model.top_k == 2
    assert load("pmm_market", "half").model.top_k == 1
    half, full = load("pmm_cuhk03", "half"), load("pmm_cuhk03")
    assert half.augment.cutout_size * 2 == full.augment.cutout_size
    half, full = load("strong_cuhk03", "half"), load("strong_cuhk03")
    assert half.augment == full.augment  # The images are as wide as at full size.


def test_half_is_of_any_row():
    """A size changes the necessary leaves of a row, and keeps those that define the row."""
    for row, settings in common.HBFP_ROWS.items():
        assert settings.items() <= load("hbfp_cuhk03", f"{row},half").model.to_dict().items()
    for row in common.BASELINE_ROWS:
        config, full = load("baseline_cuhk03", f"{row},half"), load("baseline_cuhk03", row)
        assert config.model.classifier == full.model.classifier
        assert config.augment.cutout_probability == full.augment.cutout_probability
    for name in common.PAPER_MIXINGS:
        assert load("pmm_cuhk03", f"{name},half").model.mixing == name


def test_the_strong_recipe_has_what_the_papers_lack():
    """Its parts are fixed; the strength of each may change with new measurements."""
    config, paper = load("strong_market"), load("baseline_market")
    assert config.model.name == "baseline"
    assert config.model.classifier
    assert config.model.trunk == paper.model.trunk
    assert config.data.image_size == paper.data.image_size
    assert config.model != paper.model
    assert config.epochs < paper.epochs


@pytest.mark.parametrize("data", ["market", "duke", "cuhk03", "synthetic"])
def test_every_row_of_pmms_table_3_is_a_string(data):
    for name in common.PAPER_MIXINGS:
        config = load(f"pmm_{data}", name)
        assert config.model.mixing == name
        config.model.mixing = "hardmix"
        assert config == load(f"pmm_{data}")


def test_boxes_choose_the_folder():
    assert load("pmm_cuhk03", "labeled").data.root.endswith("labeled")
    assert load("pmm_cuhk03").data.root.endswith("detected")


@pytest.mark.parametrize(
    ("name", "string", "message"),
    [
        (
            "pmm_market",
            "smal",
            "unknown config string 'smal'; this recipe has hardmix, .*, small",
        ),
        ("pmm_cuhk03", "detected,tiny", "'tiny'; this recipe has detected, labeled, hardmix"),
        ("pmm_cuhk03", "detected,labeled", "detected and labeled exclude each other"),
        ("strong_cuhk03", "half,half40", "half and half40 exclude each other"),
        ("bdb_market", "small,half", "small and half exclude each other"),
        ("strong_market", "None", "'None'; this recipe has small, half, half40$"),
    ],
)
def test_unknown_strings_are_named(name, string, message):
    with pytest.raises(ValueError, match=message):
        load(name, string)


@pytest.mark.parametrize(("leaf", "value"), [("name", "pnn"), ("dtype", "float16")])
def test_unknown_networks_and_dtypes_are_named(leaf, value):
    config = load("pmm_market").model
    config[leaf] = value
    with pytest.raises(ValueError, match=rf"model\.{leaf} is '{value}'"):
        models.create(config, 10)


@pytest.mark.parametrize("name", ["pmm_market", "hbfp_market"])
def test_lists_make_the_same_network_as_tuples(name):
    model = load(name).model
    # A recipe from JSON. A leaf that was a tuple stays one.
    lists = models.create(ConfigDict(json.loads(model.to_json())), 10)
    network = models.create(model, 10)
    assert lists == network
    assert hash(lists) == hash(network)
