"""A trained network as a function of images: descriptors, Grad-CAM and class activation maps.

    import reid_jax

    model = reid_jax.load("runs/pmm")
    descriptors = model.embed(["anna.jpg", "bert.jpg"])  # float32 (2, 1536)
    cams = model.gradcam(["anna.jpg", "bert.jpg"])  # float32 (2, 3, 24, 8)

The Euclidean distance is small if two images show the same person; a `Gallery` finds the nearest.
"""

import os
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import ArrayLike

from reid_jax import models
from reid_jax.data.boxes import cut
from reid_jax.data.image_like import ImagesLike
from reid_jax.network_on_devices import NetworkOnDevices
from reid_jax.recipe import typed
from reid_jax.runs.restoring import restore_variables
from reid_jax.runs.thresholds import read_threshold
from reid_jax.runs.workdir import read_run
from reid_jax.runtime.devices import all_devices
from reid_jax.runtime.files import local_path
from reid_jax.runtime.forks import check_not_forked
from reid_jax.runtime.progress import Progress


class Model(NetworkOnDevices):
    """A network and its weights, on all devices of this process. `load` creates it from a run.

    Each method is compiled at its first call with each size of batches. A call has batches of the
    largest size, and for the rest powers of two: one image does not cost as much as a batch.

    A `Model` can be pickled, with its weights and its recipe: another process gets it as an
    argument. Use the start method `spawn`; in a process forked after `load`, methods raise
    RuntimeError.

    Attributes:
        config: the run's recipe, which cannot be changed.
        network: `reid_jax.models.Network`; `network.apply(variables, images)` takes normalised
            images.
        variables: {"params", "batch_stats"}. `embed` uses a copy with batch norms folded.
        step: the step of the checkpoint.
        dim: D, numbers in a descriptor.
        stage_names: S names of the maps of `gradcam` and `class_activations`; empty if the network
            has no classifier.
        workdir: absolute path of the run's folder or packed file; None if the weights do not come
            from a run.
    """

    def __reduce__(self):
        check_not_forked()
        variables = jax.device_get(self.variables)
        recipe, num_classes = self.config.to_dict(), self.network.num_classes
        state = (recipe, num_classes, variables, self.step, self._batch_size, self.workdir)
        return _rebuilt, state

    def embed(self, images: ImagesLike, progress: Progress = None) -> np.ndarray:
        """Compute descriptors of images, with the recipe's `eval.flip` and `eval.normalize`.

            model.embed("anna.jpg")  # a file: (1, D)
            model.embed(pathlib.Path("gallery").glob("*.jpg"))  # files: (N, D), in order
            model.embed(crops)  # uint8 (N, H, W, 3), or a list of (H, W, 3) of any sizes

        Images are resized to the recipe's `data.image_size` as in training. An image's descriptor
        does not depend on the other images of a call, except for the rounding of float32: another
        number of images may be computed in another order.

        Args:
            images: a path or paths of JPEG, PNG, GIF, BMP, WebP or TIFF files, or uint8 RGB pixels:
                one image (H, W, 3), (N, H, W, 3), or several (H, W, 3) of any sizes; or one
                or several images of Pillow.
            progress: called with progress messages; None disables them.

        Returns:
            (N, D) float32.

        Raises:
            ValueError: files are missing, damaged or not images (the message names them), an image
                of Pillow cannot be read, or pixels have another shape or dtype.
        """
        return self._apply(self._describe, "__call__", images, progress)

    def embed_boxes(self, frame: np.ndarray, boxes: ArrayLike, bgr: bool = False) -> np.ndarray:
        """Compute descriptors of the boxes of one frame, such as those of a detector.

            model.embed_boxes(frame, [[310, 40, 372, 190], [12.5, 60, 80, 201.5]])  # (2, D)

        Boxes are clipped to the frame and rounded to the nearest edge between pixels, halves up;
        x2 and y2 are excluded: `frame[y1:y2, x1:x2]`. The descriptor of a box is that of this crop.

        Args:
            frame: uint8 (H, W, 3), RGB.
            boxes: numbers (N, 4), pixels: x1, y1, x2, y2. N may change with each call.
            bgr: whether the frame is BGR, as of OpenCV.

        Returns:
            (N, D) float32, a row for each box. A box without pixels, empty after clipping or with a
            coordinate that is NaN, has a row of NaN; one warning counts them.

        Raises:
            ValueError: `frame` or `boxes` have another shape or dtype.
        """
        crops, kept = cut(frame, boxes, bgr=bgr)
        descriptors = np.full((len(kept), self.dim), np.nan, np.float32)
        descriptors[kept] = self.embed(crops)
        if not kept.all():
            warnings.warn(
                f"{np.sum(~kept)} of {len(kept)} boxes have no pixels in the frame, or hold NaN; "
                "their descriptors are NaN",
                stacklevel=2,
            )
        return descriptors

    def threshold(self, fpr: float = 1e-3) -> float:
        """Read the distance up to which two images count as one person.

            model.threshold(fpr=1e-3)  # accepts 1 of 1,000 pairs of different people

        `reid-jax eval` measures it on the query and gallery images of the run's dataset.

        Args:
            fpr: the share of pairs of different people that is accepted by mistake: 0.1, 0.01,
                0.001 or 0.0001.

        Raises:
            FileNotFoundError: the run was not evaluated.
            ValueError: its evaluation is of another checkpoint, has other settings, or measured no
                such threshold.
        """
        if self.workdir is None:
            raise ValueError("this model has no run: load one by reid_jax.load(WORKDIR)")
        return read_threshold(self.workdir, self.config, self.step, fpr)

    def gradcam(self, images: ImagesLike, progress: Progress = None) -> np.ndarray:
        """Compute Grad-CAM: where each stage sees evidence for the identity that it predicts.

            cams = model.gradcam("anna.jpg")
            reid_jax.visualize.overlay(pixels, cams[0, 0])  # over uint8 (H, W, 3), with a colour

        Args:
            images: as in `embed`.
            progress: as in `embed`.

        Returns:
            (N, S, h, w) float32, not negative: Grad-CAM of the predicted training identity, a map
            for each of `stage_names`.

        Raises:
            ValueError: as `embed`, or the network has no classifier.
        """
        if not self.stage_names:
            raise ValueError(
                "Grad-CAM needs a classifier, but this network was trained without one "
                "(model.classifier)"
            )
        return self._apply(self._gradcam, "gradcams", images, progress)

    def class_activations(
        self,
        images: ImagesLike,
        classes: Sequence[int] | None = None,
        progress: Progress = None,
    ) -> np.ndarray:
        """Compute activation maps of HBFP-Net's levels without and with BFP, its paper's figure 5.

            from reid_jax import visualize

            cams = model.class_activations(crops)  # of uint8 (N, H, W, 3)
            rows, columns = ("without BFP", "with BFP"), model.stage_names
            figure = visualize.class_activation_figure(crops, cams, rows=rows, columns=columns)
            visualize.save(figure, "activations.png")

        See `reid_jax.models.HBFP.class_activations` for the equation.

        Args:
            images: as in `embed`.
            classes: N integers, each image's class, such as the true one of a training image.
                Training identities are numbered from 0 in the order of their pids (`Split.labels`
                in `reid_jax.data.splits`). By default each level uses the class it predicts.
            progress: as in `embed`.

        Returns:
            (N, 2, S, h, w) float32 of any sign: without BFP, then with BFP, a map for each of
            `stage_names`. For a network without pairs (N, 1, S, h, w).

        Raises:
            ValueError: as `embed`; the network is not HBFP-Net; or `classes` are not N integers, or
                one is not a class of the network.
        """
        method = "class_activations"
        if not hasattr(self.network, method):
            raise ValueError(
                f"model.name is {self.config.model.name!r}, but only 'hbfp' has class activation "
                "maps; use gradcam, which any network with a classifier has"
            )
        return self._apply(self._class_activations, method, images, progress, classes)


def _rebuilt(
    recipe: dict[str, Any],
    num_classes: int,
    variables: dict[str, Any],
    step: int,
    batch_size: int,
    workdir: str | os.PathLike[str] | None,
) -> Model:
    """The model that was pickled, on the devices of this process."""
    config = typed(ConfigDict(recipe).lock())
    network = models.create(config.model, num_classes)
    return Model(config, network, variables, step, batch_size=batch_size, workdir=workdir)


def load(
    workdir: str | os.PathLike[str],
    checkpoint: str | int = "latest",
    *,
    batch_size: int | None = None,
) -> Model:
    """Load the network that a run has trained.

        model = reid_jax.load("runs/pmm", "best")

    Args:
        workdir: folder of a run, whose `run.json` and `checkpoints/` are read, or a file of
            `reid-jax pack`. Neither is changed.
        checkpoint: `latest`, `best` by mAP, or a step. A packed file holds one checkpoint.
        batch_size: images per batch at most, rounded up to a multiple of the number of devices. By
            default `eval.batch_size` of the recipe; on CPUs it may be smaller.

    Raises:
        FileNotFoundError: no run, or no such checkpoint.
        OSError, ValueError: the run or its checkpoint is damaged, or of another network; or
            `JAX_PLATFORMS` asks for devices that this machine does not have.
        RuntimeError: this process was forked from one that had used JAX, for `load` or a search.
    """
    workdir = os.path.abspath(local_path(workdir, "workdir"))
    check_not_forked()
    all_devices()
    config, num_classes = read_run(workdir)
    network = models.create(config.model, num_classes)
    network.check(config.data.image_size)
    step, variables = restore_variables(network, config.data.image_size, workdir, checkpoint)
    return Model(config, network, variables, step, batch_size=batch_size, workdir=workdir)
