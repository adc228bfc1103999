"""The edge of the window: where a first run begins to read, in a file and among its neighbours.

A log may be a gigabyte, of which the last minutes matter. So the edge is looked for from the end,
by the stamps of a few lines; late lines and clocks that were set put old stamps among new ones, and
a stamp without a year may be last year's.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from sapd.logfile import BLOCK, File, Plain
from sapd.place import START, Cursor
from sapd.timestamps import Clock, yearless

_LEAST = 16 * 1024 * 1024  # bytes that a first run reads, however old they look
_FINE = 1024 * 1024  # bytes at the end where every line's stamp is looked at ...
_COARSE = 40  # ... and before that, one line in so many
_STRIDE = 64 * 1024
_MONTH = 30 * 86400


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
        for offset, line in _line_starts_backwards(file, size):
            stamp = self.clock.of_line(line)
            if stamp is None:
                continue
            if stamp >= self.time and yearless(line) and months.all_passed:
                return file.cursor_at(later)  # this line is a year old
            old, later = old + 1 if stamp < self.time else 0, offset
            months.note(stamp, yearless(line))
            if old >= 3 and (size - offset >= _LEAST or months.all_passed):
                return file.cursor_at(offset)
        return None

    def _past_last_year(self, file: File) -> Cursor | None:
        """The same for a file that can only be read forwards: begin behind last year's lines."""
        months = _Months(self.time)
        offset, start = 0, 0
        file.seek(0)
        while data := file.read(BLOCK):
            for found in re.finditer(rb"^.{1,64}", data, re.MULTILINE):
                stamp = self.clock.of_line(found[0])
                if stamp is not None:
                    months.note(stamp, yearless(found[0]))
                if months.all_passed:
                    start = offset + found.start()
            offset += len(data)
        return file.cursor_at(start) if start else None

    def _begins_inside(self, file: File) -> bool:
        """Whether the window's edge lies before the file's first line, as far as one can tell."""
        file.seek(0)
        first = [self.clock.of_line(line) for line in file.read(4096).split(b"\n")]
        stamps = [stamp for stamp in first if stamp is not None][:3]
        return sum(stamp < self.time for stamp in stamps) < 2


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


def _line_starts_backwards(file: Plain, size: int) -> Iterator[tuple[int, bytes]]:
    """Offsets and first bytes of lines, from the end: all of them first, then a sample."""
    stop = size
    while stop > 0:
        start = max(0, stop - _STRIDE)
        data = file.bytes_at(start, stop - start + 64)
        if not data.strip(b"\0"):
            stop = file.before_hole(start)
            continue
        starts = [found.end() for found in re.finditer(rb"\n", data[: stop - start])]
        if start == 0:
            starts.insert(0, 0)
        if size - stop >= _FINE:
            starts = starts[::_COARSE]
        for at in reversed(starts):
            yield start + at, data[at : at + 64]
        stop = start
