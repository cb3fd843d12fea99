"""The state of a run, one training step, and the loop that repeats it."""
