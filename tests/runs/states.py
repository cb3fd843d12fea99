import os
import pathlib
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from reid_jax.runs.checkpoints import Checkpoints

OPTIMIZER = optax.chain(
    optax.add_decayed_weights(5e-4),
    optax.scale_by_adam(),
    optax.scale_by_learning_rate(optax.constant_schedule(0.1)),
)


@flax.struct.dataclass
class State:
    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any


def make_state(step: int, channels: int = 4) -> State:
    """A state in which every number depends on the step."""
    rng = np.random.default_rng(step)

    def array(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    params = {
        "stem": {"kernel": array(3, 3, channels)},
        "heads_0": {"kernel": array(5, 7), "bias": array(7)},
    }
    opt_state = OPTIMIZER.init(params)
    opt_state = jax.tree.map(
        lambda x: array(*x.shape) if x.dtype == jnp.float32 else jnp.int32(step), opt_state
    )
    return State(jnp.int32(step), params, {"bn": {"mean": array(channels)}}, opt_state)


def model_of(state: State) -> dict[str, Any]:
    return {"params": state.params, "batch_stats": state.batch_stats}


def assert_identical(actual, expected):
    """Compare structure, dtypes and every bit."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == e.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(e))


def save_all(folder, *steps_and_maps, **options):
    with Checkpoints(folder, **options) as checkpoints:
        for step, value in steps_and_maps:
            metrics = None if value is None else {"mAP": value, "rank1": 0.5}
            assert checkpoints.save(make_state(step), metrics)


def steps_on_disk(folder) -> list[int]:
    return sorted(int(name) for name in os.listdir(folder) if name.isdigit())


def truncate(path: pathlib.Path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
