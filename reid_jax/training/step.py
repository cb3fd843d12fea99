"""One training step: a pure function of state and batch, per-device code under `jax.pmap`."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

from reid_jax import losses
from reid_jax.data.augment import augment
from reid_jax.models import Network
from reid_jax.models.heads import unit_length
from reid_jax.recipe import RecipeConfig
from reid_jax.runtime import collectives
from reid_jax.runtime.collectives import AXIS
from reid_jax.training.state import TrainState, stream_key


def make_step(
    network: Network,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    config: RecipeConfig,
    axis_name: str | None = AXIS,
) -> Callable[[TrainState, dict], tuple[TrainState, dict]]:
    """Create the step of `config` for any network of `reid_jax.models`.

    The loss is summed over the network's stages. A stage with an embedding adds `triplet_weight`
    times the batch-hard triplet loss; a stage with logits adds the cross entropy. Both are means
    over the whole batch. If the metric is `cosine`, embeddings are scaled to length one. For mixed
    images the cross entropy is that of both identities, weighted by their shares, as in CutMix; the
    triplet loss and the metrics use the identity with the larger share.

    Args:
        network: a network created with the same `axis_name`.
        optimizer, schedule: those of the run. The schedule gives the metric `lr`.
        config: a whole recipe; reads `loss` and `augment`.
        axis_name: the pmapped axis, or None for one device.

    Returns:
        step(state, batch) -> (state, metrics), with batch {"image": (b, H, W, 3) uint8, "label":
        (b,) int32} and metrics a dict of float32 scalars, equal on all devices: `loss`, `lr`,
        `gradient_norm`, `parameter_norm` (after the update), and for each stage, counted from 1,
        `loss/id_1`, `loss/triplet_1`, `accuracy_1` (share of images classified right) and
        `ordered_1` (share of images whose farthest positive is nearer than their nearest
        negative). `loss/triplet_1` is not multiplied by its weight. Metrics of losses that a stage
        lacks are missing.
    """
    margin = config.loss.triplet_margin or None
    id_loss = {"smoothing": config.loss.label_smoothing, "margin": config.loss.id_margin}

    def loss_of(params, state, images, labels):
        outputs, updates = network.apply(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            labels,
            stream_key(state.seed, "mix", state.step),
            method="training",
            mutable=["batch_stats"],
        )
        total, metrics = jnp.float32(0.0), {}
        for stage, output in enumerate(outputs, start=1):
            logits, mixture, shown = output.logits, output.mixture, labels
            if mixture is not None:
                shown = jnp.where(mixture.share > 0.5, mixture.labels, labels)
            if logits is not None:
                identity = losses.cross_entropy(logits, labels, **id_loss)
                if mixture is not None:
                    other = losses.cross_entropy(logits, mixture.labels, **id_loss)
                    identity += mixture.share * (other - identity)
                identity = identity.mean()
                total += identity
                metrics[f"loss/id_{stage}"] = identity
                metrics[f"accuracy_{stage}"] = (logits.argmax(axis=-1) == shown).mean()
            if output.embedding is None:
                continue
            distances = _distances_of[config.loss.metric]
            positive, negative = distances(output.embedding, shown, axis_name)
            triplet = losses.triplet(positive, negative, margin).mean()
            total += config.loss.triplet_weight * triplet
            metrics[f"loss/triplet_{stage}"] = triplet
            metrics[f"ordered_{stage}"] = (positive < negative).mean()
        return total, ({"loss": total, **metrics}, updates["batch_stats"])

    def step(state, batch):
        key = stream_key(state.seed, "augment", state.step)
        images = augment(key, batch["image"], config.augment, axis_name)
        gradients, (metrics, batch_stats) = jax.grad(loss_of, has_aux=True)(
            state.params, state, images, batch["label"]
        )
        # Inside jax.pmap, jax.grad differentiates the sum of all devices' losses by one device's
        # copy of the parameters. The mean over the copies is the gradient of the mean loss.
        gradients, metrics = collectives.mean((gradients, metrics), axis_name)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        metrics["lr"] = schedule(state.step)
        metrics["gradient_norm"] = norm_of(gradients)
        params = optax.apply_updates(state.params, updates)
        metrics["parameter_norm"] = norm_of(params)
        return TrainState(state.step + 1, params, batch_stats, opt_state, state.seed), metrics

    return step


def _cosine_distances(embeddings: jax.Array, labels: jax.Array, axis_name: str | None):
    """Like `losses.batch_hard_distances`, for embeddings scaled to length one."""
    return losses.batch_hard_distances(unit_length(embeddings), labels, axis_name)


# The keys are the values of `loss.metric`.
_distances_of = {"euclidean": losses.batch_hard_distances, "cosine": _cosine_distances}


def pmap_step(step: Callable, devices: Sequence[jax.Device]) -> Callable:
    """Compile the step over `devices`: one donated state, and batches of leaves (devices, b, ...).

    If several hosts share the devices, each host passes the rows of its own devices. The same
    step over the same devices is compiled once in a process.
    """
    return _pmap_step(step, tuple(devices))


@functools.lru_cache(maxsize=4)
def _pmap_step(step: Callable, devices: tuple[jax.Device, ...]) -> Callable:
    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=None,
        devices=devices,
        donate_argnums=0,
    )


def shard(batch, count: int):
    """Reshape leaves (B, ...) to (count, B / count, ...), one row per device."""
    return jax.tree.map(lambda x: x.reshape(count, x.shape[0] // count, *x.shape[1:]), batch)


def norm_of(tree) -> jax.Array:
    """The Euclidean norm of all leaves together, as `optax.tree.norm`."""
    leaves = jax.tree.leaves(tree)
    # More than a hundred leaves are short vectors. Each by itself would be a reduction of a few
    # microseconds on a GPU, and XLA would compute Adam's update of the leaf in it.
    vectors = [leaf for leaf in leaves if leaf.ndim == 1]
    others = [leaf for leaf in leaves if leaf.ndim != 1]
    whole = [jnp.concatenate(vectors)] if vectors else []
    return jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in (*whole, *others)))
