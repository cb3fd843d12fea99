"""Names and shapes of ResNets: the structure that they imply."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from reid_jax.models.resnet import ResNet
from reid_jax.weights import resnet
from reid_jax.weights.resnet import Structure

STRUCTURES = [
    Structure(),
    Structure(depths=(3, 4, 23, 3)),
    Structure("basic", (2, 2, 2, 3)),
    Structure("basic", (1, 1, 1, 1), width=8, stem_width=16),
    Structure(depths=(1, 2, 1, 1), width=32, stem_width=64),
    Structure(base_width=128),
    Structure(depths=(1, 1, 1, 1), width=8, ibn=True),
]


def arrays_of(structure):
    """Arrays without memory."""
    return {
        tensor.name: np.broadcast_to(np.float32(0), tensor.shape)
        for tensor in resnet.tensors(structure)
    }


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda structure: structure.title)
def test_names_and_shapes_show_all_but_the_stride(structure):
    arrays = arrays_of(structure)
    assert resnet.recognise(arrays)
    stride = False if structure.block == "basic" else None
    assert resnet.infer(arrays) == structure._replace(stride_in_1x1=stride)


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda structure: structure.title)
def test_the_tensors_are_the_variables_of_the_trunk(structure):
    settings = structure._asdict()
    settings["stem_width"] = settings["stem_width"] or structure.width
    trunk = ResNet(**settings)
    assert resnet.structure_of(trunk) == structure
    image = jnp.zeros((1, 64, 32, 3))
    shapes = jax.eval_shape(lambda key: trunk.init(key, image, train=False), jax.random.key(0))
    wanted = {name: x.shape for name, x in flatten_dict(dict(shapes), sep="/").items()}
    got = {tensor.variable: tensor.our_shape for tensor in resnet.tensors(structure)}
    assert got == wanted


def test_titles():
    assert [structure.title for structure in STRUCTURES] == [
        "ResNet-50",
        "ResNet-101",
        "ResNet of basic blocks (2, 2, 2, 3)",
        "ResNet of basic blocks (1, 1, 1, 1) of width 8, stem of 16",
        "ResNet of bottleneck blocks (1, 2, 1, 1) of width 32, stem of 64",
        "ResNet-50, base width 128",
        "ResNet of bottleneck blocks (1, 1, 1, 1)-IBN-a of width 8",
    ]
    assert Structure(stride_in_1x1=True).title == "ResNet-50, stride in the first 1x1"


def test_names_of_others_make_no_endless_structure():
    names = {"layer1.999999999.conv1.weight": np.ones((1, 1, 1, 1), np.float32)}
    assert resnet.infer(names).depths == (1, 1, 1, 1)
    assert not resnet.recognise(["stages.0.blocks.0.conv1.weight"])
