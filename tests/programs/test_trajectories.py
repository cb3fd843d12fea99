"""One run on any number of devices and hosts, continued on another number."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from reid_jax.configs import pmm_synthetic
from reid_jax.data import synthetic
from reid_jax.programs import train
from reid_jax.runs.metrics import read_metrics
from tests.runtime.test_hosts import finish, free_port, start_two

ROOT = pathlib.Path(__file__).parents[2]

STEPS = 3  # One for each setup, because rounding errors grow with every step.


@pytest.fixture
def data(tmp_path):
    """Eight identities: a batch has four images of each; each of eight devices has one identity."""
    root = tmp_path / "pedestrians"
    arguments = pmm_synthetic.get_config("small").data.synthetic
    synthetic.write_market1501(root, synthetic.Contents(**arguments), None)
    return root


def leaves(data, steps):
    return {
        "data.root": str(data),
        "data.loader": "memory",
        "max_steps": steps,
        "log.every_steps": 1,
        "eval.every_epochs": STEPS,
        "eval.batch_size": 8,  # one program for each number of devices
        "model.stages": 2,  # enough for one that mixes
    }


def train_here(data, workdir, devices, steps=STEPS):
    config = pmm_synthetic.get_config("small")
    config.update_from_flattened_dict(leaves(data, steps) | {"devices": devices})
    with jax.numpy_dtype_promotion("standard"):
        train.train(config, str(workdir))


def command(data, workdir, steps):
    overrides = [f"--config.{name}={value}" for name, value in leaves(data, steps).items()]
    recipe = "--config=configs/pmm_synthetic.py:small"
    return ["train.py", recipe, f"--workdir={workdir}", *overrides]


def train_on_eight(data, workdir, steps):
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    done = subprocess.run(
        [sys.executable, *command(data, workdir, steps)],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "on 8 cpu devices" in done.stdout


def train_on_two_hosts(data, workdir, steps):
    coordinator = [f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]
    processes = start_two(
        2,
        lambda index: [
            *command(data, workdir[index], steps),
            *coordinator,
            f"--process={index}",
            "--config.data.loader=tfdata",
        ],
    )
    outputs = finish(processes)
    assert "on 4 cpu devices of 2 hosts" in outputs[0][0]
    return outputs


def assert_same_trajectory(records, expected):
    """Every step is recorded once, and all metrics except speed equal those of one device."""
    assert [(r["step"], r["kind"]) for r in records] == [(r["step"], r["kind"]) for r in expected]
    for record, wanted in zip(records, expected, strict=True):
        for name in wanted.keys() - {"kind", "images_per_second"}:
            # A rank may differ, or the class of one of 32 images.
            counts = record["kind"] == "eval" or name.startswith(("accuracy", "ordered"))
            # Rounding errors of earlier steps show first in gradients.
            rounding = 2e-2 if name == "gradient_norm" else 5e-4
            tolerance = {"atol": 0.1} if counts else {"rtol": rounding}
            step = f"{name} of step {record['step']}"
            np.testing.assert_allclose(record[name], wanted[name], **tolerance, err_msg=step)


@pytest.mark.slow
def test_a_run_goes_from_eight_devices_to_two_hosts_to_two_devices(data, tmp_path):
    """The metrics are those of one device; each host has two devices.

    On eight devices partners and negatives come from other devices, because each has one identity.
    The second host's workdir is unusable: the first reads and writes for both.
    """
    train_here(data, tmp_path / "one", 1)
    one_device = read_metrics(tmp_path / "one")
    workdir, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    train_on_eight(data, workdir, 1)
    (first, _), (second, _) = train_on_two_hosts(data, [workdir, elsewhere], 2)
    assert "resuming from step 1" in first
    assert not elsewhere.exists()
    assert "images" not in second  # It prints no progress.
    train_here(data, workdir, 2)
    records = read_metrics(workdir)
    trained = [record for record in records if record["kind"] == "train"]
    assert_same_trajectory(trained, [r for r in one_device if r["kind"] == "train"])
    # Each length ends with an evaluation.
    assert [r["step"] for r in records if r["kind"] == "eval"] == [0, 1, 2, STEPS]
    assert_same_trajectory([records[0], records[-1]], [one_device[0], one_device[-1]])
