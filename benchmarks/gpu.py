"""All that is to be measured on a GPU: `python benchmarks/gpu.py`, from the repository root.

Runs the other benchmarks one after the other, the most important first, for `--minutes` together,
and writes one JSON with what each of them wrote:

- `pmm`: PMM's step in TF32 and bfloat16 against PyTorch eagerly, compiled and in autocast; its
  share of the roofline, and its time by kind of kernel (`benchmarks/step.py`).
- `descriptors`: images that PMM describes a second, and errors of TF32 and bfloat16; with
  `--stablehlo`, exported files too (`benchmarks/descriptors.py`).
- `market`: ranking at Market-1501's size (`benchmarks/ranking.py`).
- `networks`: the steps of the other networks.
- `distractors`: ranking against 500,000 more images.
- `others`: descriptors of the other networks.
- `float32`: PMM's step with products in full float32.

`--parts` chooses some of them.

Compiling takes longer than measuring. Before the first part, the programs of all parts are
therefore compiled, at the same time, into caches that the parts read. This takes up to four tenths
of the time, and is the JSON's first row, `compiling`. XLA times kernels to choose among them, which
is less exact with other programs on the GPU; `--no-compiling` leaves it out.

When time is up, the part that runs is stopped, and the JSON keeps what it has measured. The row of
a part that was stopped or that failed has a note. If a part fails, the others run, and the exit
status is 1.

Export files on one machine, and run them on another:

    python benchmarks/descriptors.py --export=runs/stablehlo
    python benchmarks/gpu.py --stablehlo=runs/stablehlo
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Mapping
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # For benchmarks.


class Part(NamedTuple):
    """One run of a benchmark."""

    name: str
    script: str
    options: tuple[str, ...]
    environment: Mapping[str, str] = types.MappingProxyType({})


def parts(small: bool, torch: bool, stablehlo: str | None) -> list[Part]:
    """What to run, in order.

    Args:
        small: tiny networks and sizes, to rehearse on a CPU.
        torch: whether to compare with PyTorch.
        stablehlo: folder of exported files, or None.
    """
    tiny = ("--small",) if small else ()
    none = () if torch else ("--torch=none",)
    steps = ("--batch=8", "--steps=1", "--burst=1") if small else ("--steps=3",)
    quick = ("--batch=2", "--rounds=1", "--burst=1") if small else ()
    files = (f"--stablehlo={stablehlo}",) if stablehlo else ()
    others = "baseline" if small else "baseline,bdb,hbfp"
    methods = () if torch else ("--methods=ours,numpy",)
    return [
        Part(
            "pmm",
            "step.py",
            ("--networks=pmm", "--loaders=device,memory", *tiny, *steps, *none, "--profile"),
        ),
        Part("descriptors", "descriptors.py", ("--networks=pmm", *tiny, *quick, *none, *files)),
        Part("market", "ranking.py", ("--rows=market", *methods, *tiny)),
        Part(
            "networks",
            "step.py",
            (f"--networks={others}", "--loaders=device", *tiny, *steps, *none),
        ),
        Part("distractors", "ranking.py", ("--rows=distractors", "--methods=ours", *tiny)),
        Part("others", "descriptors.py", (f"--networks={others}", *tiny, *quick, *none)),
        Part(
            "float32",
            "step.py",
            (
                *("--networks=pmm", "--dtypes=float32", "--loaders=device", "--torch=none"),
                *(*tiny, *steps),
            ),
            {"JAX_DEFAULT_MATMUL_PRECISION": "highest"},
        ),
    ]


def preparation(part: Part, torch: bool) -> Part | None:
    """A short run of a part that compiles its programs; None if it has none.

    Args:
        part: the part.
        torch: whether to compile PyTorch's forms too.
    """
    short = {
        "step.py": ("--steps=1", "--burst=1", "--loaders=device"),
        "descriptors.py": ("--rounds=1", "--burst=1"),
    }
    if part.script not in short:
        return None
    forms = "compiled,compiled+autocast" if torch else "none"
    options = [option for option in part.options if option != "--profile"]
    # If an option is given twice, the second counts.
    return part._replace(options=(*options, *short[part.script], f"--torch={forms}"))


def compile_all(chosen: list[Part], folder: pathlib.Path, seconds: float, torch: bool) -> dict:
    """Run the preparations of parts at the same time, for at most so many seconds.

    Returns:
        A row as `run` has it, without a record. What was not compiled in time is compiled later.
    """
    start, running = time.monotonic(), {}
    for part in filter(None, (preparation(part, torch) for part in chosen)):
        path = folder / f"{part.name}-compiling.json"
        running[part.name] = subprocess.Popen(
            [*_command(part, folder), f"--output={path}"],
            cwd=ROOT,
            env={**os.environ, **part.environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    stopped = []
    for name, process in running.items():
        try:
            process.wait(max(0.0, start + seconds - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            stopped.append(name)
    duration = time.monotonic() - start
    note = f"stopped after {duration:.0f} s: {', '.join(stopped)}" if stopped else None
    return {"part": "compiling", "seconds": duration, "note": note, "record": None}


def _command(part: Part, folder: pathlib.Path) -> list[str]:
    options = [f"{x}={folder / part.name}" if x == "--profile" else x for x in part.options]
    return [sys.executable, str(ROOT / "benchmarks" / part.script), *options]


def run(part: Part, folder: pathlib.Path, seconds: float) -> dict:
    """Run a part for at most so many seconds.

    Returns:
        `part`, `seconds`, `note` (null if it ended well) and `record`, what it wrote, or null.
    """
    path, start = folder / f"{part.name}.json", time.monotonic()
    note = None
    try:
        done = subprocess.run(
            [*_command(part, folder), f"--output={path}"],
            cwd=ROOT,
            env={**os.environ, **part.environment},
            stderr=subprocess.PIPE,
            text=True,
            timeout=seconds,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            note = f"failed with status {done.returncode}: {last}"
    except subprocess.TimeoutExpired:
        note = f"stopped after {seconds:.0f} s: time was up"
    return {
        "part": part.name,
        "seconds": time.monotonic() - start,
        "note": note,
        "record": json.loads(path.read_text()) if path.is_file() else None,
    }


def main(arguments: list[str] | None = None) -> None:
    """Run the parts and write JSON after each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=9.0, help="for all; default: %(default)s")
    parser.add_argument("--parts", help="comma-separated; all by default")
    parser.add_argument(
        "--no-compiling", action="store_true", help="compile each part's programs when it runs"
    )
    parser.add_argument("--small", action="store_true", help="rehearse at tiny size, on a CPU too")
    parser.add_argument("--torch", choices=("none",), help="do not compare with PyTorch")
    parser.add_argument("--stablehlo", help="folder of exported files to run too")
    parser.add_argument("--output", default="benchmarks/results/gpu.json", help="JSON file")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    end, results = time.monotonic() + 60 * options.minutes, []
    stablehlo = options.stablehlo and os.path.abspath(options.stablehlo)
    chosen = parts(options.small, not options.torch, stablehlo)
    if options.parts is not None:
        names = options.parts.split(",")
        if unknown := set(names) - {part.name for part in chosen}:
            parser.error(
                f"unknown {min(unknown)!r} in --parts: choose from "
                f"{', '.join(part.name for part in chosen)}"
            )
        chosen = [part for part in chosen if part.name in names]
    settings = {
        "minutes": options.minutes,
        **({"parts": [part.name for part in chosen]} if options.parts is not None else {}),
        "no-compiling": options.no_compiling,
        "small": options.small,
        **({"torch": "none"} if options.torch else {}),
        **({"stablehlo": options.stablehlo} if stablehlo else {}),
    }
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{folder}/compiled")
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{folder}/torch")
        if not options.no_compiling:
            print("compiling all parts", flush=True)
            seconds, torch = 0.4 * 60 * options.minutes, not (options.small or options.torch)
            results.append(compile_all(chosen, pathlib.Path(folder), seconds, torch))
            print(results[-1]["note"] or f"{results[-1]['seconds']:.0f} s", flush=True)
        for part in chosen:
            left = end - time.monotonic()
            print(f"{part.name}: {left / 60:.1f} minutes are left", flush=True)
            results.append(run(part, pathlib.Path(folder), max(left, 1.0)))
            print(results[-1]["note"] or f"{results[-1]['seconds']:.0f} s", flush=True)
            _write(settings, results, options.output)
    sys.exit(any((row["note"] or "").startswith("failed") for row in results))


def _write(settings: dict, results: list[dict], path: str) -> None:
    from benchmarks import output

    known = [row["record"] for row in results if row["record"]]
    shared = ("device", "platform", "cores", "versions")
    content = {
        "command": " ".join(["python benchmarks/gpu.py", *output.options(settings)]),
        "commit": output.git("rev-parse", "HEAD"),
        **{name: known[0][name] if known else None for name in shared},
        "settings": settings,
        "results": results,
    }
    output.write(content, path)


if __name__ == "__main__":
    main()
