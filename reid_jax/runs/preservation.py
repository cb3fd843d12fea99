"""Which checkpoints of a run are kept."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class NewestAndBest:
    """Selects the checkpoints to keep when a new one has been written: Orbax's preservation policy.

    Orbax's own `max_to_keep` with `best_fn` would keep the best and delete the newest.
    """

    keep: int
    scores: Mapping[int, float]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Whether each checkpoint stays, as Orbax asks."""
        del context
        steps = sorted(checkpoint.step for checkpoint in checkpoints)
        stay = {*steps[-self.keep :], best_step(steps, self.scores)}
        return [checkpoint.step in stay for checkpoint in checkpoints]


def best_step(steps: Sequence[int], scores: Mapping[int, float]) -> int | None:
    """The step with the largest score, the newest of equals; NaN counts as no score."""
    scored = [step for step in steps if not math.isnan(scores.get(step, math.nan))]
    return max(scored, key=lambda step: (scores[step], step), default=None)
