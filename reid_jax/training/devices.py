"""The devices that a run takes."""

import logging

import jax


def choose_devices(count: int) -> list[jax.Device]:
    """The first `count` devices of this machine, or all where `count`, the leaf `devices`, is 0.

    Raises:
        ValueError: there are fewer.
        NotImplementedError: several processes share the devices.
    """
    # That a CPU has no TPU is no news.
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    if jax.process_count() > 1:
        raise NotImplementedError("several hosts cannot share a run yet: start one process")
    devices = jax.devices()
    if not 0 <= count <= len(devices):
        raise ValueError(f"devices is {count}, but this machine has {len(devices)}")
    return devices[: count or len(devices)]


def check_divides(devices: list[jax.Device], batch_size: int, leaves: str) -> None:
    """Raises ValueError, naming the config leaves, where devices do not share a batch evenly."""
    if batch_size % len(devices):
        raise ValueError(
            f"a batch of {batch_size} images ({leaves}) does not divide by {len(devices)} devices: "
            f"change {leaves}, or take fewer --config.devices"
        )
