"""How long programs take to start: `python benchmarks/start.py`, from the repository root.

Each start is a process of its own, with compiled programs on disk. Prints a table and writes JSON.

- `import`: `import reid_jax`.
- `embed, small` and `embed, full`: `reid_jax.load` of a run, and `embed` of one photograph, by the
  small PMM of the tests and by PMM at full size, with random weights.
- `first line` and `first step`: `reid-jax train --config=pmm_synthetic` up to its first line of
  output, and to the end of its first step, which follows the evaluation of the untrained network.

The starts take turns. The first of each draws the pedestrians and compiles, and does not count.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # For benchmarks.

from benchmarks import inference, output
from reid_jax.runs.checkpoints import Checkpoints
from reid_jax.runs.workdir import CHECKPOINTS, write_run
from reid_jax.runtime.messages import clear_errors
from reid_jax.training.state import TrainState

_IMPORT = "import reid_jax"
_EMBED = """
import sys
from reid_jax.runtime.allocator import keep_freed_memory
from reid_jax.runtime.compilation_cache import keep_compiled
keep_freed_memory()
keep_compiled()
import reid_jax
assert len(reid_jax.load(sys.argv[1]).embed(sys.argv[2])) == 1
"""


def write_random_run(workdir: pathlib.Path, small: bool) -> None:
    """Write a run of PMM with random weights, as training leaves it."""
    model = inference.create_model("pmm", small)
    workdir.mkdir()
    write_run(str(workdir), model.config, model.network.num_classes)
    state = TrainState(np.int32(0), **jax.device_get(model.variables), opt_state=(), seed=0)
    with Checkpoints(workdir / CHECKPOINTS) as checkpoints:
        checkpoints.save(state, {"mAP": 0.0})


def run(arguments: list[str], folder: pathlib.Path) -> float:
    """Seconds that a Python program takes."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=_environment(folder), capture_output=True
    )
    if done.returncode:
        raise ChildProcessError(done.stderr.decode(errors="replace"))
    return time.perf_counter() - start


def train(recipe: str, workdir: pathlib.Path, folder: pathlib.Path) -> tuple[float, float]:
    """Seconds of a training up to its first line, and to the end of its first step."""
    arguments = [f"--config={recipe}", f"--workdir={workdir}"]
    arguments += ["--config.max_steps=1", "--config.log.every_steps=1"]
    start, lines = time.perf_counter(), {}
    with subprocess.Popen(
        [sys.executable, "-m", "reid_jax", "train", *arguments],
        cwd=folder,
        env=_environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as training:
        assert training.stdout is not None
        for line in training.stdout:
            kind = "step" if line.startswith("step 1/1 ") else "first"
            lines.setdefault(kind, time.perf_counter() - start)
    if training.returncode or "step" not in lines:
        raise ChildProcessError(f"reid-jax train {' '.join(arguments)} failed")
    return lines["first"], lines["step"]


def _environment(folder: pathlib.Path) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(output.ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(folder / "cache")}


def measure(rounds: int, small: bool) -> list[dict]:
    """A row for each start."""
    recipe = "pmm_synthetic:small" if small else "pmm_synthetic"
    sizes = ("small",) if small else ("small", "full")
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for size in sizes:
            write_random_run(folder / size, size == "small")
        photograph = folder / "photograph.png"
        pixels = np.random.default_rng(0).integers(0, 256, (200, 80, 3), np.uint8)
        Image.fromarray(pixels).save(photograph)
        for number in range(rounds + 1):
            found = {"import": run(["-c", _IMPORT], folder)}
            for size in sizes:
                arguments = ["-c", _EMBED, str(folder / size), str(photograph)]
                found[f"embed, {size}"] = run(arguments, folder)
            first, step = train(recipe, folder / f"run{number}", folder)
            found |= {"first line": first, "first step": step}
            output.say(f"round {number} of {rounds}")
            if number:
                for start, value in found.items():
                    seconds.setdefault(start, []).append(value)
    return [
        {
            "start": start,
            "seconds": round(statistics.median(values), 3),
            "least_seconds": round(min(values), 3),
        }
        for start, values in seconds.items()
    ]


def table(rows: list[dict]) -> str:
    """The rows for the terminal."""
    cells = [(r["start"], f"{r['seconds']:.2f}", f"{r['least_seconds']:.2f}") for r in rows]
    return output.table(("start", "s", "least"), cells)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table and write JSON."""
    parser = argparse.ArgumentParser(description="How long programs take to start.")
    parser.add_argument("--rounds", type=int, default=5, help="turns; default: %(default)s")
    parser.add_argument("--small", action="store_true", help="the networks that tests train")
    parser.add_argument("--output", default="benchmarks/results/start.json", help="JSON file")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with clear_errors(options.traceback):
        settings = {"rounds": options.rounds, "small": options.small}
        rows = measure(options.rounds, options.small)
        content = output.record("benchmarks/start.py", settings, jax.devices()[0], rows)
        output.write(content, options.output)
        print(table(rows))


if __name__ == "__main__":
    main()
