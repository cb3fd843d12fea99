"""The program of `test_hosts`, run as two processes: `python two_hosts.py PORT INDEX OUT`.

It writes what it sees to OUT: libraries write to standard output, in the middle of lines.
"""

import os
import signal
import sys
import tempfile

import numpy as np
from PIL import Image

from reid_jax.data.decoding import visit
from reid_jax.data.memory import MemoryImages
from reid_jax.runtime import hosts
from reid_jax.runtime.preemption import Preemption


def check_talk(out):
    """All communication between hosts, with parts of different sizes."""
    index = hosts.gather(None) and (0 if hosts.is_first() else 1)
    hosts._BLOCK_BYTES = 16  # several blocks, the last one not full
    assert hosts.count() == 2
    odd = np.array([-0.0, np.nan, 2.0**-1074, np.pi, 1e300])
    for rows in (odd[:, None] * [1, 2], np.arange(7) + 2**40, np.ones((3, 2, 2), bool)):
        own = rows[hosts.own_part(len(rows))]
        assert hosts.gather_rows(own).tobytes() == rows.tobytes()
        assert hosts.gather_rows(own).shape == rows.shape
    lonely = hosts.gather_rows(np.arange(index * 5))  # Host 0 has no rows.
    np.testing.assert_array_equal(lonely, np.arange(5))
    assert hosts.gather({"é": [index]}) == [{"é": [0]}, {"é": [1]}]
    assert hosts.from_first(lambda: [index, None]) == [0, None]
    tree = {"a": odd.astype(np.float32) * (index + 1), "b": (np.int32(7 + index),)}
    given = hosts.tree_from_first(tree)
    assert given["a"].tobytes() == odd.astype(np.float32).tobytes()
    assert (given["b"][0], given["b"][0].dtype, given["b"][0].shape) == (7, np.int32, ())
    hosts.check_same("number", 3)
    for call in (
        lambda: hosts.check_same("number", index),
        lambda: hosts.check_same("recipe", {"a": [1], "b": index}),
        lambda: hosts.together(lambda: 1 // (1 - index)),
        lambda: hosts.from_first(lambda: {}["key"]),
    ):
        try:
            call()
        except (ValueError, ZeroDivisionError, KeyError, OSError) as error:
            print(f"{type(error).__name__}: {error}", file=out, flush=True)
    assert hosts.together(lambda: index) == index


def check_images(out):
    """Each host decodes its part of the files, and gets the pixels and errors of all."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, f"{i}.png") for i in range(5)]
        for i, path in enumerate(paths):
            Image.new("RGB", (2, 3), (i, 0, 0)).save(path)
        decoded = []
        pixels = MemoryImages(paths, (3, 2), decoded.append, team=hosts.EVERYBODY).pixels
        assert pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
        own = 2 if hosts.is_first() else 3
        assert decoded == [f"read {own} of {own} images"]
        open(paths[3], "w").close()
        (bad,) = visit(paths, lambda i, data, image: None, team=hosts.EVERYBODY)
        print(bad, file=out, flush=True)


def check_preemption(out):
    """One host receives the signal, and both stop after the same step."""
    with Preemption() as preemption:
        for step in range(1000):
            if step == 3 and not hosts.is_first():
                os.kill(os.getpid(), signal.SIGTERM)
            if preemption.due(step):
                break
            hosts.gather(step)  # Like a step, it waits for the other host.
    assert 3 <= step < 999
    print(len(set(hosts.gather(step))), "step", file=out, flush=True)


if __name__ == "__main__":
    port, me, path = sys.argv[1:]
    with (
        open(path, "w", encoding="utf-8") as out,
        hosts.joined(f"127.0.0.1:{port}", 2, int(me), heartbeat_timeout=10),
    ):
        check_talk(out)
        check_images(out)
        check_preemption(out)
        if me == "1":
            os._exit(9)
        hosts.gather("anybody there?")
        print("an answer from the dead", file=out, flush=True)
