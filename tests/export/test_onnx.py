"""ONNX of a small function, if the optional packages are installed."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax.export import onnx

WEIGHTS = np.arange(6, dtype=np.float32).reshape(3, 2)


def describe(images):
    return images.astype(jnp.float32).mean((1, 2)) @ WEIGHTS


@pytest.mark.usefixtures("onnx_converter")
def test_a_function_comes_back_for_any_batch(rng):
    content, facts = onnx.convert(describe, (4, 5))
    for count in (1, 3):
        images = rng.integers(0, 256, (count, 4, 5, 3), dtype=np.uint8)
        np.testing.assert_allclose(
            onnx.run(content, images), images.mean((1, 2)) @ WEIGHTS, rtol=1e-5
        )
    assert facts["opset"] >= 18
    assert facts["converter"].startswith("jax2onnx ")


@pytest.mark.usefixtures("onnx_converter")
def test_what_cannot_be_converted_names_the_other_format():
    def unknown(images):
        return jnp.linalg.eigvals(images[..., 0].astype(jnp.float32)).real

    with pytest.raises(ValueError, match=r"cannot convert this network: .* --formats=stablehlo"):
        onnx.convert(unknown, (4, 4))


@pytest.mark.usefixtures("onnx_converter")
def test_a_damaged_file_is_one_error():
    with pytest.raises(ValueError, match=r"cannot run descriptor\.onnx"):
        onnx.run(b"not a model", np.zeros((1, 4, 5, 3), np.uint8))


def test_missing_packages_are_named_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(ImportError, match=r"jax2onnx.*python -m pip install -e '\.\[export\]'"):
        onnx.check_converter()
