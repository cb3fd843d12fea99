"""The state of a run after a step: everything that training changes, and the seed.

Random numbers are functions of (seed, stream, step), so the state holds no generator. The seed is
an input of the compiled step and no constant in it, so runs that differ only in their seeds share
one program, also in JAX's cache of compiled programs.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict

from reid_jax.models import Network
from reid_jax.runtime.memory import check_holds


@flax.struct.dataclass
class TrainState:
    """One copy of the state; `jax.pmap` gives it to every device (`in_axes=None`)."""

    step: jax.Array  # int32 scalar: steps taken
    params: Any  # float32
    batch_stats: Any  # float32
    opt_state: optax.OptState
    seed: jax.Array  # int32 scalar: that of the run, which training keeps and no checkpoint holds


def create_state(
    network: Network,
    optimizer: optax.GradientTransformation,
    image_size: tuple[int, int],
    seed: int,
    trunk: dict[str, Any] | None = None,
) -> TrainState:
    """Create the state of step 0. The network's initial variables are a function of the seed.

    The inference face creates every parameter. XLA uses its convolutions only for shape inference
    and drops them.

    Args:
        network: the network to train.
        optimizer: the optimizer of the run.
        image_size: (H, W), pixels.
        seed: the seed of the run.
        trunk: {"params", "batch_stats"} of a pretrained trunk, which replace the initial ones.

    Raises:
        MemoryError: the state is larger than the memory of this machine. The message names its
            largest array.
    """
    create = _creator(network, optimizer, tuple(image_size))
    arguments = np.int64(seed).astype(np.int32), trunk  # `jax.random.key` takes these bits too.
    _check_in_memory(jax.eval_shape(create, *arguments))
    return create(*arguments)


def _check_in_memory(state: TrainState) -> None:
    """Raise MemoryError if a state, of which only the shapes are known, is too large."""

    def size(leaf) -> int:
        return math.prod(leaf.shape) * leaf.dtype.itemsize

    largest, array = max(flatten_dict(state.params, sep="/").items(), key=lambda x: size(x[1]))
    what = f"the parameters, the largest of which is {largest} {array.shape}, with Adam's moments"
    check_holds(sum(map(size, jax.tree.leaves(state))), what, "the sizes in model")


# The same network and optimizer are traced and compiled once in a process.
@functools.lru_cache(maxsize=4)
def _creator(
    network: Network, optimizer: optax.GradientTransformation, image_size: tuple[int, int]
) -> Callable:
    @jax.jit
    def create(seed, trunk):
        key = stream_key(seed, "init", 0)
        variables: dict[str, Any] = dict(network.init(key, jnp.zeros((1, *image_size, 3))))
        if trunk is not None:
            variables = {name: {**tree, "trunk": trunk[name]} for name, tree in variables.items()}
        variables = network.start(variables)
        params, batch_stats = variables["params"], variables["batch_stats"]
        return TrainState(jnp.int32(0), params, batch_stats, optimizer.init(params), seed)

    return create


STREAMS = ("init", "augment", "mix")


def stream_key(seed, stream: str, step) -> jax.Array:
    """The key of a stream at a step. Streams of one seed are independent of each other."""
    key = jax.random.fold_in(jax.random.key(seed), STREAMS.index(stream))
    return jax.random.fold_in(key, step)
