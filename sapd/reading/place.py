"""A place in a log, with what proves it: bytes of a file, or a journal's cursor. Pure."""

from typing import NamedTuple

ANCHOR = 256
"""Bytes kept before the offset."""


class Cursor(NamedTuple):
    """A place in a file: the offset in bytes, and the bytes before it (at most `ANCHOR`)."""

    offset: int
    anchor: bytes

    @property
    def proves(self) -> bool:
        """Whether the anchor is enough to tell this place: it is full, or all there was."""
        return len(self.anchor) >= ANCHOR or 0 < self.offset == len(self.anchor)

    def behind(self, data: bytes, end: int) -> "Cursor":
        """The place behind the first `end` bytes of `data`, which stand here."""
        anchor = data[max(0, end - ANCHOR) : end]
        return Cursor(self.offset + end, (self.anchor + anchor)[-ANCHOR:])


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


class Place(NamedTuple):
    """How far a journal was read: the cursor of the last entry, as journalctl writes it.

    `open_streams` are the ids of streams whose last entry was cut: their next one may be the rest.
    `doubted` is in how many bytes of messages the rest of one may stand whose head was suppressed.
    """

    cursor: str
    open_streams: tuple[str, ...] = ()
    doubted: int = 0
