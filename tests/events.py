"""Reads what TensorBoard shows, without TensorBoard."""

import struct

from tensorboardX.proto.event_pb2 import Event, SessionLog


def shown(folder):
    """(tag, step, value) of a folder's event files, except those that a later start purged; sorted.

    The folder is one of `MetricsWriter`: the names of its files end with the time of their start.
    """
    points = []
    for path in sorted(folder.iterdir(), key=lambda path: int(path.suffix[1:])):
        data = path.read_bytes()
        while len(data) >= 12:  # A record: length, its checksum, the event, its checksum.
            (length,) = struct.unpack("<Q", data[:8])
            if len(data) < length + 16:
                break  # A kill truncated it.
            event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
            if event.session_log.status == SessionLog.START:
                points = [point for point in points if point[1] < event.step]
            points += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
    return sorted(points)
