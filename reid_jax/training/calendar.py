"""When a run logs, evaluates, writes checkpoints and ends."""

import dataclasses

from ml_collections import ConfigDict

from reid_jax.runtime.messages import counted


@dataclasses.dataclass(frozen=True)
class Calendar:
    """The steps of a run, counted from 1, and what is due after each.

    Attributes:
        steps_per_epoch: steps in one pass over the training identities.
        total_steps: the step after which the run ends.
        length: why it ends there, for messages: `epochs is 400, 18800 steps`.
        periods: for `log`, `eval` and `checkpoint`, the number of steps from one to the next.
    """

    steps_per_epoch: int
    total_steps: int
    length: str
    periods: dict[str, int]

    @classmethod
    def from_recipe(cls, config: ConfigDict, steps_per_epoch: int) -> "Calendar":
        """The calendar of a whole recipe, for an epoch of so many steps."""
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
        """Number of epochs made after a step, parts of one included."""
        return step / self.steps_per_epoch

    def is_due(self, step: int, *kinds: str) -> bool:
        """Whether any of `log`, `eval` and `checkpoint` is due after a step; all are at the end."""
        return step == self.total_steps or any(step % self.periods[kind] == 0 for kind in kinds)
