"""The bytes of event files, read by tensorboardX's protocol buffers and checksums."""

import math
import struct

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from reid_jax.runs.events import EventsWriter


def events(folder):
    """The events of the only file of a folder, whose checksums must be right."""
    (path,) = folder.iterdir()
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = data[12 : 12 + length]
        checksums = data[8:12] + data[12 + length : 16 + length]
        assert struct.unpack("<II", checksums) == (masked_crc32c(data[:8]), masked_crc32c(event))
        yield Event.FromString(event)
        data = data[16 + length :]


@pytest.mark.parametrize("step", [0, 1, 127, 128, 2**31, 2**40])
def test_a_file_as_other_readers_see_it(tmp_path, step):
    writer = EventsWriter(tmp_path, step)
    writer.write(step, {"train/loss": 1.25, "eval/mAP Größe": -1 / 3})
    writer.write(step + 1, {"x" * 300: math.nan, "most": np.float32(3e38), "more": -1e39})
    version, start, *points = events(tmp_path)  # Before it is closed.
    writer.close()
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (step, SessionLog.START)
    assert all(event.wall_time == pytest.approx(version.wall_time, abs=60) for event in points)
    assert version.wall_time > 1.7e9
    found = [(event.step, v.tag, v.simple_value) for event in points for v in event.summary.value]
    assert found[:2] == [
        (step, "train/loss", 1.25),
        (step, "eval/mAP Größe", float(np.float32(-1 / 3))),
    ]
    assert [tag for _, tag, _ in found[2:]] == ["x" * 300, "most", "more"]
    assert [s for s, _, _ in found[2:]] == [step + 1] * 3
    np.testing.assert_array_equal(
        [value for *_, value in found[2:]], [math.nan, np.float32(3e38), -math.inf]
    )
