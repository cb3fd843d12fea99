import numpy as np

from reid_jax.data.synthetic.streams import noise, noise_tile, stream


def test_streams_are_functions_of_their_arguments():
    assert stream(3, "a", 1, 2).random() == stream(3, "a", 1, 2).random()
    others = [stream(4, "a", 1, 2), stream(3, "b", 1, 2), stream(3, "a", 2, 1), stream(3, "a", 1)]
    assert len({g.random() for g in [stream(3, "a", 1, 2), *others]}) == 5


def test_noise_tiles_without_a_seam():
    tile = noise_tile()
    inner = np.abs(np.diff(tile, axis=1)).max()
    assert np.abs(tile[:, 0] - tile[:, -1]).max() <= 1.05 * inner
    u, v = np.float32([0.1, 0.7]), np.float32([0.3, 0.9])
    np.testing.assert_array_equal(noise(u, v), noise(u + 2, v - 3))
