"""Several processes that share one run, one per host: how they connect and exchange data.

Every host runs the same program. The devices of all hosts share each training batch; each host
reads its own part of the images, and only the first host writes. Apart from JAX's own collectives,
data passes between hosts through `gather_rows`, for which all hosts must make the same calls in the
same order. With one process, the usual case, the functions change nothing.
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

# Seconds to wait for the other hosts, at the start and at the end.
_MEETING_TIMEOUT = 300

# Bytes that each host sends at a time. Gathering them takes a few times as much memory.
_BLOCK_BYTES = 2**24

# Seconds for which a failing host waits before it ends, so that the others report its error.
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
    """Connect the processes of several hosts, one per host, before JAX initialises any device.

    If a host dies or leaves with an error, the other processes end too: within seconds if its
    connections break, and otherwise after `heartbeat_timeout` at most.

    Args:
        coordinator: `HOST:PORT`, an address of the first host that all others can reach; or `auto`
            if JAX can find the hosts itself: TPU pods, SLURM, Open MPI, Kubernetes. None for one
            process, without any effect.
        count: number of processes; None with `auto`.
        index: the number of this process, from 0; None with `auto`.
        heartbeat_timeout: seconds.

    Raises:
        ValueError: the arguments contradict each other, or `auto` finds no cluster.
        OSError: the other hosts did not connect in time, or the port is in use.
    """
    _check(coordinator, count, index)
    if coordinator is None:
        yield
        return
    # Silence JAX's messages about connections and about a missing TPU.
    for name in ("distributed", "xla_bridge"):
        logging.getLogger(f"jax._src.{name}").setLevel(logging.WARNING)
    try:
        jax.distributed.initialize(
            None if coordinator == "auto" else coordinator,
            count,
            index,
            # With an address, cluster detection is off: SLURM's would assign one GPU per process.
            cluster_detection_method=None if coordinator == "auto" else "deactivate",
            initialization_timeout=_MEETING_TIMEOUT,
            shutdown_timeout_seconds=_MEETING_TIMEOUT,
            heartbeat_timeout_seconds=heartbeat_timeout,
        )
    except ValueError as error:
        raise ValueError(
            f"--coordinator=auto finds no cluster here ({error}): pass --coordinator=HOST:PORT, "
            "--processes and --process"
        ) from error
    except RuntimeError as error:
        raise OSError(
            f"the hosts did not connect at --coordinator={coordinator}: {error}"
        ) from error
    if jax.process_index() > 0:
        messages.silence()
    try:
        yield
    except SystemExit as leaving:
        if not isinstance(leaving.code, int):
            _fall(leaving.code)
        if leaving.code == messages.INTERRUPTED:  # The other hosts would wait for this one.
            _fall("This host stops, and so will the others")
        jax.distributed.shutdown()  # All hosts leave together, each with the same exit code.
        raise
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        _fall("This host stops, and so will the others. A failed host reports its own error.")
    jax.distributed.shutdown()


def count() -> int:
    """H, the number of hosts that share the run."""
    return jax.process_count()


def is_first() -> bool:
    """Whether this host is the one that writes."""
    return jax.process_index() == 0


def own_part(size: int) -> slice:
    """This host's part of `size` items: contiguous; parts differ in size by at most one."""
    first, after = (size * (jax.process_index() + i) // jax.process_count() for i in (0, 1))
    return slice(first, after)


def gather_rows(rows: np.ndarray) -> np.ndarray:
    """The rows of all hosts, in their order.

    Args:
        rows: (n, ...). n may differ between hosts; shape and dtype of a row must not.

    Returns:
        (sum of all n, ...), bit for bit.
    """
    if jax.process_count() == 1:
        return rows
    lengths = _lengths(len(rows))
    # Gather bytes, because JAX would convert 64-bit numbers to 32 bits.
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


def _lengths(own: int) -> np.ndarray:
    """The numbers of rows of all hosts, (H,) int64, as bytes for the same reason."""
    gathered = multihost_utils.process_allgather(np.array([own], np.int64).view(np.uint8))
    return np.ascontiguousarray(gathered).view(np.int64)[:, 0]


def gather_bytes(items: list[bytes]) -> list[bytes]:
    """The items of all hosts, in their order."""
    if jax.process_count() == 1:
        return items
    lengths = gather_rows(np.array([len(item) for item in items], np.int64))
    every = gather_rows(np.frombuffer(b"".join(items), np.uint8))
    ends = np.cumsum(lengths)
    return [every[end - length : end].tobytes() for end, length in zip(ends, lengths, strict=True)]


def gather(value: Any) -> list:
    """The values of all hosts, in their order; anything that JSON supports."""
    if jax.process_count() == 1:
        return [value]
    return [json.loads(text) for text in gather_bytes([json.dumps(value).encode()])]


class Team:
    """The hosts that share the items of a list: only this host, or all hosts, each with its part.

    Code that uses a team is the same for one host and for several: it processes `part` of the items
    and passes its results through the other methods, which return those for all items.
    """

    def __init__(self, *, alone: bool):
        self._alone = alone

    def part(self, size: int) -> slice:
        """The part of `size` items that this host processes."""
        return slice(0, size) if self._alone else own_part(size)

    def rows(self, own: np.ndarray) -> np.ndarray:
        """As `gather_rows`."""
        return own if self._alone else gather_rows(own)

    def files(self, own: list[bytes]) -> list[bytes]:
        """As `gather_bytes`."""
        return own if self._alone else gather_bytes(own)

    def values(self, own: list) -> list:
        """The values of all hosts in one list; anything that JSON supports."""
        return own if self._alone else [value for values in gather(own) for value in values]


#: Only this host, independent of the others.
ALONE = Team(alone=True)
#: All hosts, which pass the same items.
EVERYBODY = Team(alone=False)


def from_first(call: Callable[[], Any]) -> Any:
    """Make a call only on the first host; return its result on all. JSON must support it.

    Raises:
        Exception: on the first host, the call's exception; on the others, `OtherHostError`.
    """
    return gather(together(call if is_first() else lambda: None))[0]


def together(call: Callable[[], Any]) -> Any:
    """Make a call on every host; return its result once it has succeeded on all hosts.

    Raises:
        Exception: the exception of the call on this host.
        OtherHostError: the call failed on another host. The message names the host and its error.
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
    """Raise ValueError if a value differs between hosts, which would then compute different things.

    Args:
        what: the name of the value, for the error.
        value: anything that JSON supports. For dictionaries, the error shows only differences.
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
    """The first host's arrays, bit for bit, in place of this host's.

    Args:
        tree: a pytree of arrays. On the other hosts only shapes and dtypes are used.

    Returns:
        NumPy arrays; with one process, the tree itself.
    """
    if jax.process_count() == 1:
        return tree

    def pass_on(leaf):
        leaf = np.asarray(leaf)
        # Send bytes and sum them with zeros. Summing floats would turn -0 into 0.
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
    """End this process at once. An orderly exit would wait for others, which wait for this one."""
    print(message, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(_LAST_WORDS)
    os._exit(1)
