"""The log as bytes: continue where the last run stopped, follow rotation, hand over whole lines.

`plan` finds what is to be read; here it is read. Memory stays bounded by the block, whatever the
length of the log or of a line.
"""

import os
import time
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import ExitStack
from math import inf

from sapd import errors
from sapd.reading import plan, rotated
from sapd.reading.logfile import BLOCK, OutOfTime
from sapd.reading.place import ANCHOR, START, Cursor, Position
from sapd.reading.plan import Missed, Plan, Segment, Terms
from sapd.timestamps import Clock

LATE = 3900
"""Seconds before the window's edge where a first run begins: an hour, which daylight saving may
repeat or a relay may be late, and five minutes."""

BUDGET = 20.0
"""Seconds that reading may take in one pass; a gigabyte of plain log fits."""

_MOST_NOTED = 8  # rotated files whose changes show at once
_LONG = 1024 * 1024  # bytes; the rest of a longer line is skipped


class Reading:
    """What is new in a log since `position`: iterate `blocks()`, then take `position`.

    No login before `edge` (UTC epoch seconds) matters, and no file last changed before
    `modified_since` holds one that does. `others` are paths never taken for rotated files of this
    log, `earlier` are its earlier names, if that is the date. `bytes_read` is counted;
    `lines_read` and the position's lines only with `counting`, which takes as long as all the rest.

    After `deadline` (seconds of `time.monotonic`) it ends where it is, `unfinished`, and the next
    one goes on from there. A compressed file has to be unpacked from its beginning each time: one
    that several passes got no further with is `given_up`, and left out.

    `anew`, `lead`, `given_up` and `missed` are known with the first block; see `Plan`. Known with
    each block: `at_head` says that it is the beginning of a file.
    """

    def __init__(
        self,
        path: str,
        position: Position | None,
        edge: float,
        modified_since: float,
        clock: Clock,
        others: Collection[str] = (),
        earlier: Sequence[str] = (),
        *,
        counting: bool = False,
        deadline: float = inf,
    ) -> None:
        """Open nothing yet; a `position` of None means a first run."""
        real = {os.path.realpath(other) for other in others}
        times = edge - LATE, modified_since - LATE
        self._terms = Terms(path, *times, clock, real, earlier, deadline)
        self._reader = _Reader(deadline, counting=counting)
        self._plan = Plan([])
        self.position = position

    @property
    def anew(self) -> bool:
        """Whether reading begins at the edge."""
        return self._plan.anew

    @property
    def lead(self) -> bytes:
        """What stands before the edge."""
        return self._plan.lead

    @property
    def given_up(self) -> str:
        """The path of a file that is left out."""
        return self._plan.given_up

    @property
    def missed(self) -> Sequence[Missed]:
        """What a rotation took out of sight."""
        return self._plan.missed

    @property
    def at_head(self) -> bool:
        """Whether the block is the beginning of a file."""
        return self._reader.at_head

    @property
    def unfinished(self) -> bool:
        """Whether the time was up."""
        return self._reader.unfinished

    @property
    def bytes_read(self) -> int:
        """Bytes so far."""
        return self._reader.bytes_read

    @property
    def lines_read(self) -> int:
        """Lines so far."""
        return self._reader.lines_read

    def blocks(self) -> Iterator[bytes]:
        """Yield the new lines in order, in blocks of whole lines.

        Only the last block of a rotated file may end without a newline. Raises `SapdError` 66 if
        the log can't be read; the position then stays as it was.
        """
        late = self.position.rotated if self.position else None
        here, lines = START, None
        with ExitStack() as opened:
            try:
                self._plan = plan.make(self._terms, self.position, opened)
                if not self._plan.segments:
                    if self.position is None or self.missed:  # and to be said once
                        self.position = Position()
                    return
                for segment in self._plan.segments:
                    cursor, count = yield from self._reader.read(segment)
                    if segment.current:
                        here, lines = cursor, count
                    elif cursor.offset:  # an empty file's end would be found in every file
                        late = cursor
                    if self.unfinished and not segment.current:
                        self.position = self._stopped_at(cursor)
                        return
            except OutOfTime:
                self._reader.unfinished = True
                self.position = self._stopped_at(None)
                return
            except OSError as error:
                reason = f"can't be read: {error.strerror or error}"
                raise errors.SapdError(errors.LOG_UNREADABLE, self._terms.path, reason) from None
        if here.proves and self._plan.late_are_read:
            late = None  # it would have to be unpacked each time
        self.position = Position(here, late, lines)

    def _stopped_at(self, cursor: Cursor | None) -> Position:
        """The position where reading ran out of time in a rotated file, or before it began."""
        was = self.position or Position()
        if cursor is None or not cursor.proves or cursor == was.here:
            return was._replace(stalls=was.stalls + 1)
        return Position(cursor)


class _Reader:
    """Reads the lines of one file after the other while the time lasts, and counts."""

    def __init__(self, deadline: float, *, counting: bool) -> None:
        self._deadline = deadline
        self._counting = counting
        self.unfinished = False
        self.at_head = False
        self.bytes_read = 0
        self.lines_read = 0

    def read(self, segment: Segment) -> Generator[bytes, None, tuple[Cursor, int | None]]:
        """Yield a file's lines from a place on; return the place behind the last whole line.

        With it the number of lines before that, None if it is unknown.
        """
        file, text = segment.file, _WholeLines(segment.start)
        before = self.lines_read
        file.seek(segment.start.offset)
        self.at_head = segment.start.offset == 0
        while data := file.read(BLOCK):
            if not file.still_holds(text.read):
                break  # truncated and regrown meanwhile: the next run finds out how
            if time.monotonic() > self._deadline and self.bytes_read:
                self.unfinished = True  # each pass gets at least a block further
                break
            here = text.read.offset
            if not data.strip(b"\0") and (after := file.behind_hole(here)) > here:
                text.skip(after - here)
                continue
            self.bytes_read += len(data)
            if self._counting:
                self.lines_read += data.count(b"\n")
            if (block := text.add(data)) is not None:
                yield block
                self.at_head = False
        if text.rest and not segment.current and not self.unfinished:
            yield text.rest
        lines = segment.lines if self._counting else None
        return text.whole, None if lines is None else lines + self.lines_read - before


class _WholeLines:
    """Puts what is read of a file together to whole lines; the rest of a very long one is skipped.

    `read` is the place behind all that was read, `whole` the one behind the last whole line.
    """

    def __init__(self, start: Cursor) -> None:
        self.read = self.whole = start
        self._begun = b""  # without the zeros of holes
        self._is_overlong = False

    @property
    def rest(self) -> bytes:
        """The line that has no end yet, if it can be used."""
        return b"" if self._is_overlong else self._begun

    def add(self, data: bytes) -> bytes | None:
        """The lines that end with `data`; None if none does."""
        end = data.rfind(b"\n") + 1
        before, self.read = self.read, self.read.behind(data, len(data))
        if not end:
            self._begun = (self._begun + data).lstrip(b"\0")
            if len(self._begun) > _LONG:
                self._begun, self._is_overlong = self._begun[-ANCHOR:], True
            return None
        self.whole = before.behind(data, end)
        lines, self._begun = b"".join((self._begun, memoryview(data)[:end])), data[end:]
        if self._is_overlong:
            self._is_overlong = False
            return lines[lines.find(b"\n") + 1 :]
        return lines

    def skip(self, length: int) -> None:
        """Go on behind a hole, whose zeros keep the halves of a line apart."""
        anchor = bytes(min(ANCHOR, length))
        self.read = Cursor(self.read.offset + length, (self.read.anchor + anchor)[-ANCHOR:])
        self._begun = self._begun and self._begun + b"\0"


def looked_at(path: str, earlier: Sequence[str] = ()) -> list[str]:
    """Every path that reading this log depends on: its own, its folders', its neighbours'.

    Of the neighbours the newest, by name: to older ones nothing that matters is written any more,
    and a new one changes its folder.
    """
    return [path, *rotated.folders(path), *rotated.newest(path, earlier, _MOST_NOTED)]
