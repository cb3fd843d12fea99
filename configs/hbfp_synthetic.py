"""HBFP-Net on synthetic pedestrians, drawn on first use, for a CPU.

    python train.py --config=configs/hbfp_synthetic.py --workdir=runs/hbfp

Data: drawn by `reid_jax.data.synthetic`: 64 training identities under six cameras, and 32 others
to find under four other cameras.
Measured: see "On synthetic pedestrians" in docs/results.md.

Strings: a row of table 2 or 3, see `common.HBFP_ROWS`, `hbfp+gep` (the whole network) by default;
`small` (a network and a dataset for tests: it trains in seconds and learns little).
"""

from reid_jax.configs import common, sizes


def get_config(string=None):
    """The recipe; see the module's docstring."""
    row, small = common.parse(string, tuple(common.HBFP_ROWS), ("small",))
    return sizes.synthetic(common.hbfp(row), tiny=bool(small))
