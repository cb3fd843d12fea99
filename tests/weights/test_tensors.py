"""Tensors of other programs and the variables that they become."""

import re

import ml_dtypes
import numpy as np
import pytest

from reid_jax.weights.tensors import (
    account,
    affine,
    batch_norm,
    kernel,
    linear,
    shapes_of,
    variables,
)


def small_network():
    yield from kernel("conv", "conv", 4, 3, 5, 2)
    yield from batch_norm("bn", "bn", 4)
    yield from linear("fc", "classifier", 6, 4, 1, 1, or_linear=True)


@pytest.fixture
def arrays(rng):
    shapes = {
        "conv.weight": (4, 3, 5, 2),
        "bn.weight": (4,),
        "bn.bias": (4,),
        "bn.running_mean": (4,),
        "bn.running_var": (4,),
        "fc.weight": (6, 4),
        "fc.bias": (6,),
    }
    return {name: rng.random(shape, np.float32) for name, shape in shapes.items()}


def test_axes_change_from_pytorch_s_order_to_ours(arrays):
    tree = variables(arrays, small_network(), "a network", "file")
    conv = tree["params"]["conv"]["kernel"]
    assert conv.shape == (5, 2, 3, 4)
    assert conv[4, 1, 2, 3] == arrays["conv.weight"][3, 2, 4, 1]
    classifier = tree["params"]["classifier"]
    np.testing.assert_array_equal(classifier["kernel"], arrays["fc.weight"].T)
    np.testing.assert_array_equal(classifier["bias"], arrays["fc.bias"])
    assert set(tree["params"]["bn"]) == {"scale", "bias"}
    assert set(tree["batch_stats"]["bn"]) == {"mean", "var"}
    for tensor in small_network():
        collection, *path = tensor.variable.split("/")
        variable = tree[collection]
        for part in path:
            variable = variable[part]
        assert (variable.shape, variable.dtype) == (tensor.our_shape, np.float32)
        assert variable.flags.c_contiguous


def test_a_linear_map_may_be_a_1x1_convolution(arrays):
    as_linear = variables(arrays, small_network(), "a network", "file")
    arrays["fc.weight"] = arrays["fc.weight"][:, :, None, None]
    as_convolution = variables(arrays, small_network(), "a network", "file")
    np.testing.assert_array_equal(
        as_linear["params"]["classifier"]["kernel"],
        as_convolution["params"]["classifier"]["kernel"],
    )


def test_half_precision_is_read_and_counters_are_ignored(arrays):
    arrays["conv.weight"] = arrays["conv.weight"].astype(np.float16)
    arrays["fc.bias"] = arrays["fc.bias"].astype(ml_dtypes.bfloat16)
    arrays["bn.num_batches_tracked"] = np.int64(7)
    tree = variables(arrays, small_network(), "a network", "file")
    assert tree["params"]["conv"]["kernel"].dtype == np.float32


def test_one_error_names_all_that_does_not_fit(arrays):
    del arrays["conv.weight"]
    arrays |= {
        "more": np.ones(1, np.float32),
        "other.num_batches_tracked": np.int64(7),
        "bn.weight": np.ones(5, np.float32),
        "bn.bias": np.ones(4, np.int32),
        "bn.running_mean": np.full(4, np.nan, np.float32),
        "bn.running_var": -np.ones(4, np.float32),
    }
    with pytest.raises(ValueError, match="does not fit a network") as error:
        variables(arrays, small_network(), "a network", "file")
    assert str(error.value).split("\n  ")[1:] == [
        "1 missing: conv.weight",
        "2 unexpected: more, other.num_batches_tracked",
        "1 of another shape: bn.weight (5,), not (4,)",
        "1 of another dtype than float16, bfloat16, float32: bn.bias int32",
        "1 not finite: bn.running_mean",
        "1 below zero: bn.running_var",
    ]


def test_shapes_of_our_variables_are_accounted_for():
    tree = {"params": {"bn": {"scale": np.ones(3, np.float32)}}, "batch_stats": {}}
    assert shapes_of(tree) == {"params/bn/scale": ((3,),)}
    account({"params/bn/scale": np.ones(3, np.float32)}, shapes_of(tree), "it", "file")
    with pytest.raises(ValueError, match=re.escape("1 missing: params/bn/scale")):
        account({}, shapes_of(tree), "it", "file")


def test_norms_have_scale_and_shift():
    assert [tensor.variable for tensor in affine("n", "m", 2)] == [
        "params/m/scale",
        "params/m/bias",
    ]
