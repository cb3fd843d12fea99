r"""The strong baseline of this project, see `common.strong`, on DukeMTMC-reID.

    python train.py --config=configs/strong_duke.py --workdir=runs/strong_duke \
        --config.data.root=DukeMTMC-reID

Data: 702 training identities, 16,522 training, 2,228 query and 17,661 gallery images.
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
    config.data.layout = "dukemtmc"
    config.data.root = "data/DukeMTMC-reID"
    return sizes.sized(config, size)
