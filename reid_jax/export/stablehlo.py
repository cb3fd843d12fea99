"""StableHLO by `jax.export`: JAX loads it on CPUs, GPUs and TPUs, without any other package."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import jaxlib
import numpy as np

PLATFORMS = ("cpu", "cuda", "tpu")


def convert(describe: Callable, size: tuple[int, int]) -> tuple[bytes, dict[str, Any]]:
    """Lower a function of images for all of `PLATFORMS`, including the arrays that it holds.

    Args:
        describe: uint8 (B, H, W, 3) to (B, D) float32, for any B.
        size: (H, W), pixels.

    Returns:
        Bytes for `jax.export.deserialize`, and facts about them.
    """
    (batch,) = jax.export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *size, 3), jnp.uint8)
    with _no_places():
        exported = jax.export.export(jax.jit(describe), platforms=PLATFORMS)(images)
    facts = {
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "calling_convention_version": exported.calling_convention_version,
        "platforms": list(exported.platforms),
    }
    return bytes(exported.serialize()), facts


@contextlib.contextmanager
def _no_places() -> Iterator[None]:
    """Omit names and lines of source files from programs, because the file is for other
    machines."""
    limit = jax.config.values["jax_traceback_in_locations_limit"]
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", limit)


def run(content: bytes, images: np.ndarray) -> np.ndarray:
    """Run the file on uint8 (B, H, W, 3), and return descriptors (B, D) float32."""
    return np.asarray(jax.export.deserialize(bytearray(content)).call(images))
