"""What the recipes share: config strings, the leaves every recipe has, and the small variants.

A recipe is a function of a config string, `configs/pmm_cuhk03.py:labeled,small`: words separated by
commas, each known to the recipe. Any leaf is then overridden by name, `--config.optim.lr=1e-3`; an
unknown leaf is an error.
"""

from ml_collections import ConfigDict


def parse(string: str | None, *groups: tuple[str, ...]) -> list[str | None]:
    """The word of each group that a config string names.

    Args:
        string: comma-separated words, or None or "" for none.
        *groups: alternatives, at most one word of each to be named. The first of several is the
            default; a group of one word is a switch.

    Returns:
        For each group the word named, its default, or None for a switch that is off.

    Raises:
        ValueError: an unknown word, or two words of a group; names them and the words that exist.
    """
    words = [word for word in (string or "").split(",") if word]
    known = [word for group in groups for word in group]
    for word in words:
        if word not in known:
            raise ValueError(
                f"unknown config string {word!r}; this recipe knows {', '.join(known)}"
            )
    chosen = []
    for group in groups:
        named = [word for word in words if word in group]
        if len(named) > 1:
            raise ValueError(f"config strings {' and '.join(named)} exclude each other; name one")
        chosen.append(named[0] if named else group[0] if len(group) > 1 else None)
    return chosen


def recipe() -> ConfigDict:
    """The leaves of every recipe, at full size: 384x128 images, batches of 16 identities x 4."""
    return ConfigDict(
        {
            "seed": 0,
            # Passes over the training identities.
            "epochs": 400,
            # Devices to train and evaluate on; 0 takes all.
            "devices": 0,
            "data": {
                # market1501, dukemtmc, cuhk03, folder (files of your own) or synthetic (drawn on
                # first use).
                "layout": "market1501",
                "root": "",
                # layout=folder: regular expression with groups pid and camid, and the sub-folders
                # of train, query and gallery; empty are the documented defaults.
                "pattern": "",
                "folders": (),
                # layout=synthetic: what to draw.
                "synthetic": {
                    "seed": 0,
                    "train_identities": 64,
                    "test_identities": 32,
                    "train_cameras": 6,
                    "test_cameras": 4,
                },
                "image_size": (384, 128),  # height, width
                # tfdata decodes while training; memory holds decoded pixels and needs no
                # TensorFlow.
                "loader": "tfdata",
                "identities_per_batch": 16,
                "images_per_identity": 4,
            },
            "augment": {"flip": 0.5, "cutout_probability": 0.5, "cutout_size": 64},
            "eval": {
                "every_epochs": 20,
                "batch_size": 128,
                # Gallery images whose distances to 256 queries ranking holds at a time.
                "block_size": 16384,
            },
            "log": {"every_steps": 50},
            "checkpoint": {"every_epochs": 5, "keep": 2},
        }
    )


def pmm(top_k: int) -> ConfigDict:
    """PMM as its paper trains it, for `top_k` masked blocks."""
    config = recipe()
    config.model = ConfigDict(
        {
            "name": "pmm",
            "trunk": {"depths": (3, 4, 6, 3), "width": 64, "strides": (1, 2, 2, 1)},
            "embedding_dim": 512,
            "stages": 3,
            "mixing": "hardmix",  # or none
            "block": (3, 2),  # height, width in cells of the map
            "top_k": top_k,
            "dtype": "float32",  # or bfloat16: of the computation
        }
    )
    # A margin of 0 is the soft margin, log(1 + exp(d_ap - d_an)).
    config.loss = ConfigDict({"triplet_margin": 0.0, "label_smoothing": 0.1})
    config.optim = ConfigDict(
        {
            "lr": 1e-3,
            "weight_decay": 5e-4,
            "warmup_epochs": 50,
            "warmup_every": 5,
            "milestones": (200, 300),
            "decay": 0.1,
        }
    )
    return config


def small(config: ConfigDict) -> ConfigDict:
    """The same recipe for a CPU: a narrow and shallow trunk, 192x64 images, half the batch.

    Maps have 12x4 cells, a quarter of the full size, and so a quarter of the blocks: K shrinks
    with them.
    """
    config.model.trunk = ConfigDict({"depths": (1, 1, 1, 1), "width": 16, "strides": (1, 2, 2, 1)})
    config.model.embedding_dim = 128
    config.model.top_k = max(1, config.model.top_k // 4)
    config.data.image_size = (192, 64)
    config.data.identities_per_batch = 8
    config.augment.cutout_size = 32
    config.augment.cutout_probability = 0.0  # a regulariser that so short a run can spare
    config.epochs = 44
    config.optim.warmup_epochs = 5
    config.optim.warmup_every = 1
    config.optim.milestones = (34, 41)
    config.eval.every_epochs = 11
    config.checkpoint.every_epochs = 4
    config.log.every_steps = 40
    return config
