"""The model card of a packed run, as Markdown for people and for model hubs."""

import re
import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

from reid_jax.recipe import RecipeConfig
from reid_jax.runs.packed_file import PackedRun

# The names under which hubs find it.
_HEAD = """---
library_name: reid_jax
tags:
- person-re-identification
- jax
---
"""
_SCORES = ("Rank-1", "Rank-5", "Rank-10", "mAP", "mINP")


class Facts(NamedTuple):
    """What the card states besides the content of the file.

    Attributes:
        file: name of the packed file.
        config: the recipe.
        trunk: title of the trunk.
        dim: D, numbers of a descriptor.
        parameters: how many numbers were trained.
    """

    file: str
    config: RecipeConfig
    trunk: str
    dim: int
    parameters: int


def model_card(packed: PackedRun, facts: Facts) -> str:
    """Describe a packed run: network, data, results, and how to load it.

    Args:
        packed: the content of the file.
        facts: see `Facts`.

    Returns:
        Markdown. Names of files and folders are plain text in it, with any content.
    """
    config, data = facts.config, packed.trained_on
    sets = [data, *data.get("also", [])]
    trained_on = " and ".join(f"{one['layout']}, folder {_plain(one['folder'])}" for one in sets)
    height, width = config.data.image_size
    images = "" if data["images"] is None else f"{data['images']:,} images of "
    about = {
        "network": config.model.name,
        "trunk": facts.trunk,
        "parameters": f"{facts.parameters / 1e6:,.2f} M",
        "input": f"RGB images, resized to {height} x {width} (height x width)",
        "descriptor": f"{facts.dim} numbers, compared by Euclidean distance",
        "training data": f"{trained_on}: {images}{data['identities']:,} identities",
        "training step": f"{packed.step:,}",
        "reid_jax": _plain(packed.run.get("reid_jax", "unknown")),
    }
    # Any other name would need escaping, and each place below escapes differently.
    file = facts.file if _plain(facts.file) == facts.file else "FILE.safetensors"
    return "\n".join(
        [
            _HEAD,
            f"# {config.model.name}, trained on "
            + " and ".join(_plain(one["folder"]) for one in sets)
            + "\n",
            "A network for person re-identification: descriptors of two images are near each other "
            "if both show the same person.\n",
            _table(about),
            "\n## Results\n",
            *_all_results(packed.results),
            "\n## Load it\n",
            f'```python\nimport reid_jax\n\nmodel = reid_jax.load("{file}")\n'
            'descriptors = model.embed(["anna.jpg", "bert.jpg"])\n```\n',
            f"On the command line, `reid-jax eval`, `search` and `export` take "
            f"`--workdir={shlex.quote(file)}`. No code runs from the file.\n",
        ]
    )


def _all_results(results: Mapping[str, Any] | None) -> list[str]:
    """The results on each dataset."""
    if results is None:
        return ["Not measured."]
    others = [part for other in results.get("also", []) for part in ("", *_results(other))]
    return [*_results(results), *others]


def _results(results: Mapping[str, Any]) -> list[str]:
    data = results.get("dataset", {})
    protocol = [
        _plain(name if value is True else f"{name} {value}")
        for name, value in results.get("protocol", {}).items()
        if value
    ]
    where = [f"{_plain(data.get('layout', ''))}, folder {_plain(data.get('root', ''))}"]
    where += [f"{data[split]:,} {split} images" for split in ("query", "gallery") if split in data]
    scores = {name: f"{100 * results[name]:.1f}" for name in _SCORES if name in results}
    parts = [
        f"Measured on {', '.join(where)}; protocol: {', '.join(protocol) or 'single query'}. In "
        "per cent:\n",
        _table(scores),
    ]
    if "verification" in results:
        parts += [
            "\nVerification; rates and thresholds (distances) by false positive rate:\n",
            _table(_flat(results["verification"])),
        ]
    return parts


def _flat(section: Any, prefix: str = "") -> dict[str, str]:
    """The numbers of nested results by their names, without lists and missing ones."""
    if not isinstance(section, Mapping):
        text = f"{section:.4f}" if isinstance(section, float) else _plain(section)
        return {} if section is None or isinstance(section, list) else {prefix: text}
    found: dict[str, str] = {}
    for name, value in section.items():
        found |= _flat(value, f"{prefix}, {_plain(name)}" if prefix else _plain(name))
    return found


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(
        ["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows.items())]
    )


def _plain(value: Any) -> str:
    """A text in which no character acts as markup or ends a line."""
    return re.sub(r"[^\w .,:+=@-]", "_", str(value))
