"""What is to be read of a log: which of its files, each from where.

The cursor is content, not an inode. Whatever happened to the log (renamed, copied and truncated,
cut by another program, removed and created again with the same inode), the anchor's bytes are
looked for: at the offset, in the rotated neighbours, then anywhere in the log. If they are not
found, the log is read again from the edge of the window: merging a line twice changes nothing, and
missing one shuts somebody out. But a stamp without a year may be dated differently the second time
(a year later, or in the hour that daylight saving repeats), so this is for doubt, not for every
minute.
"""

import errno
from collections.abc import Collection, Sequence
from contextlib import ExitStack, suppress
from typing import NamedTuple

from sapd.reading import rotated
from sapd.reading.logfile import BLOCK, File, Plain, open_log
from sapd.reading.place import ANCHOR, START, Cursor, Position
from sapd.reading.rotated import Neighbour, Neighbours, Rotating
from sapd.timestamps import Clock

_MOST_STALLS = 3  # passes that get no further with a compressed file
_LEAD = 1024 * 1024  # bytes before the place where reading begins that are looked at


class Terms(NamedTuple):
    """What is asked of a reading of the log at `path`; the times are UTC epoch seconds.

    No login before `edge` matters, and no file last changed before `modified_since` holds one that
    does. `others` are real paths never taken for rotated files of this log, `earlier` are its
    earlier names, if that is the date. `deadline` is in seconds of `time.monotonic`.
    """

    path: str
    edge: float
    modified_since: float
    clock: Clock
    others: Collection[str]
    earlier: Sequence[str]
    deadline: float


class Segment(NamedTuple):
    """A file, and the place to read it from; `lines` as in `Position`."""

    file: File
    start: Cursor
    lines: int | None = None
    current: bool = False


class Missed(NamedTuple):
    """Lines that are not read: `unread` bytes of the file at `path`, None if nobody knows how many.

    `why` says what is the matter with that file. With an empty `path` none is found in which the
    log goes on that was read before, up to `unread` bytes.
    """

    path: str
    unread: int | None
    why: str


class Plan(NamedTuple):
    """What is to be read, in this order; nothing if the log is not there yet, which is no error.

    `anew` says that reading begins at the edge, so lines before it may never have been read;
    `lead` is then what stands before it, whole lines in the same file or at the end of the one
    rotated before. `given_up` is the path of a compressed file that is left out. `late_are_read`
    says that nothing more will be written to the file that was rotated away last. `missed` is what
    a rotation took out of sight.
    """

    segments: list[Segment]
    anew: bool = False
    lead: bytes = b""
    given_up: str = ""
    late_are_read: bool = False
    missed: Sequence[Missed] = ()


def make(terms: Terms, was: Position | None, opened: ExitStack) -> Plan:
    """Find the place `was`, or begin at the edge if it is None or can't be found.

    Raises OSError if the log can't be read, and `OutOfTime`.
    """
    for _ in range(5):
        try:
            return _plan(terms, was, opened)
        except Rotating:
            continue
    raise OSError(errno.EBUSY, "its rotated files keep changing names")


def _plan(terms: Terms, was: Position | None, opened: ExitStack) -> Plan:
    log = open_log(terms.path, opened)
    if log is not None and terms.earlier and rotated.is_foreign(terms.path, log.about().st_uid):
        reason = "it is another user's, who may make files of any name in this folder"
        raise OSError(errno.EPERM, reason)
    every = rotated.neighbours(terms.path, terms.earlier, terms.others)
    given_up = ""
    if was is not None and was.stalls >= _MOST_STALLS:
        given_up = next((one.path for one in every if one.is_compressed), "")
        every = [one for one in every if not one.is_compressed]
    files = Neighbours(every, terms.modified_since, terms.deadline, opened)
    late_are_read = bool(files.found) and files.found[0].is_compressed
    if was is not None and was != Position(stalls=was.stalls):
        segments, missed = _from_place(log, was, files)
        if segments:
            return Plan(segments, False, b"", given_up, late_are_read, missed)
    segments, oldest, log_holds_all = _from_edge(log, terms, files)
    if not segments and not (terms.earlier and every):
        raise FileNotFoundError(errno.ENOENT, "no such file; does the POP server log here?")
    lead = _lead(segments[0], oldest, files) if segments else b""
    missed = _unreadable(files)
    if was is not None and was.here.proves and not log_holds_all:
        missed += _lost(was.here, terms, every)
    return Plan(segments, True, lead, given_up, late_are_read, missed)


def _from_place(
    log: Plain | None, was: Position, files: Neighbours
) -> tuple[list[Segment], list[Missed]]:
    """All that is new since a place, and what of it can't be read; nothing if it is not found."""
    if log is not None and was.here.proves and log.holds(was.here):
        return [*_late(was, files), Segment(log, was.here, was.lines, current=True)], []
    segments, missed = _after_rotation(was, files)
    if log is None:
        return segments, missed
    if segments and len(segments) == 1 and not was.here.proves and log.holds(was.here):
        return [*segments, Segment(log, was.here, was.lines, current=True)], []
    if segments:
        return [*segments, Segment(log, START, 0, current=True)], missed
    if was.here.proves and (found := _search(log, was.here.anchor)) is not None:
        return [Segment(log, found, None, current=True)], []
    return [], []


def _unreadable(files: Neighbours) -> list[Missed]:
    """The files that were asked for so far, and can't be read."""
    return [Missed(path, None, why) for path, why in files.unreadable.items()]


def _lost(cursor: Cursor, terms: Terms, known: Sequence[Neighbour]) -> list[Missed]:
    """Where unread lines may stand, after a place that is found nowhere where they would be read.

    What was last changed before the window holds none that matters. If the newest rotated file is
    such a one and compressed, it is taken for the log of before: to unpack it may take long.
    """
    if known and known[0].is_compressed and known[0].changed < terms.modified_since * 1e9:
        return []
    paths = [one.path for one in known if not one.is_compressed]
    for path in [*paths, *rotated.others_beside(terms.path, {terms.path, *paths})]:
        with suppress(OSError), ExitStack() as opened:
            file = open_log(path, opened)
            if file is not None and file.holds(cursor):
                unread = file.size() - cursor.offset
                matters = unread > 0 and file.about().st_mtime >= terms.modified_since
                return [Missed(path, unread, "")] if matters else []
    return [Missed("", cursor.offset, "")]


def _from_edge(
    log: Plain | None, terms: Terms, files: Neighbours
) -> tuple[list[Segment], Neighbour | None, bool]:
    """The log from the window's edge on, and its neighbours if it begins inside the window.

    With it the oldest of these, and whether the log itself reaches back to the edge: then it was
    not rotated since, and a place that is not found in it was at an end that a power cut took.
    """
    from sapd.reading.edge import Edge, last_newline  # most minutes begin at a place

    edge = Edge(terms.edge, terms.clock)
    segments: list[Segment] = []
    older, oldest = True, None
    if log is not None:
        if log.about().st_mtime >= terms.modified_since:
            start, older = edge.start_in(log)
        else:
            start, older = last_newline(log), False
        segments = [Segment(log, start, None if start.offset else 0, current=True)]
    log_holds_all = not older
    for place, file in files.newest_first() if older else ():
        start, older = edge.start_in(file)
        segments.append(Segment(file, start))
        oldest = place
        if not older:
            break
    return segments[::-1], oldest, log_holds_all


def _lead(first: Segment, place: Neighbour | None, files: Neighbours) -> bytes:
    """What stands before the first segment, which is a rotated file if there is a `place`."""
    if first.start.offset:
        return _last_lines(first.file, first.start.offset)
    older = files.before(place)
    return b"" if older is None else _last_lines(older, older.size())


def _last_lines(file: File, stop: int) -> bytes:
    """The lines before an offset, at most `_LEAD` bytes."""
    start = max(0, stop - _LEAD)
    data = file.bytes_at(start, stop - start)
    return data[data.find(b"\n") + 1 :] if start else data


def _after_rotation(was: Position, files: Neighbours) -> tuple[list[Segment], list[Missed]]:
    """The rest of the rotated file that holds the cursor, and every file that may be newer.

    The file before that is read on, too: its writers may have kept it open. With it, when the log
    was rotated since, those newer files that can't be read.
    """
    cursor, late = (was.here, was.rotated) if was.here.proves else (was.rotated, None)
    if cursor is None:
        return [], []
    segments: list[Segment] = []
    missed: list[Missed] = []
    holder: Neighbour | None = None
    for place, file in files.newest_first():
        if holder is None and file.holds(cursor):
            holder, start = place, cursor
            missed = _unreadable(files) if was.here.proves else []
        elif late is not None and file.holds(late):
            start = late
        elif holder is None or place.changed > holder.changed:
            start = START  # newer by its name, or by a late writer
        else:
            continue
        segments.append(Segment(file, start))
    return (segments[::-1], missed) if holder else ([], [])


def _late(was: Position, files: Neighbours) -> list[Segment]:
    """What was written later to the file rotated away last: its writers may keep it open."""
    if was.rotated is None:
        return []
    newest = next((file for _, file in files.newest_first()), None)
    if newest is None or not newest.holds(was.rotated):
        return []
    return [Segment(newest, was.rotated)]


def _search(file: Plain, anchor: bytes) -> Cursor | None:
    """The first place in the file behind the anchor's bytes."""
    file.seek(0)
    offset, window = 0, b""
    while data := file.read(BLOCK):
        here = offset + len(window)
        if not data.strip(b"\0") and (after := file.behind_hole(here)) > here:
            offset, window = after - ANCHOR, bytes(ANCHOR)
            continue
        window += data
        if (at := window.find(anchor)) >= 0:
            return Cursor(offset + at + len(anchor), anchor)
        offset += len(window) - len(window[-ANCHOR:])
        window = window[-ANCHOR:]
    return None
