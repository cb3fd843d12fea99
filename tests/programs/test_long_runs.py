"""A long run in a separate process: its memory and compilations do not grow with its steps."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]

# Memory growth per step. A batch of the run has 18 KiB; TensorStore 0.1.86 loses 0.25 KiB whenever
# Orbax requests a description of an array (`Spec.to_json`), about 0.2 KiB per step here. Alone on a
# machine, the process grows by 2 KiB a step, beside other tests by up to 8.
MOST_BYTES = 16384

# Trains, and records the memory of the process every 50 steps, after it has returned freed memory.
RUN = """
import ctypes, gc, json, os, pathlib, sys, threading
import jax
from reid_jax.configs import pmm_synthetic
from reid_jax.programs import train
from reid_jax.training import step as steps
from tests.compilations import count_compilations

folder = pathlib.Path(sys.argv[1])
config = pmm_synthetic.get_config("small")
config.data.root = str(folder / "data")
config.data.synthetic.update({"train_identities": 4, "test_identities": 2})
config.data.synthetic.update({"train_cameras": 2, "test_cameras": 2})
config.data.image_size = (48, 32)
config.data.update({"identities_per_batch": 2, "images_per_identity": 2})  # 2 steps an epoch
config.model.trunk.width = 2
config.model.update({"embedding_dim": 4, "stages": 1, "block": (1, 1)})
config.augment.cutout_size = 8
config.update({"devices": 1, "epochs": 500})
config.log.every_steps = 10
config.eval.update({"every_epochs": 125, "batch_size": 16})
config.checkpoint.every_epochs = 100

def held():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return {
        "bytes": 1024 * int(status["VmRSS"].split()[0]),
        "threads": int(status["Threads"]),
        "python_threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),
        "arrays": len(jax.live_arrays()),
        "compiled": len(events),
    }

samples, made = [], 0

def pmap_step(*arguments):
    mapped = steps.pmap_step(*arguments)

    def call(state, batch):
        global made
        if made == 1 or made % 50 == 25:  # Away from checkpoints.
            samples.append({"step": made} | held())
        made += 1
        return mapped(state, batch)

    return call

train.pmap_step = pmap_step
with count_compilations() as events:
    train.train(config, str(folder / "run"))
samples.append({"step": made} | held())
print(json.dumps(samples))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_nothing_grows_with_the_steps(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, *samples, last = json.loads(done.stdout.splitlines()[-1])
    assert (first["step"], last["step"]) == (1, 1000)
    # The first step and the evaluation before it have compiled all programs.
    assert 0 < first["compiled"] == last["compiled"]

    warm = [sample for sample in samples if sample["step"] > 500]
    assert len(warm) == 10
    early, late = (
        {name: min(s[name] for s in part) for name in first} for part in (warm[:5], warm[5:])
    )
    assert late["bytes"] - early["bytes"] < MOST_BYTES * (late["step"] - early["step"]), samples
    for name in ("arrays", "files", "python_threads"):
        assert late[name] == early[name], samples
    # Libraries start the threads of their pools on demand.
    assert late["threads"] <= early["threads"] + 4, samples
