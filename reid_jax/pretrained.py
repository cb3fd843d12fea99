"""The former name of `reid_jax.weights`, and of `python -m reid_jax.weights`."""

from reid_jax.weights import Trunk, check_fits, read_trunk, write_trunk, write_workdir

__all__ = ["Trunk", "check_fits", "read_trunk", "write_trunk", "write_workdir"]

if __name__ == "__main__":
    from reid_jax.cli.weights import main

    main(prog="python -m reid_jax.pretrained")
