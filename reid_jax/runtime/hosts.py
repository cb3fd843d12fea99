"""Several processes that share one run, one a host: how they meet, and what they tell each other.

Every host runs the same program. The devices of all of them share each training batch; a host reads
its own part of the images, and the first alone writes. What passes between hosts besides JAX's own
collectives goes through `gather_rows`: each host must then make the same calls in the same order.
With one process, which is the usual case, all of this does nothing.
"""

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from reid_jax.runtime import messages

# Seconds without a sign of life after which a host counts as dead, and the others stop.
HEARTBEAT_TIMEOUT = 100

# Seconds to wait for the others: at the start, and at the end.
_MEETING_TIMEOUT = 300

# Bytes of each host that travel at a time: gathering takes a few times as much.
_BLOCK_BYTES = 2**24

# Seconds for which a host that fails stays, so that others fail with words of their own.
_LAST_WORDS = 2.0


class OtherHostError(OSError):
    """Another host met an error that all hosts have to stop for."""


@contextlib.contextmanager
def joined(
    coordinator: str | None,
    count: int | None = None,
    index: int | None = None,
    *,
    heartbeat_timeout: int = HEARTBEAT_TIMEOUT,
) -> Iterator[None]:
    """Around a program of which every host runs one process, before JAX has any device.

    Where a host dies, or leaves by an error, the processes of the others end too: within seconds
    where its connections break, at the latest after `heartbeat_timeout`.

    Args:
        coordinator: `HOST:PORT`, an address of the first host that all reach; or `auto` where JAX
            finds the others by itself: TPU pods, SLURM, Open MPI, Kubernetes. None for one process:
            nothing happens.
        count: number of processes; None with `auto`.
        index: which of them this is, from 0; None with `auto`.
        heartbeat_timeout: seconds.

    Raises:
        ValueError: the arguments do not belong together, or `auto` finds no cluster.
        OSError: the others were not met in time, or the port is taken.
    """
    _check(coordinator, count, index)
    if coordinator is None:
        yield
        return
    # That hosts connect, and that a CPU has no TPU, is no news.
    for name in ("distributed", "xla_bridge"):
        logging.getLogger(f"jax._src.{name}").setLevel(logging.WARNING)
    try:
        jax.distributed.initialize(
            None if coordinator == "auto" else coordinator,
            count,
            index,
            # With an address, no cluster is looked for: SLURM's would take one GPU a process.
            cluster_detection_method=None if coordinator == "auto" else "deactivate",
            initialization_timeout=_MEETING_TIMEOUT,
            shutdown_timeout_seconds=_MEETING_TIMEOUT,
            heartbeat_timeout_seconds=heartbeat_timeout,
        )
    except ValueError as error:
        raise ValueError(
            f"--coordinator=auto finds no cluster here ({error}): give --coordinator=HOST:PORT, "
            "--processes and --process"
        ) from error
    except RuntimeError as error:
        raise OSError(f"the hosts did not meet at --coordinator={coordinator}: {error}") from error
    if jax.process_index() > 0:
        messages.silence()
    try:
        yield
    except SystemExit as leaving:
        if not isinstance(leaving.code, int):
            _fall(leaving.code)
        if leaving.code == messages.INTERRUPTED:  # The others do not leave by themselves.
            _fall("This host stops, and so will the others")
        jax.distributed.shutdown()  # All leave together, each by the same exit code.
        raise
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        _fall(
            "This host stops, and so will the others. What another host did wrong, it says itself."
        )
    jax.distributed.shutdown()


def count() -> int:
    """H, how many hosts share the run."""
    return jax.process_count()


def is_first() -> bool:
    """Whether this host is the one that writes."""
    return jax.process_index() == 0


def own_part(size: int) -> slice:
    """This host's part of `size` things: contiguous, and a host's is at most one larger."""
    first, after = (size * (jax.process_index() + i) // jax.process_count() for i in (0, 1))
    return slice(first, after)


def gather_rows(rows: np.ndarray) -> np.ndarray:
    """The rows of all hosts, in their order.

    Args:
        rows: (n, ...), n of each host's own, all else alike.

    Returns:
        (sum of all n, ...), every bit as it was.
    """
    if jax.process_count() == 1:
        return rows
    lengths = multihost_utils.process_allgather(np.int32(len(rows)))
    # As bytes: JAX would make 64-bit numbers 32-bit ones.
    width = rows.dtype.itemsize * int(np.prod(rows.shape[1:]))
    data = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), width)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    gathered = np.empty((int(lengths.sum()), width), np.uint8)
    block = max(1, _BLOCK_BYTES // width)
    for first in range(0, int(lengths.max()), block):
        size = min(block, int(lengths.max()) - first)
        padded = np.zeros((size, width), np.uint8)
        padded[: len(data[first : first + size])] = data[first : first + size]
        for part, start, length in zip(
            multihost_utils.process_allgather(padded), starts, lengths, strict=True
        ):
            taken = max(0, min(size, int(length) - first))
            gathered[start + first : start + first + taken] = part[:taken]
    return gathered.view(rows.dtype).reshape(-1, *rows.shape[1:])


def gather_bytes(items: list[bytes]) -> list[bytes]:
    """The items of all hosts, in their order."""
    if jax.process_count() == 1:
        return items
    lengths = gather_rows(np.array([len(item) for item in items], np.int64))
    every = gather_rows(np.frombuffer(b"".join(items), np.uint8))
    ends = np.cumsum(lengths)
    return [every[end - length : end].tobytes() for end, length in zip(ends, lengths, strict=True)]


def gather(value: Any) -> list:
    """What each host gives, in their order; anything that JSON holds."""
    if jax.process_count() == 1:
        return [value]
    return [json.loads(text) for text in gather_bytes([json.dumps(value).encode()])]


class Team:
    """Who works on the items of a list: this host by itself, or all hosts, each on its part.

    Code that takes a team is the same for one host and for several: it works on `part` of the items
    and passes its results through the other methods, which return those for all items.
    """

    def __init__(self, *, alone: bool):
        self._alone = alone

    def part(self, size: int) -> slice:
        """The items, of `size`, that this host works on."""
        return slice(0, size) if self._alone else own_part(size)

    def rows(self, own: np.ndarray) -> np.ndarray:
        """As `gather_rows`."""
        return own if self._alone else gather_rows(own)

    def files(self, own: list[bytes]) -> list[bytes]:
        """As `gather_bytes`."""
        return own if self._alone else gather_bytes(own)

    def values(self, own: list) -> list:
        """The values of all hosts in one list; anything that JSON holds."""
        return own if self._alone else [value for values in gather(own) for value in values]


#: This host by itself, whatever the others do.
ALONE = Team(alone=True)
#: All hosts, which pass the same items.
EVERYBODY = Team(alone=False)


def from_first(call: Callable[[], Any]) -> Any:
    """What a call gives on the first host, which alone makes it; anything that JSON holds.

    Raises:
        Exception: there, what the call raised, and `OtherHostError` on the others.
    """
    return gather(together(call if is_first() else lambda: None))[0]


def together(call: Callable[[], Any]) -> Any:
    """What a call gives, once it has succeeded on every host.

    Raises:
        Exception: what the call raised here.
        OtherHostError: it failed on another host; says which, and what is wrong there.
    """
    if jax.process_count() == 1:
        return call()
    result = error = None
    try:
        result = call()
    except Exception as caught:
        error = caught
    failures = gather(error and f"{type(error).__name__}: {error}")
    if error:
        raise error
    for host, failure in enumerate(failures):
        if failure:
            raise OtherHostError(f"host {host} stopped: {failure}")
    return result


def check_same(what: str, value: Any) -> None:
    """Raises ValueError where hosts would compute different things.

    Args:
        what: names the value in the error.
        value: anything that JSON holds. Of dictionaries the error shows what differs.
    """
    values = gather(value)
    for host, other in enumerate(values):
        first = values[0]
        if other == first:
            continue
        if isinstance(other, dict):
            names = [name for name in first | other if first.get(name) != other.get(name)]
            first, other = ({name: d.get(name) for name in names} for d in (first, other))
        raise ValueError(f"host {host} has another {what} than host 0: {other!r}, not {first!r}")


def tree_from_first(tree: Any) -> Any:
    """The first host's arrays, every bit as it is there, in place of this host's.

    Args:
        tree: a pytree of arrays; of the others only shapes and dtypes count.

    Returns:
        NumPy arrays; with one process, the tree itself.
    """
    if jax.process_count() == 1:
        return tree

    def pass_on(leaf):
        leaf = np.asarray(leaf)
        # As bytes, which are summed with zeros: a float's -0 would become 0.
        data = np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)
        data = multihost_utils.broadcast_one_to_all(data)
        return np.asarray(data).astype(np.uint8).view(leaf.dtype).reshape(leaf.shape)

    return jax.tree.map(pass_on, tree)


def _check(coordinator: str | None, count: int | None, index: int | None) -> None:
    if coordinator in (None, "auto"):
        if (count, index) != (None, None):
            raise ValueError("--processes and --process go with --coordinator=HOST:PORT")
        return
    host, _, port = coordinator.rpartition(":")
    if not (host and port.isdigit()):
        raise ValueError(f"--coordinator={coordinator} is neither HOST:PORT nor auto")
    if count is None or index is None:
        raise ValueError("--coordinator=HOST:PORT needs --processes and --process")
    if not 0 <= index < count:
        raise ValueError(f"--process={index} is not among --processes={count}, counted from 0")


def _fall(message: object) -> None:
    """Ends this process at once: an orderly end would wait for others, and they for this one."""
    print(message, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(_LAST_WORDS)
    os._exit(1)
