"""ONNX by jax2onnx, an optional dependency. Runtimes for many devices and languages load it."""

import contextlib
import importlib.metadata
import logging
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# A version of 2022, which old and new runtimes support; the networks need no newer operations.
_OPSET = 18

INSTALL = "python -m pip install -e '.[export]', in the checkout"


def check_converter() -> None:
    """Raise ImportError, with the command to install them, if converter or runtime are missing."""
    try:
        import jax2onnx  # noqa: F401
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ImportError(f"ONNX needs jax2onnx and onnxruntime ({error}): {INSTALL}") from error


def convert(describe: Callable, size: tuple[int, int]) -> tuple[bytes, dict[str, Any]]:
    """Convert a function of images, including the arrays that it holds.

    Args:
        describe: uint8 (B, H, W, 3) to (B, D) float32, for any B.
        size: (H, W), pixels.

    Returns:
        A model with input `images` and output `descriptors`, which has passed ONNX's checker, and
        facts about it.

    Raises:
        ImportError: see `check_converter`.
        ValueError: the converter does not support an operation of the function.
    """
    check_converter()
    import jax2onnx
    import onnx

    images = jax.ShapeDtypeStruct(("b", *size, 3), jnp.uint8)
    version = importlib.metadata.version("jax2onnx")
    try:
        # The converter replaces operations of JAX by functions that mix dtypes and ranks.
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
    # Any exception means that the converter fails; the user can still export the other format.
    except Exception as error:
        raise ValueError(
            f"jax2onnx {version} cannot convert this network: {type(error).__name__}: {error}. "
            "To export without ONNX, pass --formats=stablehlo"
        ) from error
    facts = {
        "opset": max(opset.version for opset in model.opset_import),
        "ir_version": model.ir_version,
        "converter": f"jax2onnx {version}",
    }
    return model.SerializeToString(), facts


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings about shapes that the file omits. Runtimes infer them again."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def run(content: bytes, images: np.ndarray) -> np.ndarray:
    """Run the file on uint8 (B, H, W, 3) on the CPU, and return descriptors (B, D) float32.

    Raises:
        ValueError: the runtime does not support an operation or its dtype.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        return session.run(["descriptors"], {"images": images})[0]
    # The runtime's exceptions have no common base class.
    except Exception as error:
        raise ValueError(
            f"onnxruntime {onnxruntime.__version__} cannot run descriptor.onnx: {error}"
        ) from error
