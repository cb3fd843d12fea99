import importlib.util
import json

import numpy as np
import pytest

from benchmarks import descriptors
from tests.benchmarks import schema

pytestmark = pytest.mark.usefixtures("standard_promotion")

SETTINGS = {
    **{"networks": [str], "batch": {int}, "rounds": {int}, "burst": {int}, "small": bool},
    "torch": ([str], str),
    "stablehlo": str,
}
NAMES = {"network": str, "form": str}
TIMED = {**NAMES, "milliseconds": {float}, "images_per_second": {float}, "relative_error": float}
ROWS = ({**TIMED, "note": None}, {**NAMES, **dict.fromkeys(list(TIMED)[2:]), "note": str})


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Exports the small baseline, and measures it and its file."""
    folder = tmp_path_factory.mktemp("descriptors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        descriptors.main(["--networks=baseline", f"--export={folder}/files"])
        torch = "eager" if importlib.util.find_spec("torch") else "none"
        options = [
            "--small",
            "--networks=baseline",
            "--batch=2",
            "--rounds=1",
            "--burst=2",
            f"--torch={torch}",
        ]
        options += [f"--stablehlo={folder}/files", f"--output={folder}/out.json"]
        descriptors.main(options)
    content = json.loads((folder / "out.json").read_text())
    schema.check_record(content, SETTINGS, ROWS)
    return {row["form"]: row for row in content["results"]}


@pytest.mark.slow
def test_forms(rows):
    assert [form for form in rows if form.startswith("jax")] == [
        *("jax float32", "jax tf32", "jax bfloat16")
    ]
    assert "stablehlo" in rows
    assert ("torch eager" in rows) == bool(importlib.util.find_spec("torch"))


@pytest.mark.slow
def test_errors_are_relative_to_float32(rows):
    assert rows["jax float32"]["relative_error"] == 0
    assert rows["jax tf32"]["relative_error"] < 1e-5  # A CPU has no TF32.
    assert 1e-4 < rows["jax bfloat16"]["relative_error"] < 0.1
    assert rows["stablehlo"]["relative_error"] < 1e-5
    if "torch eager" in rows:
        assert rows["torch eager"]["relative_error"] < 1e-4


def test_relative_error():
    want, found = np.array([[3.0, 0.0], [0.0, 4.0]]), np.array([[3.0, 1.0], [0.0, 4.0]])
    assert descriptors.relative_error(found, want) == pytest.approx(0.2)


@pytest.mark.parametrize("error", [np.nan, 0.2])
def test_a_large_error_ends_the_benchmark(error):
    descriptors.check("pmm, bfloat16", 0.05, 0.1)
    with pytest.raises(ValueError, match="pmm, bfloat16: descriptors differ by"):
        descriptors.check("pmm, bfloat16", error, 0.1)


def test_a_folder_without_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file \*.stablehlo in"):
        descriptors.exported(tmp_path)
