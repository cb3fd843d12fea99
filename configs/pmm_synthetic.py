"""PMM on synthetic pedestrians, drawn on first use: the default of `train.py`, for a CPU.

    python train.py --workdir=runs/pmm

Data: drawn by `reid_jax.data.synthetic`: 64 training identities under six cameras, 32 others to
find again under four other cameras.
Measured: see the README's table. A trained network is far from the ceiling: a person's most salient
clue, a print or a bag, is often hidden in another view.

Strings: `small` (a network and a dataset for tests: it trains in seconds and learns little).
"""

from configs import common


def get_config(string=None):
    """The recipe; see the module's docstring."""
    (small,) = common.parse(string, ("small",))
    config = common.small(common.pmm(top_k=8))
    config.data.layout = "synthetic"
    config.data.root = "data/synthetic-pedestrians"
    config.epochs = 48
    config.optim.warmup_epochs = 4
    config.optim.milestones = (36, 44)
    config.eval.every_epochs = 16
    if small:
        config.model.trunk.width = 4
        config.model.embedding_dim = 16
        config.model.top_k = 1
        config.data.root = "data/synthetic-pedestrians-small"
        config.data.image_size = (96, 64)
        config.data.synthetic.train_identities = 8
        config.data.synthetic.test_identities = 4
        config.augment.cutout_size = 16
        config.eval.batch_size = 32
        config.log.every_steps = 2
    return config
