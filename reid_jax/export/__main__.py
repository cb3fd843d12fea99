"""`python -m reid_jax.export`: the same as `reid-jax export`."""

from reid_jax.cli.export import main

if __name__ == "__main__":
    main(prog="python -m reid_jax.export")
