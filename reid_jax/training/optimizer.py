"""The papers' optimizer: Adam with L2 regularisation in the gradient."""

import jax
import jax.numpy as jnp
import optax

from reid_jax.recipe import OptimConfig


def create_optimizer(
    config: OptimConfig, schedule: optax.Schedule, steps_per_epoch: int = 1
) -> optax.GradientTransformation:
    """Create Adam whose gradient includes `weight_decay` times every parameter.

    Adam's second moment scales this L2 term like the rest of the gradient. It equals PyTorch's
    `Adam(weight_decay)`, which the authors use, and differs from AdamW.

    Args:
        config: a recipe's `optim`: `weight_decay`; `trunk_lr`, a factor on the learning rate of the
            trunk's parameters; `frozen_epochs`, the number of epochs at the start in which the
            trunk's parameters stay fixed (its running statistics are updated).
        schedule: from the 0-based step to the rate.
        steps_per_epoch: steps in one epoch; only `frozen_epochs` depends on it.
    """
    adam = (
        optax.add_decayed_weights(config.weight_decay),
        optax.scale_by_adam(),
        optax.scale_by_learning_rate(schedule),
    )
    if config.trunk_lr == 1.0 and not config.frozen_epochs:
        return optax.chain(*adam)
    frozen = min(config.frozen_epochs * steps_per_epoch, 2**31 - 1)  # Steps are int32.

    def share(step):
        return jnp.where(step < frozen, 0.0, config.trunk_lr)

    # Scale last, so that the weight decay is scaled too.
    return optax.chain(*adam, optax.masked(optax.scale_by_schedule(share), _trunk_mask))


def _trunk_mask(params):
    """Mark the parameters of the trunk, for `optax.masked`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[0].key == "trunk", params)
