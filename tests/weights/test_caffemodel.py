"""The file format of Caffe, against files that `in_caffe` writes byte by byte."""

import numpy as np
import pytest

from reid_jax.weights.caffemodel import Convolution, read_layers
from tests.weights import in_caffe
from tests.weights.in_caffe import Layer


@pytest.fixture
def layer(rng):
    kernel = rng.normal(size=(4, 3, 5, 2)).astype(np.float32)
    settings = {"kernel_h": 5, "kernel_w": 2, "stride": 2, "pad_h": 1}
    return Layer("conv", "Convolution", blobs=[kernel], settings=settings)


BLOBS = [
    in_caffe.blob,
    in_caffe.blob_in_double,
    in_caffe.blob_one_by_one,
    in_caffe.blob_of_four_axes,
]


@pytest.mark.parametrize("blob", BLOBS, ids=lambda blob: blob.__name__)
def test_arrays_and_settings_are_read(layer, blob):
    (read,) = read_layers(in_caffe.write([layer], blob), "net.caffemodel")
    assert (read.name, read.type) == ("conv", "Convolution")
    np.testing.assert_array_equal(read.blobs[0], layer.blobs[0])
    assert read.blobs[0].dtype == np.float32
    assert read.convolution == Convolution(kernel=(5, 2), stride=(2, 2), pad=(1, 0))


def test_caffe_s_defaults_hold_where_nothing_is_written():
    (read,) = read_layers(in_caffe.write([Layer("bn", "BatchNorm")]), "net.caffemodel")
    assert read.epsilon == pytest.approx(1e-5)
    assert read.convolution == Convolution(kernel=(0, 0))
    (read,) = read_layers(in_caffe.write([Layer("bn", "BatchNorm", eps=0.5)]), "net.caffemodel")
    assert read.epsilon == 0.5


@pytest.mark.parametrize("content", [b"", b"not a network", b"\xff" * 50, b"PK\x03\x04"])
def test_other_files_are_no_network(content):
    assert read_layers(content, "file") is None


def test_the_old_format_names_caffe_s_own_program():
    old = in_caffe.field(2, in_caffe.field(4, "conv1"))
    with pytest.raises(ValueError, match=r"old format .* upgrade_net_proto_binary"):
        read_layers(old, "net.caffemodel")


@pytest.mark.parametrize("shape", [(4, 3, 5, 3), (0,), (-1, 2), (2**40, 2**40), (1,) * 40, ()])
def test_an_array_that_is_not_of_its_shape_is_named(layer, shape):
    def blob(array):
        return in_caffe.blob(array, shape)

    with pytest.raises(
        ValueError, match=r"'net\.caffemodel' is damaged: layer 'conv' has an array"
    ):
        read_layers(in_caffe.write([layer], blob), "net.caffemodel")
