"""`python -m reid_jax.weights`: the same as `reid-jax weights`."""

from reid_jax.cli.weights import main

if __name__ == "__main__":
    main(prog="python -m reid_jax.weights")
