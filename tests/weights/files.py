"""Files of `formula`'s weights, made without PyTorch."""

import json

import safetensors.numpy

from tests.weights import formula, make_reference

REFERENCE = json.loads(make_reference.PATH.read_text())


def arrays(name):
    """All weights of a network of `make_reference`, by PyTorch's names."""
    shapes = REFERENCE[name]["weights"]
    return {key: formula.tensor(key, tuple(shape)) for key, shape in shapes.items()}


def write(path, arrays):
    """A .safetensors file."""
    path.write_bytes(safetensors.numpy.save(dict(arrays)))
    return path


def assert_near(got, wanted, tolerance=1e-4):
    """Check that every difference is within a share of the largest number."""
    largest = abs(wanted).max()
    assert largest > 0
    assert got.shape == wanted.shape
    assert abs(got - wanted).max() <= tolerance * largest
