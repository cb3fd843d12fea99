"""ONNX by jax2onnx, an optional dependency: runtimes for many devices and languages load it."""

import contextlib
import importlib.metadata
import logging
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Of 2022: runtimes that know newer ones know it, and the networks need nothing newer.
_OPSET = 18

INSTALL = "python -m pip install -e '.[export]', in the checkout"


def check_converter() -> None:
    """Raises ImportError, with what installs them, where converter or runtime are missing."""
    try:
        import jax2onnx  # noqa: F401
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ImportError(f"ONNX needs jax2onnx and onnxruntime ({error}): {INSTALL}") from error


def convert(describe: Callable, size: tuple[int, int]) -> tuple[bytes, dict[str, Any]]:
    """Converts a function of images, with the arrays that it holds.

    Args:
        describe: uint8 (B, H, W, 3) to (B, D) float32, for any B.
        size: (H, W), pixels.

    Returns:
        A model with input `images` and output `descriptors`, which ONNX's checker has passed, and
        facts about it.

    Raises:
        ImportError: see `check_converter`.
        ValueError: the converter does not know what the function does.
    """
    check_converter()
    import jax2onnx
    import onnx

    images = jax.ShapeDtypeStruct(("b", *size, 3), jnp.uint8)
    version = importlib.metadata.version("jax2onnx")
    try:
        # The converter's stand-ins for operations of JAX mix dtypes and ranks.
        with _quiet(), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            model = jax2onnx.to_onnx(
                describe,
                [images],
                model_name="descriptor",
                opset=_OPSET,
                input_names=["images"],
                output_names=["descriptors"],
            )
        onnx.checker.check_model(model, full_check=True)
    # Whatever it is, it is not the user's: the other format is there.
    except Exception as error:
        raise ValueError(
            f"jax2onnx {version} cannot convert this network: {type(error).__name__}: {error}. "
            "--formats=stablehlo leaves ONNX out"
        ) from error
    facts = {
        "opset": max(opset.version for opset in model.opset_import),
        "ir_version": model.ir_version,
        "converter": f"jax2onnx {version}",
    }
    return model.SerializeToString(), facts


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of shapes between nodes that the file leaves out; runtimes find them again."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def run(content: bytes, images: np.ndarray) -> np.ndarray:
    """What the file says of uint8 (B, H, W, 3) on the CPU: descriptors (B, D) float32.

    Raises:
        ValueError: the runtime does not know an operation, or its dtype.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        return session.run(["descriptors"], {"images": images})[0]
    # It has exceptions of its own, of no common class.
    except Exception as error:
        raise ValueError(
            f"onnxruntime {onnxruntime.__version__} cannot run descriptor.onnx: {error}"
        ) from error
