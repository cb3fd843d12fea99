import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax.models import bilinear
from reid_jax.models.bilinear import BFP, correlation_maps, perceive, self_awareness
from tests import reference

BATCH, HEIGHT, WIDTH = 3, 4, 3
LOCATIONS = HEIGHT * WIDTH
D_1, D_2, L, L_PRIME = 5, 7, 6, 8
SIDES = {"mask_x": "mask_y", "u": "v", "u_prime": "v_prime", "p_x": "p_y"}
both_ways = pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])


def close(got, want, tolerance=1e-5):
    """Compare relative to the whole array, because its elements are sums that may cancel."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def maps():
    rng = np.random.default_rng(1)
    return (
        normal(rng, BATCH, HEIGHT, WIDTH, D_1),
        normal(rng, BATCH, HEIGHT, WIDTH, D_2),
    )


@pytest.fixture(scope="module")
def variables(maps):
    shapes = jax.eval_shape(lambda: BFP(L, L_PRIME).init(jax.random.key(0), *maps, train=True))
    return reference.random_variables(shapes, np.random.default_rng(2))


@pytest.fixture
def pooled(rng):
    """X'U, Y'V and p."""
    return normal(rng, BATCH, LOCATIONS, L), normal(rng, BATCH, LOCATIONS, L), normal(rng, L)


def swapped(tree):
    """The parameters or statistics of the mirrored module."""
    names = SIDES | {y: x for x, y in SIDES.items()}
    return {names.get(name, name): leaf for name, leaf in tree.items()}


@both_ways
def test_self_awareness_equals_loops(rng, transform):
    x, scores = normal(rng, BATCH, LOCATIONS, D_1), 3 * normal(rng, BATCH, LOCATIONS, 1)
    want = reference.self_awareness(np.float64(x), np.float64(scores))
    close(transform(self_awareness)(x, scores), want)


@both_ways
def test_correlation_maps_equal_loops(pooled, transform):
    got = transform(correlation_maps)(*pooled)
    for one, want in zip(got, reference.correlation_maps(*map(np.float64, pooled)), strict=True):
        assert one.dtype == jnp.float32
        close(one, want)


@both_ways
def test_perceive_equals_loops(rng, transform):
    x, y = (normal(rng, BATCH, LOCATIONS, L_PRIME) for _ in range(2))
    # Columns with a different sum show along which axis the sum is.
    c_x, c_y = (normal(rng, BATCH, LOCATIONS, LOCATIONS) for _ in range(2))
    got = transform(perceive)(x, y, c_x, c_y)
    wants = reference.perceive(*(np.float64(array) for array in (x, y, c_x, c_y)))
    for one, want in zip(got, wants, strict=True):
        close(one, want)


def test_two_locations_by_hand():
    """C = [[log 2, 0], [2 log 2, 0]]."""
    x, y = np.float32([[[1], [2]]]), np.float32([[[3], [-5]]])
    c_x, c_y = correlation_maps(x, y, np.float32([math.log(2) / 3]))
    close(c_x[0], [[1 / 3, 1 / 2], [2 / 3, 1 / 2]])
    close(c_y[0], [[2 / 3, 4 / 5], [1 / 3, 1 / 5]])
    x_y, y_x = perceive(x, y, c_x, c_y)
    close(x_y[0], [[2], [4.8]])
    close(y_x[0], [[5], [0]])


def test_columns_sum_to_one(pooled):
    """In both maps. C_y is the softmax of the transpose's columns, not C_x transposed."""
    c_x, c_y = correlation_maps(*pooled)
    for c in (c_x, c_y):
        np.testing.assert_allclose(c.sum(axis=1), np.ones((BATCH, LOCATIONS)), rtol=1e-6)
        assert np.abs(np.asarray(c).sum(axis=2) - 1).max() > 0.1
    c = reference.correlation(*map(np.float64, pooled))
    close(c_y, reference.softmax_of_columns(np.transpose(c, (0, 2, 1))))
    assert np.abs(np.asarray(c_y) - np.asarray(c_x).transpose(0, 2, 1)).max() > 0.1


def test_swapped_arguments_swap_the_results(pooled, rng):
    x, y, p = pooled
    c_x, c_y = correlation_maps(x, y, p)
    mirrored = correlation_maps(y, x, p)
    close(mirrored[0], c_y)
    close(mirrored[1], c_x)
    x_y, y_x = perceive(x, y, c_x, c_y)
    mirrored = perceive(y, x, c_y, c_x)
    np.testing.assert_array_equal(mirrored[0], y_x)
    np.testing.assert_array_equal(mirrored[1], x_y)


def test_gradients_of_the_formulas_equal_finite_differences(rng):
    x, y, p = normal(rng, 1, 4, 3), normal(rng, 1, 4, 3), normal(rng, 3)
    weights = normal(rng, 2, 1, 4, 3)

    def value(module, x, y, p):
        x_y, y_x = module.perceive(x, y, *module.correlation_maps(x, y, p))
        return (weights[0] * x_y).sum() + (weights[1] * y_x).sum()

    got = jax.jit(jax.grad(lambda *a: value(bilinear, *a), argnums=(0, 1, 2)))(x, y, p)
    arguments = [np.float64(array) for array in (x, y, p)]
    for place, gradient in enumerate(got):

        def of_one(array, place=place):
            changed = [*arguments[:place], array, *arguments[place + 1 :]]
            return value(reference, *changed)

        want = reference.numerical_gradient(of_one, arguments[place])
        assert np.abs(want).max() > 0.1
        close(gradient, want, 1e-4)


@pytest.fixture(scope="module")
def applied(variables, maps):
    """The module's outputs and new statistics, for both faces, eager and compiled."""

    def apply(train):
        def run(variables, x, y):
            return BFP(L, L_PRIME).apply(variables, x, y, train, mutable=["batch_stats"])

        return run

    return {
        (train, compiled): (jax.jit if compiled else lambda f: f)(apply(train))(variables, *maps)
        for train in (True, False)
        for compiled in (True, False)
    }


@pytest.mark.parametrize("compiled", [True, False], ids=["jit", "eager"])
@pytest.mark.parametrize("train", [True, False])
def test_the_module_equals_loops(variables, maps, applied, train, compiled):
    """Equations 1 to 5, with batch norm after each linear map, with batch or running statistics."""
    double = reference.in_float64(variables)
    stats = None if train else double["batch_stats"]
    wants = reference.bfp(*map(np.float64, maps), double["params"], stats)
    got, _ = applied[train, compiled]
    for one, want in zip(got, wants, strict=True):
        assert one.dtype == jnp.float32
        close(one, want)


def test_batch_statistics_are_those_of_each_linear_map(variables, maps, applied):
    """There are six batch norms; U's is checked by hand."""
    _, updates = applied[True, True]
    stats = updates["batch_stats"]
    assert set(stats) == {"u", "v", "u_prime", "v_prime", "p_x", "p_y"}
    old = variables["batch_stats"]
    jax.tree.map(lambda x, y: np.testing.assert_array_less(0, np.abs(x - y).max()), stats, old)
    params = reference.in_float64(variables["params"])
    x = np.float64(maps[0]).reshape(BATCH, LOCATIONS, D_1)
    x = reference.self_awareness(x, x @ params["mask_x"]["kernel"] + params["mask_x"]["bias"])
    x = (x @ params["u"]["linear"]["kernel"]).reshape(-1, L)
    close(stats["u"]["bn"]["mean"], 0.9 * old["u"]["bn"]["mean"] + 0.1 * x.mean(axis=0))
    close(stats["u"]["bn"]["var"], 0.9 * old["u"]["bn"]["var"] + 0.1 * x.var(axis=0, ddof=1))
    _, unchanged = applied[False, True]
    jax.tree.map(np.testing.assert_array_equal, unchanged["batch_stats"], old)


@pytest.mark.parametrize("train", [True, False])
def test_swapped_maps_and_parameters_swap_the_outputs(variables, maps, applied, train):
    (x_y, y_x), _ = applied[train, True]
    mirrored = jax.jit(
        lambda v, x, y: BFP(L, L_PRIME).apply(v, x, y, train, mutable=["batch_stats"])[0]
    )({name: swapped(tree) for name, tree in variables.items()}, *maps[::-1])
    close(mirrored[0], y_x)
    close(mirrored[1], x_y)
    assert mirrored[0].shape == maps[1].shape


@pytest.fixture(scope="module")
def gradient():
    """The gradient of a scalar of the outputs, by parameters and maps, for each compute dtype."""

    def of(dtype):
        def value(params, x, y, stats, weights):
            outputs, _ = BFP(L, L_PRIME, dtype=dtype).apply(
                {"params": params, "batch_stats": stats}, x, y, True, mutable=["batch_stats"]
            )
            assert {output.dtype for output in outputs} == {jnp.dtype(dtype)}
            return sum(
                (output.astype(jnp.float32) * weight).sum()
                for output, weight in zip(outputs, weights, strict=True)
            )

        return jax.jit(jax.value_and_grad(value, argnums=(0, 1, 2)))

    return {dtype: of(dtype) for dtype in ("float32", "bfloat16")}


@pytest.mark.parametrize("kind", ["normal", "zero", "constant", "large", "one large", "negative"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_are_finite(variables, maps, gradient, standard_promotion, dtype, kind):
    """In parameters and maps, also if batch norm sees no variance and sigmoids saturate."""
    change = {
        "normal": lambda x: x,
        "zero": np.zeros_like,
        "constant": lambda x: np.full_like(x, 2.5),
        "large": lambda x: 1e6 * x,
        "one large": lambda x: x + 1e6 * (np.arange(x.size).reshape(x.shape) == 0),
        "negative": lambda x: -1e3 - np.abs(x),
    }[kind]
    x, y = (jnp.asarray(change(m), dtype) for m in maps)
    value, gradients = gradient[dtype](variables["params"], x, y, variables["batch_stats"], maps)
    assert np.isfinite(value)
    assert [g.dtype for g in gradients[1:]] == [x.dtype, y.dtype]
    for leaf in jax.tree.leaves(gradients):
        assert np.isfinite(np.asarray(leaf, np.float32)).all()
    if kind == "normal":
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
            assert np.any(np.asarray(leaf, np.float32) != 0), path


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4, -1e4])
def test_gradients_of_the_formulas_are_finite(pooled, dtype, scale):
    def value(x, y, p):
        x_y, y_x = perceive(x, y, *correlation_maps(x, y, p))
        return (x_y.astype(jnp.float32) + y_x.astype(jnp.float32)).sum()

    x, y, p = pooled
    arguments = jnp.asarray(scale * x, dtype), jnp.asarray(scale * y, dtype), jnp.asarray(p)
    for leaf in jax.jit(jax.grad(value, argnums=(0, 1, 2)))(*arguments):
        assert np.isfinite(np.asarray(leaf, np.float32)).all()


def test_correlation_maps_are_float32_sums_of_bfloat16(pooled):
    """With p = 1, no value is rounded before the sum over L."""
    x, y = (jnp.asarray(array, jnp.bfloat16) for array in pooled[:2])
    p = np.ones(L, np.float32)
    wants = reference.correlation_maps(np.float64(x), np.float64(y), np.float64(p))
    for c, want in zip(correlation_maps(x, y, p), wants, strict=True):
        assert c.dtype == jnp.float32
        close(c, want)


def test_correlation_maps_of_a_bfloat16_module_are_float32(
    variables, maps, monkeypatch, standard_promotion
):
    seen = []

    def spy(x, y, c_x, c_y):
        seen.extend([x, y, c_x, c_y])
        return perceive(x, y, c_x, c_y)

    monkeypatch.setattr(bilinear, "perceive", spy)
    outputs = BFP(L, L_PRIME, dtype=jnp.bfloat16).apply(variables, *maps, train=False)
    assert [array.dtype.name for array in seen] == ["bfloat16"] * 2 + ["float32"] * 2
    for c in seen[2:]:
        np.testing.assert_allclose(c.sum(axis=1), np.ones((BATCH, LOCATIONS)), rtol=1e-6)
    wants = BFP(L, L_PRIME).apply(variables, *maps, train=False)
    for output, want in zip(outputs, wants, strict=True):
        error = np.linalg.norm(np.asarray(output, np.float32) - want) / np.linalg.norm(want)
        assert error < 0.05


# The paper's sizes for low and middle: the program is only compiled.
FULL = {"batch": 2, "height": 24, "width": 8, "channels": 1024, "L": 512, "L'": 2048}
FULL_LOCATIONS = FULL["height"] * FULL["width"]
L_N_N = FULL["L"] * FULL_LOCATIONS**2  # for a single image


def compiled_gradient():
    """(shapes in BFP's compiled gradient program, its bytes in addition to inputs and outputs)"""
    module = BFP(FULL["L"], FULL["L'"])
    shape = (FULL["batch"], FULL["height"], FULL["width"], FULL["channels"])
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, x, train=True), x)

    def value(params, stats, x, y):
        outputs, _ = module.apply(
            {"params": params, "batch_stats": stats}, x, y, True, mutable=["batch_stats"]
        )
        return sum(jnp.square(output).sum() for output in outputs)

    program = (
        jax.jit(jax.grad(value, argnums=(0, 2, 3)))
        .lower(variables["params"], variables["batch_stats"], x, x)
        .compile()
    )
    shapes = {
        tuple(int(size) for size in sizes.split(","))
        for sizes in re.findall(r"\b(?:f64|f32|bf16|f16|pred)\[([\d,]+)\]", program.as_text())
    }
    return shapes, program.memory_analysis().temp_size_in_bytes


def test_memory_of_a_pair_is_n_by_n_an_image():
    shapes, temporary = compiled_gradient()
    assert (FULL["batch"], FULL_LOCATIONS, FULL_LOCATIONS) in shapes
    assert max(map(math.prod, shapes)) < L_N_N / 4
    assert temporary < 4 * L_N_N  # in float32


def products(x, y, p):
    each = jnp.einsum("bil,bjl->blij", jax.nn.relu(x), jax.nn.relu(y))
    c = jnp.einsum("blij,l->bij", each, p)
    return jax.nn.softmax(c, axis=1), jax.nn.softmax(c.swapaxes(1, 2), axis=1)


def elementwise(x, y, p):
    each = jax.nn.relu(x)[:, :, None] * jax.nn.relu(y)[:, None] * p.reshape(1, 1, 1, -1)
    c = each.sum(axis=-1)
    return jax.nn.softmax(c, axis=1), jax.nn.softmax(c.swapaxes(1, 2), axis=1)


@pytest.mark.parametrize("variant", [products, elementwise])
def test_the_memory_test_sees_l_by_n_by_n(monkeypatch, variant):
    monkeypatch.setattr(bilinear, "correlation_maps", variant)
    shapes, temporary = compiled_gradient()
    assert max(map(math.prod, shapes)) >= FULL["batch"] * L_N_N
    assert temporary > 4 * L_N_N


@pytest.mark.parametrize("shape", [(3, 3, 4, 7), (3, 4, 4, 7), (2, 4, 3, 7)])
def test_maps_of_different_sizes_are_an_error(variables, maps, shape):
    with pytest.raises(ValueError, match=re.escape(f"(3, 4, 3, 5) and {shape}")):
        BFP(L, L_PRIME).apply(variables, maps[0], np.zeros(shape, np.float32), train=False)
