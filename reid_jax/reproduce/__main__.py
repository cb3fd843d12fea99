"""`python -m reid_jax.reproduce`: the same as `reid-jax reproduce`."""

from reid_jax.cli.reproduce import main

if __name__ == "__main__":
    main(prog="python -m reid_jax.reproduce")
