"""Loaders as in PyTorch programs: worker processes read, resize and augment with Pillow.

A worker imports neither JAX nor TensorFlow, and keeps freed memory as our programs do. Only
`dataloader` needs PyTorch.

The processing of an image follows torchvision and re-ID programs (torchreid, fast-reid): open,
convert to RGB, resize (bilinear, antialiased), flip, convert to float32 in [0, 1] and (3, H, W),
normalise, erase a rectangle, cut out a square, stack. Each step uses the fastest implementation
that was found: in place, with the division by 255 folded into the normalisation.
"""

import collections
import contextlib
import dataclasses
import itertools
import math
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from reid_jax.runtime.allocator import keep_freed_memory

# ImageNet's mean and deviation, as offset and factor of 8-bit levels.
_STD = np.array((0.229, 0.224, 0.225), np.float32).reshape(3, 1, 1)
_SCALE = 1 / (255 * _STD)
_SHIFT = np.array((0.485, 0.456, 0.406), np.float32).reshape(3, 1, 1) / _STD

# Batches that each worker reads ahead: the default of PyTorch's DataLoader.
AHEAD = 2

Stream = Callable[[Iterable[np.ndarray]], Iterator]


def read(path: str) -> Image.Image:
    """Read the file's image, in RGB."""
    with Image.open(path) as image:
        return image.convert("RGB")


def load(path: str, out: np.ndarray, augment: dict, rng: np.random.Generator) -> None:
    """Load one image as a network takes it.

    Args:
        path: the file.
        out: (3, H, W) float32, to be written.
        augment: a recipe's, as `reid_jax.data.augment.augment` takes it.
        rng: random generator.
    """
    _, height, width = out.shape
    image = read(path).resize((width, height), Image.Resampling.BILINEAR)
    if rng.random() < augment["flip"]:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    # Transpose bytes, before they take four times as much memory.
    out[:] = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
    out *= _SCALE
    out -= _SHIFT
    if rng.random() < augment["erasing_probability"]:
        _erase(out, augment["erasing_area"], augment["erasing_aspect"], rng)
    if rng.random() < augment["cutout_probability"]:
        size = augment["cutout_size"]
        top, left = rng.integers(height - size + 1), rng.integers(width - size + 1)
        out[:, top : top + size, left : left + size] = 0


def _erase(out: np.ndarray, areas: tuple, aspects: tuple, rng: np.random.Generator) -> None:
    """Random erasing (Zhong et al., 2020): at most a hundred draws, as in the authors' program."""
    _, height, width = out.shape
    for _ in range(100):
        area, aspect = height * width * rng.uniform(*areas), rng.uniform(*aspects)
        high, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if high < height and wide < width:
            top, left = rng.integers(height - high + 1), rng.integers(width - wide + 1)
            out[:, top : top + high, left : left + wide] = 0
            return


def decode(path: str, out: np.ndarray, augment: dict, rng: np.random.Generator) -> None:
    """Replacement for `load` that only reads and decodes the file."""
    read(path)


@contextlib.contextmanager
def processes(
    paths: Sequence[str],
    size: tuple[int, int],
    batch: int,
    augment: dict,
    count: int,
) -> Iterator[Stream]:
    """Workers of Python's `multiprocessing` that write into memory shared with their parent.

    Args:
        paths: N files.
        size: (H, W), pixels.
        batch: B.
        augment: as in `load`.
        count: number of workers.

    Returns:
        A context manager of a function from batches of indices, (B,) integers, to an iterator over
        (B, 3, H, W) float32, in order. Use each batch before you request the next one. The function
        also takes `job=decode`, and then the batches hold no images.
    """
    spawning = multiprocessing.get_context("spawn")  # A fork beside JAX's threads may hang.
    shape = (AHEAD * count + 1, batch, 3, *size)
    memory = spawning.RawArray("f", math.prod(shape))
    slots = np.frombuffer(memory, np.float32).reshape(shape)
    with spawning.Pool(count, _start, (memory, shape, list(paths), augment)) as pool:

        def stream(index_batches, job=load):
            tasks = zip(itertools.cycle(range(len(slots))), enumerate(index_batches))
            running = collections.deque()

            def submit(many):
                for slot, task in itertools.islice(tasks, many):
                    running.append((slot, pool.apply_async(_work, (job, slot, *task))))

            submit(len(slots) - 1)
            while running:
                slot, done = running.popleft()
                done.get()
                submit(1)  # Into the slot of the batch that the parent has finished.
                yield slots[slot]

        yield stream


# The data that a worker receives once, instead of with every batch.
_given = None


def _start(memory, shape, *rest):
    global _given
    keep_freed_memory(fill_gaps=False)
    _given = np.frombuffer(memory, np.float32).reshape(shape), *rest


def _work(job: Callable, slot: int, number: int, indices: np.ndarray) -> None:
    slots, paths, augment = _given
    rng = np.random.default_rng(number)
    for out, index in zip(slots[slot], indices, strict=True):
        job(paths[index], out, augment, rng)


def _start_dataloader(worker: int) -> None:
    keep_freed_memory(fill_gaps=False)


@dataclasses.dataclass
class _Files:
    """A dataset for PyTorch's DataLoader."""

    paths: Sequence[str]
    size: tuple[int, int]
    augment: dict

    def __getitems__(self, indices):
        import torch

        rng = np.random.default_rng(indices)
        loaded = [torch.empty((3, *self.size)) for _ in indices]
        for index, image in zip(indices, loaded, strict=True):
            load(self.paths[index], image.numpy(), self.augment, rng)
        return loaded


@contextlib.contextmanager
def dataloader(
    paths: Sequence[str], size: tuple[int, int], augment: dict, count: int
) -> Iterator[Stream]:
    """PyTorch's DataLoader with persistent workers; as `processes`, but without `decode`.

    Raises:
        ImportError: PyTorch is not installed.
    """
    import torch.utils.data

    order = []
    loader = torch.utils.data.DataLoader(
        _Files(paths, size, augment),
        batch_sampler=order,
        num_workers=count,
        prefetch_factor=AHEAD,
        persistent_workers=True,
        worker_init_fn=_start_dataloader,
        multiprocessing_context="spawn",
    )

    def stream(index_batches):
        order[:] = index_batches
        return (batch.numpy() for batch in loader)

    yield stream
