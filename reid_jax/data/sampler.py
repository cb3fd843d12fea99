"""Batches of P identities x K images, each a pure function of (seed, step)."""

import numpy as np

from reid_jax.runtime.messages import counted

# Streams of random numbers that share a seed.
_IDENTITIES, _IMAGES = 0, 1


class IdentitySampler:
    """Selects the images of a step's batch: P identities, K images of each.

    An epoch shows every identity once, in a new order. K images of each are drawn without
    replacement, or with replacement if the identity has fewer. If P does not divide the number C of
    identities, the epoch's last batch is filled with identities of its first, so that the
    identities in a batch are always distinct.

    A batch that is balanced over D datasets takes P / D identities of each. If D does not divide
    P, the first datasets give one more. Each dataset has epochs of its own, as above.

    No state is carried from step to step, so training may start at any step, at no cost.

    Attributes:
        steps_per_epoch: ceil(C / P). If batches are balanced, the most that a dataset needs.
    """

    def __init__(
        self,
        labels: np.ndarray,
        num_identities: int,
        num_instances: int,
        seed: int,
        sources: np.ndarray | None = None,
    ):
        """Index the images of each identity.

        Args:
            labels: (N,) integers, the identity of each image.
            num_identities: P, identities in a batch.
            num_instances: K, images of each.
            seed: a non-negative integer.
            sources: (N,) integers from 0 to D - 1, the dataset of each image, to balance batches
                over datasets. None does not balance them.

        Raises:
            ValueError: P < 2, K < 1, there are fewer than P identities; or, if batches are
                balanced, P < D, or a dataset has too few identities for its part of a batch.
        """
        if num_identities < 2:
            raise ValueError(
                f"fewer than two identities in a batch: data.identities_per_batch = "
                f"{num_identities}, and the triplet loss needs negatives"
            )
        if num_instances < 1:
            raise ValueError(f"data.images_per_identity = {num_instances} must be positive")
        images = _images_of_identities(np.asarray(labels))
        if len(images) < num_identities:
            raise ValueError(
                f"data.identities_per_batch = {num_identities} is more than the "
                f"{counted(len(images), 'identity', 'identities')} of the training split"
            )
        if sources is None:
            self._parts = [_Part(images, num_identities, num_instances, (seed,))]
        else:
            self._parts = _balanced(images, num_identities, num_instances, seed, sources)
        self.steps_per_epoch = max(part.steps_per_epoch for part in self._parts)

    def __call__(self, step: int) -> np.ndarray:
        """The batch of a step, counted from 0.

        Returns:
            (P * K,) int32 indices of images; the K images of an identity are adjacent, and so are
            the identities of a dataset if batches are balanced.
        """
        return np.concatenate([images for part in self._parts for images in part.draw(step)])


class _Part:
    """A part of every batch: its identities are from one pool, in epochs of their own."""

    def __init__(
        self,
        images: list[np.ndarray],
        num_identities: int,
        num_instances: int,
        seed: tuple[int, ...],
    ):
        """As `IdentitySampler`.

        Args:
            images: the indices of each identity's images.
            num_identities: identities in this part of a batch.
            num_instances: images of each.
            seed: the run's seed; and, if there are several parts, what sets this one apart.
        """
        self._images = images
        self._num_identities = num_identities
        self._num_instances = num_instances
        self._seed, *self._which = seed
        self.steps_per_epoch = -(-len(images) // num_identities)
        self._cached = (-1, np.empty(0, np.int64))

    def draw(self, step: int) -> list[np.ndarray]:
        """The indices of the images of each identity."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        first = batch * self._num_identities
        chosen = np.take(
            self._permutation(epoch), range(first, first + self._num_identities), mode="wrap"
        )
        rng = np.random.default_rng((self._seed, _IMAGES, step, *self._which))
        return [self._draw(rng, self._images[identity]) for identity in chosen]

    def _draw(self, rng: np.random.Generator, images: np.ndarray) -> np.ndarray:
        return rng.choice(images, self._num_instances, replace=len(images) < self._num_instances)

    def _permutation(self, epoch: int) -> np.ndarray:
        # Assign the pair at once, so that threads that request different epochs cannot mix them up.
        cached_epoch, permutation = self._cached
        if cached_epoch != epoch:
            rng = np.random.default_rng((self._seed, _IDENTITIES, epoch, *self._which))
            permutation = rng.permutation(len(self._images))
            self._cached = (epoch, permutation)
        return permutation


def _images_of_identities(labels: np.ndarray) -> list[np.ndarray]:
    """The indices of the images of each identity, int32, in the order of the labels."""
    order = np.argsort(labels, kind="stable").astype(np.int32)
    starts = np.unique(labels[order], return_index=True)[1]
    return np.split(order, starts[1:])


def _balanced(
    images: list[np.ndarray],
    num_identities: int,
    num_instances: int,
    seed: int,
    sources: np.ndarray,
) -> list[_Part]:
    """A part of the batch for each dataset."""
    pools: list[list[np.ndarray]] = [[] for _ in range(int(sources.max()) + 1)]
    for indices in images:
        pools[sources[indices[0]]].append(indices)
    least, more = divmod(num_identities, len(pools))
    if not least:
        raise ValueError(
            f"data.identities_per_batch = {num_identities} is fewer than the "
            f"{counted(len(pools), 'dataset')}: raise it, or set data.balanced=False"
        )
    parts = []
    for i, pool in enumerate(pools):
        share = least + (i < more)
        if len(pool) < share:
            which = f"dataset {i} of data.also" if i else "the dataset of data.root"
            raise ValueError(
                f"a balanced batch of data.identities_per_batch = {num_identities} takes {share} "
                f"identities of {which}, which has {len(pool)}: lower it, or set "
                "data.balanced=False"
            )
        parts.append(_Part(pool, share, num_instances, (seed, i + 1)))
    return parts
