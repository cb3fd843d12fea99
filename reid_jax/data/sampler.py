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

    No state is carried from step to step, so training may start at any step, at no cost.

    Attributes:
        steps_per_epoch: ceil(C / P).
    """

    def __init__(self, labels: np.ndarray, num_identities: int, num_instances: int, seed: int):
        """Index the images of each identity.

        Args:
            labels: (N,) integers, the identity of each image.
            num_identities: P, identities in a batch.
            num_instances: K, images of each.
            seed: a non-negative integer.

        Raises:
            ValueError: P < 2, K < 1, or there are fewer than P identities.
        """
        if num_identities < 2:
            raise ValueError(
                f"fewer than two identities in a batch: data.identities_per_batch = "
                f"{num_identities}, and the triplet loss needs negatives"
            )
        if num_instances < 1:
            raise ValueError(f"data.images_per_identity = {num_instances} must be positive")
        labels = np.asarray(labels)
        order = np.argsort(labels, kind="stable").astype(np.int32)
        starts = np.unique(labels[order], return_index=True)[1]
        if len(starts) < num_identities:
            raise ValueError(
                f"data.identities_per_batch = {num_identities} is more than the "
                f"{counted(len(starts), 'identity', 'identities')} of the training split"
            )
        self._images = np.split(order, starts[1:])
        self._num_identities = num_identities
        self._num_instances = num_instances
        self._seed = seed
        self.steps_per_epoch = -(-len(starts) // num_identities)
        self._cached = (-1, np.empty(0, np.int64))

    def __call__(self, step: int) -> np.ndarray:
        """The batch of a step, counted from 0.

        Returns:
            (P * K,) int32 indices of images; the K images of an identity are adjacent.
        """
        epoch, batch = divmod(step, self.steps_per_epoch)
        first = batch * self._num_identities
        chosen = np.take(
            self._permutation(epoch), range(first, first + self._num_identities), mode="wrap"
        )
        rng = np.random.default_rng((self._seed, _IMAGES, step))
        return np.concatenate([self._draw(rng, self._images[identity]) for identity in chosen])

    def _draw(self, rng: np.random.Generator, images: np.ndarray) -> np.ndarray:
        return rng.choice(images, self._num_instances, replace=len(images) < self._num_instances)

    def _permutation(self, epoch: int) -> np.ndarray:
        # Assign the pair at once, so that threads that request different epochs cannot mix them up.
        cached_epoch, permutation = self._cached
        if cached_epoch != epoch:
            rng = np.random.default_rng((self._seed, _IDENTITIES, epoch))
            permutation = rng.permutation(len(self._images))
            self._cached = (epoch, permutation)
        return permutation
