import dataclasses

import numpy as np
import pytest

from reid_jax.data.synthetic.cloth import dyed
from reid_jax.data.synthetic.looks import Fabric


def test_patterns_have_their_period_and_share():
    down = np.linspace(0, 1, 10_001, dtype=np.float32)[:-1]
    fabric = Fabric((0, 0, 0), (1, 1, 1), "hoops", period=0.1, duty=0.3)
    hoops = dyed(fabric, 0 * down, down)[:, 0]
    assert hoops.mean() == pytest.approx(0.3, abs=0.01)
    np.testing.assert_allclose(hoops[:9000], hoops[1000:], atol=1)
    assert np.abs(hoops[:9000] - hoops[1000:]).mean() < 0.01
    yoke = dyed(dataclasses.replace(fabric, pattern="yoke", period=0.2), 0 * down, down)[:, 0]
    assert yoke[:1990].min() == 1
    assert yoke[2010:].max() == 0


def test_unknown_pattern_is_named():
    with pytest.raises(ValueError, match="'tartan'"):
        dyed(Fabric((0, 0, 0), (1, 1, 1), "tartan"), np.zeros(2), np.zeros(2))
