"""`python -m reid_jax.search`: the same as `reid-jax search`."""

from reid_jax.cli.search import main

if __name__ == "__main__":
    main(prog="python -m reid_jax.search")
