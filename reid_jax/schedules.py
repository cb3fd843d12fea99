"""The papers' learning rates, as functions of the step."""

import jax.numpy as jnp
import optax

from reid_jax.recipe import OptimConfig


def staircase(config: OptimConfig, steps_per_epoch: int) -> optax.Schedule:
    """PMM's learning rate by step: a rising staircase, then drops at milestones.

    At 1-based epoch e, with `warmup_every` w and `warmup_epochs` W (both 5 and 50 in the paper's
    program):

        rate(e) = lr (e // w + 1) w / W            if e < W
        rate(e) = lr decay^(milestones up to e)    otherwise

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


def exponential(config: OptimConfig, steps_per_epoch: int) -> optax.Schedule:
    """HBFP-Net's learning rate by step (section 4.2): constant, then exponential decay.

    The paper has no warm-up. A warm-up of `warmup_epochs` comes first, see `warmed_up`.

    After e epochs, which may be a fraction:

        rate(e) = lr final^((e - decay_from) / (decay_until - decay_from))

    between those two epochs, lr before them and lr final after them.

    Args:
        config: a recipe's `optim`: `lr`, `warmup_epochs`, `decay_from`, `decay_until` (epochs),
            `final`.
        steps_per_epoch: steps in one epoch.

    Returns:
        A schedule from the 0-based step to the rate, float32.
    """
    decay = optax.exponential_decay(
        config.lr,
        # Not integers, which would have to be below 2^31.
        transition_steps=float((config.decay_until - config.decay_from) * steps_per_epoch),
        decay_rate=config.final,
        transition_begin=float(config.decay_from * steps_per_epoch),
        end_value=config.lr * config.final,
    )

    def rate(step):
        return decay(jnp.asarray(step, jnp.float32))

    return warmed_up(rate, config.warmup_epochs * steps_per_epoch)


def cosine(config: OptimConfig, steps_per_epoch: int) -> optax.Schedule:
    """Learning rate by step: warm-up, constant, then half a cosine (Loshchilov and Hutter, 2017).

    A warm-up of `warmup_epochs` multiplies this rate, see `warmed_up`.

    After e epochs, which may be a fraction:

        x = (e - decay_from) / (decay_until - decay_from)
        rate(e) = lr (final + (1 - final) (1 + cos(pi x)) / 2)

    between those two epochs, lr before them and lr final after them.

    Args:
        config: a recipe's `optim`: `lr`, `warmup_epochs`, `decay_from`, `decay_until` (epochs),
            `final`.
        steps_per_epoch: steps in one epoch.

    Returns:
        A schedule from the 0-based step to the rate, float32.
    """
    first = float(config.decay_from * steps_per_epoch)
    length = float((config.decay_until - config.decay_from) * steps_per_epoch)
    decay = optax.cosine_decay_schedule(config.lr, length, alpha=config.final)

    def rate(step):
        return decay(jnp.maximum(jnp.asarray(step, jnp.float32) - first, 0.0))

    return warmed_up(rate, config.warmup_epochs * steps_per_epoch)


def warmed_up(schedule: optax.Schedule, steps: int) -> optax.Schedule:
    """Add a linear warm-up: step s < `steps` gets (s + 1) / steps of the rate of `schedule`.

    The rate of the first step is not 0, so that the step is not wasted.
    """
    if steps == 0:
        return schedule

    def rate(step):
        rising = (jnp.asarray(step, jnp.float32) + 1.0) / float(steps)
        return schedule(step) * jnp.minimum(rising, 1.0)

    return rate


SCHEDULES = {"staircase": staircase, "exponential": exponential, "cosine": cosine}


def create_schedule(config: OptimConfig, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate by 0-based step, as `config`, a recipe's `optim`, selects it."""
    return SCHEDULES[config.schedule](config, steps_per_epoch)
