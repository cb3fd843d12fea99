"""Libraries that a start imports: an unused one would make each start slower."""

import pathlib
import subprocess
import sys

import pytest

import reid_jax
from reid_jax.programs.pack import pack_run
from tests import random_runs

_DESCRIBES = """
import numpy, reid_jax
reid_jax.load(sys.argv[1]).embed(numpy.zeros((96, 64, 3), numpy.uint8))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "pmm"
    random_runs.write(workdir, "pmm_synthetic")
    return workdir


def imported(program, *arguments, path=""):
    """The modules that a program has imported at its end; it finds those in `path` first."""
    program = f"import sys\nsys.path.insert(1, {str(path)!r})\n{program}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=pathlib.Path(reid_jax.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split())


def test_the_package_itself_imports_nothing():
    modules = imported("import reid_jax; assert 'load' in dir(reid_jax)")
    assert not {"jax", "flax", "numpy", "PIL", "ml_collections"} & modules
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        reid_jax.lod  # noqa: B018


@pytest.mark.parametrize("packed", [False, True])
def test_describing_imports_only_what_it_uses(run, packed, tmp_path):
    path = tmp_path / "pmm.safetensors" if packed else run
    if packed:
        pack_run(run, path)
    modules = imported(_DESCRIBES, str(path))
    unused = {"optax", "matplotlib", "tensorboardX", "tensorflow", "reid_jax.training.step"}
    assert not unused & modules
    assert ("orbax.checkpoint" in modules) == (not packed)


def test_training_imports_only_what_the_first_step_uses(tmp_path):
    # tensorboardX imports PyTorch if it is installed.
    (tmp_path / "torch.py").write_text("Tensor = object")
    modules = imported("import reid_jax.programs.train", path=tmp_path)
    assert {"orbax.checkpoint", "tensorboardX"} <= modules
    assert not {"matplotlib", "tensorflow", "torch"} & modules
    assert "torch" in imported("import reid_jax.programs.train, torch", path=tmp_path)
