import jax
import pytest

from reid_jax.training.state import STREAMS, stream_key

pytestmark = pytest.mark.usefixtures("standard_promotion")


def test_streams_are_independent():
    keys = {
        tuple(jax.random.key_data(stream_key(seed, stream, step)).tolist())
        for seed in (0, 1)
        for stream in STREAMS
        for step in (0, 1, 2)
    }
    assert len(keys) == 2 * len(STREAMS) * 3
