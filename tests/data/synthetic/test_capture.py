import subprocess
import sys

import numpy as np
import pytest

from reid_jax.data import synthetic


def test_a_box_is_a_function_of_its_arguments():
    box = synthetic.draw(0, 5, 2, 1)
    assert box.shape == (128, 64, 3)
    assert box.dtype == np.uint8
    np.testing.assert_array_equal(box, synthetic.draw(0, 5, 2, 1))
    for other in [
        (1, 5, 2, 1),
        (0, 6, 2, 1),
        (0, 5, 3, 1),
        (0, 5, 2, 2),
        (0, 0, 2, 1),
        (0, -1, 2, 1),
    ]:
        assert (synthetic.draw(*other) != box).mean() > 0.3


def test_boxes_have_the_contrast_of_photographs():
    boxes = np.stack([synthetic.draw(0, pid, 1 + pid % 4, 0) for pid in range(1, 25)])
    grey = boxes.mean(axis=3)
    assert 60 < grey.mean() < 170
    assert grey.std(axis=(1, 2)).min() > 12
    assert (boxes == 255).mean() < 0.05
    assert (boxes == 0).mean() < 0.05


@pytest.mark.parametrize("arguments", [(-1, 1, 1, 0), (0, -2, 1, 0), (0, 1, 1, -1)])
def test_boxes_that_cannot_be_are_refused(arguments):
    with pytest.raises(ValueError, match="draw needs seed >= 0"):
        synthetic.draw(*arguments)


def test_it_works_without_jax_and_tensorflow():
    program = (
        "import sys\n"
        "for name in ('jax', 'flax', 'tensorflow', 'matplotlib'): sys.modules[name] = None\n"
        "from reid_jax.data.synthetic import draw\n"
        "print(draw(0, 1, 1, 0).shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "(128, 64, 3)\n"
