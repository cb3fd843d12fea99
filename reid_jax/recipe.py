"""The leaves of a recipe by type, for type checkers and editors.

A recipe is an `ml_collections.ConfigDict`, whose leaves have no types. Functions that read leaves
take one of the types below instead. Type checkers then report misspelt leaves, and strings in place
of numbers. At run time, a recipe remains a ConfigDict. The allowed values are in
`reid_jax.runs.leaves`.
"""

from collections.abc import ItemsView, KeysView
from typing import Any, Protocol, cast

from ml_collections import ConfigDict, FrozenConfigDict


class Section(Protocol):
    """What each part of a recipe can do as a mapping from names to leaves."""

    def __getitem__(self, name: str) -> Any:
        """The leaf or section `name`."""
        ...

    def get(self, name: str, default: Any = None) -> Any:
        """The leaf or section `name`, or `default` if there is none."""
        ...

    def keys(self) -> KeysView[str]:
        """The names of leaves and sections."""
        ...

    def items(self) -> ItemsView[str, Any]:
        """Names and leaves."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """All leaves in nested dictionaries."""
        ...


class SyntheticConfig(Section, Protocol):
    """`data.synthetic`: what to draw."""

    seed: int
    train_identities: int
    test_identities: int
    train_cameras: int
    test_cameras: int


class DataConfig(Section, Protocol):
    """`data`: the dataset, its images and its batches."""

    layout: str
    root: str
    pattern: str
    folders: tuple[str, ...]
    also: tuple[str, ...]
    synthetic: SyntheticConfig
    image_size: tuple[int, int]
    loader: str
    on_bad_image: str
    skip_limit: float
    identities_per_batch: int
    images_per_identity: int
    balanced: bool


class AugmentConfig(Section, Protocol):
    """`augment`: random changes of training images."""

    flip: float
    crop_padding: int
    brightness: float
    contrast: float
    saturation: float
    cutout_probability: float
    cutout_size: int
    erasing_probability: float
    erasing_area: tuple[float, float]
    erasing_aspect: tuple[float, float]


class LossConfig(Section, Protocol):
    """`loss`: what training minimises."""

    triplet_margin: float
    triplet_weight: float
    metric: str
    label_smoothing: float
    id_margin: float


class OptimConfig(Section, Protocol):
    """`optim`: the optimizer. Only the leaves after `frozen_epochs` depend on `schedule`."""

    schedule: str
    lr: float
    weight_decay: float
    trunk_lr: float
    frozen_epochs: int

    warmup_epochs: int
    warmup_every: int
    milestones: tuple[int, ...]
    decay: float
    decay_from: int
    decay_until: int
    final: float


class ModelConfig(Section, Protocol):
    """`model`: the network. Its other leaves are the attributes of the network's class."""

    name: str
    trunk: Section
    pretrained: str
    dtype: str


class EvalConfig(Section, Protocol):
    """`eval`: when and how descriptors are computed and compared."""

    every_epochs: int
    batch_size: int
    flip: bool
    normalize: bool
    block_size: int


class LogConfig(Section, Protocol):
    """`log`."""

    every_steps: int


class CheckpointConfig(Section, Protocol):
    """`checkpoint`."""

    every_epochs: int
    keep: int


class RecipeConfig(Section, Protocol):
    """A whole recipe."""

    seed: int
    epochs: int
    max_steps: int
    devices: int
    data: DataConfig
    augment: AugmentConfig
    loss: LossConfig
    optim: OptimConfig
    model: ModelConfig
    eval: EvalConfig
    log: LogConfig
    checkpoint: CheckpointConfig


def typed(config: ConfigDict | RecipeConfig) -> RecipeConfig:
    """The same recipe as a type; `runs.settings.check` checks its values."""
    return cast(RecipeConfig, config)


def frozen(config: RecipeConfig) -> RecipeConfig:
    """A copy whose leaves cannot be set."""
    return cast(RecipeConfig, FrozenConfigDict(cast(ConfigDict, config)))
