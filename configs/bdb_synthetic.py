"""BDB, the Batch DropBlock network, on synthetic pedestrians, drawn on first use: for a CPU.

    python train.py --config=configs/bdb_synthetic.py --workdir=runs/bdb

Data: as in `pmm_synthetic.py`.
Measured: see "On synthetic pedestrians" in docs/results.md.

Strings: `small` (a network and a dataset for tests: it trains in seconds and learns little).
"""

from reid_jax.configs import common, sizes


def get_config(string=None):
    """The recipe; see the module's docstring."""
    (small,) = common.parse(string, ("small",))
    return sizes.synthetic(common.bdb(), tiny=bool(small))
