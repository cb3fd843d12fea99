import jax
import optax
import pytest

from reid_jax import models
from reid_jax.cli import recipes
from reid_jax.training.state import STREAMS, create_state, stream_key

pytestmark = pytest.mark.usefixtures("standard_promotion")


def test_streams_are_independent():
    keys = {
        tuple(jax.random.key_data(stream_key(seed, stream, step)).tolist())
        for seed in (0, 1)
        for stream in STREAMS
        for step in (0, 1, 2)
    }
    assert len(keys) == 2 * len(STREAMS) * 3


def test_a_state_larger_than_the_memory_is_an_error_that_names_its_largest_array():
    config = recipes.find("pmm_synthetic:small").config
    config.model.embedding_dim = 2**31 - 1
    network = models.create(config.model, 8)
    largest = r"heads_\d/reduction/kernel \(\d+, 2147483647\)"
    with pytest.raises(MemoryError, match=f"{largest}, .* GiB.*: lower the sizes in model$"):
        create_state(network, optax.adam(1e-3), config.data.image_size, 0)
