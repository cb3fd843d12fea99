import importlib
import json
import math
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

from benchmarks import networks
from reid_jax import models
from reid_jax.training.state import create_state
from tests.benchmarks import schema

pytestmark = pytest.mark.usefixtures("standard_promotion")

ROOT = pathlib.Path(__file__).parents[2]
PARTS = ["trunk", "second_pass", "bfp", "pooling", "rest"]


SETTINGS = {"networks": [str], "batch": {int}, "steps": {int}, "small": bool, "dtype": str}
ROW = {
    **{"network": str, "parameters": {int}},
    **{"forward_flops_per_image": {float}, "step_flops_per_image": {float}},
    "breakdown": {part: {float} for part in PARTS},
    "bfp_and_pooling_share": {float},
    "milliseconds_per_step": {"minimum": {float}, "median": {float}},
    **{"planned_bytes": {int}, "peak_bytes": ({int}, None)},
}
OTHER_ROW = ROW | {"breakdown": None, "bfp_and_pooling_share": None}


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Run the script as a user starts it; return what it prints and writes."""
    path = tmp_path_factory.mktemp("results") / "networks.json"
    options = ["--small", "--networks=baseline", "--batch=8", "--steps=1", f"--output={path}"]
    done = subprocess.run(
        [sys.executable, "benchmarks/networks.py", *options],
        cwd=ROOT,
        # Optimise little: the compiled programs run only twice.
        env=os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text()), done.stdout, done.stderr, path


def count_parameters(name):
    """Count the parameters of the initial state of a run on synthetic pedestrians."""
    config = importlib.import_module(f"reid_jax.configs.{name}_synthetic").get_config("small")
    network = models.create(config.model, config.data.synthetic.train_identities)
    optimizer = optax.sgd(0.1)
    state = jax.eval_shape(lambda: create_state(network, optimizer, config.data.image_size, 0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))


@pytest.mark.slow
def test_json(output):
    content, _, _, path = output
    schema.check_record(content, SETTINGS, OTHER_ROW)
    assert content["command"] == (
        "python benchmarks/networks.py --networks=baseline --batch=8 --steps=1 --small "
        "--dtype=float32"
    )
    assert content["platform"] == "cpu"
    (result,) = content["results"]
    assert result["network"] == "baseline"
    times = result["milliseconds_per_step"]
    assert times["minimum"] == times["median"]  # one step
    assert result["parameters"] == count_parameters("baseline")
    assert result["peak_bytes"] is None  # A CPU has no such count.
    # Parameters and both of Adam's moments, float32, are there during the step.
    assert result["planned_bytes"] > 3 * 4 * result["parameters"]
    for private in (str(ROOT), str(path.parent), os.uname().nodename):
        assert private not in json.dumps(content)


def test_published_figures_have_the_schema_and_make_a_table():
    content = json.loads((ROOT / "benchmarks/results/networks.json").read_text())
    schema.check_record(content, SETTINGS, (ROW, OTHER_ROW))
    text = networks.tables(content["results"])
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line}
    for result in content["results"]:
        assert rows[result["network"]][1] == f"{result['parameters'] / 1e6:.2f}"
        if result["network"] == "hbfp":
            assert set(PARTS) <= set(rows)
            assert f"BFP and pooling: {result['bfp_and_pooling_share']:.1%}" in text
        else:
            assert result["breakdown"] is None


@pytest.mark.slow
def test_table_and_progress(output):
    content, table, progress, _ = output
    (row,) = [line.split() for line in table.splitlines() if line.startswith("baseline")]
    (result,) = content["results"]
    assert row[1] == f"{result['parameters'] / 1e6:.2f}"
    assert row[4] == f"{result['milliseconds_per_step']['minimum']:.1f}"
    assert "baseline: compiling the step" in progress


# HBFP-Net is counted at full size below.
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in models.NETWORKS if name != "hbfp"])
def test_costs_on_paper(name):
    config = networks.recipe(name, small=True, batch=8, dtype="float32")
    costs = networks.count_costs(config)
    assert costs["parameters"] == count_parameters(name)
    # Forward, and the gradients of maps and of weights; the extras of PMM and HBFP are small. The
    # stem, much of a network as narrow as this, has no gradient of its map, and forward it
    # multiplies by zeros too.
    assert 2.0 < costs["step_flops_per_image"] / costs["forward_flops_per_image"] < 3.5
    assert costs["breakdown"] is costs["bfp_and_pooling_share"] is None


@pytest.mark.slow
def test_gradcam_and_mixing_cost_under_5_percent_of_pmms_step_at_full_size():
    def flops(mixing):
        config = networks.recipe("pmm", small=False, batch=64, dtype="float32")
        config.model.mixing = mixing
        with networks.usual_convolutions():
            lowered, _, _ = networks.prepare(config, jax.devices()[0])
        return lowered.cost_analysis()["flops"]

    with_mixing, without = flops("hardmix"), flops("none")
    assert without < with_mixing < 1.05 * without


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--networks=resnext", r"unknown network 'resnext' .* choose from \['baseline', 'bdb', 'p"),
        ("--batch=6", "--batch is 6; it must be two identities or more, 4 images of each"),
        ("--batch=4", "--batch is 4; it must be two"),
        ("--batch=0", "--batch is 0; it must be two"),
        ("--steps=0", "--steps is 0; it must be at least 1"),
    ],
)
def test_mistakes_are_named_before_anything_is_measured(arguments, message, tmp_path, capsys):
    path = tmp_path / "networks.json"
    with pytest.raises(SystemExit, match=message):
        networks.main([arguments, f"--output={path}"])
    assert not path.exists()
    assert not capsys.readouterr().err


def test_steps_are_timed_on_real_states(monkeypatch):
    """One warm-up step; each step starts from the previous state, and is waited for."""
    clock = iter([0.0, 100.0, 200.0, 201.0, 300.0, 303.0])
    monkeypatch.setattr(networks.time, "perf_counter", lambda: next(clock))
    states = []

    def step(state, batch):
        states.append(state)
        return state + batch, {}

    assert networks.time_steps(step, 1, 2, 2) == [1.0, 3.0]
    assert states == [1, 3, 5]


@pytest.mark.parametrize("donated", [(), (0,)])
def test_planned_bytes(donated):
    """Two arguments, a product, and the result, unless it takes an argument's place."""
    square = jax.ShapeDtypeStruct((256, 256), np.float32)
    function = jax.jit(lambda x, y: (x @ y) @ y, donate_argnums=donated)
    squares = networks.planned_bytes(function.lower(square, square).compile()) / (4 * 256 * 256)
    assert squares == pytest.approx(3 if donated else 4, abs=0.1)


def test_a_peak_belongs_to_what_raised_it():
    assert networks.raised_peak(5, 9) == 9
    assert networks.raised_peak(9, 9) is None
    assert networks.raised_peak(None, None) is None


def taps(size, kernel, stride):
    """Products of a convolution along one axis, excluding those with its padding."""
    padding = (kernel - 1) // 2
    return sum(
        0 <= output * stride + tap - padding < size
        for output in range(-(-size // stride))
        for tap in range(kernel)
    )


def bottleneck(height, width, channels, features, stride, shortcut):
    """Multiply-adds of a bottleneck's forward pass over a map; parameters."""
    outputs = -(-height // stride) * -(-width // stride)
    products = height * width * channels * features
    products += taps(height, 3, stride) * taps(width, 3, stride) * features**2
    products += outputs * features * 4 * features
    weights = channels * features + 9 * features**2 + 4 * features**2
    norms = 2 * (features + features + 4 * features)
    if shortcut:
        products += outputs * channels * 4 * features
        weights += channels * 4 * features
        norms += 2 * 4 * features
    return products, weights + norms


def resnet50():
    """Multiply-adds of the stem and of the whole trunk for a 384x128 image; parameters."""
    stem = taps(384, 7, 2) * taps(128, 7, 2) * 3 * 64
    total, parameters = stem, 7 * 7 * 3 * 64 + 2 * 64
    height, width, channels = 96, 32, 64
    for depth, features, stride in ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 1)):
        for block in range(depth):
            first = block == 0
            args = (height, width, channels, features, stride if first else 1, first)
            products, count = bottleneck(*args)
            total, parameters = total + products, parameters + count
            if first:
                height, width, channels = height // stride, width // stride, 4 * features
    assert (height, width, channels) == (24, 8, 2048)
    return stem, total, parameters


def bfp(x, y, correlation=512, perception=2048, locations=24 * 8):
    """Multiply-adds of BFP on maps of `x` and `y` channels; parameters."""
    masks = x + y
    linear = (x + y) * (correlation + perception) + perception * (x + y)
    products = locations * (masks + linear)
    products += locations**2 * correlation  # both directions share one correlation
    products += 2 * locations**2 * perception
    norms = 2 * (2 * correlation + 2 * perception + x + y)
    return products, masks + 2 + linear + correlation + norms


@pytest.fixture(scope="module")
def full():
    """HBFP-Net's costs at full size, which are computed without compiling."""
    with jax.numpy_dtype_promotion("standard"):
        config = networks.recipe("hbfp", small=False, batch=8, dtype="float32")
        _, _, batch = networks.prepare(config, jax.devices()[0])
        assert batch["image"].shape == (1, 8, 384, 128, 3)
        np.testing.assert_array_equal(batch["label"], [[0, 0, 0, 0, 1, 1, 1, 1]])
        return networks.count_costs(config)


@pytest.mark.slow
def test_bfp_and_pooling_are_under_35_percent_of_the_step(full):
    parts, step = full["breakdown"], full["step_flops_per_image"]
    assert list(parts) == PARTS
    np.testing.assert_allclose(sum(parts.values()), step)
    assert full["bfp_and_pooling_share"] == pytest.approx((parts["bfp"] + parts["pooling"]) / step)
    assert 0.2 < full["bfp_and_pooling_share"] < 0.35
    # No part is missing or counted twice.
    assert 0 < parts["rest"] < 0.01 * step


@pytest.mark.slow
def test_counts_at_full_size_are_those_made_by_hand(full):
    """A multiply-add is two flops. A backward pass has two for each, the stem's only one."""
    stem, trunk, trunk_parameters = resnet50()
    assert trunk_parameters == 23_508_032  # torchvision's, without its classifier
    low, high = bottleneck(24, 8, 1024, 256, 1, False), bottleneck(24, 8, 2048, 512, 1, False)
    first = bottleneck(24, 8, 1024, 512, 1, True)
    pairs = bfp(1024, 1024), bfp(1024, 2048)
    products = {
        "trunk": (3 * trunk - stem) / 3,
        "second_pass": 5 * low[0] + first[0] + 2 * high[0],
        "bfp": pairs[0][0] + pairs[1][0],
    }
    for part, count in products.items():
        # Norms and activations come in addition.
        assert 1.0 <= full["breakdown"][part] / (3 * 2 * count) < 1.02, part
    classifiers = (1024 + 1024 + 2048) * 751
    forward = 2 * (trunk + products["second_pass"] + products["bfp"])
    # Inference does not use the classifier, and lowering drops unused operations.
    assert 1.0 <= full["forward_flops_per_image"] / forward < 1.02
    blocks = 5 * low[1] + first[1] + 2 * high[1]
    assert full["parameters"] == (
        trunk_parameters + blocks + pairs[0][1] + pairs[1][1] + classifiers + 3 * 751
    )
    # Pooling has no products: a few passes over three maps of 24x8.
    values = 24 * 8 * (1024 + 1024 + 2048)
    assert 10 * values < full["breakdown"]["pooling"] < 100 * values


def test_counts_of_the_compiled_program_agree():
    config = networks.recipe("hbfp", small=True, batch=8, dtype="float32")
    network = models.create(config.model, 8)
    images = jax.ShapeDtypeStruct((8, *config.data.image_size, 3), np.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), images)
    compiled = jax.jit(network.apply).lower(variables, images).compile()
    counted = networks.count_flops(network.apply, variables, images)
    assert counted == pytest.approx(compiled.cost_analysis()["flops"], rel=0.05)
