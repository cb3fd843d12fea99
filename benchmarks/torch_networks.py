"""Our networks in PyTorch, for `benchmarks/step.py` to measure our steps against.

They are the same networks, losses and optimizer, written for speed in PyTorch: channels_last, a
fused Adam, and Grad-CAM only through a stage's head, without the second pass through the trunk of
the authors' program. `create` takes our variables, so that tests can show that both libraries
compute the same.

A step here does a little less than ours: the loss is its only metric, there is one learning rate,
and random erasing is used only if a recipe has it.
"""

import functools
from collections.abc import Callable

import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from reid_jax.choices import LEVELS, PAIRS
from reid_jax.data.augment import MEAN, STD

try:
    import torch
except ImportError as error:
    raise ImportError(
        "the PyTorch networks need PyTorch, which cannot be imported: "
        "python -m pip install torch, or pass --torch=none"
    ) from error
from torch import nn
from torch.nn import functional as F

from benchmarks.torch_layers import (
    BFP,
    EXPANSION,
    Bottleneck,
    PooledHead,
    StageHead,
    Trunk,
)


class Baseline(nn.Module):
    """`reid_jax.models.Baseline` with a classifier."""

    def __init__(self, config: ConfigDict, num_classes: int):
        super().__init__()
        self.trunk = Trunk(config.trunk)
        self.heads = nn.ModuleList([PooledHead(self.trunk.features, num_classes)])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Inference: normalised images (B, 3, H, W) to descriptors (B, D)."""
        return self.heads[0](self.trunk(images))[0]

    def stages(self, images: torch.Tensor, labels: torch.Tensor) -> list[tuple]:
        """Training: embedding and logits."""
        return [self.heads[0](self.trunk(images))]


class BDB(nn.Module):
    """`reid_jax.models.BDB`."""

    def __init__(self, config: ConfigDict, num_classes: int):
        super().__init__()
        self.drop = config.drop_height, config.drop_width
        self.trunk = Trunk(config.trunk)
        channels = self.trunk.features
        self.extra = Bottleneck(channels, channels // EXPANSION)
        self.heads = nn.ModuleList(
            StageHead(pooling, channels, dim, num_classes)
            for pooling, dim in (("average", config.global_dim), ("max", config.part_dim))
        )

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The maps of the global and of the part branch."""
        features = self.trunk(images)
        return [features, self.extra(features)]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Inference: normalised images (B, 3, H, W) to descriptors (B, D)."""
        outputs = [head(x) for head, x in zip(self.heads, self.maps(images), strict=True)]
        return torch.cat([embedding for embedding, _ in outputs], dim=1)

    def stages(self, images: torch.Tensor, labels: torch.Tensor) -> list[tuple]:
        """Training: embedding and logits of each branch."""
        whole, part = self.maps(images)
        size = part.shape[2:]
        extents = [round(share * length) for share, length in zip(self.drop, size, strict=True)]
        kept = ~dropped(size, extents, part.device)
        return [self.heads[0](whole), self.heads[1](part * kept)]


class HBFP(nn.Module):
    """`reid_jax.models.HBFP` without a neck."""

    def __init__(self, config: ConfigDict, num_classes: int):
        super().__init__()
        self.levels, self.pairs = tuple(config.levels), tuple(config.pairs)
        self.hierarchy = config.hierarchy
        self.trunk = Trunk(config.trunk)
        high = self.trunk.features
        channels = {"low": high // 2, "middle": high // 2, "high": high}
        dims = config.correlation_dim, config.perception_dim
        for pair in self.pairs:
            both = tuple(channels[level] for level in PAIRS[pair])
            setattr(self, f"bfp_{pair.replace('&', '_')}", BFP(both, *dims))
        if self.hierarchy:
            middle, depths = high // 2, config.trunk.depths
            self.second_res4 = nn.ModuleList(
                Bottleneck(middle, middle // EXPANSION) for _ in range(1, depths[2])
            )
            self.second_res5 = nn.ModuleList(
                Bottleneck(high if block else middle, high // EXPANSION)
                for block in range(depths[3])
            )
        pooling = config.lambdas, config.reduction == "mean"
        self.heads = nn.ModuleList(
            PooledHead(channels[level], num_classes, *pooling) for level in self.levels
        )

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The map that is pooled for each level."""
        plain = dict(zip(LEVELS, self.trunk.levels(images), strict=True))
        informed: dict[str, torch.Tensor] = {}
        for pair in self.pairs:
            module = getattr(self, f"bfp_{pair.replace('&', '_')}")
            outputs = module(*(plain[level] for level in PAIRS[pair]))
            for level, features in zip(PAIRS[pair], outputs, strict=True):
                informed[level] = informed[level] + features if level in informed else features
        maps = plain | informed
        if self.hierarchy:
            x = maps["low"]
            for block in self.second_res4:
                x = block(x)
            x = maps["middle"] = x + maps["middle"]
            for block in self.second_res5:
                x = block(x)
            maps["high"] = x + maps["high"]
        return [maps[level] for level in self.levels]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Inference: normalised images (B, 3, H, W) to descriptors (B, D)."""
        return torch.cat([embedding for embedding, _ in self.stages(images, None)], dim=1)

    def stages(self, images: torch.Tensor, labels: torch.Tensor | None) -> list[tuple]:
        """Training: embedding and logits of each level."""
        return [head(x) for head, x in zip(self.heads, self.maps(images), strict=True)]


class PMM(nn.Module):
    """`reid_jax.models.PMM` with three stages and Hard-Mix."""

    def __init__(self, config: ConfigDict, num_classes: int):
        super().__init__()
        self.block, self.top_k = tuple(config.block), config.top_k
        self.trunk = Trunk(config.trunk)
        channels = self.trunk.features
        self.extra = Bottleneck(channels, channels // EXPANSION)
        self.heads = nn.ModuleList(
            StageHead(pooling, channels, config.embedding_dim, num_classes)
            for pooling in ("average", "max", "max")
        )

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The map that each stage reads before mixing."""
        features = self.trunk(images)
        extra = self.extra(features)
        return [features, extra, extra]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Inference: normalised images (B, 3, H, W) to descriptors (B, D)."""
        outputs = [head(x) for head, x in zip(self.heads, self.maps(images), strict=True)]
        return torch.cat([embedding for embedding, _ in outputs], dim=1)

    def stages(self, images: torch.Tensor, labels: torch.Tensor) -> list[tuple]:
        """Training: embedding and logits of each stage."""
        outputs, mask = [], None
        for head, unmixed in zip(self.heads, self.maps(images), strict=True):
            features = unmixed
            if mask is not None:
                # index_select loses channels_last, so pass it rows of locations and channels.
                rows = unmixed.permute(0, 2, 3, 1)
                donors = rows.index_select(0, partners(labels)).permute(0, 3, 1, 2)
                features = torch.where(mask[:, None], unmixed, donors)
            outputs.append(head(features))
            if len(outputs) < len(self.heads):
                mask = block_mask(gradcam(head, features, labels), self.block, self.top_k)
        return outputs


NETWORKS = {"baseline": Baseline, "bdb": BDB, "pmm": PMM, "hbfp": HBFP}


def dropped(size: tuple[int, int], extents: tuple[int, int], device: torch.device) -> torch.Tensor:
    """`reid_jax.models.bdb.batch_drop`'s rectangle, at a random place: (H, W) bool."""
    inside = []
    for length, extent in zip(size, extents, strict=True):
        first = torch.randint(length - extent + 1, (), device=device)
        cells = torch.arange(length, device=device)
        inside.append((cells >= first) & (cells < first + extent))
    return inside[0][:, None] & inside[1]


def gradcam(head: StageHead, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """`reid_jax.gradcam.gradcam` of a head in training: (B, C, h, w) to (B, h, w)."""

    def evidence(features):
        _, logits = head(features, record=False)
        return logits.gather(1, labels[:, None]).sum()

    with torch.no_grad():
        features = features.detach()
        # torch.compile would split the step into twelve parts at torch.autograd.grad.
        weights = torch.func.grad(evidence)(features).mean((2, 3))
        return F.relu(torch.einsum("bchw,bc->bhw", features, weights))


def block_mask(cam: torch.Tensor, block: tuple[int, int], top_k: int) -> torch.Tensor:
    """`reid_jax.mixing.block_mask`: (B, H, W) bool, False in the replaced blocks."""
    batch, height, width = cam.shape
    rows, columns = height // block[0], width // block[1]
    sums = cam.reshape(batch, rows, block[0], columns, block[1]).sum((2, 4)).flatten(1)
    top = sums.sort(dim=1, descending=True, stable=True).indices[:, :top_k]
    kept = torch.ones_like(sums, dtype=torch.bool).scatter(1, top, False)
    kept = kept.reshape(batch, rows, columns)
    return kept.repeat_interleave(block[0], 1).repeat_interleave(block[1], 2)


def partners(labels: torch.Tensor) -> torch.Tensor:
    """For each image, a uniformly random image of another identity: (B,) int64."""
    same = labels[:, None] == labels
    return torch.rand(same.shape, device=labels.device).masked_fill(same, -1.0).argmax(1)


def losses(outputs: list[tuple], labels: torch.Tensor, config: ConfigDict) -> dict:
    """Each stage's losses, named as the metrics of our step.

    Args:
        outputs: embedding and logits of each stage.
        labels: (B,) int64.
        config: a recipe's `loss`.
    """
    values = {}
    for stage, (embedding, logits) in enumerate(outputs, start=1):
        values[f"loss/id_{stage}"] = F.cross_entropy(
            logits.float(), labels, label_smoothing=config.label_smoothing
        )
        values[f"loss/triplet_{stage}"] = triplet(embedding.float(), labels, config.triplet_margin)
    return values


def triplet(embedding: torch.Tensor, labels: torch.Tensor, margin: float) -> torch.Tensor:
    """Batch-hard triplet loss, with the soft margin if `margin` is 0."""
    distances = torch.cdist(embedding, embedding)
    same = labels[:, None] == labels
    positive = distances.masked_fill(~same, -torch.inf).amax(1)
    negative = distances.masked_fill(same, torch.inf).amin(1)
    difference = positive - negative
    return (F.relu(difference + margin) if margin else F.softplus(difference)).mean()


def augment(images: torch.Tensor, config: ConfigDict, statistics: torch.Tensor) -> torch.Tensor:
    """Flip, normalisation, random erasing and cutout, as `reid_jax.data.augment.augment`.

    Args:
        images: (B, H, W, 3) uint8.
        config: a recipe's `augment`.
        statistics: (2, 3), mean and deviation of RGB in [0, 1], on the images' device.

    Returns:
        (B, 3, H, W) float32, channels_last.
    """
    batch, height, width, _ = images.shape
    uniform = functools.partial(torch.rand, device=images.device)

    def chosen(probability):
        return uniform(batch, 1, 1, 1) < probability

    def rectangle(heights, widths):
        covered = []
        for length, sizes, shape in (
            (height, heights, (1, -1, 1, 1)),
            (width, widths, (1, 1, -1, 1)),
        ):
            first = (uniform(batch, 1, 1, 1) * (length - sizes + 1)).floor()
            pixels = torch.arange(length, device=images.device).view(shape)
            covered.append((pixels >= first) & (pixels < first + sizes))
        return covered[0] & covered[1]

    def erased():
        low, high = config.erasing_area
        areas = height * width * (low + (high - low) * uniform(batch, 100))
        low, high = config.erasing_aspect
        ratios = low + (high - low) * uniform(batch, 100)
        heights, widths = (areas * ratios).sqrt().round(), (areas / ratios).sqrt().round()
        fits = (heights < height) & (widths < width)
        first = fits.int().argmax(1, keepdim=True)  # the first that fits
        sizes = (x.gather(1, first).view(-1, 1, 1, 1) for x in (heights, widths))
        return rectangle(*sizes) & fits.any(1).view(-1, 1, 1, 1)

    images = torch.where(chosen(config.flip), images.flip(2), images)
    mean, std = statistics
    images = (images / 255.0 - mean) / std
    hole = chosen(config.cutout_probability) & rectangle(config.cutout_size, config.cutout_size)
    if config.erasing_probability:
        hole |= chosen(config.erasing_probability) & erased()
    return images.masked_fill(hole, 0.0).permute(0, 3, 1, 2)


def create(config: ConfigDict, variables: dict) -> nn.Module:
    """Create the network that `config`, a recipe's `model`, describes, with our variables.

    Args:
        config: a baseline with a classifier, a BDB, a PMM with three stages and Hard-Mix, or an
            HBFP-Net without a neck; with a trunk of plain bottlenecks.
        variables: `params` and `batch_stats` of our network, NumPy.

    Returns:
        The network, channels_last, in training mode.

    Raises:
        ValueError: the variables belong to another network.
    """
    num_classes = variables["params"]["heads_0"]["classifier"]["bias"].shape[0]
    network = NETWORKS[config.name](config, num_classes)
    state = network.state_dict()
    values = {
        _name(path): _value(path, np.asarray(leaf))
        for tree in (variables["params"], variables["batch_stats"])
        for path, leaf in flatten_dict(tree).items()
    }
    counters = {name for name in state if name.endswith("num_batches_tracked")}
    if values.keys() != state.keys() - counters:
        difference = sorted(values.keys() ^ (state.keys() - counters))
        raise ValueError(f"the variables do not belong to {config.name}: {difference}")
    for name, value in values.items():
        # A matrix product of ours may be a 1x1 convolution here.
        state[name] = value.reshape(value.shape + (1,) * (state[name].ndim - value.ndim))
    network.load_state_dict(state)
    return network.to(memory_format=torch.channels_last).train()


def _name(path: tuple[str, ...]) -> str:
    leaves = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    name = ".".join((*path[:-1], leaves.get(path[-1], path[-1])))
    for lists in ("heads", "second_res4", "second_res5"):
        name = name.replace(f"{lists}_", f"{lists}.")
    return name.replace("trunk.layer", "trunk.blocks.layer")


def _value(path: tuple[str, ...], leaf: np.ndarray) -> torch.Tensor:
    value = torch.tensor(leaf)
    if path[-1] != "kernel":
        return value
    # (..., in, out) to (out, in, ...).
    return value.permute(3, 2, 0, 1) if value.ndim == 4 else value.T


def choose_device(platform: str) -> torch.device:
    """PyTorch's name of JAX's device, with settings for speed.

    Raises:
        ValueError: PyTorch cannot use it.
    """
    if platform == "cpu":
        return torch.device("cpu")
    if platform != "gpu" or not torch.cuda.is_available():
        raise ValueError(
            f"JAX runs on a {platform}, and this PyTorch, {torch.__version__}, does not: "
            "install one that does, or pass --torch=none"
        )
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # TF32, as JAX has it by default.
    return torch.device("cuda")


def make_step(network: nn.Module, config: ConfigDict, form: str = "eager") -> Callable:
    """Create the training step of a recipe.

    Args:
        network: on its device.
        config: a whole recipe; reads `augment`, `loss` and `optim`.
        form: words joined by `+`: `compiled`, by `torch.compile`, except the optimizer, or `tuned`,
            the same with `mode="max-autotune"`; `autocast`, in bfloat16.

    Returns:
        step(images, labels) -> loss, with images (B, H, W, 3) uint8 and labels (B,) int64 on the
        network's device. It does not wait for the loss.
    """
    words = form.split("+")
    optimizer = torch.optim.Adam(
        network.parameters(),
        lr=config.optim.lr,
        weight_decay=config.optim.weight_decay,  # L2 in the gradient
        fused=True,
    )
    statistics = torch.tensor([MEAN, STD], device=next(network.parameters()).device)

    def forward(images, labels):
        images = augment(images, config.augment, statistics)
        with torch.autocast(images.device.type, torch.bfloat16, enabled="autocast" in words):
            outputs = network.stages(images, labels)
        return sum(losses(outputs, labels, config.loss).values())

    if "compiled" in words:
        forward = torch.compile(forward, fullgraph=True)
    elif "tuned" in words:
        forward = torch.compile(forward, fullgraph=True, mode="max-autotune")

    def step(images, labels):
        optimizer.zero_grad(set_to_none=True)
        loss = forward(images, labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def run(step: Callable, images: torch.Tensor, labels: torch.Tensor, count: int) -> None:
    """Make `count` steps over a batch, and wait for them."""
    for _ in range(count):
        step(images, labels)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)


def on_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copy `array` to the device."""
    return torch.tensor(array, device=device)


def reset_peak(device: torch.device) -> int | None:
    """Restart the count of `peak_bytes`; return the bytes held now, or None without a count."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def peak_bytes(device: torch.device, held: int | None) -> int | None:
    """The most bytes allocated since `reset_peak`, in addition to those held then."""
    return None if held is None else torch.cuda.max_memory_allocated(device) - held
