"""Shorten a log in place, keeping its inode, to its last lines behind one marker line.

The marker is written first, over the last of the lines that go; then whole blocks before it are
taken out. So the log never begins with a part of a line, where a stranger's text might stand.

Failure contract. On ext4 and XFS the blocks go in one step that is atomic for programs that append
(FALLOC_FL_COLLAPSE_RANGE, fallocate(2)): no line is lost, and a run killed before or after that
step leaves a log in which every unread line stands. Elsewhere the tail is copied to the front and
the file truncated once nothing new came; a line appended between the last look and the truncation
(microseconds, unless the machine is busy) is lost. While that goes on the log begins with a line
that says how far, and holds part of a line where the copy ends: it must not be read while it is
`half_copied`. `resume` goes on from there with the `PendingCut` that the state keeps.

Lines that were not read are never cut, nor is a log that was rotated since it was read. Programs
that don't append but keep their own place leave a hole behind the cut.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from sapd import errors, files
from sapd.reading.logfile import BLOCK
from sapd.reading.place import ANCHOR, Cursor, Position

MARKER = re.compile(rb"[^\n]* sapd\[\d+\]: log cut, \d+ lines removed *\n")
"""The line that a cut leaves at the head of a log."""

_LARGEST_BLOCK = 64 * 1024  # bytes; NFS names more, but takes no block out
_COLLAPSE_RANGE = 0x08  # linux/falloc.h
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


class PendingCut(NamedTuple):
    """What must be known of a cut before it begins, so that `resume` can finish it.

    `after` is the place up to which the log was read, as it is once the cut is done.
    """

    after: Cursor
    marker: bytes


class Cut(NamedTuple):
    """A cut that is due: `removed` and `kept` count lines, `after` is the position behind it.

    `shift` bytes, whole blocks, are taken out at the head; what is left of the lines that go is
    overwritten by `marker`. `before` is the place up to which the log was read.
    """

    removed: int
    kept: int
    shift: int
    marker: bytes
    before: Cursor
    after: Position

    @property
    def pending(self) -> PendingCut:
        """What the state must keep until the cut is done."""
        return PendingCut(self.after.here, self.marker)


def counted(fd: int, position: Position) -> Position:
    """The position with its number of lines, counted if it is not known. Raises OSError."""
    if position.lines is not None:
        return position
    return position._replace(lines=_count_lines(fd, 0, position.here.offset))


def plan(
    fd: int,
    position: Position,
    keep_lines: int,
    cut_above: int,
    stamp_like: Callable[[bytes], bytes],
    safe_start: Callable[[Iterator[bytes]], int] | None = None,
) -> Cut | None:
    """The cut that the log open on `fd`, read up to a counted `position`, needs; None if none.

    It is due when more than `cut_above` lines were read. A marker of an earlier cut goes, and
    counts for nothing. `stamp_like` gives the new marker's stamp, like that of the line it gets.
    `safe_start` says of the lines that go where the log may begin at the latest. Raises OSError.
    """
    here = position.here
    if not _stands(fd, here):
        return None
    old_marker = MARKER.match(os.pread(fd, BLOCK, 0)) is not None
    read = (position.lines or 0) - old_marker
    if read <= cut_above:
        return None
    unread = _count_lines(fd, here.offset, None)
    removed = min(read + unread - keep_lines, read)
    point = _end_of_line(fd, removed + old_marker)
    if point > here.offset:  # there never were so many lines
        position = counted(fd, position._replace(lines=None))
        return plan(fd, position, keep_lines, cut_above, stamp_like, safe_start)
    if safe_start is not None and (last := safe_start(_blocks(fd, point))) < point:
        removed, point = _count_lines(fd, 0, last) - old_marker, last
        if removed <= 0:
            return None
    return _cut_at(fd, position, point, (read, unread, removed), stamp_like)


def _cut_at(
    fd: int,
    position: Position,
    point: int,
    lines: tuple[int, int, int],
    stamp_like: Callable[[bytes], bytes],
) -> Cut | None:
    """The cut of the bytes before `point`; None if they leave no room for a marker.

    `lines` are the lines that were read, those that were not, and of the former those that go.
    """
    here, (read, unread, removed) = position.here, lines
    marker = b"%s %s sapd[%d]: log cut, %d lines removed" % (
        stamp_like(os.pread(fd, 64, point)),
        os.uname().nodename.encode("ascii", "replace"),
        os.getpid(),
        removed,
    )
    if point <= len(marker):
        return None
    block = min(os.fstatvfs(fd).f_frsize, _LARGEST_BLOCK)
    shift = (point - len(marker) - 1) // block * block
    marker = marker.ljust(point - shift - 1) + b"\n"
    anchored = here.offset - len(here.anchor)
    kept_bytes = os.pread(fd, ANCHOR, max(point, anchored))[: here.offset - point]
    after = Position(
        here=Cursor(here.offset - shift, (marker + kept_bytes)[-ANCHOR:]),
        rotated=position.rotated,
        lines=read - removed + 1,
    )
    return Cut(removed, read + unread - removed, shift, marker, here, after)


def perform(fd: int, cut: Cut) -> bool:
    """Cut the log open on `fd`; False if it was rotated meanwhile.

    Raises OSError, and leaves it to `resume` to go on.
    """
    if not _stands(fd, cut.before):
        return False
    files.write_all(fd, cut.marker, cut.shift)
    return _finish(fd, cut.marker, cut.shift)


def _stands(fd: int, here: Cursor) -> bool:
    """Whether the log still holds what was read; not if it was copied and truncated."""
    return os.pread(fd, len(here.anchor), here.offset - len(here.anchor)) == here.anchor


def _finish(fd: int, marker: bytes, shift: int) -> bool:
    """Go on with a cut that was begun; False if the log open on `fd` is not one with its marker.

    Raises OSError, and can then be called again.
    """
    head = os.pread(fd, len(marker), 0)
    if head == marker:
        return True
    copied = _copied(head, marker)
    if copied is None:
        if os.pread(fd, len(marker), shift) != marker:
            return False
        if _collapse(fd, shift):
            return True
        copied = len(marker)
    _copy_down(fd, marker, shift, copied)
    return True


def cut_log(
    path: str,
    position: Position,
    plan_of: Callable[[int, Position], Cut | None],
    begin: Callable[[PendingCut], bool],
    *,
    dry: bool,
) -> tuple[Position, Cut | None]:
    """Cut a log that was read up to `position`, if it needs it; the counted position, and the cut.

    `plan_of` is `plan` with its settings. `begin` saves the intent; where it can't, or the log was
    rotated meanwhile, nothing is cut. With `dry` nothing is written, and the cut is what would be
    done. Raises OSError, also FileNotFoundError, and `SapdError`.
    """
    fd = files.open_in_place(path, writing=not dry)
    try:
        position = counted(fd, position)
        planned = plan_of(fd, position)
        if planned is None or dry or (begin(planned.pending) and perform(fd, planned)):
            return position, planned
        return position, None
    finally:
        os.close(fd)


def resume(path: str, position: Position, pending: PendingCut, *, dry: bool = False) -> Position:
    """Finish a cut that an earlier run began; return the position that holds now.

    A cut that can't be finished but has not damaged anything is no problem: it is planned anew, and
    the lines are counted anew, of which half a marker may have taken some. One that left the log
    half copied, which must then not be read, raises OSError or `SapdError`. With `dry` nothing is
    written.
    """
    done, not_done = Position(pending.after, position.rotated), position._replace(lines=None)
    try:
        if not dry:
            fd = files.open_in_place(path, writing=True)
            try:
                shift = position.here.offset - pending.after.offset
                return done if _finish(fd, pending.marker, shift) else not_done
            finally:
                os.close(fd)
    except (OSError, errors.SapdError):
        if half_copied(path, pending.marker):
            raise
    return done if _is_done(path, pending) else not_done


def _is_done(path: str, pending: PendingCut) -> bool:
    with _looking_at(path) as fd:
        return fd is not None and pending.after.proves and _stands(fd, pending.after)


def half_copied(path: str, marker: bytes) -> bool:
    """Whether the log was not wholly copied to its front by the cut with this marker."""
    with _looking_at(path) as fd:
        return fd is not None and _copied(os.pread(fd, len(marker), 0), marker) is not None


@contextmanager
def _looking_at(path: str) -> Iterator[int | None]:
    """The file, open for reading; None if it can't be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield fd if stat.S_ISREG(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def shorten(fd: int, keep_lines: int, cut_above: int, stamp: bytes) -> None:
    """Cut a file that nobody else writes to, open on `fd`, if it has more than `cut_above` lines.

    The marker begins with `stamp`. Raises OSError.
    """
    end = os.fstat(fd).st_size
    anchor = os.pread(fd, ANCHOR, max(end - ANCHOR, 0))
    position = counted(fd, Position(Cursor(end, anchor)))
    planned = plan(fd, position, keep_lines, cut_above, lambda _: stamp)
    if planned is not None:
        perform(fd, planned)


def _collapse(fd: int, length: int) -> bool:
    """Take `length` bytes out at the head of the file; False where the system can't."""
    try:
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
        # glibc's takes 64 bits everywhere; musl's has no other name; the BSDs have neither.
        fallocate = getattr(library, "fallocate64", None) or library.fallocate
    except (ImportError, OSError, AttributeError):
        return False
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    while fallocate(fd, _COLLAPSE_RANGE, 0, length) != 0:
        number = ctypes.get_errno()
        if number in _UNSUPPORTED:
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return True


def _copy_down(fd: int, marker: bytes, shift: int, copied: int) -> None:
    """Copy what stands `shift` bytes on to where the copy ends, until there is no more.

    At each step as little as leaves its source whole, so that it can be made again, and the bytes
    before that, by which one sees that the file was not truncated yet.
    """
    before = min(ANCHOR, copied - len(marker))
    stands = os.pread(fd, before, copied - before)
    if os.pread(fd, before, copied - before + shift) == stands:
        files.write_all(fd, _progress(marker, copied), 0)
        while data := os.pread(fd, min(BLOCK, shift - ANCHOR), copied + shift):
            files.write_all(fd, data, copied)
            copied += len(data)
            files.write_all(fd, _progress(marker, copied), 0)
        os.ftruncate(fd, copied)
    files.write_all(fd, marker, 0)


def _progress(marker: bytes, copied: int) -> bytes:
    """The line that stands in the marker's place until all is copied."""
    head = marker.partition(b"log cut, ")[0]
    return (head + b"cutting, %d" % copied).ljust(len(marker) - 1) + b"\n"


def _copied(head: bytes, marker: bytes) -> int | None:
    """How far was copied, by the head of the log; None if no copying was begun."""
    found = re.search(rb"cutting, (\d+)", head)
    copied = int(found[1]) if found else 0
    return copied if head == _progress(marker, copied) else None


def _count_lines(fd: int, start: int, stop: int | None) -> int:
    lines = 0
    while data := os.pread(fd, BLOCK if stop is None else min(BLOCK, stop - start), start):
        lines += data.count(b"\n")
        start += len(data)
    return lines


def _blocks(fd: int, stop: int) -> Iterator[bytes]:
    """The log up to an offset, in blocks of whole lines; a very long line may be divided."""
    start, rest = 0, b""
    while start < stop and (data := os.pread(fd, min(BLOCK, stop - start), start)):
        start += len(data)
        data = rest + data
        end = data.rfind(b"\n") + 1 or (len(data) if len(data) >= 2 * BLOCK else 0)
        rest = data[end:]
        if end:
            yield data[:end]
    if rest:
        yield rest


def _end_of_line(fd: int, number: int) -> int:
    """Offset behind the `number`th newline of the file."""
    start = 0
    while data := os.pread(fd, BLOCK, start):
        lines = data.count(b"\n")
        if lines >= number:
            at = -1
            for _ in range(number):
                at = data.index(b"\n", at + 1)
            return start + at + 1
        number -= lines
        start += len(data)
    return start
