"""The command line: `reid-jax COMMAND`, which `python -m reid_jax COMMAND` starts as well."""
