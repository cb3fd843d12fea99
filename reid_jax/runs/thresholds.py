"""Distance thresholds that `reid-jax eval` measured for a run."""

import json
import math
import numbers
import os
import pathlib
from typing import Any

from reid_jax.recipe import RecipeConfig
from reid_jax.runs import packed_file
from reid_jax.runs.results import RUN_RESULTS
from reid_jax.runtime.messages import shown


def read_threshold(
    workdir: str | os.PathLike[str], config: RecipeConfig, step: int, fpr: float
) -> float:
    """Read the distance that accepts at most a share of the pairs of different people.

    Args:
        workdir: folder of a run, or a file of `reid-jax pack`.
        config: the recipe that describes images; the threshold must have been measured with its
            `eval.flip`, `eval.normalize` and `data.image_size`.
        step: the step of the checkpoint that describes images, likewise.
        fpr: the share, one of those that `reid-jax eval` measures.

    Returns:
        The threshold: a pair is accepted if its distance is at most this.

    Raises:
        FileNotFoundError: the run has no results.
        ValueError: the results are damaged, hold no such threshold, or are of other settings.
    """
    path = pathlib.Path(workdir, RUN_RESULTS)
    command = f"measure it with `reid-jax eval --workdir={shown(workdir)} --checkpoint={step}`"
    if packed := packed_file.is_packed(workdir):
        path, command = pathlib.Path(workdir), "evaluate the run with `reid-jax eval`, then pack it"
    try:
        if packed:
            results = packed_file.read(path).results or {}
        else:
            results = json.loads(path.read_text(encoding="utf-8"))
        verification = results.get("verification")
        measured = _settings(results) if verification else {}
        thresholds = {float(k): v for k, v in _rates(verification).items()} if verification else {}
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"no threshold: {shown(path)} is missing; {command}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{shown(path)} is damaged ({error!r}); {command}") from error
    if not verification:
        raise ValueError(f"no threshold: {shown(path)} holds no verification; {command}")
    for name, wanted in _wanted(config, step).items():
        if measured[name] != wanted:
            raise ValueError(
                f"no threshold: {shown(path)} was measured with {name} {measured[name]}, and "
                f"descriptors here have {name} {wanted}; {command}"
            )
    rate = next((rate for rate in thresholds if _is_same(rate, fpr)), None)
    if rate is None:
        rates = ", ".join(f"{rate:g}" for rate in thresholds)
        raise ValueError(f"no threshold for fpr {fpr!r}: measured are {rates}")
    threshold = thresholds[rate]
    if threshold is None:
        raise ValueError(
            f"no threshold for fpr {fpr!r}: in {shown(path)}, a larger share of negative pairs is "
            "nearer than the nearest positive pair; choose a larger fpr, or evaluate on more images"
        )
    return float(threshold)


def _is_same(rate: float, given: Any) -> bool:
    """Whether a rate is the given one, perhaps in float32."""
    return isinstance(given, numbers.Real) and math.isclose(rate, given, rel_tol=1e-6)


def _rates(verification: dict[str, Any]) -> dict[str, float | None]:
    """The thresholds by rate. Raises ValueError if one is neither a distance nor None."""
    thresholds = {k: v for k, v in verification["thresholds"].items() if k != "EER"}
    for value in thresholds.values():
        if value is not None and not (type(value) in (int, float) and math.isfinite(value)):
            raise ValueError(f"{value!r} is not a distance")
    return thresholds


def _settings(results: dict[str, Any]) -> dict[str, Any]:
    """The settings of an evaluation that its distances depend on."""
    protocol = results["protocol"]
    return {
        "rerank": protocol["rerank"],
        "multi_query": protocol["multi_query"],
        "flip": protocol["flip"],
        "normalize": protocol["normalize"],
        "image_size": results["verification"]["image_size"],
        "step": results["step"],
    }


def _wanted(config: RecipeConfig, step: int) -> dict[str, Any]:
    """The same settings for `Model.embed`."""
    return {
        "rerank": False,
        "multi_query": None,
        "flip": config.eval.flip,
        "normalize": config.eval.normalize,
        "image_size": list(config.data.image_size),
        "step": step,
    }
