"""Person re-identification in JAX: two published networks, one trainer, exact resume.

`load` returns the network of a run as a function of images, and a `Gallery` searches among their
descriptors. They are imported on first use: importing this package does not import other modules.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reid_jax.gallery import Gallery
    from reid_jax.gallery_milvus import MilvusGallery
    from reid_jax.inference import Model, load

_PUBLIC = {
    "Gallery": "reid_jax.gallery",
    "MilvusGallery": "reid_jax.gallery_milvus",
    "Model": "reid_jax.inference",
    "load": "reid_jax.inference",
}

__version__ = "0.1.0"

__all__ = ["Gallery", "MilvusGallery", "Model", "__version__", "load"]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
