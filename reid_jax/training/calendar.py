"""When a run logs, evaluates, writes checkpoints and ends."""

import dataclasses

from reid_jax.recipe import RecipeConfig
from reid_jax.runtime.messages import counted


@dataclasses.dataclass(frozen=True)
class Calendar:
    """The steps of a run, counted from 1, and the actions that are due after each step.

    Attributes:
        steps_per_epoch: steps in one pass over the training identities.
        total_steps: the step after which the run ends.
        length: the reason for the last step, for messages: `epochs is 400, 18800 steps`.
        periods: the number of steps between two actions, for `log`, `eval` and `checkpoint`.
    """

    steps_per_epoch: int
    total_steps: int
    length: str
    periods: dict[str, int]

    @classmethod
    def from_recipe(cls, config: RecipeConfig, steps_per_epoch: int) -> "Calendar":
        """Create the calendar of a whole recipe, given the number of steps in an epoch."""
        total = config.epochs * steps_per_epoch
        length = f"epochs is {config.epochs}, {counted(total, 'step')}"
        if 0 < config.max_steps < total:
            total, length = config.max_steps, f"max_steps is {config.max_steps}"
        periods = {
            "log": config.log.every_steps,
            "eval": config.eval.every_epochs * steps_per_epoch,
            "checkpoint": config.checkpoint.every_epochs * steps_per_epoch,
        }
        return cls(steps_per_epoch, total, length, periods)

    def epoch(self, step: int) -> float:
        """Number of epochs completed after a step, with fractions."""
        return step / self.steps_per_epoch

    def is_due(self, step: int, *kinds: str) -> bool:
        """Whether any of `log`, `eval` and `checkpoint` is due. All are due after the last step."""
        return step == self.total_steps or any(step % self.periods[kind] == 0 for kind in kinds)
