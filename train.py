"""Trains a network: `python train.py --config=configs/pmm_market.py --workdir=runs/pmm`.

Any leaf of the recipe is overridden by name, `--config.optim.lr=1e-3`. The same command again goes
on with a run that was stopped. On several hosts, start it on each with `--coordinator`.
"""

import functools
import os

from absl import app, flags

from reid_jax import recipe_flags
from reid_jax.programs.train import train
from reid_jax.runtime import hosts
from reid_jax.runtime.allocator import keep_freed_memory
from reid_jax.runtime.compilation_cache import keep_compiled
from reid_jax.runtime.messages import clear_errors

_DEFAULT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "configs", "pmm_synthetic.py")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where an error came from.")
_joined = hosts.define_flags()


def parse_flags(argv):
    """`--config` first, for it says which leaves there are."""
    with clear_errors(traceback="--traceback" in argv):
        argv = recipe_flags.define_from_file(argv, _DEFAULT)
        flags.declare_key_flag("config")
        return app.parse_flags_with_usage(argv)


def main(argv):
    """Flags and one call."""
    keep_freed_memory()
    keep_compiled()
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}: flags begin with --")
    clear = functools.partial(clear_errors, _TRACEBACK.value)
    with clear(), _joined(), clear():
        train(flags.FLAGS.config, _WORKDIR.value)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
