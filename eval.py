"""Evaluates a run: `reid-jax eval` from a checkout, without an installation."""

from reid_jax.cli.evaluate import main

if __name__ == "__main__":
    main(prog="python eval.py")
