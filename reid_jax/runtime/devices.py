"""The devices that a run uses, on one host or on several."""

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from reid_jax.runtime.collectives import AXIS
from reid_jax.runtime.messages import counted


def all_devices() -> list[jax.Device]:
    """The devices of all hosts; starts JAX.

    Raises:
        OSError: `JAX_PLATFORMS` asks for devices that this machine does not have.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX 0.10 asserts for CUDA.
        reason = f" ({lines[0]})" if (lines := str(error).splitlines()) else ""
        platforms = jax.config.values["jax_platforms"]
        raise OSError(
            f"JAX_PLATFORMS is {platforms!r}, and JAX has no such device here{reason}. Set "
            "JAX_PLATFORMS=cpu, unset it to use the devices that there are, or install JAX for the "
            "device: https://docs.jax.dev/en/latest/installation.html"
        ) from error


@contextlib.contextmanager
def memory_set_by(leaves: str) -> Iterator[None]:
    """A context for work on devices: if memory is too small, the error names what to lower.

    Args:
        leaves: the leaves of the recipe that determine how much memory the work takes.

    Raises:
        MemoryError: a device ran out of memory.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise MemoryError(f"too little memory ({reason}): lower {leaves}") from error


def choose_devices(count: int) -> list[jax.Device]:
    """The first `count` devices, or all if `count`, the leaf `devices`, is 0.

    With several hosts, each contributes the same number of devices, in the order of the hosts, so
    that a host's part of a batch is contiguous.

    Raises:
        ValueError: there are fewer devices, or hosts cannot contribute the same number.
        OSError: see `all_devices`.
    """
    # Silence JAX's message about a missing TPU.
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    devices = all_devices()
    by_host = [[d for d in devices if d.process_index == i] for i in range(jax.process_count())]
    if not 0 <= count <= len(devices):
        here = "this machine has" if len(by_host) == 1 else f"these {len(by_host)} hosts have"
        raise ValueError(f"devices is {count}, but {here} {len(devices)}")
    each, rest = divmod(count or len(devices), len(by_host))
    if rest or each > min(map(len, by_host)):
        raise ValueError(
            f"{counted(count or len(devices), 'device')} cannot be shared by {len(by_host)} "
            f"hosts, which have {', '.join(str(len(own)) for own in by_host)}: change devices"
        )
    return [device for own in by_host for device in own[:each]]


def own_devices(devices: list[jax.Device]) -> list[jax.Device]:
    """The devices of this host among `devices`."""
    return [device for device in devices if device.process_index == jax.process_index()]


def check_divides(devices: list[jax.Device], batch_size: int, leaves: str) -> None:
    """Raise ValueError, naming the config leaves, if devices cannot share a batch evenly."""
    if batch_size % len(devices):
        raise ValueError(
            f"a batch of {counted(batch_size, 'image')} ({leaves}) does not divide by "
            f"{counted(len(devices), 'device')}: "
            f"change {leaves}, or take fewer --config.devices"
        )


def place(state: Any, devices: list[jax.Device]) -> Any:
    """Put a tree of arrays, such as the state, on `devices` with the placement of the step's
    result.

    With another placement the step would be compiled twice: for the first call, and for all later
    ones.
    """
    identity = _identity(tuple(devices))
    return identity(state, np.zeros(len(own_devices(devices)), np.int32))


@functools.lru_cache(maxsize=4)
def _identity(devices: tuple[jax.Device, ...]) -> Callable:
    return jax.pmap(
        lambda state, _: state, axis_name=AXIS, in_axes=(None, 0), out_axes=None, devices=devices
    )
