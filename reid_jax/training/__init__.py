"""The state of a run, its step, and the loop that drives it."""
