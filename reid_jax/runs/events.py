"""The files that TensorBoard reads, written without a library.

Such a file is a sequence of records; each is one `Event` of TensorFlow's `event.proto`, as bytes of
protocol buffers. tensorboardX would write them too, but it imports PyTorch if that is installed,
which takes longer than the import of JAX.
"""

import math
import os
import pathlib
import socket
import struct
import time
from collections.abc import Mapping

# The numbers of the fields in `event.proto` and `summary.proto`.
_WALL_TIME, _STEP, _FILE_VERSION, _SUMMARY, _SESSION_LOG = 1, 2, 3, 5, 7
_VALUE, _TAG, _SIMPLE_VALUE = 1, 1, 2
_STATUS, _START = 1, 1

# The largest float32.
_LARGEST = (2 - 2**-23) * 2.0**127


class EventsWriter:
    """One file of events. Every event is on disk once a method returns."""

    def __init__(self, folder: pathlib.Path, start: int):
        """Create the file.

        Args:
            folder: an existing folder. No file of another start is overwritten.
            start: the first step that this file reports. TensorBoard hides what files of earlier
                starts report from it on.
        """
        # TensorBoard recognises the name, and reads files in the order of their names.
        seconds, host = int(time.time()), socket.gethostname()
        name = f"events.out.tfevents.{seconds}.{host}.{time.time_ns()}"
        self._file = (folder / name).open("xb")
        self._write([_bytes(_FILE_VERSION, b"brain.Event:2")])
        session = _bytes(_SESSION_LOG, _integer(_STATUS, _START))
        self._write([_integer(_STEP, start) + session])

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Report numbers of one step, by tag."""
        self._write(
            [
                _integer(_STEP, step) + _bytes(_SUMMARY, _bytes(_VALUE, _value(tag, number)))
                for tag, number in scalars.items()
            ]
        )

    def _write(self, events: list[bytes]) -> None:
        for event in events:
            self._file.write(_record(_fixed(_WALL_TIME, "<d", time.time()) + event))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _value(tag: str, number: float) -> bytes:
    if math.isfinite(number) and abs(number) > _LARGEST:
        number = math.copysign(math.inf, number)
    return _bytes(_TAG, tag.encode()) + _fixed(_SIMPLE_VALUE, "<f", number)


def _varint(number: int) -> bytes:
    """A number from 0, in groups of 7 bits, the lowest first."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


def _integer(field: int, number: int) -> bytes:
    return _varint(field << 3) + _varint(number)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _fixed(field: int, layout: str, number: float) -> bytes:
    kind = 1 if struct.calcsize(layout) == 8 else 5
    return _varint(field << 3 | kind) + struct.pack(layout, number)


def _record(event: bytes) -> bytes:
    """TFRecord: the length and its checksum, the event and its checksum."""
    length = struct.pack("<Q", len(event))
    return length + _checksum(length) + event + _checksum(event)


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _crc_table()


def _checksum(content: bytes) -> bytes:
    """CRC-32C (Castagnoli), rotated and shifted as TFRecord's."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    rotated = crc >> 15 | crc << 17
    return struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)
