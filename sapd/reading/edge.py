"""The edge of the window: where a first run begins to read, in a file and among its neighbours.

A log may be a gigabyte, of which the last minutes matter. So the edge is looked for from the end,
by the stamps of a few lines; late lines and clocks that were set put old stamps among new ones, and
a stamp without a year may be last year's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from sapd.reading.logfile import BLOCK, File, Plain
from sapd.reading.place import START, Cursor
from sapd.timestamps import Clock, yearless

_LEAST = 16 * 1024 * 1024  # bytes that a first run reads, however old they look
_FINE = 64 * 1024  # bytes at the end where every line is looked at
_SHARE = 64  # before that, one line in this part of the way back that was gone ...
_NEAREST, _FARTHEST = 4 * 1024, 128 * 1024  # ... at least, and at most, in so many bytes
_REACH = 512  # bytes in which the next line mostly begins
_HEAD = 256  # bytes of a line in which its stamp ends, also behind a container's name
_MOST_BETWEEN = 20_000  # further lines, where time jumps
_DAY, _LATE = 86400, 3900  # seconds by which it goes on or back without a jump
_MONTH = 30 * 86400


class _Line(NamedTuple):
    """Where a line begins, its stamp (UTC epoch seconds), and whether that names no year."""

    offset: int
    time: float
    is_yearless: bool


class Edge(NamedTuple):
    """No line stamped before `time` (UTC epoch seconds) matters."""

    time: float
    clock: Clock

    def start_in(self, file: File) -> tuple[Cursor, bool]:
        """Where to begin in a file, and whether older files may matter, too."""
        start = self._walk_back(file) if isinstance(file, Plain) else self._past_last_year(file)
        return (START, self._begins_inside(file)) if start is None else (start, False)

    def _walk_back(self, file: Plain) -> Cursor | None:
        """The edge in a file; None if it is not in it.

        Walks back until three stamps in a row lie before the edge, and at least 16 MB: late lines
        and clocks that were set put old stamps among new ones. It stops sooner once it has passed
        the months before, because a stamp without a year that looks fresh is a year old there.
        """
        old, months = 0, _Months(self.time)
        later = size = file.size()
        for line in _Walk(file, self.clock).back(size):
            if line.time >= self.time and line.is_yearless and months.all_passed:
                return file.cursor_at(later)  # this line is a year old
            old, later = old + 1 if line.time < self.time else 0, line.offset
            months.note(line.time, line.is_yearless)
            if old >= 3 and (size - line.offset >= _LEAST or months.all_passed):
                return file.cursor_at(line.offset)
        return None

    def _past_last_year(self, file: File) -> Cursor | None:
        """The same for a file that can only be read forwards: begin behind last year's lines."""
        months, start = _Months(self.time), 0
        for offset, head in _heads(file):
            stamp = self.clock.of_line(head)
            if stamp is not None:
                months.note(stamp, yearless(head))
            if months.all_passed:
                start = offset
        return file.cursor_at(start) if start else None

    def _begins_inside(self, file: File) -> bool:
        """Whether the window's edge lies before the file's first line, as far as one can tell."""
        file.seek(0)
        first = [self.clock.of_line(line) for line in file.read(4096).split(b"\n")]
        stamps = [stamp for stamp in first if stamp is not None][:3]
        return sum(stamp < self.time for stamp in stamps) < 2


def _heads(file: File) -> Iterator[tuple[int, bytes]]:
    """Where each line of a file that is read forwards begins, and its first bytes.

    Never from the midst of a line: what stands there may be a stranger's.
    """
    offset, text, is_inside = 0, b"", False
    file.seek(0)
    while data := file.read(BLOCK):
        text += data
        if is_inside:
            begun = text.find(b"\n") + 1
            is_inside = not begun
            offset, text = offset + (begun or len(text)), text[begun:] if begun else b""
        last = text.rfind(b"\n") + 1
        stop = last if len(text) - last < _HEAD else len(text)
        for found in re.finditer(rb"^.{1,%d}" % _HEAD, text[:stop], re.MULTILINE):
            yield offset + found.start(), found[0]
        is_inside = is_inside or stop > last
        offset, text = offset + stop, text[stop:]


def last_newline(file: Plain) -> Cursor:
    """The place behind the last whole line."""
    stop = file.size()
    while stop > 0:
        start = max(0, stop - BLOCK)
        data = file.bytes_at(start, stop - start)
        if (at := data.rfind(b"\n")) >= 0:
            return file.cursor_at(start + at + 1)
        stop = start if data.strip(b"\0") else file.before_hole(start)
    return START


class _Months:
    """Whether consecutive lines without a year run through the months back to a year ago.

    The lines of a dead clock all have one date, so they do not. Those of two such clocks, between
    two logins, do: a first run may miss the login before them, which is safe. To want more days of
    a year would read a quiet log's lines of a year ago as today's, which is not.
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


class _Walk:
    """Goes back through the lines that have a stamp: all of them at first, then fewer and fewer.

    Where time jumps between two, those between them are looked at, too: a quiet year may be there.
    Not seen is a year whose lines all stand between two that are looked at, if these seem to follow
    each other.
    """

    def __init__(self, file: Plain, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._left = _MOST_BETWEEN

    def back(self, size: int) -> Iterator[_Line]:
        """From the file's first `size` bytes back to its beginning."""
        later = None
        for line in self._few(size):
            if later is not None:
                yield from self._between(line, later)
            yield line
            later = line

    def _few(self, size: int) -> Iterator[_Line]:
        end = stop = size
        while stop > 0:
            if stop == end:  # nothing was found yet
                start = max(0, stop - _FINE)
                lines = list(self._lines(start, stop))
            else:
                start = max(0, stop - min(max((end - stop) // _SHARE, _NEAREST), _FARTHEST))
                lines = self._first_line(start, stop)
            yield from reversed(lines)
            if stop == end and not lines:
                end = stop = self._file.before_hole(start)
            else:
                stop = start if lines else self._file.before_hole(start)

    def _between(self, earlier: _Line, later: _Line) -> Iterator[_Line]:
        """The lines between two, the later ones first, as far as time jumps there."""
        jumps = not -_LATE <= later.time - earlier.time <= _DAY
        if not jumps or self._left <= 0:
            return
        if later.offset - earlier.offset <= _NEAREST:
            lines = list(self._lines(earlier.offset + 1, later.offset))
            self._left -= len(lines)
            yield from reversed(lines)
            return
        self._left -= 1
        middle = (earlier.offset + later.offset) // 2
        for line in self._first_line(middle, later.offset):
            yield from self._between(line, later)
            yield line
            yield from self._between(earlier, line)

    def _first_line(self, start: int, stop: int) -> list[_Line]:
        """The first one that begins there; none if there is none."""
        for reach in (_REACH, _NEAREST):
            if found := list(islice(self._lines(start, min(stop, start + reach)), 1)):
                return found
        return []

    def _lines(self, start: int, stop: int) -> Iterator[_Line]:
        """Those that begin there, in their order."""
        data = self._file.bytes_at(start, stop - start + _HEAD)
        at = 0 if start == 0 else data.find(b"\n") + 1
        while at < stop - start and (at > 0 or start == 0):
            head = data[at : at + _HEAD]
            time = self._clock.of_line(head)
            if time is not None:
                yield _Line(start + at, time, yearless(head))
            at = data.find(b"\n", at) + 1 or stop
