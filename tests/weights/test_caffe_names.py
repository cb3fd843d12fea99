"""Names of Caffe's layers and the convolutions they stand for."""

import numpy as np
import pytest

from reid_jax.weights import caffe_names
from reid_jax.weights.caffe_names import ORIGINAL, PYNETBUILDER, Place
from reid_jax.weights.resnet import Structure


@pytest.mark.parametrize(
    ("style", "name", "place"),
    [
        (ORIGINAL, "res2a_branch1", Place(1, 0, "1")),
        (ORIGINAL, "res4c_branch2b", Place(3, 2, "2b")),
        (ORIGINAL, "res4b22_branch2c", Place(3, 22, "2c", numbered=True)),
        (PYNETBUILDER, "conv_stage0_block0_proj_shortcut", Place(1, 0, "1")),
        (PYNETBUILDER, "conv_stage3_block2_branch2a", Place(4, 2, "2a")),
    ],
)
def test_a_name_is_a_place_and_a_place_a_name(style, name, place):
    assert style.parse(name) == place
    assert style.prefixes[0] + style.spell(place) == name


@pytest.mark.parametrize(
    "name",
    ["res6a_branch1", "res2a_branch3", "bn2a_branch1", "res2a_branch2ax", "res4b1234_branch1", ""],
)
def test_other_names_have_no_place(name):
    assert ORIGINAL.parse(name) is None
    assert PYNETBUILDER.parse(name) is None


def test_the_style_is_recognised():
    assert caffe_names.style_of(["data", "res2a_branch1"]) is ORIGINAL
    assert caffe_names.style_of(["conv_stage0_block0_branch2a"]) is PYNETBUILDER
    assert caffe_names.style_of(["conv1", "fc8"]) is None


@pytest.mark.parametrize("style", [ORIGINAL, PYNETBUILDER])
@pytest.mark.parametrize("numbered", [set(), {3}])
def test_units_and_inference_are_inverse(style, numbered):
    if style is PYNETBUILDER and numbered:
        pytest.skip("its names are all of one kind")
    structure = Structure(depths=(1, 2, 4, 1), width=4, stem_width=8)
    units = list(caffe_names.units_of(structure, style, numbered))
    assert len(units) == 1 + 3 * 8 + 4  # The stem, three a block, and four shortcuts.
    assert units[0].layers == style.stem
    kernels = {unit.layers[0]: np.zeros(unit.shape, np.float32) for unit in units}
    found, numbers = caffe_names.infer(kernels, style)
    assert found == structure._replace(stride_in_1x1=None)
    assert numbers == numbered
    shortcuts = [unit for unit in units if unit.convolution.endswith("downsample.0")]
    assert [unit.norm for unit in shortcuts] == [
        f"layer{stage}.0.downsample.1" for stage in (1, 2, 3, 4)
    ]
