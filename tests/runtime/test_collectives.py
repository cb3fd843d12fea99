import jax
import jax.numpy as jnp
import numpy as np

from reid_jax.runtime import collectives


def test_without_an_axis_the_batch_is_the_whole_batch():
    x = jnp.arange(6.0)
    np.testing.assert_array_equal(collectives.gather(x, None), x)
    np.testing.assert_array_equal(collectives.own_rows(x, None), x)
    np.testing.assert_array_equal(collectives.mean(x, None), x)


def test_own_rows_undoes_gather():
    x = np.arange(24.0, dtype=np.float32).reshape(4, 3, 2)
    back = jax.pmap(
        lambda part: collectives.own_rows(collectives.gather(part, "batch"), "batch"),
        axis_name="batch",
    )(x)
    np.testing.assert_array_equal(back, x)


def test_keys_follow_the_place_in_the_whole_batch():
    key = jax.random.key(3)
    whole = jax.random.key_data(collectives.batch_keys(key, 8, None))
    parts = jax.pmap(
        lambda _: jax.random.key_data(collectives.batch_keys(key, 2, "batch")), axis_name="batch"
    )(jnp.arange(4))
    np.testing.assert_array_equal(np.asarray(parts).reshape(whole.shape), whole)
