import jax
import numpy as np
import pytest

from reid_jax.rectangles import inside


@pytest.mark.parametrize(
    "rectangle", [(1, 2, 3, 2), (0, 0, 5, 4), (-2, -1, 3, 3), (4, 3, 9, 9), (2, 2, 0, 3)]
)
def test_equals_a_slice(rectangle):
    top, left, height, width = rectangle
    want = np.zeros((5, 4), bool)
    want[max(top, 0) : top + height, max(left, 0) : left + width] = True
    got = jax.jit(inside, static_argnums=0)((5, 4), *rectangle)
    np.testing.assert_array_equal(got, want)
