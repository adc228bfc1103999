"""A log's reading and cutting by themselves, without a whole run."""

import os
import time
from pathlib import Path

from sapd import cut
from sapd.reading.maillog import Reading
from sapd.reading.place import Position
from sapd.timestamps import Clock, rfc3339

NOW = time.time()
STAMP = rfc3339(NOW).encode()


def line(number: int) -> bytes:
    return f"{rfc3339(NOW)} mx1 popper[42]: line {number:06d} {'x' * (number % 50)}\n".encode()


def read(log: Path, position: Position | None = None) -> tuple[bytes, Position]:
    """What is new in the log since `position`, and the position behind it."""
    reading = Reading(str(log), position, NOW - 1800, NOW - 1800, Clock(NOW), counting=True)
    text = b"".join(reading.blocks())
    assert reading.position is not None
    return text, reading.position


def shorten(log: Path, position: Position, keep: int, above: int | None = None) -> cut.Cut | None:
    fd = os.open(log, os.O_RDWR)
    try:
        position = cut.counted(fd, position)
        planned = cut.plan(fd, position, keep, keep if above is None else above, lambda _: STAMP)
        if planned is not None:
            cut.perform(fd, planned)
        return planned
    finally:
        os.close(fd)
