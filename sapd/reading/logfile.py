"""One file of a log, plain or compressed, as bytes: opened without waiting, and only read.

Anything may happen to it meanwhile: a plain file may be truncated and grow again (`still_holds`),
have holes (`behind_hole`), or lose its name; a compressed one may end anywhere.
"""

import errno
import io
import os
import stat
import time
import zlib
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import IO

from sapd.reading.place import ANCHOR, Cursor

BLOCK = 128 * 1024
"""Bytes that are read at once; what a processor's cache holds is read a fifth faster."""

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")

_MOST_UNPACKED = 64 * 1024 * 1024  # bytes of a compressed file that are read to find its end
_STRIDE = 64 * 1024


class OutOfTime(Exception):  # noqa: N818 -- not an error: the next pass goes on
    """Reading takes too long for one pass."""


class Unreadable(OSError):  # noqa: N818 -- a state of affairs
    """A file that this system can't unpack."""


class File:
    """What is common to all; what a plain file does better, `Plain` does in its own way."""

    def seek(self, offset: int) -> None:
        """Go to an offset."""
        raise NotImplementedError

    def read(self, size: int) -> bytes:
        """At most so many bytes; none at the end."""
        raise NotImplementedError

    def size(self) -> int:
        """Bytes in the file; of a compressed one no more than 64 MB are looked at."""
        self.seek(0)
        size = 0
        while size < _MOST_UNPACKED and (data := self.read(BLOCK)):
            size += len(data)
        return size

    def bytes_at(self, offset: int, length: int) -> bytes:
        """The bytes there; fewer at the end."""
        self.seek(offset)
        found = b""
        while len(found) < length and (data := self.read(length - len(found))):
            found += data
        return found

    def cursor_at(self, offset: int) -> Cursor:
        """The place at an offset."""
        length = min(offset, ANCHOR)
        return Cursor(offset, self.bytes_at(offset - length, length))

    def holds(self, cursor: Cursor) -> bool:
        """Whether the anchor's bytes stand before the cursor's offset."""
        length = len(cursor.anchor)
        return self.bytes_at(cursor.offset - length, length) == cursor.anchor

    def still_holds(self, cursor: Cursor) -> bool:
        """The same while reading, which stays where it is; a compressed file does not change."""
        return True

    def behind_hole(self, offset: int) -> int:
        """Where the next data begin, if the file has a hole at an offset, and go there.

        Else the offset, and the file stays where it was: zeros that were written are data.
        """
        return offset


class Plain(File):
    """A file that can be read anywhere; `file` gives it, open."""

    def __init__(self, file: Callable[[], io.FileIO]) -> None:
        """Read nothing yet."""
        self._file = file

    def about(self) -> os.stat_result:
        """Its size and times as they are now."""
        return os.fstat(self._file().fileno())

    def seek(self, offset: int) -> None:
        """See `File`."""
        self._file().seek(offset)

    def read(self, size: int) -> bytes:
        """See `File`."""
        return self._file().read(size)

    def size(self) -> int:
        """See `File`."""
        return self.about().st_size

    def bytes_at(self, offset: int, length: int) -> bytes:
        """See `File`; reading goes on where it was."""
        return os.pread(self._file().fileno(), length, offset)

    def holds(self, cursor: Cursor) -> bool:
        """See `File`."""
        return self.size() >= cursor.offset and super().holds(cursor)

    def still_holds(self, cursor: Cursor) -> bool:
        """See `File`."""
        return super().holds(cursor)

    def behind_hole(self, offset: int) -> int:
        """See `File`."""
        fd = self._file().fileno()
        here = os.lseek(fd, 0, os.SEEK_CUR)
        try:
            after = os.lseek(fd, offset, os.SEEK_DATA)
        except (AttributeError, OSError) as error:  # not every system, or there are no more data
            after = self.size() if getattr(error, "errno", 0) == errno.ENXIO else offset
        os.lseek(fd, after if after > offset else here, os.SEEK_SET)
        return after

    def before_hole(self, stop: int) -> int:
        """Where the hole begins that ends at `stop` or behind it, to within 64 KB; else `stop`."""
        start, step = stop, _STRIDE
        while start > 0 and step >= _STRIDE:
            before = max(0, start - step)
            if self._is_hole(before, stop):
                start, step = before, step * 2
            else:
                step //= 4
        return start

    def _is_hole(self, start: int, stop: int) -> bool:
        try:
            return os.lseek(self._file().fileno(), start, os.SEEK_DATA) >= stop
        except (AttributeError, OSError) as error:
            return getattr(error, "errno", 0) == errno.ENXIO


class Packed(File):
    """A compressed file; it ends where it is damaged, or still being written.

    After `deadline` (monotonic seconds) reading raises `OutOfTime`.
    """

    def __init__(self, kind: str, packed: io.FileIO, deadline: float, opened: ExitStack) -> None:
        """`kind` is one of `COMPRESSED`; raises `Unreadable` if it can't be unpacked here."""
        self._deadline = deadline
        file, self._broken = unpacking(kind, packed)
        self._file = opened.enter_context(file)

    def seek(self, offset: int) -> None:
        """See `File`; takes as long as reading up to there does."""
        with suppress(*self._broken):
            if offset < self._file.tell():
                self._file.seek(0)
        while (left := offset - self._file.tell()) > 0 and self.read(min(left, BLOCK)):
            continue

    def read(self, size: int) -> bytes:
        """See `File`."""
        if time.monotonic() > self._deadline:
            raise OutOfTime
        try:
            return self._file.read(size)
        except self._broken:
            return b""


def unpacking(
    path: str, packed: IO[bytes]
) -> tuple[io.BufferedIOBase, tuple[type[Exception], ...]]:
    """What reads a compressed file, and what it raises where that is damaged or ends too early.

    The end of `path` is one of `COMPRESSED`. Raises `Unreadable` if it can't be unpacked here.
    """
    broken: tuple[type[Exception], ...] = (EOFError, OSError, zlib.error)
    if path.endswith(".gz"):
        from gzip import GzipFile

        return GzipFile(fileobj=packed), broken
    if path.endswith(".bz2"):
        from bz2 import BZ2File

        return BZ2File(packed), broken
    if path.endswith(".zst"):
        from sapd.reading import zstd

        found = zstd.opened(packed)
        if found is None:
            raise Unreadable(0, "it is compressed by zstd, which is not installed")
        return found[0], (*broken, found[1])
    from lzma import LZMAError, LZMAFile

    return LZMAFile(packed), (*broken, LZMAError)


def open_log(path: str, opened: ExitStack) -> Plain | None:
    """A log, open; None if there is none. Raises OSError if it is not a file."""
    try:
        file = opened.enter_context(io.FileIO(open_regular(path)))
    except FileNotFoundError:
        return None
    return Plain(lambda: file)


def open_regular(path: str) -> int:
    """Open for reading, without waiting; raises OSError if it is not a regular file."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    about = os.fstat(fd)
    if stat.S_ISREG(about.st_mode):
        return fd
    os.close(fd)
    if stat.S_ISDIR(about.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise OSError(errno.EINVAL, "it is not a regular file")
