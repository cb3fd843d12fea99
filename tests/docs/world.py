"""A folder in which the documentation's commands and code run, with tiny data and networks.

Every command runs as it is printed, with one exception: `reid-jax train` gets those of the `TINY`
settings that it does not name, so that a run takes seconds: with one image per batch, evaluation
traces one program. Folders have the names and layouts that the pages use; their images are
synthetic pedestrians.
"""

import itertools
import os
import pathlib
import shutil
import subprocess
import sys

from tests.weights import files

ROOT = pathlib.Path(__file__).parents[2]

TINY = (
    *("--config.model.trunk.depths=(1,2,2,1)", "--config.model.trunk.width=4"),
    *("--config.data.image_size=(96,64)", "--config.data.identities_per_batch=4"),
    *("--config.data.synthetic.train_identities=8", "--config.data.synthetic.test_identities=4"),
    *("--config.data.loader=memory", "--config.eval.batch_size=1", "--config.log.every_steps=1"),
    *("--config.epochs=4", "--config.max_steps=2", "--config.augment.cutout_probability=0"),
)
# With these, all recipes of PMM compile the same program.
TINY_PMM = (
    *("--config.model.embedding_dim=16", "--config.model.top_k=1", "--config.optim.lr=1e-3"),
    *("--config.optim.warmup_epochs=0", "--config.optim.milestones=()"),
)
NAMES = ("anna", "bert", "carl", "dora")
_SHELL = f"""
set -euo pipefail
reid-jax() {{
    local tiny=() flag
    if [ "$1" = train ]; then tiny=({" ".join(f"'{flag}'" for flag in TINY)}); fi
    if [[ "$1 $2" = "train --config=pmm"* ]]; then
        tiny+=({" ".join(f"'{flag}'" for flag in TINY_PMM)})
    fi
    for flag in "${{tiny[@]}}"; do
        if [[ " $*" != *" ${{flag%%=*}}="* ]]; then set -- "$@" "$flag"; fi
    done
    command reid-jax "$@"
}}
python() {{ command {sys.executable} "$@"; }}
"""


def shell(script, folder):
    """Run a block of commands in a folder. Raise AssertionError with its output if one fails."""
    scripts = str(pathlib.Path(sys.executable).parent)
    environment = os.environ | {
        "PATH": scripts + os.pathsep + os.environ["PATH"],
        # Compiling for one device takes half as long as for the tests' four.
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        ["bash", "-c", _SHELL + script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}:\n{script}\n{done.stdout[-4000:]}"
    return done.stdout


def build(folder):
    """Fill an empty folder with all that the pages assume."""
    market = folder / "Market-1501-v15.09.15"
    shell(
        f"python -m reid_jax.data.synthetic {market.name} --train_identities=8 "
        "--test_identities=4 --images_per_camera=2 --multi_query_images=2",
        folder,
    )
    for boxes in ("detected", "labeled"):
        _rename(market, folder / "cuhk03-np" / boxes, lambda pid, c, i: f"{pid:04}_c{c}_{i}.png")
    _rename(
        market,
        folder / "shop",
        lambda pid, c, i: f"{'abcdefghijklm'[c]}-{pid}-{i}.jpg",
        ("train", "query", "gallery"),
    )
    _rename(
        market,
        folder / "photos",
        lambda pid, c, i: f"{NAMES[pid % len(NAMES)]} {pid}/{i}.jpg",
        ("", "", ""),
    )
    images = sorted((market / "query").iterdir())
    for name, image in zip(("anna.jpg", "bert.jpg", "who.jpg"), images, strict=False):
        shutil.copy(image, folder / name)
    for name in ("gallery", "distractors"):
        (folder / name).mkdir()
        for image in images[:6]:
            shutil.copy(image, folder / name)
    files.write(folder / "resnet50-timm.safetensors", files.arrays("bottleneck"))
    files.write(folder / "pmm.safetensors", files.arrays("pmm"))
    # The result of the first command of the README: a run and its pedestrians.
    shutil.copytree(market, folder / "data" / "synthetic-pedestrians")
    recipe = f"--config=pmm_market --config.data.root={market.name}"
    shell(f"reid-jax train {recipe} --workdir=runs/market", folder)
    shutil.copytree(folder / "runs" / "market", folder / "runs" / "pmm")


def _rename(market, out, name, folders=("bounding_box_train", "query", "bounding_box_test")):
    """Copy the images of a folder in Market-1501's layout, with names of another layout."""
    sources = ("bounding_box_train", "query", "bounding_box_test")
    counter = itertools.count(1)
    for source, folder in zip(sources, folders, strict=True):
        (out / folder).mkdir(parents=True, exist_ok=True)
        for image in sorted((market / source).iterdir()):
            pid, camera, *_ = image.stem.split("_")
            if int(pid) > 0:
                camera = int(camera[1:].partition("s")[0])
                path = out / folder / name(int(pid), camera, next(counter))
                path.parent.mkdir(exist_ok=True)
                shutil.copy(image, path)
