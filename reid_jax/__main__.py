"""`python -m reid_jax`: the same as the command `reid-jax`."""

from reid_jax.cli.commands import main

if __name__ == "__main__":
    main()
