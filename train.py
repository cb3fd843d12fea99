"""Trains a network: `reid-jax train` from a checkout, without an installation."""

from reid_jax.cli.train import main

if __name__ == "__main__":
    main(prog="python train.py")
