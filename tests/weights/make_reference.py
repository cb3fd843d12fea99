"""Writes reference.json: PyTorch's results for `formula`'s weights and pixels.

    python -m tests.weights.make_reference

The file has the sum of each output and some of its numbers, evenly spaced, and the shapes of all
weights, from which tests without PyTorch create the same weights.
"""

import json
import pathlib

import numpy as np

from tests.weights import formula

PATH = pathlib.Path(__file__).with_name("reference.json")
SIZE = (2, 64, 32)  # images, height, width
PLACES = 24

# Narrow networks, and their classes in `in_torch` with arguments.
NETWORKS = {
    "bottleneck": ("ResNet", {"depths": (1, 2, 2, 1), "width": 4}),
    "basic": ("ResNet", {"block": "basic", "depths": (2, 1, 2, 1), "width": 4}),
    "ibn": ("ResNet", {"depths": (2, 1, 2, 1), "width": 5, "ibn": True}),
    # Narrow versions of wide_resnet50_2, of a ResNet-50 with half the channels and a full stem,
    # with v1's strides, and of a ResNet-18 with one more block.
    "wide": ("ResNet", {"depths": (1, 2, 2, 1), "width": 4, "base_width": 128}),
    "v1": (
        "ResNet",
        {"depths": (1, 2, 2, 1), "width": 4, "stem_width": 8, "stride_in_1x1": True},
    ),
    "longer": ("ResNet", {"block": "basic", "depths": (2, 2, 2, 3), "width": 3}),
    "pmm": ("PMM", {"depths": (1, 1, 2, 1), "width": 4, "dim": 8, "classes": 5}),
    "bdb": ("BDB", {"depths": (1, 1, 2, 1), "width": 4, "dims": (8, 12), "classes": 5}),
}


def summary(x):
    """The stored numbers of an output."""
    flat = np.asarray(x, np.float64).ravel()
    places = np.linspace(0, flat.size - 1, min(PLACES, flat.size)).astype(int)
    return {
        "shape": list(x.shape),
        "sum": float(flat.sum()),
        "largest": float(np.abs(flat).max()),
        "values": flat[places].tolist(),
    }


def reference():
    """The content of the file, by network."""
    from tests.weights import in_torch

    content = {}
    for name, (kind, settings) in NETWORKS.items():
        module = in_torch.by_formula(getattr(in_torch, kind)(**settings))
        outputs = in_torch.apply(module, formula.images(*SIZE))
        content[name] = {
            "weights": {key: list(x.shape) for key, x in module.state_dict().items()},
            "outputs": [summary(x) for x in (outputs if isinstance(outputs, list) else [outputs])],
        }
    return content


if __name__ == "__main__":
    PATH.write_text(json.dumps(reference(), separators=(",", ":")) + "\n")
