"""Means of training metrics over the steps since the last log line."""

import json
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

#: The item of a checkpoint that holds them.
ITEM = "interval"

# Metrics whose names begin so are averaged. Others are logged as they were at the last step.
_AVERAGED = ("loss", "accuracy", "ordered")


class Interval:
    """Sums of metrics since the last log line.

    Sums are float64, in the order of the steps, and checkpoints hold them: a run that was stopped
    between two log lines and resumed logs the same numbers, bit for bit.
    """

    def __init__(self, steps: int = 0, sums: Mapping[str, float] | None = None):
        """Continue from sums over a number of steps; by default from zero steps."""
        self.steps = steps
        self._sums = dict(sums or {})

    def add(self, values: Mapping[str, float]) -> None:
        """Add the metrics of one step."""
        self.steps += 1
        for name, value in values.items():
            if name.startswith(_AVERAGED):
                self._sums[name] = self._sums.get(name, 0.0) + float(value)

    def means(self) -> dict[str, float]:
        """The means of losses, accuracies and shares of ordered triplets, by name."""
        return {name: total / self.steps for name, total in self._sums.items()}

    def restart(self) -> None:
        """Start again at zero steps, after a log line."""
        self.steps = 0
        self._sums.clear()

    def saved(self) -> dict[str, Any]:
        """The sums as JSON holds them exactly."""
        return {"steps": self.steps, "sums": dict(self._sums)}

    @classmethod
    def read(cls, checkpoint: pathlib.Path) -> "Interval":
        """The sums in a checkpoint's folder; zero steps if it has none, as right after a log line.

        Sums that cannot be read trigger a warning, and count as none.
        """
        path = checkpoint / ITEM / "metadata"
        if not path.exists():
            return cls()
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            sums = {str(name): float(value) for name, value in saved["sums"].items()}
            return cls(int(saved["steps"]), sums)
        except OSError as error:
            reason = f"cannot be read ({error.strerror})"
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = f"is damaged ({error!r})"
        warnings.warn(f"{path} {reason}: the next log line is of fewer steps", stacklevel=2)
        return cls()
