"""StableHLO of a small function: any batch, all platforms, and no traces of this machine."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from reid_jax.export import stablehlo

WEIGHTS = np.arange(6, dtype=np.float32).reshape(3, 2)


def describe(images):
    return images.astype(jnp.float32).mean((1, 2)) @ WEIGHTS


def test_a_function_comes_back_for_any_batch(rng):
    content, facts = stablehlo.convert(describe, (4, 5))
    for count in (1, 3):
        images = rng.integers(0, 256, (count, 4, 5, 3), dtype=np.uint8)
        got = stablehlo.run(content, images)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, images.mean((1, 2)) @ WEIGHTS, rtol=1e-5)
    assert tuple(facts["platforms"]) == stablehlo.PLATFORMS
    exported = jax.export.deserialize(bytearray(content))
    assert facts["calling_convention_version"] == exported.calling_convention_version
    assert exported.in_avals[0].shape[1:] == (4, 5, 3)


def test_the_file_holds_no_path_of_this_machine():
    limit = jax.config.values["jax_traceback_in_locations_limit"]
    content, _ = stablehlo.convert(describe, (4, 5))
    assert __file__.encode() not in content
    assert b"test_stablehlo" not in content
    assert jax.config.values["jax_traceback_in_locations_limit"] == limit
