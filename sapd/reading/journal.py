"""The systemd journal as a log: continue where the last run stopped, hand over framed messages.

journalctl reads it (systemd's own tool, wherever the journal is), from the saved cursor on. A
journal gives what no text file can: fields that journald takes from the kernel, not from the sender
(systemd.journal-fields(7), "Trusted Journal Fields"). So what is read must be chosen by the unit of
the POP server, or by its user: then nothing that another user says with `logger` is read at all.

The place is journalctl's cursor. Asked for one that is gone, journalctl goes on at the nearest
entry without a word. So the entry of the cursor is asked for, too: if it is not the first to come,
the place is lost, and the journal is read again from the edge of the window. Merging a login twice
changes nothing.

Nothing is written. A journalctl that fails, or is killed, leaves the place where it was; what had
come before is used.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from math import inf
from typing import Any

from sapd.defaults import JOURNALS
from sapd.events.frames import Frame
from sapd.reading.journalctl import DROPPED, DROPPED_ID, Journalctl
from sapd.reading.maillog import LATE
from sapd.reading.place import Place
from sapd.timestamps import LAST, rfc3339

OVERLONG = b"\0" * 4097
"""Stands for a message that journalctl leaves out of its JSON, as longer than 4,096 bytes."""

_EVERY_STREAM = "*"
_MOST_STREAMS = 1000  # that are remembered as cut; beyond that all are doubted

_CURSOR = re.compile(
    r"s=[0-9a-f]{1,32};i=[0-9a-f]+;b=[0-9a-f]{32};m=[0-9a-f]+;t=[0-9a-f]+;x=[0-9a-f]+"
)
_PROGRAM = re.compile(rb"[^\s\[\]:]{1,64}")
_HOST = re.compile(rb"[^\s\[\]:]{1,255}")


def looked_at() -> list[str]:
    """The journal's folders, and the files in them that journald may be writing to."""
    found = []
    for top in JOURNALS:
        found.append(top)
        with suppress(OSError):
            for folder in os.scandir(top):
                found.append(folder.path)
                found += [
                    entry.path
                    for entry in os.scandir(folder.path)
                    if entry.name.endswith(".journal") and "@" not in entry.name
                ]
    return found


def question(matches: Sequence[str], place: Place) -> tuple[str, ...]:
    """What `idle` asks, to learn whether anything is behind the place: cursor and matches."""
    return (place.cursor, *matches, "+", *DROPPED)


class JournalReading:
    """What is new in a journal since `position`: iterate `frames()`, then take `position`.

    `edge` (UTC epoch seconds) is the time before which no login matters. `cut_behind` tells in how
    many bytes behind a cut message its rest may stand; see `formats`. `entries` counts,
    `unusable` those of them that are no evidence, and `dropped` how often journald's rate limit has
    dropped messages. `anew`, known with the first frame, says whether the reading begins at the
    edge, so that what was said before may not be known. After `deadline` (seconds of
    `time.monotonic`) it ends where it is, `unfinished`, and the next one goes on.
    """

    given_up, missed = "", ()
    """Nothing ever is; see `maillog.Reading`."""

    def __init__(
        self,
        matches: Sequence[str],
        position: Place | None,
        edge: float,
        cut_behind: Callable[[], int] = int,
        *,
        options: Sequence[str] = (),
        deadline: float = inf,
    ) -> None:
        """Start nothing yet; a `position` of None means a first run.

        `options` are further ones of journalctl's, such as --directory.
        """
        self.position = position
        self.entries = self.unusable = self.dropped = 0
        self.anew = position is None
        self._edge = max(0, int(edge - LATE))
        self._parts = _Parts(cut_behind)
        self._journalctl = Journalctl(matches, options, deadline)

    @property
    def unfinished(self) -> bool:
        """Whether the time was up."""
        return self._journalctl.unfinished

    def frames(self) -> Iterator[Frame]:
        """Yield the new messages in the journal's order.

        Raises `SapdError` 66 if the journal can't be read; the place is then what it was.
        """
        if self.position is not None:
            self._parts.remember(self.position)
        cursor = None
        for entry in self._entries():
            cursor = entry["__CURSOR"]
            self.entries += 1
            frame = self._frame(entry)
            if frame is None:
                self.unusable += 1
            else:
                yield frame
        if cursor is not None:
            self.position = self._parts.place(cursor)

    def _entries(self) -> Iterator[dict[str, Any]]:
        """The entries behind the place; those from the edge on if it is lost."""
        if self.position is not None and _CURSOR.fullmatch(self.position.cursor):
            with closing(self._journalctl.entries(f"--cursor={self.position.cursor}")) as entries:
                first = next(entries, None)
                if first is not None and first["__CURSOR"] == self.position.cursor:
                    yield from entries
                    return
        self.anew = True
        self._parts.forget()
        with closing(self._journalctl.entries(f"--since=@{self._edge}")) as entries:
            yield from entries

    def _frame(self, entry: dict[str, Any]) -> Frame | None:
        """The entry's message with what journald and the server say about it; None if it has none.

        It is no evidence either if it may be a part of a message.
        """
        program, stamp = _value(entry, "SYSLOG_IDENTIFIER"), _stamp(entry)
        message = OVERLONG if entry.get("MESSAGE", b"") is None else _value(entry, "MESSAGE")
        if entry.get("MESSAGE_ID") == DROPPED_ID and entry.get("_TRANSPORT") == "driver":
            self.dropped += 1
            self._parts.note_dropped()
            return None
        if self._parts.may_hold(entry, message) or message is None or stamp is None:
            return None
        if program is None or not _PROGRAM.fullmatch(program):
            return None
        host, pid = _value(entry, "_HOSTNAME") or b"", _value(entry, "_PID") or b""
        has_pid = "SYSLOG_PID" in entry and pid.isdigit()
        return Frame(
            stamp,
            host if _HOST.fullmatch(host) else b"-",
            program,
            pid if has_pid else b"-",
            message,
        )


class _Parts:
    """Which entries may be parts of a message, by what was cut or dropped before them."""

    def __init__(self, cut_behind: Callable[[], int]) -> None:
        self._cut_behind = cut_behind
        self._open: dict[str, None] = {}
        self._doubted = 0

    def remember(self, place: Place) -> None:
        self._open = dict.fromkeys(place.open_streams)
        self._doubted = place.doubted

    def forget(self) -> None:
        self._open.clear()
        self._doubted = 0

    def place(self, cursor: str) -> Place:
        return Place(cursor, tuple(self._open), self._doubted)

    def note_dropped(self) -> None:
        """The head of a message may be among what journald dropped."""
        self._doubted = max(self._doubted, self._cut_behind())

    def may_hold(self, entry: dict[str, Any], message: bytes | None) -> bool:
        """Whether an entry with this message may be a part of another."""
        continues = self._continues(entry)
        if message is not None and self._doubted > 0:
            self._doubted = max(0, self._doubted - len(message))
            return True
        return continues

    def _continues(self, entry: dict[str, Any]) -> bool:
        """Whether an entry was cut, or the one before it of the same stream was."""
        stream, cut = str(entry.get("_STREAM_ID", "")), "_LINE_BREAK" in entry
        if not stream:
            return cut
        continues = stream in self._open or _EVERY_STREAM in self._open
        self._open.pop(stream, None)
        if cut and entry["_LINE_BREAK"] != "eof":  # which ends the stream
            self._open[stream] = None
            if len(self._open) > _MOST_STREAMS:
                self._open = {_EVERY_STREAM: None}
        return cut or continues


def as_line(frame: Frame) -> bytes:
    """A frame as syslog daemons write it to a file: for people."""
    pid = b"" if frame.pid == b"-" else b"[" + frame.pid + b"]"
    return b"%s %s %s%s: %s" % (frame.stamp, frame.host, frame.program, pid, frame.message)


def _value(entry: dict[str, Any], field: str) -> bytes | None:
    """A field's bytes, None if it is missing, too long, or there more than once.

    journalctl writes what is no UTF-8, or not printable, as a list of numbers.
    """
    value = entry.get(field)
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, list) and all(type(byte) is int and 0 <= byte < 256 for byte in value):
        return bytes(value)
    return None


def _stamp(entry: dict[str, Any]) -> bytes | None:
    """When the message was received, by the kernel's word if there is one, in RFC 3339."""
    for field in ("_SOURCE_REALTIME_TIMESTAMP", "__REALTIME_TIMESTAMP"):
        digits = _value(entry, field)
        if digits is not None and digits.isdigit() and len(digits) < 19:
            seconds, micros = divmod(int(digits), 1_000_000)
            if seconds < LAST:
                return f"{rfc3339(seconds)[:-1]}.{micros:06d}Z".encode("ascii")
    return None
