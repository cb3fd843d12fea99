"""What TensorBoard shows, read without it."""

import struct

from tensorboardX.proto.event_pb2 import Event, SessionLog


def shown(folder):
    """(tag, step, value) of a folder's event files, less what a later start has purged; sorted.

    A folder as `MetricsWriter` leaves it: the names of the files end with the time of their start.
    """
    points = []
    for path in sorted(folder.iterdir(), key=lambda path: int(path.suffix[1:])):
        data = path.read_bytes()
        while len(data) >= 12:  # A record: length, its checksum, the event, its checksum.
            (length,) = struct.unpack("<Q", data[:8])
            if len(data) < length + 16:
                break  # A kill cut it off.
            event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
            if event.session_log.status == SessionLog.START:
                points = [point for point in points if point[1] < event.step]
            points += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
    return sorted(points)
