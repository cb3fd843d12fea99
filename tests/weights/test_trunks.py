"""ImageNet's ResNets as trunks: same activations as in PyTorch, and every tensor accounted for.

Numbers that PyTorch computed are stored in reference.json. If PyTorch is installed, it computes
more.
"""

import json
import re

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from reid_jax.cli.weights import main
from reid_jax.models.resnet import ResNet
from reid_jax.weights import check_fits, read_trunk, resnet, write_trunk
from reid_jax.weights.resnet import Structure, structure_of
from reid_jax.weights.trunks import STRIDE_UNKNOWN, flags
from tests.weights import formula, make_reference
from tests.weights.files import REFERENCE, arrays, assert_near, write

IMAGES = formula.images(*make_reference.SIZE)


def maps_of(trunk, **leaves):
    network = ResNet(**trunk.structure._asdict() | leaves)
    return jax.jit(lambda v, x: network.apply(v, x, train=False))(trunk.variables, IMAGES)


@pytest.fixture
def narrow(tmp_path):
    """A narrow ResNet of bottlenecks: its weights, which tests may change, and a way to read
    them."""
    weights = arrays("bottleneck")

    def read():
        return read_trunk(write(tmp_path / "weights.safetensors", weights))

    return weights, read


def structure_found(settings):
    """The structure that shapes show, for a network of `make_reference`: without the stride's
    place."""
    place = False if settings.get("block") == "basic" else None
    return Structure(**settings | {"stride_in_1x1": place})


@pytest.mark.parametrize("name", ["bottleneck", "basic", "ibn", "wide", "v1", "longer"])
def test_activations_are_pytorchs(name, tmp_path):
    """Within 1e-4 of each map's largest number, from the source and once converted."""
    settings = make_reference.NETWORKS[name][1]
    trunk = read_trunk(write(tmp_path / "source.safetensors", arrays(name)))
    assert trunk.structure == structure_found(settings)
    write_trunk(trunk, tmp_path / "new" / "trunk.safetensors")
    converted = read_trunk(tmp_path / "new" / "trunk.safetensors")
    assert converted._replace(variables={}) == trunk._replace(variables={}, left_out=())
    jax.tree.map(np.testing.assert_array_equal, converted.variables, trunk.variables)
    leaves = {"stride_in_1x1": settings.get("stride_in_1x1", False)}
    check_fits(converted, ResNet(**converted.structure._asdict() | leaves), "a.safetensors")
    wanted_maps = REFERENCE[name]["outputs"]
    for features, wanted in zip(maps_of(converted, **leaves), wanted_maps, strict=True):
        got = make_reference.summary(np.asarray(features))
        assert got["shape"] == wanted["shape"]
        assert_near(np.array(got["values"]), np.array(wanted["values"]))
        assert got["sum"] == pytest.approx(wanted["sum"], rel=1e-4)
        assert got["largest"] == pytest.approx(wanted["largest"], rel=1e-4)


@pytest.mark.parametrize(
    ("title", "settings"),
    [
        ("ResNet-50", {}),
        ("ResNet-18 of width 8", {"block": "basic", "depths": (2, 2, 2, 2), "width": 8}),
        ("ResNet-34 of width 4", {"block": "basic", "width": 4}),
        ("ResNet-18-IBN-a of width 8",
         {"block": "basic", "depths": (2, 2, 2, 2), "width": 8, "ibn": True}),
        ("ResNet-50-IBN-a of width 4", {"width": 4, "ibn": True}),
    ],
)  # fmt: skip
def test_activations_are_pytorchs_at_real_depths(title, settings, torch, tmp_path):
    """ResNet-50 at its real width too, from a .pth file."""
    from tests.weights import in_torch

    module = in_torch.by_formula(in_torch.ResNet(**settings))
    torch.save({"state_dict": module.state_dict(), "epoch": 3}, tmp_path / "weights.pth")
    trunk = read_trunk(tmp_path / "weights.pth")
    assert trunk.structure.title == title
    assert trunk.left_out == ("fc.weight", "fc.bias")
    for got, wanted in zip(maps_of(trunk), in_torch.apply(module, IMAGES), strict=True):
        assert_near(np.asarray(got), wanted)


@pytest.mark.usefixtures("torch")
def test_the_stored_reference_is_what_pytorch_computes():
    for name, content in make_reference.reference().items():
        assert content["weights"] == REFERENCE[name]["weights"]
        for got, stored in zip(content["outputs"], REFERENCE[name]["outputs"], strict=True):
            assert got["shape"] == stored["shape"]
            assert_near(np.array(got["values"]), np.array(stored["values"]), 1e-5)


@pytest.mark.parametrize(
    ("title", "settings"),
    [
        ("ResNet-18 of width 4", {"block": "basic", "depths": (2, 2, 2, 2)}),
        ("ResNet of basic blocks (2, 2, 2, 3) of width 4",
         {"block": "basic", "depths": (2, 2, 2, 3)}),
        ("ResNet-18 of width 4, stem of 7",
         {"block": "basic", "depths": (2, 2, 2, 2), "stem_width": 7}),
        ("ResNet-34 of width 4", {"block": "basic", "depths": (3, 4, 6, 3)}),
        ("ResNet-50 of width 4", {"depths": (3, 4, 6, 3)}),
        ("ResNet-50 of width 4, stem of 8", {"stem_width": 8}),
        ("ResNet-50 of width 4, base width 128", {"base_width": 128}),
        ("ResNet-50 of width 4, stem of 2, base width 48", {"stem_width": 2, "base_width": 48}),
        ("ResNet-50-IBN-a of width 4, base width 128", {"base_width": 128, "ibn": True}),
        ("ResNet-101 of width 4", {"depths": (3, 4, 23, 3)}),
        ("ResNet-152 of width 4", {"depths": (3, 8, 36, 3)}),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("torch")
def test_the_structure_of_every_resnet_is_found(title, settings):
    from tests.weights import in_torch

    settings = {"width": 4, **settings}
    structure = structure_found(settings)
    assert structure.title == title
    keys = in_torch.ResNet(**settings).state_dict()
    assert resnet.infer({k: np.zeros(x.shape) for k, x in keys.items()}) == structure
    found = {(tensor.name, tensor.shape) for tensor in resnet.tensors(structure)}
    assert found == {
        (k, tuple(x.shape))
        for k, x in keys.items()
        if not k.startswith("fc.") and not k.endswith("num_batches_tracked")
    }


@pytest.mark.parametrize("name", ["bottleneck", "v1"])
def test_a_file_that_does_not_show_where_strides_are_serves_both_recipes(name, tmp_path, capsys):
    """The notice and the error name the leaf; the error does not ask to change it."""
    source, out = write(tmp_path / "source", arrays(name)), tmp_path / "out.safetensors"
    main([str(source), str(out)])
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == STRIDE_UNKNOWN
    assert "--config.model.trunk.stride_in_1x1=True" in STRIDE_UNKNOWN
    assert "stride_in_1x1" not in said[-2]
    for path in (source, out):
        trunk = read_trunk(path)
        assert trunk.structure.stride_in_1x1 is None
        for place in (False, True):
            leaves = trunk.structure._asdict() | {"stride_in_1x1": place}
            check_fits(trunk, ResNet(**leaves), "a.pth")
            message = (
                r"^model\.pretrained 'a\.pth' is a [^:]*: pass "
                r'--config\.model\.trunk\.depths="\(1, 2, 2, 1\)", or another file\. '
                rf"{re.escape(STRIDE_UNKNOWN)}$"
            )
            with pytest.raises(ValueError, match=message):
                check_fits(trunk, ResNet(**leaves | {"depths": (1, 1, 1, 1)}), "a.pth")
        first, second = (maps_of(trunk, stride_in_1x1=place) for place in (False, True))
        assert first.res5.shape == second.res5.shape
        assert np.abs(first.res5 - second.res5).max() > 0.1 * np.abs(first.res5).max()


@pytest.mark.parametrize("place", [False, True])
def test_a_file_that_shows_where_strides_are_refuses_the_other_recipe(place, narrow, tmp_path):
    _, read = narrow
    trunk = read()
    write_trunk(
        trunk._replace(structure=trunk.structure._replace(stride_in_1x1=place)), tmp_path / "a"
    )
    trunk = read_trunk(tmp_path / "a")
    assert trunk.structure.stride_in_1x1 is place
    network = ResNet(**trunk.structure._asdict())
    check_fits(trunk, network, "a.pth")
    message = rf"pass --config\.model\.trunk\.stride_in_1x1={place}, or another file$"
    with pytest.raises(ValueError, match=message):
        check_fits(trunk, network.clone(stride_in_1x1=not place), "a.pth")


def test_the_program_says_what_it_found(tmp_path, capsys):
    source = write(tmp_path / "ours.safetensors", arrays("basic"))
    out = tmp_path / "trunk.safetensors"
    main([str(source), str(out)])
    said = capsys.readouterr().out
    parameters = sum(
        x.size for name, x in arrays("basic").items() if re.search(r"(?<!fc)\.(weight|bias)$", name)
    )
    count = len([name for name in arrays("basic") if not re.search("^fc|tracked$", name)])
    assert said == (
        f"ResNet of basic blocks (2, 1, 2, 1) of width 4: {count} tensors, {parameters:,} "
        "parameters; left out: fc.weight, fc.bias\n"
        f"use it in training: reid-jax train --config.model.pretrained={out} "
        "--config.model.trunk.block=basic "
        '--config.model.trunk.depths="(2, 1, 2, 1)" --config.model.trunk.width=4\n'
    )
    with safetensors.safe_open(out, "numpy") as file:
        about = json.loads(file.metadata()["reid_jax"])
        assert "params/layer2_0/downsample_conv/kernel" in file.keys()  # noqa: SIM118
    assert about["source"] == "ours.safetensors"
    assert re.fullmatch("[0-9a-f]{64}", about["sha256"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ours.safetensors",
        "trunk.safetensors",
    ]
    # No file is overwritten, and a converted file is not converted again.
    for arguments, message in (
        ([source, out], "FileExistsError: .*trunk.safetensors' exists"),
        ([source, source], "FileExistsError: .*ours.safetensors' exists"),
        ([out, tmp_path / "new"], "is already converted"),
        ([source, tmp_path / "new", "--config=x.py"], "--config=x.py is for PMM and BDB"),
        ([tmp_path / "none", tmp_path / "new"], "FileNotFoundError.*none"),
    ):
        with pytest.raises(SystemExit, match=message):
            main([str(argument) for argument in arguments])
    assert not (tmp_path / "new").exists()


def test_resnet50_needs_no_flags():
    assert flags(structure_of(ResNet())) == ""
    assert flags(Structure("basic", (2, 2, 2, 2), 64, True)) == (
        '--config.model.trunk.block=basic --config.model.trunk.depths="(2, 2, 2, 2)" '
        "--config.model.trunk.ibn=True"
    )
    half = Structure(width=32, stem_width=64, base_width=128, stride_in_1x1=True)
    assert flags(half) == (
        "--config.model.trunk.width=32 --config.model.trunk.stem_width=64 "
        "--config.model.trunk.base_width=128 --config.model.trunk.stride_in_1x1=True"
    )
    assert flags(Structure(stride_in_1x1=None)) == ""
    # A stem as wide as the stages is the default's, in any spelling of the recipe.
    assert structure_of(ResNet(width=32, stem_width=32)) == Structure(width=32)


def test_every_tensor_is_accounted_for(narrow):
    """One error lists all missing, unexpected and misshapen tensors, and those that are no
    weights."""
    weights, read = narrow
    del weights["layer1.0.bn2.running_mean"], weights["layer3.1.conv2.weight"]
    weights["layer4.0.se.fc1.weight"] = weights["conv1.weight"]
    weights["other.num_batches_tracked"] = np.array(1)
    weights["layer2.0.bn1.extra\n\x1b"] = weights["conv1.weight"]
    weights["conv1.weight"] = weights["conv1.weight"][:, :, :3, :3]
    weights["layer2.1.conv1.weight"] = weights["layer2.1.conv1.weight"][:, :, 0, 0]
    weights["layer2.0.bn3.bias"] = weights["layer2.0.bn3.bias"].astype(np.float64)
    weights["layer2.0.bn2.bias"] = weights["layer2.0.bn2.bias"].astype(np.int64)
    weights["layer1.0.bn1.weight"][1] = np.nan
    weights["layer1.0.bn3.bias"][1] = -np.inf
    weights["bn1.running_var"][0] = -1
    with pytest.raises(ValueError, match="does not fit") as caught:
        read()
    path, *lines = str(caught.value).split("\n  ")
    assert path.endswith(
        "weights.safetensors' does not fit ResNet of bottleneck blocks (1, 2, 2, 1) of width 4:"
    )
    assert lines == [
        "2 missing: layer1.0.bn2.running_mean, layer3.1.conv2.weight",
        "3 unexpected: 'layer2.0.bn1.extra\\n\\x1b', layer4.0.se.fc1.weight, "
        "other.num_batches_tracked",
        "2 of another shape: conv1.weight (4, 3, 3, 3), not (4, 3, 7, 7), layer2.1.conv1.weight "
        "(8, 32), not (8, 32, 1, 1)",
        "2 of another dtype than float16, bfloat16, float32: layer2.0.bn2.bias int64, "
        "layer2.0.bn3.bias float64",
        "2 not finite: layer1.0.bn1.weight, layer1.0.bn3.bias",
        "1 below zero: bn1.running_var",
    ]


def test_of_many_the_first_are_named(narrow):
    """As in timm's resnet50d, whose stem has other names."""
    weights, read = narrow
    for name in [name for name in weights if name.startswith("layer3")]:
        del weights[name]
    weights["conv1.0.weight"] = weights.pop("conv1.weight")
    message = (
        r"\n  (\d+) missing: conv1\.weight, (?:[\w.]+, ){8}[\w.]+ and (\d+) more"
        r"\n  1 unexpected: conv1\.0\.weight$"
    )
    with pytest.raises(ValueError, match=message) as caught:
        read()
    first, more = map(int, re.search(message, str(caught.value)).groups())
    assert first == more + 10 == 21  # the stem's and the first block's


def test_counters_of_batch_norm_may_be_missing(narrow):
    weights, read = narrow
    want = read()
    for name in [name for name in weights if name.endswith("tracked") or name.startswith("fc")]:
        del weights[name]
    got = read()
    assert (want.left_out, got.left_out) == (("fc.weight", "fc.bias"), ())
    jax.tree.map(np.testing.assert_array_equal, got.variables, want.variables)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_halves_become_float32(dtype, narrow, tmp_path):
    weights, read = narrow
    halves = {name: x if x.ndim == 0 else x.astype(dtype) for name, x in weights.items()}
    want = {name: x.astype(np.float32) for name, x in halves.items()}["layer1.0.conv3.weight"]
    weights.clear()
    weights.update({f"module.{name}": x for name, x in halves.items()})
    trunk = read()
    kernel = trunk.variables["params"]["layer1_0"]["conv3"]["kernel"]
    assert {x.dtype for x in jax.tree.leaves(trunk.variables)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(kernel, want[:, :, 0, 0].T)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_halves_of_pytorch_become_float32(name, narrow, torch, tmp_path):
    """With `module.` before all names and with wrappers."""
    weights, read = narrow
    halves = {n: torch.from_numpy(np.array(x)).to(getattr(torch, name)) for n, x in weights.items()}
    for n, half in halves.items():
        weights[n] = half.float().numpy()
    trunk = read()
    tensors = {f"module.{n}": half for n, half in halves.items()}
    for wrap in (lambda x: x, lambda x: {"model": x}, lambda x: {"state_dict": {"model": x}}):
        torch.save(wrap(tensors), tmp_path / "weights.pth")
        again = read_trunk(tmp_path / "weights.pth")
        assert {x.dtype for x in jax.tree.leaves(again.variables)} == {np.dtype(np.float32)}
        jax.tree.map(np.testing.assert_array_equal, again.variables, trunk.variables)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "of width 4, but model.trunk is a ResNet-50: pass --config.model.trunk.depths="
         r'"\(1, 2, 2, 1\)" --config.model.trunk.width=4, or'),
        ({"depths": (1, 2, 2, 1), "width": 4, "block": "basic"},
         "a ResNet of basic blocks .*: pass --config.model.trunk.block=bottleneck, or"),
        ({"depths": (1, 2, 2, 1), "width": 4, "ibn": True},
         "IBN-a of width 4: pass --config.model.trunk.ibn=False, or"),
    ],
)  # fmt: skip
def test_another_trunk_is_told_with_the_leaves_to_set(settings, message, narrow):
    _, read = narrow
    with pytest.raises(ValueError, match=f"^model.pretrained 'a.pth' is a .*{message}"):
        check_fits(read(), ResNet(**settings), "a.pth")


def test_strides_that_need_more_weights_are_told(tmp_path):
    """A basic block with a stride projects its shortcut; torchvision's first block has no
    stride."""
    trunk = read_trunk(write(tmp_path / "weights.safetensors", arrays("basic")))
    network = ResNet(**trunk.structure._asdict())
    check_fits(trunk, network, "a.pth")
    message = r"strides \(2, 2, 2, 1\):\n  5 missing: .*params/layer1_0/downsample_conv/kernel"
    with pytest.raises(ValueError, match=message):
        check_fits(trunk, network.clone(strides=(2, 2, 2, 1)), "a.pth")


def change(data, about):
    """A converted file with other metadata."""
    with_metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    text = json.loads(with_metadata["__metadata__"]["reid_jax"]) | about
    arrays = safetensors.numpy.load(data)
    return safetensors.numpy.save(arrays, {"reid_jax": json.dumps(text)})


def without(data, *names):
    """A converted file whose metadata lack some names."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    text = json.loads(header["__metadata__"]["reid_jax"])
    for name in names:
        del text[name]
    return safetensors.numpy.save(safetensors.numpy.load(data), {"reid_jax": json.dumps(text)})


def test_trunks_written_before_stems_and_strides_were_leaves_are_read(narrow, tmp_path):
    _, read = narrow
    write_trunk(read(), tmp_path / "new")
    data = change((tmp_path / "new").read_bytes(), {"format": "trunk 1"})
    data = without(data, "stem_width", "base_width", "stride_in_1x1")
    (tmp_path / "old").write_bytes(data)
    old = read_trunk(tmp_path / "old")
    assert old.structure == Structure(depths=(1, 2, 2, 1), width=4)
    jax.tree.map(np.testing.assert_array_equal, old.variables, read().variables)
    network = ResNet(depths=(1, 2, 2, 1), width=4)
    check_fits(old, network, "old")
    with pytest.raises(ValueError, match=r"pass --config\.model\.trunk\.stride_in_1x1=False, or"):
        check_fits(old, network.clone(stride_in_1x1=True), "old")


@pytest.mark.parametrize(
    "structure",
    [
        Structure(depths=(1, 1, 2, 1), width=2, stem_width=6, stride_in_1x1=True),
        Structure(depths=(1, 1, 2, 1), width=2, base_width=96, stride_in_1x1=None),
        Structure("basic", (1, 1, 1, 2), 3, ibn=True, stem_width=2),
    ],
)
@pytest.mark.parametrize("lay", ["as they are", "by columns", "transposed", "every other"])
def test_trunks_in_any_order_of_memory_are_written_right(structure, lay, tmp_path):
    """A file stores row after row; arrays may be stored differently."""
    tensors = {t.name: formula.tensor(t.name, t.shape) for t in resnet.tensors(structure)}
    found = read_trunk(write(tmp_path / "source", tensors))
    lays = {
        "as they are": lambda x: x,
        "by columns": np.asfortranarray,
        "transposed": lambda x: np.ascontiguousarray(x.T).T,
        "every other": lambda x: np.repeat(x, 2, axis=0)[::2],
    }
    variables = jax.tree.map(lays[lay], found.variables)
    jax.tree.map(np.testing.assert_array_equal, variables, found.variables)
    kernel = variables["params"]["conv1"]["kernel"]
    assert kernel.flags.c_contiguous == (lay == "as they are")
    write_trunk(found._replace(structure=structure, variables=variables), tmp_path / "trunk")
    again = read_trunk(tmp_path / "trunk")
    assert again.structure == structure
    jax.tree.map(np.testing.assert_array_equal, again.variables, found.variables)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: change(data, {"format": "trunk 3"}), "metadata that are not"),
        (lambda data: change(data, {"stem_width": -1}), "metadata that are not"),
        (lambda data: change(data, {"stem_width": None}), "metadata that are not"),
        (lambda data: change(data, {"stem_width": 10**9}), "metadata that are not"),
        (lambda data: change(data, {"base_width": 0}), "metadata that are not"),
        (lambda data: change(data, {"base_width": 64.0}), "metadata that are not"),
        (lambda data: change(data, {"stride_in_1x1": 1}), "metadata that are not"),
        (lambda data: change(data, {"stride_in_1x1": "no"}), "metadata that are not"),
        (lambda data: without(data, "stem_width"), "metadata that are not"),
        (lambda data: without(data, "base_width"), "metadata that are not"),
        (lambda data: without(data, "stride_in_1x1"), "metadata that are not"),
        (lambda data: without(data, "format"), "metadata that are not"),
        (lambda data: change(data, {"depths": [1, 2, 2]}), "metadata that are not"),
        (lambda data: change(data, {"stem_width": 8}), "does not fit .*stem of 8:"),
        (lambda data: change(data, {"base_width": 128}), "does not fit .*base width 128:"),
        (
            lambda data: change(data, {"depths": [1, 2, 2, 10**9]}),
            "metadata that are not",
        ),
        (lambda data: change(data, {"width": None}), "metadata that are not"),
        (lambda data: change(data, {"block": "x"}), "metadata that are not"),
        (lambda data: change(data, {"depths": [1, 2, 2, 2]}), r"\n  15 missing: params/layer4_1"),
        (lambda data: change(data, {"ibn": True}), "does not fit .*IBN-a"),
        (lambda data: data[:-9], r"is damaged \(SafetensorError: [^\n]+\)$"),
        (lambda data: data[:100], r"is damaged \(SafetensorError: [^\n]+\)$"),
        (lambda data: data[:9] + b"\xff" + data[10:], r"is damaged \(SafetensorError: [^\n]+\)$"),
        (lambda data: data[:7], "is neither a .safetensors file nor a PyTorch checkpoint"),
        (lambda data: b"", "is neither a .safetensors file nor a PyTorch checkpoint"),
        (lambda data: b"<html>404 not found</html>", "is neither a .safetensors file"),
        (lambda data: safetensors.numpy.save({}), "no supported network.*tensors: none$"),
        (lambda data: safetensors.numpy.save({"x.weight": np.ones(2)}), "tensors: x.weight$"),
    ],
)
def test_damaged_files_are_one_error_that_names_them(spoil, message, narrow, tmp_path):
    _, read = narrow
    write_trunk(read(), tmp_path / "trunk")
    (tmp_path / "bad file").write_bytes(spoil((tmp_path / "trunk").read_bytes()))
    with pytest.raises(ValueError, match=f"bad file' (?s:.*){message}"):
        read_trunk(tmp_path / "bad file")


def test_what_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        read_trunk(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        read_trunk(tmp_path)
