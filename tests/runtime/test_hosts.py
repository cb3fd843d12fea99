"""Several hosts, as processes on this machine."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import multihost_utils

from reid_jax.runtime import hosts
from reid_jax.runtime.messages import INTERRUPTED

ROOT = pathlib.Path(__file__).parents[2]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_two(devices, arguments):
    """Start two processes with `devices` CPU devices each; `arguments` is a function of the
    index."""
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    return [
        subprocess.Popen(
            [sys.executable, *map(str, arguments(index))],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for index in (0, 1)
    ]


def finish(processes):
    """Wait for processes that must succeed, and return the output and the errors of each."""
    try:
        outputs = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
    return outputs


def test_two_hosts_talk_stop_together_and_do_not_wait_for_the_dead(tmp_path):
    port = free_port()
    first, second = start_two(
        2, lambda index: ["tests/two_hosts.py", port, index, tmp_path / f"{index}"]
    )
    try:
        outputs = [process.communicate(timeout=120) for process in (first, second)]
    finally:
        for process in (first, second):
            process.kill()
    told = [(tmp_path / name).read_text("utf-8").splitlines() for name in "01"]
    another = [
        "ValueError: host 1 has another number than host 0: 1, not 0",
        "ValueError: host 1 has another recipe than host 0: {'b': 1}, not {'b': 0}",
    ]
    assert told[0] == [
        *another,
        "OtherHostError: host 1 stopped: ZeroDivisionError: integer division or modulo by zero",
        "KeyError: 'key'",
        "(3, 'is empty')",
        "1 step",
    ], outputs[0][1]
    assert told[1] == [
        *another,
        "ZeroDivisionError: integer division or modulo by zero",
        "OtherHostError: host 0 stopped: KeyError: 'key'",
        "(3, 'is empty')",
        "1 step",
    ], outputs[1][1]
    assert second.returncode == 9
    assert first.returncode != 0
    assert "This host stops" in outputs[0][1] or "another task died" in outputs[0][1]


def test_ctrl_c_on_one_host_ends_it_without_waiting_for_the_others(monkeypatch):
    ended = []

    def end(message):
        ended.append(message)
        raise ConnectionError

    monkeypatch.setattr(jax.distributed, "initialize", lambda *unused, **unused_too: None)
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: ended.append("waits"))
    monkeypatch.setattr(hosts, "_fall", end)
    with pytest.raises(ConnectionError), hosts.joined("host:1", 2, 0):
        sys.exit(INTERRUPTED)
    assert ended == ["This host stops, and so will the others"]


def test_parts_are_contiguous_and_complete(monkeypatch):
    for size in (0, 1, 5, 64):
        for count in (1, 2, 3, 8):
            monkeypatch.setattr(jax, "process_count", lambda count=count: count)
            parts = []
            for index in range(count):
                monkeypatch.setattr(jax, "process_index", lambda index=index: index)
                parts.append(np.arange(size)[hosts.own_part(size)])
            np.testing.assert_array_equal(np.concatenate(parts), np.arange(size))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_host_may_send_more_than_2_gib(monkeypatch):
    def twice(sent):
        return np.stack([jnp.asarray(sent)] * 2)

    monkeypatch.setattr(multihost_utils, "process_allgather", twice)
    assert hosts._lengths(2**31).tolist() == [2**31] * 2


def test_one_process_keeps_what_it_has():
    rows, tree = np.arange(3), {"a": np.ones(2)}
    with hosts.joined(None):
        assert hosts.gather_rows(rows) is rows
        assert hosts.tree_from_first(tree) is tree
        assert hosts.gather("x") == ["x"]
        assert hosts.from_first(lambda: "x") == "x"
        with pytest.raises(ZeroDivisionError):
            hosts.together(lambda: 1 // 0)
        hosts.check_same("number", 1)
        assert hosts.is_first()
        assert hosts.count() == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("example.org", 2, 0), "neither HOST:PORT nor auto"),
        (("example.org:1", None, 0), "needs --processes and --process"),
        (("example.org:1", 2, 2), "--process=2 is not among --processes=2"),
        (("auto", 2, None), "go with --coordinator=HOST:PORT"),
        ((None, None, 1), "go with --coordinator=HOST:PORT"),
    ],
)
def test_flags_that_do_not_belong_together_are_named(arguments, message):
    with pytest.raises(ValueError, match=message), hosts.joined(*arguments):
        pass
