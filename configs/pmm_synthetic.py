"""PMM on synthetic pedestrians, drawn on first use: the default of `train.py`, for a CPU.

    python train.py --workdir=runs/pmm

Data: drawn by `reid_jax.data.synthetic`: 64 training identities under six cameras, and 32 others
to find under four other cameras.
Measured: see "On synthetic pedestrians" in docs/results.md. A trained network is far from perfect:
a person's most salient clue, such as a print or a bag, is often hidden in another view.

Strings: `hardmix` (default), `cutout`, `cutmix` or `attentive_cutmix`, the rows of table 3; `small`
(a network and a dataset for tests: it trains in seconds and learns little).
"""

from reid_jax.configs import common, sizes


def get_config(string=None):
    """The recipe; see the module's docstring."""
    mixing, small = common.parse(string, common.PAPER_MIXINGS, ("small",))
    return sizes.synthetic(common.pmm(top_k=8, mixing=mixing), tiny=bool(small))
