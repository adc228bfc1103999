"""A log's lines for a person who looks at it: all of a file, or the last ones; packed or not."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import IO

from sapd import errors
from sapd.reading import logfile

LAST = 10_000
"""Lines that are shown of a log that nobody named."""

_MAGIC = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".xz": b"\xfd7zXZ\0", ".zst": b"\x28\xb5\x2f\xfd"}
_BLOCK = 256 * 1024  # bytes
_LONG = 1024 * 1024  # bytes; the rest of a longer line is skipped


def lines(file: str, progress: Callable[[int], object] | None = None) -> Iterator[bytes]:
    """The lines of a file, or of standard input for `-`, each with a newline.

    `progress` is told now and then how many bytes of the file are read. Raises `SapdError` 66.
    """
    broken: tuple[type[Exception], ...] = (OSError,)
    try:
        if file == "-":
            yield from _lines(sys.stdin.buffer)
            return
        with ExitStack() as opened:
            packed = opened.enter_context(open(file, "rb"))
            log: IO[bytes] | io.BufferedIOBase = packed
            kind = next((end for end in logfile.COMPRESSED if file.endswith(end)), "")
            if kind := kind or _compression(packed):
                unpacked, broken = logfile.unpacking(kind, packed)
                log = opened.enter_context(unpacked)
            told = 0
            for line in _lines(log):
                yield line
                if progress is not None and packed.tell() - told > _BLOCK:
                    told = packed.tell()
                    progress(told)
            if progress is not None:
                progress(packed.tell())
    except broken as error:
        raise _unreadable(file, error) from None


def _compression(file: io.BufferedReader) -> str:
    """How a file is compressed by its first bytes, as the end of a name; empty if it is not."""
    head = file.peek(6)
    return next((end for end, magic in _MAGIC.items() if head.startswith(magic)), "")


def last_lines(file: str) -> Iterator[bytes]:
    """The last `LAST` lines of a log. Raises `SapdError` 66."""
    try:
        with open(file, "rb") as log:
            log.seek(_start_of_last_lines(log))
            yield from _lines(log)
    except OSError as error:
        raise _unreadable(file, error) from None


def _lines(file: IO[bytes] | io.BufferedIOBase) -> Iterator[bytes]:
    """The lines of an open file, each with a newline; a very long one loses its end."""
    while line := file.readline(_LONG):
        head = line
        while line and not line.endswith(b"\n"):
            line = file.readline(_LONG)
        yield head if head.endswith(b"\n") else head + b"\n"


def _start_of_last_lines(log: IO[bytes]) -> int:
    stop = log.seek(0, io.SEEK_END)
    log.seek(max(0, stop - 1))
    found = -1 if log.read(1) == b"\n" else 0  # a newline at the end begins no line
    while stop > 0:
        start = max(0, stop - _BLOCK)
        log.seek(start)
        block = log.read(stop - start)
        found += block.count(b"\n")
        if found >= LAST:
            at = -1
            for _ in range(found - LAST + 1):
                at = block.index(b"\n", at + 1)
            return start + at + 1
        stop = start
    return 0


def _unreadable(file: str, error: Exception) -> errors.SapdError:
    reason = getattr(error, "strerror", None) or str(error)
    return errors.SapdError(errors.LOG_UNREADABLE, file, f"can't be read: {reason}")
