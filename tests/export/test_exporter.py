"""Exported networks, run by processes that cannot import this package."""

import hashlib
import importlib.util
import json
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax.cli.export import main
from reid_jax.data.augment import normalize
from reid_jax.export import exporter, onnx, stablehlo
from reid_jax.runtime.messages import shown
from tests import random_runs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("standard_promotion")]

NAMES = ("baseline", "bdb", "pmm", "hbfp")
needs_onnx = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("jax2onnx", "onnxruntime")),
    reason="needs jax2onnx and onnxruntime: python -m pip install -e '.[export]'",
)

# Each program gets a folder. Each of its subfolders holds a file of the format and images. The
# program saves the file's results for one and for seven images, and for images that it does not
# support.
BLOCK = """
import json, pathlib, sys
import numpy as np

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("reid_jax", "flax", "configs", "tests"):
            raise ImportError(f"{name} is away")

sys.meta_path.insert(0, Block())
root = pathlib.Path(sys.argv[1])
images = np.load(root / "images.npy")
refused = {}

def use(folder, call):
    for count in (1, 7):
        np.save(folder / f"{sys.argv[2]}_{count}.npy", call(images[:count]))
    for name, wrong in {
        "height": images[:, 1:], "dtype": images.astype(np.float32), "channels": images[..., :1]
    }.items():
        try:
            call(wrong)
        except Exception as error:
            refused.setdefault(name, []).append(str(error))
"""
LOAD_STABLEHLO = """
import jax, jax.export

for path in sorted(root.glob("*/descriptor.stablehlo")):
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    use(path.parent, lambda images: np.asarray(exported.call(images)))
"""
LOAD_ONNX = """
import onnxruntime

for path in sorted(root.glob("*/descriptor.onnx")):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    use(path.parent, lambda images: session.run(["descriptors"], {"images": images})[0])
assert "jax" not in sys.modules
"""
END = """
assert not {"reid_jax", "flax"} & set(sys.modules)
print(json.dumps(refused))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with an export of each network, and the expected results for its images."""
    root = tmp_path_factory.mktemp("exported")
    images = np.random.default_rng(0).integers(0, 256, (7, 96, 64, 3), np.uint8)
    np.save(root / "images.npy", images)
    expected = {}
    with jax.numpy_dtype_promotion("standard"):
        for name in NAMES:
            both = name in ("baseline", "bdb")  # flip and length for BDB and the baseline

            def change(config, both=both):
                config.eval.flip = config.eval.normalize = both

            workdir = root / "runs" / name
            _, network, variables = random_runs.write(workdir, f"{name}_synthetic", change=change)
            apply = jax.jit(network.apply)
            want = apply(variables, normalize(jnp.array(images)))
            if both:
                want = np.asarray(want + apply(variables, normalize(jnp.array(images[:, :, ::-1]))))
                want = want / np.linalg.norm(want, axis=1, keepdims=True)
            expected[name] = np.asarray(want)
            main(["--workdir", str(workdir), str(root / name)])
    return root, expected


def away(root, kind, program):
    """Run a program without this package, and return the errors that it met."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", BLOCK + program + END, str(root), kind],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_descriptors(root, expected, kind):
    for name, want in expected.items():
        for count in (1, 7):
            got = np.load(root / name / f"{kind}_{count}.npy")
            assert got.dtype == np.float32
            assert np.ptp(got, axis=0).max() > 0 or count == 1
            near = np.isclose(got, want[:count], rtol=1e-5, atol=1e-5 * np.abs(want).max())
            # A rounding can move a cell across a threshold of HBFP-Net's generalized pooling.
            assert near.size - near.sum() <= (2 if name == "hbfp" else 0), name


def test_files_have_no_batch_norms(exported):
    content = (exported[0] / "pmm" / "descriptor.stablehlo").read_bytes()
    program = jax.export.deserialize(bytearray(content)).mlir_module()
    assert "stablehlo.convolution" in program
    assert "rsqrt" not in program


def test_stablehlo_says_what_the_network_says_where_there_is_jax_alone(exported):
    root, expected = exported
    refused = away(root, "stablehlo", LOAD_STABLEHLO)
    check_descriptors(root, expected, "stablehlo")
    assert {kind: len(errors) for kind, errors in refused.items()} == dict.fromkeys(
        ("height", "dtype", "channels"), len(NAMES)
    )


@needs_onnx
def test_onnx_says_what_the_network_says_where_there_is_onnxruntime_alone(exported):
    root, expected = exported
    refused = away(root, "onnx", LOAD_ONNX)
    check_descriptors(root, expected, "onnx")
    assert {kind: len(errors) for kind, errors in refused.items()} == dict.fromkeys(
        ("height", "dtype", "channels"), len(NAMES)
    )
    assert all("index: 1 Got: 95 Expected: 96" in error for error in refused["height"])


def test_one_module_for_all_platforms_without_gathers_and_places(exported):
    root, _ = exported
    for name in NAMES:
        content = (root / name / "descriptor.stablehlo").read_bytes()
        module = jax.export.deserialize(bytearray(content))
        assert module.platforms == ("cpu", "cuda", "tpu")
        assert str(module.in_avals[0].shape[0]) == "b"
        # Indexing becomes a gather if the batch's size is symbolic: slow, and hard to convert.
        assert "gather" not in module.mlir_module()
        assert b".py" not in content


def test_facts(exported):
    root, expected = exported
    for name in NAMES:
        folder = root / name
        facts = json.loads((folder / "descriptor.json").read_text())
        assert facts["network"] == name
        assert (facts["checkpoint"], facts["step"]) == ("latest", 0)
        assert facts["input"]["shape"] == ["b", 96, 64, 3]
        assert facts["output"]["shape"] == ["b", expected[name].shape[1]]
        both = name in ("baseline", "bdb")
        assert (facts["inside"]["flip"], facts["inside"]["unit_length"]) == (both, both)
        assert "descriptor.stablehlo" in facts["files"]
        assert {p.name for p in folder.glob("descriptor.*")} == {"descriptor.json", *facts["files"]}
        for file, about in facts["files"].items():
            content = (folder / file).read_bytes()
            assert about["sha256"] == hashlib.sha256(content).hexdigest()
            assert about["bytes"] == len(content)
            assert about["computes_in"] == "float32"
        assert facts["files"]["descriptor.stablehlo"]["jax"] == jax.__version__
        if "descriptor.onnx" in facts["files"]:
            assert facts["files"]["descriptor.onnx"]["opset"] == 18
    assert [p.name for p in root.glob(".*")] == []


def test_a_network_in_bfloat16(tmp_path):
    """Each file has passed the exporter's own comparison with the network in that dtype."""

    def change(config):
        config.model.dtype = "bfloat16"

    random_runs.write(tmp_path / "run", "baseline_synthetic", change=change)
    main(["--workdir", str(tmp_path / "run"), str(tmp_path / "out")])
    about = json.loads((tmp_path / "out" / "descriptor.json").read_text())["files"]
    assert about["descriptor.stablehlo"]["computes_in"] == "bfloat16"
    module = jax.export.deserialize(
        bytearray((tmp_path / "out" / "descriptor.stablehlo").read_bytes())
    )
    assert "bf16" in module.mlir_module()
    assert module.out_avals[0].dtype == jnp.float32
    if "descriptor.onnx" in about:
        assert about["descriptor.onnx"]["computes_in"] == "float32"


@pytest.mark.parametrize("bad", ["file", "full", "below a file"])
def test_a_bad_folder_is_told_before_the_work(tmp_path, bad, capsys):
    """The error comes before the run is read: the run does not exist."""
    out = tmp_path / "out"
    if bad == "full":
        out.mkdir()
        (out / "precious").touch()
    else:
        out.touch()
    if bad == "below a file":
        out = out / "sub"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        main(["--workdir", str(tmp_path / "no_run"), "--formats=stablehlo", str(out)])
    assert shown(out) in str(stopped.value)
    assert "run.json" not in str(stopped.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_is_filled_and_a_failure_leaves_none(exported, tmp_path):
    root, _ = exported
    workdir, out = str(root / "runs" / "baseline"), tmp_path / "new" / "out"
    with pytest.raises(SystemExit, match=r"no checkpoint of step 7"):
        main(["--workdir", workdir, "--formats=stablehlo", "--checkpoint=7", str(out)])
    assert list(out.parent.iterdir()) == []
    out.mkdir()
    main(["--workdir", workdir, "--formats=stablehlo", "--checkpoint=0", str(out)])
    names = {path.name for path in out.iterdir()}
    assert names == {"descriptor.stablehlo", "descriptor.json"}
    again = (out / "descriptor.stablehlo").read_bytes()
    assert again == (root / "baseline" / "descriptor.stablehlo").read_bytes()


@pytest.mark.parametrize("formats", ["", "tflite", "stablehlo,tflite"])
def test_unknown_formats(exported, tmp_path, formats):
    workdir = str(exported[0] / "runs" / "baseline")
    with pytest.raises(SystemExit, match=r"--formats is '.*'; it must be some of"):
        main(["--workdir", workdir, f"--formats={formats}", str(tmp_path / "out")])


def test_formats_are_a_list_an_iterator_or_one_name(tmp_path):
    assert exporter._chosen(iter(["stablehlo"])) == exporter._chosen("stablehlo") == ["stablehlo"]
    with pytest.raises(ValueError, match="--formats is 'tflite'; it must be some of"):
        exporter.export_run("run", tmp_path / "out", formats="tflite")


def test_without_the_converter(exported, tmp_path, monkeypatch, capsys):
    """By default it is omitted with a message; on request it is an error with the install
    command."""
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    workdir = str(exported[0] / "runs" / "baseline")
    with pytest.raises(SystemExit, match=r"ImportError: ONNX needs .*pip install .*\[export\]"):
        main(["--workdir", workdir, "--formats=stablehlo,onnx", str(tmp_path / "out")])
    assert list(tmp_path.iterdir()) == []
    main(["--workdir", workdir, str(tmp_path / "out")])
    assert capsys.readouterr().out.startswith("no descriptor.onnx: ONNX needs jax2onnx")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"descriptor.stablehlo", "descriptor.json"}


def test_a_file_that_says_something_else_is_not_written(exported, tmp_path, monkeypatch):
    convert = stablehlo.convert
    monkeypatch.setattr(stablehlo, "convert", lambda f, size: convert(lambda x: 1.02 * f(x), size))
    with pytest.raises(ValueError, match=r"descriptor\.stablehlo differs from the network"):
        exporter.export_run(exported[0] / "runs" / "pmm", tmp_path / "out", formats=["stablehlo"])
    assert list(tmp_path.iterdir()) == []


@needs_onnx
def test_what_the_converter_does_not_know_is_told():
    def determinants(images):
        return jnp.linalg.slogdet(images[..., 0].astype(jnp.float32))[1].reshape(-1, 1)

    with pytest.raises(ValueError, match=r"jax2onnx .* cannot convert this network: .*stablehlo"):
        onnx.convert(determinants, (8, 8))
    with pytest.raises(ValueError, match=r"onnxruntime .* cannot run descriptor\.onnx"):
        onnx.run(b"no model", np.zeros((1, 8, 8, 3), np.uint8))
