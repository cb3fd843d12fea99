"""The papers' learning rates: functions of the step."""

import jax.numpy as jnp
import optax


def staircase(config, steps_per_epoch: int) -> optax.Schedule:
    """PMM's learning rate by step: a rising staircase, then drops at milestones.

    By 1-based epoch e, with `warmup_every` w and `warmup_epochs` W (both 5 and 50 in the paper's
    program):

        rate(e) = lr (e // w + 1) w / W   where e < W
        rate(e) = lr decay^(milestones at or below e)   elsewhere

    Args:
        config: a recipe's `optim`: `lr`, `warmup_epochs`, `warmup_every`, `milestones` (epochs),
            `decay`.
        steps_per_epoch: steps in one epoch.

    Returns:
        A schedule from the 0-based step to the rate, float32.
    """

    def rate(step):
        epoch = jnp.asarray(step, jnp.int32) // steps_per_epoch + 1
        rises = epoch // config.warmup_every + 1
        warmup = rises.astype(jnp.float32) * config.warmup_every / max(config.warmup_epochs, 1)
        drops = sum((epoch >= milestone).astype(jnp.float32) for milestone in config.milestones)
        settled = jnp.float32(config.decay) ** drops
        return jnp.float32(config.lr) * jnp.where(epoch < config.warmup_epochs, warmup, settled)

    return rate


def exponential(config, steps_per_epoch: int) -> optax.Schedule:
    """HBFP-Net's learning rate by step (section 4.2): constant, then exponential decay.

    By the epochs e made so far, a fraction within an epoch:

        rate(e) = lr final^((e - decay_from) / (decay_until - decay_from))

    between those two epochs, lr before and lr final after.

    Args:
        config: a recipe's `optim`: `lr`, `decay_from`, `decay_until` (epochs), `final`.
        steps_per_epoch: steps in one epoch.

    Returns:
        A schedule from the 0-based step to the rate, float32.
    """
    return optax.exponential_decay(
        config.lr,
        transition_steps=(config.decay_until - config.decay_from) * steps_per_epoch,
        decay_rate=config.final,
        transition_begin=config.decay_from * steps_per_epoch,
        end_value=config.lr * config.final,
    )


SCHEDULES = {"staircase": staircase, "exponential": exponential}


def create_schedule(config, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate by 0-based step that `config`, a recipe's `optim`, names."""
    return SCHEDULES[config.schedule](config, steps_per_epoch)
