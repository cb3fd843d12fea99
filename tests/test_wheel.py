"""The built package installs and works in an empty folder, without access to a checkout."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

import reid_jax

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = ("reid_jax", "configs", "pyproject.toml", "README.md", "LICENSE")

# Starts a command of the installed package. The dependencies are those of this environment; the
# package is not: all paths that may lead to the checkout are removed.
RUN = """
import pathlib, runpy, sys
checkout, site = sys.argv[1:3]
sys.argv = ["reid-jax", *sys.argv[3:]]
sys.meta_path = [f for f in sys.meta_path if "__editable__" not in getattr(f, "__module__", "")]
sys.path = [site, *(p for p in sys.path if p and not pathlib.Path(p, "reid_jax").exists())]
import reid_jax
import reid_jax.configs.common as common
for module in (reid_jax, common):
    assert pathlib.Path(module.__file__).is_relative_to(site), module.__file__
runpy.run_module("reid_jax", run_name="__main__", alter_sys=True)
files = [str(getattr(module, "__file__", None)) for module in sys.modules.values()]
inside = (f"{checkout}/reid_jax/", f"{checkout}/configs/")
assert not [file for file in files if file.startswith(inside)]
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout, built from a copy and without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel('..'))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_it_holds_the_package_the_recipes_and_their_files(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith("/METADATA"))
        (scripts,) = (name for name in names if name.endswith("/entry_points.txt"))
        text = archive.read(metadata).decode()
        assert "reid-jax = reid_jax.cli.commands:main" in archive.read(scripts).decode()
    for path in (ROOT / "configs").glob("*.py"):
        assert f"reid_jax/configs/{path.name}" in names
    package = ROOT / "reid_jax"
    sources = {path.relative_to(ROOT).as_posix() for path in package.rglob("*.py")}
    assert sources <= names
    others = {"py.typed", "report/page.html", "report/page.css", "report/page.js"}
    assert {f"reid_jax/{name}" for name in others} <= names
    assert all(name.startswith(("reid_jax/", "reid_jax-")) for name in names)
    required = [line for line in text.splitlines() if line.startswith("Requires-Dist: tensorflow")]
    assert required
    assert all('extra == "tfdata"' in line for line in required)


@pytest.fixture
def start(wheel, tmp_path):
    """Start a command of the installed wheel in the empty folder `empty`."""
    site, folder = tmp_path / "site", tmp_path / "empty"
    folder.mkdir()
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([sys.executable, *pip, "--target", str(site), str(wheel)], check=True)
    (tmp_path / "run.py").write_text(RUN)
    # For the training that `reproduce` starts, and for the script `reid-jax`.
    environment = os.environ | {"PYTHONPATH": str(site)}

    def run(*arguments, program=None):
        program = program or [sys.executable, str(tmp_path / "run.py"), str(ROOT), str(site)]
        command = [*program, *arguments]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


# As few and as small pedestrians and images as possible.
DATA = [
    *("--config.data.loader=memory", "--config.devices=1"),
    *("--config.data.synthetic.test_identities=2", "--config.data.synthetic.train_cameras=2"),
    "--config.data.synthetic.test_cameras=2",
]


@pytest.mark.slow
def test_in_an_empty_folder_it_does_all_that_a_checkout_does(start, tmp_path):
    folder = tmp_path / "empty"
    version = start("--version", program=[str(tmp_path / "site" / "bin" / "reid-jax")])
    assert version == f"reid-jax {reid_jax.__version__}\n"

    recipe = "--config=baseline_synthetic:triplet,small"
    start("train", recipe, "--workdir=run", "--config.max_steps=1", *DATA)
    start("eval", "--workdir=run", "--report")
    results = json.loads((folder / "run" / "eval" / "results.json").read_text())
    assert 0 < results["mAP"] <= 1
    assert (folder / "run" / "eval" / "report.html").exists()

    pedestrians = folder / "data" / "synthetic-pedestrians-small"
    query = min((pedestrians / "query").iterdir())
    options = [f"--gallery={query.parent}", "--query", str(query), "--top=1"]
    assert f"1    0.0000  '{query}'" in start("search", "--workdir=run", *options)

    start("export", "--workdir=run", "--formats=stablehlo", "exported")
    assert (folder / "exported" / "descriptor.stablehlo").exists()

    table = ["reproduce", "pmm-table2", f"--market={pedestrians}", "--small", "--steps=1"]
    table += ["--seeds=1", "--config.devices=1", "--config.model.trunk.width=4"]
    table += ["--config.data.image_size=(96, 64)"]
    first, second = start(*table, "--dry-run").splitlines()[-2:]
    assert first.startswith("python -m reid_jax train --config=bdb_market:small ")
    assert second.startswith("python -m reid_jax train --config=pmm_market:small ")
    # PMM's run counts as finished, to save time.
    workdir = folder / second.partition("--workdir=")[2].partition(" --config")[0]
    workdir.mkdir(parents=True)
    figures = {"Rank-1": 1.0, "mAP": 2.0}
    left = {"command": second, "metrics": figures, "seconds": 1, "resumed": True}
    (workdir / "reproduced.json").write_text(json.dumps(left))
    start(*table)
    content = json.loads((folder / "runs" / "reproduce" / "pmm-table2.json").read_text())
    bdb, pmm = (row["mean"] for row in content["rows"] if row["mean"])
    assert 0 < bdb["mAP"] <= 100
    assert pmm == figures
