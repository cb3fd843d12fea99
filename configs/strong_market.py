r"""The strong baseline of this project, see `common.strong`, on Market-1501.

    python train.py --config=configs/strong_market.py --workdir=runs/strong_market \
        --config.data.root=Market-1501-v15.09.15

Data: 751 training identities, 12,936 training, 3,368 query and 15,913 gallery images.
Published: no figures; this recipe is not from a paper.
Not measured at full size: ImageNet's ResNet-50 and this dataset were not available.

Strings: `small` (narrow trunk, 192x64 images, trains on a CPU); `half` or `half40` (half-width
ResNet-50, 256x128 images, 16 or 40 epochs, see `sizes.half`).
"""

from reid_jax.configs import common, sizes


def get_config(string=None):
    """The recipe; see the module's docstring."""
    (size,) = common.parse(string, sizes.SIZES)
    config = common.strong()
    config.data.layout = "market1501"
    config.data.root = "data/Market-1501-v15.09.15"
    return sizes.sized(config, size)
