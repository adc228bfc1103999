"""The log as bytes: continue where the last run stopped, follow rotation, hand over whole lines.

The cursor is content, not an inode: an offset, and the *anchor*, up to 256 bytes before it.
Whatever happened to the log (renamed, copied and truncated, cut by another program, removed and
created again with the same inode), those bytes are looked for: at the offset, in the rotated
neighbours, then anywhere in the log. If they are not found, the log is read again from the edge of
the window: merging a line twice changes nothing, and missing one shuts somebody out. But a stamp
without a year may be dated differently the second time (a year later, or in the hour that daylight
saving repeats), so this is for doubt, not for every minute.

Memory stays bounded by the block, whatever the length of the log or of a line.
"""

import errno
import io
import os
import re
import stat
import time
import zlib
from collections.abc import Collection, Generator, Iterator
from contextlib import ExitStack, suppress
from math import inf
from typing import IO, NamedTuple

from sapd import errors
from sapd.timestamps import Clock, yearless

ANCHOR = 256
"""Bytes kept before the offset."""

BLOCK = 128 * 1024  # bytes; what a processor's cache holds is read a fifth faster
LATE = 3900
"""Seconds before the window's edge where a first run begins: an hour, which daylight saving may
repeat or a relay may be late, and five minutes."""

BUDGET = 20.0
"""Seconds that reading may take in one pass; a gigabyte of plain log fits."""

_COMPRESSED = (".gz", ".bz2", ".xz")
_MOST_STALLS = 3  # passes that get no further with a compressed file
_MOST_OPEN = 100  # rotated files
_MOST_NOTED = 8  # rotated files whose changes show at once
_ROTATED = re.compile(r"[.-](\d[\dT:_.-]*|old)(\.(gz|bz2|xz))?")
_LEAST = 16 * 1024 * 1024  # bytes that a first run reads, however old they look
_FINE = 1024 * 1024  # bytes at the end where every line's stamp is looked at ...
_COARSE = 40  # ... and before that, one line in so many
_STRIDE = 64 * 1024
_MONTH = 30 * 86400
_LEAD = 1024 * 1024  # bytes before the place where reading begins that are looked at
_MOST_UNPACKED = 64 * 1024 * 1024  # bytes of a compressed file that are read to find its end
_LONG = 1024 * 1024  # bytes; the rest of a longer line is skipped


class Cursor(NamedTuple):
    """A place in a log: the offset in bytes, and the bytes before it (at most `ANCHOR`)."""

    offset: int
    anchor: bytes

    @property
    def proves(self) -> bool:
        """Whether the anchor is enough to tell this place: it is full, or all there was."""
        return len(self.anchor) >= ANCHOR or 0 < self.offset == len(self.anchor)


START = Cursor(0, b"")


class Position(NamedTuple):
    """How far a log was read.

    `here` is in the log itself, or where reading ran out of time in a rotated file. `rotated` is
    the end of what was read in the file that was rotated away last; None if there is none, or
    nothing more can be written to it. `lines` is the number of lines before `here`, None if
    unknown. `stalls` counts the passes in a row that ran out of time without getting any further.
    """

    here: Cursor = START
    rotated: Cursor | None = None
    lines: int | None = None
    stalls: int = 0


class _Rotating(Exception):  # noqa: N818 -- not an error: look again
    """A neighbour was renamed between listing and opening it."""


class _OutOfTime(Exception):  # noqa: N818 -- not an error: the next pass goes on
    """Reading takes too long for one pass."""


class _Unpacked:
    """A compressed file; it ends where it is damaged, or still being written.

    After `deadline` (monotonic seconds) reading raises `_OutOfTime`.
    """

    def __init__(self, path: str, packed: io.FileIO, deadline: float, opened: ExitStack) -> None:
        self._deadline = deadline
        self._broken: tuple[type[Exception], ...] = (EOFError, OSError, zlib.error)
        file: io.BufferedIOBase
        if path.endswith(".gz"):
            from gzip import GzipFile

            file = GzipFile(fileobj=packed)
        elif path.endswith(".bz2"):
            from bz2 import BZ2File

            file = BZ2File(packed)
        else:
            from lzma import LZMAError, LZMAFile

            file = LZMAFile(packed)  # noqa: SIM115 -- `opened` closes it
            self._broken += (LZMAError,)
        self._file = opened.enter_context(file)

    def seek(self, offset: int) -> None:
        """Go to an offset, which takes as long as reading up to there does."""
        with suppress(*self._broken):
            if offset < self._file.tell():
                self._file.seek(0)
        while (left := offset - self._file.tell()) > 0 and self.read(min(left, BLOCK)):
            continue

    def read(self, size: int) -> bytes:
        if time.monotonic() > self._deadline:
            raise _OutOfTime
        try:
            return self._file.read(size)
        except self._broken:
            return b""


class _Plain:
    """A rotated file that is not compressed, closed when many others were used since."""

    def __init__(self, path: str, opened: "_Opened") -> None:
        self._path = path
        self._opened = opened
        self._about = os.fstat(opened.file(path).fileno())

    def _file(self) -> io.FileIO:
        file = self._opened.file(self._path)
        if not os.path.samestat(os.fstat(file.fileno()), self._about):
            raise _Rotating
        return file

    def fileno(self) -> int:
        return self._file().fileno()

    def seek(self, offset: int) -> None:
        self._file().seek(offset)

    def read(self, size: int) -> bytes:
        return self._file().read(size)


class _Opened:
    """Open files by their paths, the latest used; a log may have more neighbours than a process."""

    def __init__(self, stack: ExitStack) -> None:
        self._files: dict[str, io.FileIO] = {}
        stack.callback(self._close)

    def file(self, path: str) -> io.FileIO:
        """Raises FileNotFoundError, and OSError if it is not a regular file."""
        file = self._files.pop(path, None)
        if file is None:
            file = io.FileIO(_open_regular(path))
        self._files[path] = file
        if len(self._files) > _MOST_OPEN:
            self._files.pop(next(iter(self._files))).close()
        return file

    def _close(self) -> None:
        for file in self._files.values():
            file.close()


_PlainFile = io.FileIO | _Plain
_File = _PlainFile | _Unpacked


class _Segment(NamedTuple):
    """A file, and the place to read it from; `lines` as in `Position`."""

    file: _File
    start: Cursor
    lines: int | None = None
    current: bool = False


class Reading:
    """What is new in a log since `position`: iterate `blocks()`, then take `position`.

    No login before `edge` (UTC epoch seconds) matters, and no file last changed before
    `modified_since` holds one that does. `others` are paths never taken for rotated files of this
    log. `bytes_read` is counted; `lines_read` and the position's lines only with `counting`, which
    takes as long as all the rest.

    After `deadline` (seconds of `time.monotonic`) it ends where it is, `unfinished`, and the next
    one goes on from there. A compressed file has to be unpacked from its beginning each time: one
    that several passes got no further with is `given_up`, and left out.

    Known with the first block: `anew` says that reading begins at the edge, so lines before it may
    never have been read; `lead` is then what stands before it, whole lines in the same file or at
    the end of the one rotated before. Known with each block: `at_head` says that it is the
    beginning of a file.
    """

    def __init__(
        self,
        path: str,
        position: Position | None,
        edge: float,
        modified_since: float,
        clock: Clock,
        others: Collection[str] = (),
        *,
        counting: bool = False,
        deadline: float = inf,
    ) -> None:
        """Open nothing yet; a `position` of None means a first run."""
        self._deadline = deadline
        self.unfinished = False
        self.given_up = ""
        self.path = path
        self._others = {os.path.realpath(other) for other in others}
        self.position = position
        self.bytes_read = 0
        self.lines_read = 0
        self._counting = counting
        self._edge = edge - LATE
        self._modified_since = modified_since - LATE
        self._clock = clock
        self._late_are_read = False
        self.anew = False
        self.at_head = False
        self.lead = b""

    def blocks(self) -> Iterator[bytes]:
        """Yield the new lines in order, in blocks of whole lines.

        Only the last block of a rotated file may end without a newline. Raises `SapdError` 66 if
        the log can't be read; the position then stays as it was.
        """
        late = self.position.rotated if self.position else None
        here, lines = START, None
        with ExitStack() as opened:
            try:
                for segment in self._plan(opened):
                    cursor, count = yield from self._read(segment)
                    if segment.current:
                        here, lines = cursor, count
                    elif cursor.offset:  # an empty file's end would be found in every file
                        late = cursor
                    if self.unfinished and not segment.current:
                        self.position = self._stopped_at(cursor)
                        return
            except _OutOfTime:
                self.unfinished = True
                self.position = self._stopped_at(None)
                return
            except OSError as error:
                reason = f"can't be read: {error.strerror or error}"
                raise errors.SapdError(errors.LOG_UNREADABLE, self.path, reason) from None
        if here.proves and self._late_are_read:
            late = None  # it would have to be unpacked each time
        self.position = Position(here, late, lines)

    def _stopped_at(self, cursor: Cursor | None) -> Position:
        """The position where reading ran out of time in a rotated file, or before it began."""
        was = self.position or Position()
        if cursor is None or not cursor.proves or cursor == was.here:
            return was._replace(stalls=was.stalls + 1)
        return Position(cursor)

    def _plan(self, opened: ExitStack) -> list[_Segment]:
        for _ in range(5):
            try:
                return self._segments(_open_log(self.path, opened), opened)
            except _Rotating:
                continue
        raise OSError(errno.EBUSY, "its rotated files keep changing names")

    def _segments(self, log: io.FileIO | None, opened: ExitStack) -> list[_Segment]:
        stalled = self.position is not None and self.position.stalls >= _MOST_STALLS
        rotated = _Neighbours(
            self.path, self._modified_since, self._others, opened, self._deadline, stalled
        )
        self.given_up = rotated.newest_compressed if stalled else ""
        self._late_are_read = rotated.newest_is_compressed
        was = self.position
        if log is None:
            segments = _after_rotation(was, rotated) or self._from_edge(None, rotated)
            if not segments:
                raise FileNotFoundError(errno.ENOENT, "no such file; does the POP server log here?")
            return segments
        if was is None or was == Position(stalls=was.stalls):
            return self._from_edge(log, rotated)
        if was.here.proves and _holds(log, was.here):
            return [*_late(was, rotated), _Segment(log, was.here, was.lines, current=True)]
        if segments := _after_rotation(was, rotated):
            if len(segments) == 1 and not was.here.proves and _holds(log, was.here):
                return [*segments, _Segment(log, was.here, was.lines, current=True)]
            return [*segments, _Segment(log, START, 0, current=True)]
        if was.here.proves and (found := _search(log, was.here.anchor)) is not None:
            return [_Segment(log, found, None, current=True)]
        return self._from_edge(log, rotated)

    def _from_edge(self, log: io.FileIO | None, rotated: "_Neighbours") -> list[_Segment]:
        """The log from the window's edge on, and its neighbours if it begins inside the window."""
        self.anew = True
        segments: list[_Segment] = []
        older, oldest = True, None
        if log is not None:
            if os.fstat(log.fileno()).st_mtime >= self._modified_since:
                start, older = self._window_start(log)
            else:
                start, older = _last_newline(log), False
            segments = [_Segment(log, start, None if start.offset else 0, current=True)]
        for place, file in rotated.newest_first() if older else ():
            start, older = self._window_start(file)
            segments.append(_Segment(file, start))
            oldest = place
            if not older:
                break
        if segments:
            self.lead = self._lead(segments[-1], oldest, rotated)
        return segments[::-1]

    def _lead(self, segment: _Segment, place: "_Neighbour | None", rotated: "_Neighbours") -> bytes:
        """What stands before a segment, which is a rotated file if there is a `place`."""
        if segment.start.offset:
            return _last_lines(segment.file, segment.start.offset)
        older = rotated.before(place)
        return b"" if older is None else _last_lines(older, _size(older))

    def _window_start(self, file: _File) -> tuple[Cursor, bool]:
        """Where to begin in a file, and whether older files may matter, too.

        Walks back until three stamps in a row lie before the edge, and at least 16 MB: late lines
        and clocks that were set put old stamps among new ones. It stops sooner once it has passed
        the months before, because a stamp without a year that looks fresh is a year old there.
        """
        if isinstance(file, _Unpacked):
            return self._past_last_year(file)
        old, months = 0, _Months(self._edge)
        size = os.fstat(file.fileno()).st_size
        later = size
        for offset, line in _line_starts_backwards(file, size):
            stamp = self._clock.of_line(line)
            if stamp is None:
                continue
            if stamp >= self._edge and yearless(line) and months.all_passed:
                return _cursor_at(file, later), False  # this line is a year old
            old, later = old + 1 if stamp < self._edge else 0, offset
            months.note(stamp, yearless(line))
            if old >= 3 and (size - offset >= _LEAST or months.all_passed):
                return _cursor_at(file, offset), False
        return START, self._begins_inside(file)

    def _past_last_year(self, file: _Unpacked) -> tuple[Cursor, bool]:
        """The same for a file that can only be read forwards: begin behind last year's lines."""
        months = _Months(self._edge)
        offset, start = 0, 0
        file.seek(0)
        while data := file.read(BLOCK):
            for found in re.finditer(rb"^.{1,64}", data, re.MULTILINE):
                stamp = self._clock.of_line(found[0])
                if stamp is not None:
                    months.note(stamp, yearless(found[0]))
                if months.all_passed:
                    start = offset + found.start()
            offset += len(data)
        if start:
            return _cursor_at(file, start), False
        return START, self._begins_inside(file)

    def _begins_inside(self, file: _File) -> bool:
        """Whether the window's edge lies before the file's first line, as far as one can tell."""
        file.seek(0)
        first = [self._clock.of_line(line) for line in file.read(4096).split(b"\n")]
        stamps = [stamp for stamp in first if stamp is not None][:3]
        return sum(stamp < self._edge for stamp in stamps) < 2

    def _read(self, segment: _Segment) -> Generator[bytes, None, tuple[Cursor, int | None]]:
        """Yield a file's lines from a place on; return the place behind the last whole line."""
        file, lines = segment.file, segment.lines if self._counting else None
        consumed, anchor = segment.start
        position = consumed
        rest, skipping = b"", False
        tail = anchor
        file.seek(position)
        self.at_head = position == 0
        while data := file.read(BLOCK):
            if not _still_holds(file, Cursor(position, tail)):
                break  # truncated and regrown meanwhile: the next run finds out how
            if time.monotonic() > self._deadline and self.bytes_read:
                self.unfinished = True  # each pass gets at least a block further
                break
            if not data.strip(b"\0") and (after := _behind_hole(file, position)) > position:
                tail = (tail + bytes(min(ANCHOR, after - position)))[-ANCHOR:]
                rest = rest and rest + b"\0"  # so that both halves of a line stay apart
                position = after
                continue
            self.bytes_read += len(data)
            position += len(data)
            end = data.rfind(b"\n") + 1
            if end:
                anchor = (tail + data[max(0, end - ANCHOR) : end])[-ANCHOR:]
            tail = (tail + data[-ANCHOR:])[-ANCHOR:]
            if not end:
                rest = (rest + data).lstrip(b"\0")
                if len(rest) > _LONG:
                    rest, skipping = rest[-ANCHOR:], True
                continue
            block = rest + data[:end]
            rest = data[end:]
            consumed = position - len(rest)
            if self._counting:
                newlines = block.count(b"\n")
                self.lines_read += newlines
                lines = None if lines is None else lines + newlines
            if skipping:
                block, skipping = block[block.find(b"\n") + 1 :], False
            yield block
            self.at_head = False
        if rest and not segment.current and not skipping and not self.unfinished:
            yield rest
        return Cursor(consumed, anchor), lines


def lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of an open file, each with a newline; a very long one loses its end."""
    while line := file.readline(_LONG):
        head = line
        while line and not line.endswith(b"\n"):
            line = file.readline(_LONG)
        yield head if head.endswith(b"\n") else head + b"\n"


class _Months:
    """Whether consecutive lines without a year run through the months back to a year ago.

    The lines of a dead clock all have one date, so they do not.
    """

    def __init__(self, edge: float) -> None:
        self._edge = edge
        self._seen: set[int] = set()

    def note(self, stamp: float, yearless: bool) -> None:
        if stamp >= self._edge or not yearless:
            self._seen.clear()
        else:
            self._seen.add(int((self._edge - stamp) // _MONTH))

    @property
    def all_passed(self) -> bool:
        """At least one of them is half a year ago, and two months lie between two of them."""
        return max(self._seen, default=0) >= 6 and max(self._seen) - min(self._seen) >= 2


def looked_at(path: str) -> list[str]:
    """Every path that reading this log depends on: its own, its folders', its neighbours'.

    Of the neighbours the newest, by name: to older ones nothing that matters is written any more,
    and a new one changes its folder.
    """
    folders = map(os.path.dirname, _names(path))
    rotated = sorted(_rotated(path), key=lambda found: _age(found[1]))[:_MOST_NOTED]
    return [path, *folders, *(entry.path for entry, _ in rotated)]


def _names(path: str) -> set[str]:
    """A log's own path, and if it is a link, that of its target."""
    folder, name = os.path.split(path)
    return {os.path.realpath(path), os.path.join(os.path.realpath(folder), name)}


def _rotated(path: str) -> list[tuple[os.DirEntry[str], str]]:
    """What stands beside a log under a rotated log's name, with the suffix."""
    itself = os.path.realpath(path)
    found = []
    for folder, name in map(os.path.split, _names(path)):
        with suppress(OSError):
            for entry in os.scandir(folder):
                suffix = entry.name.removeprefix(name)
                if suffix != entry.name and _ROTATED.fullmatch(suffix) and entry.path != itself:
                    found.append((entry, suffix))
    return found


class _Neighbour(NamedTuple):
    """A rotated file: its path, its mtime (ns), and its place in the order of names."""

    path: str
    changed: int
    age: int


class _Neighbours:
    """The rotated files of a log (`LOG.1`, `LOG-20261122.gz` …), opened when asked for."""

    def __init__(
        self,
        path: str,
        modified_since: float,
        others: Collection[str],
        opened: ExitStack,
        deadline: float,
        stalled: bool,
    ) -> None:
        """With `stalled` compressed files are left out."""
        self._stack = opened
        self._opened = _Opened(opened)
        self._deadline = deadline
        rotated = _rotated(path)
        paths = {entry.path for entry, _ in rotated}
        found: list[_Neighbour] = []
        for entry, suffix in rotated:
            stem, extension = os.path.splitext(entry.path)
            if entry.path in others or (extension in _COMPRESSED and stem in paths):
                continue  # being compressed right now: the plain file is whole
            try:
                about = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                raise _Rotating from None
            if stat.S_ISREG(about.st_mode):
                found.append(_Neighbour(entry.path, about.st_mtime_ns, _age(suffix)))
        ordered = sorted(found, key=lambda one: (one.age, -one.changed, one.path))
        compressed = [one.path for one in ordered if one.path.endswith(_COMPRESSED)]
        self.newest_compressed = next(iter(compressed), "")
        self._every = [one for one in ordered if not (stalled and one.path in compressed)]
        matters = [one for one in self._every if one.changed >= modified_since * 1e9]
        self._found = matters
        self._files: dict[str, _File | None] = {}

    def newest_first(self) -> Iterator[tuple[_Neighbour, _File]]:
        for place in self._found:
            if (file := self._open(place.path)) is not None:
                yield place, file

    def before(self, place: _Neighbour | None) -> _File | None:
        """The next older file, whenever it was changed; the newest if `place` is None."""
        older = self._every if place is None else self._every[self._every.index(place) + 1 :]
        return next((file for one in older if (file := self._open(one.path)) is not None), None)

    @property
    def newest_is_compressed(self) -> bool:
        """Whether nothing more will be written to the newest of them."""
        return bool(self._found) and self._found[0].path.endswith(_COMPRESSED)

    def _open(self, path: str) -> _File | None:
        if path not in self._files:
            try:
                if path.endswith(_COMPRESSED):
                    packed = self._stack.enter_context(io.FileIO(_open_regular(path)))
                    self._files[path] = _Unpacked(path, packed, self._deadline, self._stack)
                else:
                    self._files[path] = _Plain(path, self._opened)
            except FileNotFoundError:
                raise _Rotating from None
            except OSError:
                self._files[path] = None  # not ours to read: as good as not there
        return self._files[path]


def _age(suffix: str) -> int:
    """Sorts rotated names, newest first: dates, the latest first, then .1 before .2."""
    digits = re.sub(r"\.(gz|bz2|xz)$|\D", "", suffix) or "0"
    return int(digits) if len(digits) < 6 else -int(digits)


def _open_log(path: str, opened: ExitStack) -> io.FileIO | None:
    """Open a log for reading; None if there is none. Raises OSError if it is not a file."""
    try:
        return opened.enter_context(io.FileIO(_open_regular(path)))
    except FileNotFoundError:
        return None


def _open_regular(path: str) -> int:
    """Open for reading, without waiting; raises OSError if it is not a regular file."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    about = os.fstat(fd)
    if stat.S_ISREG(about.st_mode):
        return fd
    os.close(fd)
    if stat.S_ISDIR(about.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise OSError(errno.EINVAL, "it is not a regular file")


def _behind_hole(file: _File, offset: int) -> int:
    """Where the next data begin, if the file has a hole at an offset, and go there.

    Else the offset, and the file stays where it was: zeros that were written are data.
    """
    if isinstance(file, _Unpacked):
        return offset
    fd = file.fileno()
    here = os.lseek(fd, 0, os.SEEK_CUR)
    try:
        after = os.lseek(fd, offset, os.SEEK_DATA)
    except (AttributeError, OSError) as error:  # not every system, or there are no more data
        after = os.fstat(fd).st_size if getattr(error, "errno", 0) == errno.ENXIO else offset
    os.lseek(fd, after if after > offset else here, os.SEEK_SET)
    return after


def _before_hole(file: _PlainFile, stop: int) -> int:
    """Where the hole begins that ends at `stop` or behind it, to within a stride; else `stop`."""
    start, step = stop, _STRIDE
    while start > 0 and step >= _STRIDE:
        before = max(0, start - step)
        if _is_hole(file, before, stop):
            start, step = before, step * 2
        else:
            step //= 4
    return start


def _is_hole(file: _PlainFile, start: int, stop: int) -> bool:
    try:
        return os.lseek(file.fileno(), start, os.SEEK_DATA) >= stop
    except (AttributeError, OSError) as error:
        return getattr(error, "errno", 0) == errno.ENXIO


def _after_rotation(was: Position | None, rotated: "_Neighbours") -> list[_Segment]:
    """The rest of the rotated file that holds the cursor, and every file that may be newer.

    The file before that is read on, too: its writers may have kept it open.
    """
    if was is None:
        return []
    cursor, late = (was.here, was.rotated) if was.here.proves else (was.rotated, None)
    if cursor is None:
        return []
    segments: list[_Segment] = []
    holder: _Neighbour | None = None
    for place, file in rotated.newest_first():
        if holder is None and _holds(file, cursor):
            holder, start = place, cursor
        elif late is not None and _holds(file, late):
            start = late
        elif holder is None or place.changed > holder.changed:
            start = START  # newer by its name, or by a late writer
        else:
            continue
        segments.append(_Segment(file, start))
    return segments[::-1] if holder else []


def _late(was: Position, rotated: "_Neighbours") -> list[_Segment]:
    """What was written later to the file rotated away last: its writers may keep it open."""
    if was.rotated is None:
        return []
    newest = next((file for _, file in rotated.newest_first()), None)
    if newest is None or not _holds(newest, was.rotated):
        return []
    return [_Segment(newest, was.rotated)]


def _holds(file: _File, cursor: Cursor) -> bool:
    """Whether the anchor's bytes stand before the cursor's offset."""
    if not isinstance(file, _Unpacked) and os.fstat(file.fileno()).st_size < cursor.offset:
        return False
    return _bytes_at(file, cursor.offset - len(cursor.anchor), len(cursor.anchor)) == cursor.anchor


def _still_holds(file: _File, cursor: Cursor) -> bool:
    """The same while reading; a compressed file does not change."""
    if isinstance(file, _Unpacked):
        return True
    length = len(cursor.anchor)
    return os.pread(file.fileno(), length, cursor.offset - length) == cursor.anchor


def _cursor_at(file: _File, offset: int) -> Cursor:
    length = min(offset, ANCHOR)
    return Cursor(offset, _bytes_at(file, offset - length, length))


def _bytes_at(file: _File, offset: int, length: int) -> bytes:
    file.seek(offset)
    found = b""
    while len(found) < length and (data := file.read(length - len(found))):
        found += data
    return found


def _size(file: _File) -> int:
    """Bytes in a file; of a compressed one no more than `_MOST_UNPACKED` are looked at."""
    if not isinstance(file, _Unpacked):
        return os.fstat(file.fileno()).st_size
    file.seek(0)
    size = 0
    while size < _MOST_UNPACKED and (data := file.read(BLOCK)):
        size += len(data)
    return size


def _last_lines(file: _File, stop: int) -> bytes:
    """The lines before an offset, at most `_LEAD` bytes."""
    start = max(0, stop - _LEAD)
    data = _bytes_at(file, start, stop - start)
    return data[data.find(b"\n") + 1 :] if start else data


def _last_newline(file: io.FileIO) -> Cursor:
    """The place behind the last whole line."""
    stop = os.fstat(file.fileno()).st_size
    while stop > 0:
        start = max(0, stop - BLOCK)
        data = _bytes_at(file, start, stop - start)
        if (at := data.rfind(b"\n")) >= 0:
            return _cursor_at(file, start + at + 1)
        stop = start if data.strip(b"\0") else _before_hole(file, start)
    return START


def _search(file: io.FileIO, anchor: bytes) -> Cursor | None:
    """The first place in the file behind the anchor's bytes."""
    file.seek(0)
    offset, window = 0, b""
    while data := file.read(BLOCK):
        here = offset + len(window)
        if not data.strip(b"\0") and (after := _behind_hole(file, here)) > here:
            offset, window = after - ANCHOR, bytes(ANCHOR)
            continue
        window += data
        if (at := window.find(anchor)) >= 0:
            return Cursor(offset + at + len(anchor), anchor)
        offset += len(window) - len(window[-ANCHOR:])
        window = window[-ANCHOR:]
    return None


def _line_starts_backwards(file: _PlainFile, size: int) -> Iterator[tuple[int, bytes]]:
    """Offsets and first bytes of lines, from the end: all of them first, then a sample."""
    stop = size
    while stop > 0:
        start = max(0, stop - _STRIDE)
        data = _bytes_at(file, start, stop - start + 64)
        if not data.strip(b"\0"):
            stop = _before_hole(file, start)
            continue
        starts = [found.end() for found in re.finditer(rb"\n", data[: stop - start])]
        if start == 0:
            starts.insert(0, 0)
        if size - stop >= _FINE:
            starts = starts[::_COARSE]
        for at in reversed(starts):
            yield start + at, data[at : at + 64]
        stop = start
