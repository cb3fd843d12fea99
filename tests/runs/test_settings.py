"""Checks of a recipe: each leaf, combinations of leaves, and all problems at once."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings, strategies
from ml_collections import ConfigDict

from reid_jax import choices, models
from reid_jax.data import layouts
from reid_jax.models import resnet
from reid_jax.runs import leaves
from reid_jax.runs.settings import check, check_leaves, unknown_leaf
from reid_jax.runs.settings import leaves_of as known_leaves
from reid_jax.schedules import SCHEDULES
from tests.test_configs import RECIPES, load

NAN, INF = float("nan"), float("inf")
# Together they have every network and every schedule.
NETWORKS = [*(f"{name}_market" for name in models.NETWORKS), "strong_market"]


def changed(name="pmm_market", leaves=(), without=()):
    """A recipe with other leaves, by dotted name and of any type, and without some leaves."""
    tree = load(name).to_dict()
    for leaf, value in dict(leaves).items():
        *sections, last = leaf.split(".")
        section = tree
        for part in sections:
            section = section.setdefault(part, {})
        section[last] = value
    for leaf in without:
        *sections, last = leaf.split(".")
        section = tree
        for part in sections:
            section = section[part]
        del section[last]
    return ConfigDict(tree)


def leaves_of(config, prefix=""):
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from leaves_of(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


LEAVES = [(name, *leaf) for name in NETWORKS for leaf in leaves_of(load(name))]


def refuses(config, message):
    with pytest.raises(ValueError, match=message):
        check(config)


@pytest.mark.parametrize(("name", "string"), RECIPES)
def test_every_recipe_passes_and_each_of_its_leaves_is_looked_at(name, string):
    """A new leaf of a recipe needs an entry in the table, and the table has no unused entry."""
    config = load(name, string)
    check(config)
    names = [leaf for leaf, _ in leaves_of(config)]
    with pytest.raises(ValueError, match="settings are wrong") as error:
        check(changed(name, dict.fromkeys(names, None)))
    # A recipe without network and schedule has only the other leaves.
    judged = [leaf for leaf in names if not leaf.startswith(("model.", "optim."))]
    assert all(f"\n  {leaf} is None; it must be " in str(error.value) for leaf in judged)
    for leaf in set(names) - set(judged):
        refuses(changed(name, {leaf: None}), rf"^{re.escape(leaf)} is None; it must be ")


def test_the_tables_hold_what_there_is():
    assert tuple(leaves.NETWORKS) == choices.NETWORKS == tuple(models.NETWORKS)
    assert tuple(leaves.SCHEDULES) == choices.SCHEDULES == tuple(SCHEDULES)
    assert tuple(resnet.BLOCKS) == choices.BLOCKS
    assert tuple(layouts._LAYOUTS) == choices.NAMED_LAYOUTS


@pytest.mark.parametrize("name", NETWORKS)
def test_every_leaf_has_a_meaning(name):
    """One sentence each, for `--help`."""
    for leaf, kind in known_leaves(load(name)).items():
        assert re.fullmatch(r"[A-Z].*\.", kind.meaning), leaf


# For each leaf, values that no run can have.
WRONG = {
    "seed": [-1, 1.0, True, "0", 2**31, None, NAN],
    "epochs": [0, 1.5, "abc"],
    "max_steps": [-1, 0.5],
    "devices": [-1, True],
    "data.layout": ["markt", "", 1, ("market1501",)],
    "data.root": [3, None, ("a",)],
    "data.pattern": [3, None],
    "data.folders": ["abc", ("a", "b"), (1, 2, 3), ("a",) * 4],
    "data.also": ["people:shop", ("shop",), ("peeple:shop",), ("people:",), (3,), ("synthetic:x",)],
    "data.balanced": [1, "True", None],
    "data.synthetic.seed": [-1],
    "data.synthetic.train_identities": [1, 2.5],
    "data.synthetic.test_identities": [0],
    "data.synthetic.train_cameras": [1],
    "data.synthetic.test_cameras": [1],
    "data.image_size": [64, (64,), (64, 0), (64, 32, 3), (64.0, 32.0), ("64", "32"), "64x32"],
    "data.loader": ["disc", "", None],
    "data.on_bad_image": ["ignore", None],
    "data.skip_limit": [1.0, -0.1, NAN],
    "data.identities_per_batch": [1, 0, 16.0],
    "data.images_per_identity": [1, 0],
    "augment.flip": [-0.1, 1.1, NAN, True, "0.5"],
    "augment.crop_padding": [-1, 2.5, True],
    "augment.brightness": [-0.1, 1.1, NAN],
    "augment.contrast": [-0.1, 1.1],
    "augment.saturation": [-0.1, 1.1, "0.2"],
    "augment.cutout_probability": [-0.1, 1.1],
    "augment.cutout_size": [0, 1.5],
    "augment.erasing_probability": [-0.1, 1.1],
    "augment.erasing_area": [(0.4, 0.02), (0.02, 1.4), (0.0, 0.1), (0.1,), 0.1, (0.1, NAN)],
    "augment.erasing_aspect": [(0.0, 1.0), (1.0, 2.0, 3.0), (3.0, 0.3), (0.3, INF)],
    "loss.triplet_margin": [-0.1, NAN, INF, "0.3", 1e39, 10**400],
    "loss.triplet_weight": [-1.0, NAN, INF, "1"],
    "loss.metric": ["l2", "Cosine", None],
    "loss.label_smoothing": [1.0, -0.1],
    "loss.id_margin": [-0.1, INF],
    "eval.every_epochs": [0],
    "eval.batch_size": [0],
    "eval.flip": [1, 0, "yes", None],
    "eval.normalize": ["True"],
    "eval.block_size": [0],
    "log.every_steps": [0],
    "checkpoint.every_epochs": [0],
    "checkpoint.keep": [0],
    "optim.schedule": ["cosin", None],
    "optim.lr": [0.0, -1.0, NAN, INF, "abc", True],
    "optim.weight_decay": [-1e-4, INF],
    "optim.trunk_lr": [0.0, -0.1, 1.1, NAN, True],
    "optim.frozen_epochs": [-1, 0.5],
    "optim.warmup_epochs": [-5, 2.5],
    "optim.warmup_every": [0],
    "optim.milestones": [200, (300, 200), (200, 200), (0,), (200.5,)],
    "optim.decay": [0.0, 1.1],
    "optim.decay_from": [-1],
    "optim.decay_until": [0, 500.5],
    "optim.final": [0.0, 1.5],
    "model.name": ["pnn", None],
    "model.dtype": ["float16", 32],
    "model.trunk.depths": [(1, 1, 1), (3, 4, 6, 0), 3],
    "model.trunk.width": [0],
    "model.trunk.stem_width": [-1, 64.0, True, None, "64"],
    "model.trunk.base_width": [0, -64, 128.0, True, None],
    "model.trunk.strides": [(1, 2, 0, 1), (1, 2, 2)],
    "model.trunk.stride_in_1x1": [1, 0, "True", None],
    "model.trunk.block": ["Basic", "", None, ("basic",)],
    "model.trunk.ibn": [1, "True", None],
    "model.pretrained": [None, 0, ("a.pth",)],
    "model.classifier": [1],
    "model.classifier_std": [0.0, -1e-3, INF],
    "model.cosine_scale": [-1.0, NAN],
    "model.pooling": ["mean", "generalized", None],
    "model.neck": ["bn", None, True],
    "model.stripes": [-1, 2.0, True],
    "model.whole_dim": [-1, 2.0, True],
    "model.stripe_dim": [-1, 2.0, True],
    "model.global_dim": [0],
    "model.part_dim": [-1],
    "model.drop_height": [0.0, 1.1, NAN],
    "model.drop_width": [0.0, 1.5],
    "model.embedding_dim": [0],
    "model.stages": [0, 4, 2.0, True],
    "model.mixing": ["cutmixx", np.array(["cutmix", "none"])],
    "model.block": [(0, 2), (3,), 3, (3, 2, 1), (3.0, 2.0)],
    "model.top_k": [0, 1.0],
    "model.levels": [(), ("high", "low"), ("low", "low", "high"), ("low", "top"), "high"],
    "model.pairs": [("middle&high", "low&middle"), ("low&high",)],
    "model.hierarchy": [0],
    "model.lambdas": [(), (0.0, 1.5), (-0.1,), (NAN,), 0.5],
    "model.reduction": ["max", None],
    "model.correlation_dim": [0],
    "model.perception_dim": [-1],
}


def test_each_leaf_has_wrong_values():
    assert WRONG.keys() == {leaf for _, leaf, _ in LEAVES}


@pytest.mark.parametrize("leaf", WRONG)
def test_a_wrong_value_names_its_leaf(leaf):
    name = next(recipe for recipe, other, _ in LEAVES if other == leaf)
    for value in WRONG[leaf]:
        refuses(changed(name, {leaf: value}), rf"^{re.escape(leaf)} is .*; it must be ")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_last_rate_may_be_0_where_the_schedule_allows_it(schedule):
    """An exponential decay never reaches 0."""
    name = next(name for name in NETWORKS if load(name).optim.schedule == schedule)
    if schedule == "cosine":
        check(changed(name, {"optim.final": 0.0}))
        refuses(changed(name, {"optim.final": -0.1}), r"^optim\.final is -0\.1; it must be ")
    elif schedule == "exponential":
        refuses(changed(name, {"optim.final": 0.0}), r"^optim\.final is 0\.0; it must be ")
    else:
        refuses(changed(name, {"optim.final": 0.0}), r"^optim\.final is not a leaf of this recipe")


@pytest.mark.parametrize(
    "leaves",
    [
        {"loss.triplet_margin": 0, "optim.decay": 1, "augment.flip": 1},  # ints for floats
        {"data.image_size": [384, 128], "optim.milestones": [], "model.block": [3, 2]},
        {"optim.milestones": (50,), "optim.warmup_epochs": 50},
        {"optim.warmup_epochs": 0, "optim.milestones": (1,)},
        {"data.layout": "folder", "data.folders": ("a", "b", "c"), "data.pattern": "x"},
        {"data.layout": "market1501", "data.folders": ("a", "b", "c")},
        {"data.layout": "people", "data.folders": ("a", "b", "c")},
        {"data.layout": "csv", "data.root": "people.csv"},
        {"data.also": ["csv:C:/people.csv", "cuhk03:cuhk03-np/detected"]},
        {"data.also": ("people:a b",), "data.balanced": True, "data.identities_per_batch": 2},
        {"augment.erasing_area": (0.1, 0.1), "model.stages": 1, "model.top_k": 99},
        {"augment.cutout_size": 1000, "augment.cutout_probability": 0},
        {"data.image_size": (48, 32), "augment.cutout_size": 32, "model.top_k": 1},
        {"model.trunk.block": "basic", "model.trunk.ibn": True, "model.trunk.width": 2},
        {"model.trunk.width": 1},
        {"model.trunk.width": 32, "model.trunk.stem_width": 64, "model.trunk.stride_in_1x1": True},
        {"model.trunk.base_width": 128},
        {"model.trunk.base_width": 1, "model.trunk.stem_width": 1},
        {"model.trunk.block": "basic", "model.trunk.stem_width": 24},
        {"augment.crop_padding": 127, "augment.brightness": 1, "augment.saturation": 0},
        {"loss.triplet_weight": 0, "loss.id_margin": 3, "loss.metric": "cosine"},
        {"optim.trunk_lr": 0.1, "optim.frozen_epochs": 1000},
    ],
)
def test_what_a_run_can_have_passes(leaves):
    check(changed(leaves=leaves))


@pytest.mark.parametrize(
    "leaves",
    [
        {"model.stripes": 24},  # of one row
        {"model.stripes": 1, "model.neck": "batch_norm", "model.pooling": "max"},
        {"model.cosine_scale": 30, "loss.id_margin": 10.5},
        {"model.classifier": False, "loss.triplet_weight": 0.1},
        {"model.classifier": False, "model.pooling": "gem"},
        {"optim.warmup_epochs": 300},
    ],
)
def test_what_a_baseline_can_have_passes(leaves):
    check(changed("baseline_market", leaves))


@pytest.mark.parametrize(
    ("name", "leaves", "message"),
    [
        ("pmm", {"model.top_k": 33}, r"model\.top_k is 33, but a map of 24x8 cells has 32 blocks"),
        ("pmm", {"data.image_size": (352, 128)}, r"blocks of 3x2 .*model\.block.* do not tile"),
        ("pmm", {"data.pattern": "x"}, r"data\.pattern is 'x', but data\.layout 'market1501'"),
        (
            "pmm",
            {"data.layout": "people", "data.pattern": "x"},
            r"data\.pattern is 'x', but data\.layout 'people' takes none: it is for .*'folder'",
        ),
        (
            "pmm",
            {"data.layout": "csv", "data.folders": ("a", "b", "c")},
            r"data\.folders is .*data\.layout 'csv' names each file: leave it empty",
        ),
        (
            "pmm",
            {"data.layout": "synthetic", "data.folders": ("a", "b", "c")},
            r"data\.folders is .*data\.layout 'synthetic' draws",
        ),
        ("pmm", {"data.balanced": True}, r"data\.balanced is True, but data\.also names no other"),
        (
            "pmm",
            {
                "data.balanced": True,
                "data.also": ("people:a", "people:b"),
                "data.identities_per_batch": 2,
            },
            r"data\.identities_per_batch is 2; .* at least the number of datasets, 3$",
        ),
        (
            "pmm",
            {"data.synthetic.train_cameras": 9},
            r"data\.synthetic\.train_cameras \+ data\.synthetic\.test_cameras is 13; .*at most 12",
        ),
        ("pmm", {"augment.cutout_size": 129}, r"augment\.cutout_size is 129 .*data\.image_size"),
        ("pmm", {"optim.warmup_epochs": 51}, r"optim\.warmup_epochs is 51; .*warmup_every, 5"),
        ("pmm", {"optim.milestones": (40, 300)}, r"optim\.milestones is \(40, 300\).*epochs 50"),
        ("hbfp", {"optim.decay_until": 200}, r"optim\.decay_until is 200.*decay_from, 200"),
        ("hbfp", {"model.pairs": ()}, r"model\.hierarchy needs all of model\.pairs"),
        ("hbfp", {"model.trunk.depths": (1, 1, 1, 1)}, r"model\.trunk\.depths is \(1, 1, 1, 1\)"),
        ("bdb", {"model.drop_height": 1.0}, r"model\.drop_height and model\.drop_width"),
        (
            "baseline",
            {"data.image_size": (128, 15), "augment.cutout_size": 8},
            r"data\.image_size is \(128, 15\); both sides must be at least 16 pixels",
        ),
        ("pmm", {"augment.crop_padding": 128}, r"augment\.crop_padding is 128 .*be below .*size"),
        ("strong", {"optim.decay_from": 500}, r"optim\.decay_until is .*decay_from, 500"),
        ("baseline", {"model.stripes": 5}, r"model\.stripes is 5, but the map has 24 rows"),
        ("baseline", {"model.stripes": 25}, r"model\.stripes is 25, but the map has 24 rows"),
        *(
            (
                "baseline",
                {leaf: value, "model.classifier": False},
                rf"{re.escape(leaf)} is {value!r}; it must be .*model\.classifier is False",
            )
            for leaf, value in (
                ("model.stripes", 4),
                ("model.neck", "batch_norm"),
                ("model.cosine_scale", 30.0),
                ("loss.id_margin", 0.1),
                ("loss.triplet_weight", 0),
            )
        ),
        (
            "bdb",
            {"model.trunk.ibn": True, "model.trunk.width": 1},
            r"model\.trunk\.width is 1; .* model\.trunk\.ibn halves",
        ),
        (
            "pmm",
            {"model.trunk.block": "basic", "model.trunk.stride_in_1x1": True},
            r"model\.trunk\.block is 'basic'.*set model\.trunk\.stride_in_1x1 to False",
        ),
        (
            "hbfp",
            {"model.trunk.block": "basic", "model.trunk.base_width": 128},
            r"model\.trunk\.block is 'basic'.*model\.trunk\.base_width to 64",
        ),
        (
            "baseline",
            {"model.trunk.width": 24, "model.trunk.base_width": 100},
            r"model\.trunk\.width x model\.trunk\.base_width / 64 is 24 x 100 / 64 channels; it",
        ),
    ],
)
def test_contradictions_name_their_leaves(name, leaves, message):
    config = changed(f"{name}_market", leaves)
    refuses(config, f"^{message}")
    check_leaves(config)  # Each leaf is valid separately.


def test_all_problems_are_named_at_once_in_the_order_of_the_recipe():
    config = changed(
        leaves={"model.top_k": 0, "epochs": "abc", "optim.lrr": 1, "optim.lr": -1},
        without=["seed", "log"],
    )
    refuses(
        config,
        r"^6 settings are wrong:\n  seed is missing\n  epochs is 'abc'; it must be a whole number, "
        r"at least 1 and below 2\^31\n  log is missing\n  optim\.lr is -1; .*\n  optim\.lrr is not "
        r"a leaf of this recipe; did you mean optim\.lr\?\n  model\.top_k is 0; .*$",
    )
    refuses(
        changed(leaves={"augment.cutout_size": 129, "model.top_k": 33}),
        r"^2 settings are wrong:\n  augment\.cutout_size.*\n  model\.top_k",
    )


@pytest.mark.parametrize(
    ("leaves", "without", "message"),
    [
        (
            {"model": 3},
            (),
            r"^model is 3; it must be a section of leaves: name, trunk, pretrained, dtype$",
        ),
        ({"epochs": {"x": 1}}, (), r"^epochs is a section of leaves; it must be a whole number"),
        ({}, ("model.name", "optim"), r"\n  optim is missing\n  model\.name is missing$"),
        ({}, ("model.trunk.width",), r"^model\.trunk\.width is missing$"),
        ({"x.y": 1}, (), r"^x is not a leaf of this recipe; beside sections it has seed, epochs"),
        # Leaves of another network.
        ({"model.name": "bdb"}, (), r"model\.global_dim is missing\n.*model\.top_k is not a leaf"),
        ({"seed": "x" * 1000}, (), r"^seed is 'x{75} \.\.\.; it must"),
    ],
)
def test_sections_and_missing_leaves(leaves, without, message):
    refuses(changed(leaves=leaves, without=without), re.compile(message, re.DOTALL))
    with pytest.raises(ValueError, match=r"^a\.json holds no ConfigDict but 3$"):
        check_leaves(3, source="a.json")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("optim.lrr", "did you mean optim.lr?"),
        ("lr", "did you mean optim.lr?"),
        ("data.batch_size", "a batch is data.identities_per_batch x data.images_per_identity"),
        ("batch_size", "a batch is data.identities_per_batch x data.images_per_identity"),
        ("modl.top_k", "did you mean model.top_k?"),
        ("log.x", "log has every_steps"),
        ("epochs.x", "there is no section epochs"),
    ],
)
def test_an_unknown_leaf_comes_with_what_may_be_meant(name, said):
    assert unknown_leaf(name, load("pmm_market")).startswith(
        f"{name} is not a leaf of this recipe; {said}"
    )


VALUES = strategies.one_of(
    strategies.none(),
    strategies.booleans(),
    strategies.integers(),
    strategies.integers(-2, 50),
    strategies.floats(),
    strategies.floats(0, 1),
    strategies.text(),
    strategies.just({"x": 1}),
)
JUNK = VALUES | strategies.lists(VALUES, max_size=5) | strategies.lists(VALUES).map(tuple)


@settings(max_examples=250, deadline=None)
@given(strategies.sampled_from(LEAVES), JUNK)
def test_any_value_of_any_leaf_is_refused_by_name_or_of_its_type(leaf, junk):
    recipe, name, value = leaf
    config = changed(recipe, {name: junk})
    try:
        check_leaves(config)
    except ValueError as error:
        assert str(error).startswith(f"{name} is ")  # noqa: PT017
        return
    assert isinstance(junk, {float: float | int, tuple: tuple | list}.get(type(value), type(value)))
    assert isinstance(junk, bool) == isinstance(value, bool)
    for part in junk if isinstance(junk, tuple | list) else [junk]:
        assert not isinstance(part, float) or math.isfinite(part)
    try:
        check(config)
    except ValueError as error:
        assert re.search(r"(data|augment|optim|model)\.\w", str(error))  # noqa: PT017
