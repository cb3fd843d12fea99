"""The papers' optimizer: Adam with L2 regularisation in the gradient."""

import optax


def create_optimizer(config, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Adam whose gradient includes `weight_decay` times every parameter.

    L2 in the gradient is scaled by Adam's second moment like the rest of it: this is PyTorch's
    `Adam(weight_decay)`, which the authors use, and not AdamW.
    """
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay),
        optax.scale_by_adam(),
        optax.scale_by_learning_rate(schedule),
    )
