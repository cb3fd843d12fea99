"""Pictures for the tests of data."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def draw(rng):
    """A function (height, width) -> a smooth random RGB picture, so that JPEG keeps its shape."""

    def draw(height, width):
        coarse = rng.integers(0, 256, (6, 4, 3), np.uint8)
        return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)

    return draw
