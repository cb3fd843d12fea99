"""The machinery below `Model`: a network on the devices of this process, compiled for batches."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from reid_jax import models
from reid_jax.data.batch_sizes import batch_limit
from reid_jax.data.image_like import ImagesLike, as_images
from reid_jax.evaluation.descriptors import (
    descriptor_face,
    descriptor_weights,
    extract,
    pmap_face,
)
from reid_jax.recipe import RecipeConfig, frozen
from reid_jax.runtime.counts import as_count
from reid_jax.runtime.devices import place
from reid_jax.runtime.forks import check_not_forked
from reid_jax.runtime.progress import Progress


class NetworkOnDevices:
    """A network, its weights and its recipe. `reid_jax.Model` adds the public methods."""

    def __init__(
        self,
        config: RecipeConfig,
        network: models.Network,
        variables: dict[str, Any],
        step: int,
        *,
        batch_size: int | None = None,
        workdir: str | os.PathLike[str] | None = None,
    ):
        """Put the weights on the devices.

        Args:
            config: a recipe; `data.image_size` and `eval` are read.
            network: the network of the recipe.
            variables: its weights.
            step: the step of their checkpoint.
            batch_size: images per batch at most, rounded up to a multiple of the number of
                devices. By default as evaluation has them, see `batch_limit`.
            workdir: the run's folder or packed file, for `threshold`.

        Raises:
            ValueError: `batch_size` is no whole number or below 1.
        """
        check_not_forked()
        devices = jax.local_devices()
        if batch_size is None:
            batch_size = batch_limit(config.eval.batch_size, config.data.image_size, devices)
        batch_size = as_count(batch_size, "batch_size")
        # Frozen, because the functions below are built from it and would not follow a change.
        self.config = frozen(config)
        self.network = network
        self.step = step
        self.workdir = workdir
        self.variables = place(variables, devices)
        self._devices = devices
        self._batch_size = -(-batch_size // len(devices)) * len(devices)
        height, width = config.data.image_size
        self._size = height, width
        self._describe = descriptor_face(
            network, devices, flip=config.eval.flip, unit_length=config.eval.normalize
        )
        self._weights_of: dict[str, Any] | None = None  # the variables that `_weights` are of
        self._gradcam = pmap_face(network, devices, "gradcams")
        self._class_activations = pmap_face(network, devices, "class_activations")
        self.stage_names = network.stage_names if network.classifies else ()

    @functools.cached_property
    def dim(self) -> int:
        """Numbers in a descriptor."""
        return self._shape("__call__")[0]  # Traces the network, so only on demand.

    @property
    def descriptor_weights(self) -> dict[str, Any]:
        """The weights that `embed` describes with. Made from `variables` at the first use."""
        if self._weights_of is not self.variables:
            self._weights = descriptor_weights(self.network, self.variables, self._devices)
            self._weights_of = self.variables
        return self._weights

    def _apply(
        self, face: Callable, method: str, images: ImagesLike, progress: Progress, classes=None
    ) -> np.ndarray:
        check_not_forked()
        opened = as_images(images, self._size, progress)
        if classes is not None:
            classes = _checked_classes(classes, len(opened), self.network.num_classes)
        if not len(opened):
            return np.empty((0, *self._shape(method)), np.float32)
        if classes is not None:
            face = _with_classes(face, classes)
        parts = [(opened, len(opened))]
        weights = self.descriptor_weights if face is self._describe else self.variables
        return extract(face, weights, parts, self._batch_size, progress, devices=self._devices)

    def _shape(self, method: str) -> tuple[int, ...]:
        """The shape of a face's result for one image."""
        image = jax.ShapeDtypeStruct((1, *self._size, 3), np.float32)

        def face(variables, image):
            return self.network.apply(variables, image, method=method)

        return jax.eval_shape(face, self.variables, image).shape[1:]


def _checked_classes(classes: Sequence[int], count: int, num_classes: int) -> np.ndarray:
    array = np.asarray(classes)
    if array.shape != (count,) or (count and array.dtype.kind not in "iu"):
        raise ValueError(
            f"classes are {array.dtype} {array.shape}; they must be {count} integers, one per image"
        )
    for i in np.flatnonzero((array < 0) | (array >= num_classes))[:1]:
        raise ValueError(
            f"class {array[i]} of image {i} is not one of the network's {num_classes} training "
            f"identities, 0 to {num_classes - 1}"
        )
    return array.astype(np.int32)


def _with_classes(face: Callable, classes: np.ndarray) -> Callable:
    """A face for one call of `extract`, which passes the images batch by batch, in order."""
    done = 0

    def with_classes(variables, images):
        nonlocal done
        # Like the images, the last batch is padded with its last element.
        rows = np.minimum(np.arange(done, done + len(images)), len(classes) - 1)
        done += len(images)
        return face(variables, images, classes[rows])

    return with_classes
