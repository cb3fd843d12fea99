"""The leaves of a schedule that a recipe gets on the command line in place of its own."""

from typing import Any


def leaves_of(schedule: str, epochs: int, warmup_epochs: int) -> dict[str, Any]:
    """Leaves of `optim` for a run of so many epochs, in the papers' proportions.

    Args:
        schedule: a key of `leaves.SCHEDULES`.
        epochs: those of the run, at least 1.
        warmup_epochs: those of the recipe, which are kept.

    Returns:
        `staircase`: drops to a tenth at 1/2 and 3/4 of the epochs. `exponential`: from 2/5 of the
        epochs to the last, to a thousandth. `cosine`: from the end of the warm-up to the last
        epoch, to 0.
    """
    leaves: dict[str, Any] = {"warmup_epochs": warmup_epochs}
    if schedule == "staircase":
        milestones = {epochs // 2, epochs * 3 // 4}
        kept = sorted(epoch for epoch in milestones if epoch >= max(1, warmup_epochs))
        return leaves | {"warmup_every": 1, "milestones": tuple(kept), "decay": 0.1}
    start = epochs * 2 // 5 if schedule == "exponential" else min(warmup_epochs, epochs - 1)
    final = 1e-3 if schedule == "exponential" else 0.0
    return leaves | {"decay_from": start, "decay_until": epochs, "final": final}
