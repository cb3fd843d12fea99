import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import networks
from reid_jax import mixing, models, schedules
from reid_jax.data.augment import MEAN, STD, augment, normalize
from reid_jax.models.bdb import batch_drop
from reid_jax.models.pooling import threshold_pool
from reid_jax.training import optimizer as optimizers
from reid_jax.training.state import TrainState, stream_key
from reid_jax.training.step import make_step
from tests import reference

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed, and nothing but this comparison needs it"
)

from benchmarks import torch_layers, torch_networks  # noqa: E402

pytestmark = [pytest.mark.extras, pytest.mark.usefixtures("standard_promotion")]

LABELS = np.arange(8, dtype=np.int32) // 2
STATISTICS = torch.tensor([MEAN, STD])


@functools.cache
def recipe(name):
    """A tiny network without augmentation. Only PMM's extra block has no projection."""
    config = networks.recipe(name, small=True, batch=8, dtype="float32")
    config.augment.flip = 0.0
    if name == "pmm":
        config.model.top_k = 2
    if name == "hbfp":
        # A rounding may move a value across another threshold, which changes gradients.
        config.model.lambdas = (0.0, 1.0)
    assert config.augment.cutout_probability == config.augment.erasing_probability == 0.0
    return config


@functools.cache
def pixels():
    shape = (8, *recipe("pmm").data.image_size, 3)
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


@functools.cache
def variables(name):
    config = recipe(name)
    network = models.create(config.model, 5)
    images = jax.ShapeDtypeStruct(pixels().shape, np.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)
    return reference.random_variables(shapes, np.random.default_rng(2))


@functools.cache
def our_step(name):
    """Gradients of a step of `train.py`, its new batch statistics, and its metrics."""
    config, before = recipe(name), variables(name)
    network, optimizer = models.create(config.model, 5), optax.sgd(1.0)
    step = make_step(network, optimizer, optax.constant_schedule(1.0), config, axis_name=None)
    params, batch_stats = before["params"], before["batch_stats"]
    state = TrainState(jnp.int32(0), params, batch_stats, optimizer.init(params), config.seed)
    batch = {"image": pixels(), "label": LABELS}
    # Fixed, because other roundings may move a value across a kink, which changes gradients.
    options = {"xla_backend_optimization_level": 0 if name == "pmm" else 1}
    state, metrics = jax.jit(step).lower(state, batch).compile(options)(state, batch)
    gradients = jax.tree.map(lambda old, new: old - np.asarray(new), params, state.params)
    return gradients, state.batch_stats, metrics


def as_torch(params, batch_stats, name):
    """Arrays of our parameters' shapes, by PyTorch's names."""
    network = torch_networks.create(
        recipe(name).model, {"params": params, "batch_stats": batch_stats}
    )
    return dict(network.named_parameters())


@pytest.fixture
def our_partners(monkeypatch):
    """The partners that our first step draws, because PyTorch draws other random numbers."""
    key = stream_key(recipe("pmm").seed, "mix", 0)
    stages = iter((1, 2))

    def partners(labels):
        drawn = mixing.partners(jax.random.fold_in(key, next(stages)), jnp.array(LABELS))
        return torch.tensor(np.asarray(drawn))

    monkeypatch.setattr(torch_networks, "partners", partners)


@pytest.fixture
def our_rectangle(monkeypatch):
    """The rectangle that BDB drops in our first step."""
    key = stream_key(recipe("bdb").seed, "mix", 0)

    def dropped(size, extents, device):
        kept = batch_drop(key, jnp.ones((1, *size, 1)), tuple(extents))
        return torch.tensor(np.asarray(kept[0, :, :, 0]) == 0)

    monkeypatch.setattr(torch_networks, "dropped", dropped)


@pytest.mark.parametrize("name", torch_networks.NETWORKS)
def test_descriptors_are_ours(name):
    config = recipe(name)
    images = normalize(jnp.array(pixels()))
    expected = jax.jit(models.create(config.model, 5).apply)(variables(name), images)
    network = torch_networks.create(config.model, variables(name)).eval()
    with torch.no_grad():
        got = network(torch_networks.augment(torch.tensor(pixels()), config.augment, STATISTICS))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", torch_networks.NETWORKS)
def test_losses_gradients_and_statistics_are_ours(name, our_partners, our_rectangle):
    """For one training step, including Grad-CAM and mixing with the same partners.

    PyTorch computes in float64: near a kink, two roundings may end on different sides.
    """
    config = recipe(name)
    gradients, batch_stats, metrics = our_step(name)
    network = torch_networks.create(config.model, variables(name)).double()
    images = torch_networks.augment(torch.tensor(pixels()), config.augment, STATISTICS)
    labels = torch.tensor(LABELS.astype(np.int64))
    losses = torch_networks.losses(network.stages(images.double(), labels), labels, config.loss)
    assert losses.keys() == {key for key in metrics if key.startswith("loss/")}
    for key, value in losses.items():
        assert value.item() == pytest.approx(float(metrics[key]), rel=1e-5), key

    sum(losses.values()).backward()
    before = variables(name)
    expected = as_torch(gradients, before["batch_stats"], name)
    for key, parameter in network.named_parameters():
        gradient = expected[key].detach()
        difference = (parameter.grad - gradient).abs().max()
        # In the gradients of HBFP-Net's masks, large numbers nearly cancel.
        near = 2e-3 if "mask" in key else 2e-4
        assert difference < near * gradient.abs().max() + 1e-6, key

    # Each mean and variance was updated once, so Grad-CAM's repeated head left no trace.
    moved = torch_networks.create(
        config.model, {"params": before["params"], "batch_stats": batch_stats}
    )
    for (key, got), expected in zip(network.named_buffers(), moved.buffers(), strict=True):
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(got.float(), expected, rtol=1e-5, atol=1e-6)


def test_the_optimizer_is_ours(monkeypatch):
    """Adam's first step is the rate in the gradient's direction, and L2 is part of the gradient."""
    config = recipe("baseline")
    monkeypatch.setitem(config.optim, "weight_decay", 1.0)
    schedule = schedules.create_schedule(config.optim, 1)
    optimizer = optimizers.create_optimizer(config.optim, schedule)
    gradients, batch_stats, _ = our_step("baseline")
    params = variables("baseline")["params"]
    updates, _ = jax.jit(optimizer.update)(gradients, optimizer.init(params), params)
    expected = as_torch(optax.apply_updates(params, updates), batch_stats, "baseline")
    network = torch_networks.create(config.model, variables("baseline"))
    start = {key: value.detach().clone() for key, value in network.named_parameters()}
    step = torch_networks.make_step(network, config)
    step(torch.tensor(pixels()), torch.tensor(LABELS.astype(np.int64)))
    for key, value in network.named_parameters():
        # In units of the rate. A gradient near 0 may have either sign.
        moved, ours = ((x - start[key]).detach() / config.optim.lr for x in (value, expected[key]))
        assert ours.abs().median() == pytest.approx(1.0, abs=0.01)
        assert (moved - ours).abs().mean() < 0.02, key


def test_one_pass_through_the_trunk():
    network = torch_networks.create(recipe("pmm").model, variables("pmm"))
    calls, layouts = [], set()

    def note(module, _, output):
        calls.append(module)
        layouts.add(output.is_contiguous(memory_format=torch.channels_last))

    for module in (network.trunk, network.extra):
        module.register_forward_hook(note)
    for head in network.heads:
        head.register_forward_hook(
            lambda _, inputs, __: layouts.add(
                inputs[0].is_contiguous(memory_format=torch.channels_last)
            )
        )
    step = torch_networks.make_step(network, recipe("pmm"))
    step(torch.tensor(pixels()), torch.tensor(LABELS.astype(np.int64)))
    assert calls == [network.trunk, network.extra]
    assert layouts == {True}


def gradients_of(form, monkeypatch):
    """PMM's loss, gradients and heads' dtypes in a form; partners are the first possible ones."""
    monkeypatch.setattr(
        torch_networks, "partners", lambda labels: (labels[:, None] != labels).int().argmax(1)
    )
    network = torch_networks.create(recipe("pmm").model, variables("pmm"))
    dtypes = set()
    for head in network.heads:
        head.register_forward_hook(lambda _, __, outputs: dtypes.update(x.dtype for x in outputs))
    step = torch_networks.make_step(network, recipe("pmm"), form)
    loss = step(torch.tensor(pixels()), torch.tensor(LABELS.astype(np.int64)))
    assert loss.dtype == torch.float32
    return loss.item(), {key: x.grad for key, x in network.named_parameters()}, dtypes


def test_autocast_computes_in_bfloat16_what_float32_computes(monkeypatch):
    loss, gradients, dtypes = gradients_of("eager", monkeypatch)
    near_loss, near, near_dtypes = gradients_of("autocast", monkeypatch)
    assert (dtypes, near_dtypes) == ({torch.float32}, {torch.bfloat16})
    assert loss != near_loss == pytest.approx(loss, rel=0.05)
    # Autocast caches copies of weights. In Grad-CAM, gradients are off and no copy is made.
    assert all(gradient is not None and gradient.any() for gradient in near.values())
    for key in ("heads.0.reduction.weight", *(f"heads.{i}.classifier.weight" for i in range(3))):
        cosine = torch.cosine_similarity(gradients[key].flatten(), near[key].flatten(), dim=0)
        assert cosine > 0.6, key  # later stages mix other blocks


@pytest.mark.parametrize("form", ["compiled", "tuned+autocast"])
def test_the_compiler_sees_one_graph(form, monkeypatch):
    """Trace as `torch.compile` does, and run the trace. Compiling would take longer."""
    compile, options = torch.compile, []

    def traced(function, *, fullgraph, mode=None):
        options.append((fullgraph, mode))
        return compile(function, fullgraph=fullgraph, backend="eager")

    monkeypatch.setattr(torch, "compile", traced)
    loss, _, _ = gradients_of(form, monkeypatch)
    assert options == [(True, "max-autotune" if "tuned" in form else None)]
    expected, _, _ = gradients_of("autocast" if "autocast" in form else "eager", monkeypatch)
    assert loss == pytest.approx(expected, rel=1e-3)


def test_flip_is_ours():
    config = recipe("pmm").copy_and_resolve_references()
    config.augment.flip = 1.0
    ours = jax.jit(functools.partial(augment, config=config.augment))
    expected = ours(jax.random.key(0), jnp.array(pixels()))
    got = torch_networks.augment(torch.tensor(pixels()), config.augment, STATISTICS)
    assert got.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(got.permute(0, 2, 3, 1), expected, rtol=1e-5, atol=1e-5)


def test_cutout_is_one_square_of_zeros_anywhere_inside():
    config = recipe("pmm").copy_and_resolve_references()
    config.augment.cutout_probability = 1.0
    size = config.augment.cutout_size
    torch.manual_seed(0)
    images = np.concatenate([pixels()] * 8)
    got = torch_networks.augment(torch.tensor(images), config.augment, STATISTICS)
    holes = (got == 0).all(1).numpy()
    places = set()
    for hole in holes:
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert hole.sum() == size**2
        assert len(rows) == len(columns) == size
        places.add((rows[0], columns[0]))
    assert len(places) > 32
    unchanged = np.asarray(normalize(jnp.array(images)))[~holes]
    np.testing.assert_allclose(
        got.permute(0, 2, 3, 1).numpy()[~holes], unchanged, rtol=1e-5, atol=1e-5
    )


def test_erased_rectangles_are_ours():
    """Their number, sizes and places have the same distribution; the rest is unchanged."""
    config = recipe("pmm").copy_and_resolve_references()
    config.augment.erasing_probability = 0.5
    torch.manual_seed(0)
    images = np.concatenate([pixels()] * 64)
    got = torch_networks.augment(torch.tensor(images), config.augment, STATISTICS)
    got = got.permute(0, 2, 3, 1).numpy()
    ours = jax.jit(functools.partial(augment, config=config.augment))
    expected = ours(jax.random.key(0), jnp.array(images))
    statistics = []
    for augmented in (got, np.asarray(expected)):
        holes = (augmented == 0).all(3)
        boxes = []
        for hole in holes[holes.any((1, 2))]:
            rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
            assert hole.sum() == len(rows) * len(columns)
            boxes.append((len(rows), len(columns), rows[0], columns[0]))
        statistics.append((len(boxes) / len(images), *np.mean(boxes, axis=0)))
    np.testing.assert_allclose(*statistics, rtol=0.2)
    holes = (got == 0).all(3)
    unchanged = np.asarray(normalize(jnp.array(images)))[~holes]
    np.testing.assert_allclose(got[~holes], unchanged, rtol=1e-5, atol=1e-5)


def test_partners_are_any_image_of_another_identity():
    labels = torch.tensor(LABELS.astype(np.int64))
    torch.manual_seed(0)
    drawn = torch.stack([torch_networks.partners(labels) for _ in range(200)])
    for image in range(8):
        others = set(np.flatnonzero(LABELS[image] != LABELS))
        assert set(drawn[:, image].tolist()) == others


@pytest.mark.parametrize(("margin", "expected"), [(0.3, 0.3 + 3.0 - 1.0), (0.0, np.log1p(np.e**2))])
def test_triplet_of_a_hand_made_batch(margin, expected):
    """On a line: the hardest positive of every image is 3 away, the hardest negative 1."""
    places = torch.tensor([[0.0], [3.0], [1.0], [4.0]])
    labels = torch.tensor([0, 0, 1, 1])
    assert torch_networks.triplet(places, labels, margin).item() == pytest.approx(expected)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_pooling_above_a_threshold_is_ours(threshold):
    features = np.random.default_rng(3).normal(size=(2, 4, 3, 5)).astype(np.float32)
    features[0, :, :, 0] = 0.5  # A constant channel.
    want, vjp = jax.vjp(lambda x: threshold_pool(x, threshold), jnp.array(features))
    (wanted,) = vjp(jnp.arange(10, dtype=jnp.float32).reshape(2, 5))
    maps = torch.tensor(features).permute(0, 3, 1, 2).requires_grad_()
    got = torch_layers.threshold_pool(maps, threshold)
    got.backward(torch.arange(10, dtype=torch.float32).reshape(2, 5))
    np.testing.assert_allclose(got.detach(), want, rtol=1e-5)
    np.testing.assert_allclose(maps.grad.permute(0, 2, 3, 1), wanted, rtol=1e-5)


def test_the_dropped_rectangle_is_anywhere_inside():
    torch.manual_seed(0)
    masks = torch.stack([torch_networks.dropped((6, 4), (2, 3), "cpu") for _ in range(200)])
    assert (masks.sum((1, 2)) == 6).all()
    assert {tuple(np.argwhere(mask.numpy())[0]) for mask in masks} == {
        (top, left) for top in range(5) for left in range(2)
    }


def test_variables_of_another_network_are_refused():
    with pytest.raises(ValueError, match=r"do not belong to pmm: .*extra"):
        torch_networks.create(recipe("pmm").model, variables("baseline"))


def test_a_device_that_pytorch_lacks_is_named():
    with pytest.raises(ValueError, match=r"JAX runs on a tpu, .* --torch=none"):
        torch_networks.choose_device("tpu")
