"""The command line `reid-jax COMMAND`, which is also `python -m reid_jax COMMAND`."""
