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

import json
import os
import re
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from math import inf
from typing import Any, NamedTuple

from sapd import child, errors
from sapd.defaults import JOURNALS
from sapd.maillog import LATE
from sapd.recogniser import Frame
from sapd.timestamps import LAST, rfc3339

FIELDS = (
    *("MESSAGE", "SYSLOG_IDENTIFIER", "SYSLOG_PID", "_PID", "_HOSTNAME"),
    *("_SOURCE_REALTIME_TIMESTAMP", "_LINE_BREAK", "_STREAM_ID", "_TRANSPORT", "MESSAGE_ID"),
)
"""What is asked for; journalctl adds __CURSOR and __REALTIME_TIMESTAMP."""

OVERLONG = b"\0" * 4097
"""Stands for a message that journalctl leaves out of its JSON, as longer than 4,096 bytes."""

_SILENT = 10.0  # seconds without a word, after which journalctl hangs
_LONGEST = 1024 * 1024  # bytes of one entry in JSON, of which the chosen fields need 150,000
_EVERY_STREAM = "*"
_MOST_STREAMS = 1000  # that are remembered as cut; beyond that all are doubted

# What journald says when it has dropped messages by its rate limit (sd-messages.h,
# SD_MESSAGE_JOURNAL_DROPPED); "driver" is the transport of nobody but itself.
_DROPPED_ID = "a596d6fe7bfa4994828e72309e95d61e"
_DROPPED = ("_TRANSPORT=driver", f"MESSAGE_ID={_DROPPED_ID}")

_LAST_SYSTEM_USER = 999  # login.defs(5), SYS_UID_MAX
_MATCH = re.compile(r"(_{0,2}[A-Z][A-Z0-9_]*)=(.+)", re.DOTALL)
_UNIT = re.compile(r"([A-Za-z0-9:_.\\-]+?)(@[A-Za-z0-9:_.\\-]*)?\.(service|scope)")
_CURSOR = re.compile(
    r"s=[0-9a-f]{1,32};i=[0-9a-f]+;b=[0-9a-f]{32};m=[0-9a-f]+;t=[0-9a-f]+;x=[0-9a-f]+"
)
_PROGRAM = re.compile(rb"[^\s\[\]:]{1,64}")
_HOST = re.compile(rb"[^\s\[\]:]{1,255}")

# Units that run what users tell them to: whoever has an account, or can have a mail delivered to a
# program of his, writes to the journal in their names.
_USERS_UNITS = {
    "user": "it runs the users' own units",
    "session": "it is a user's session",
    "run": "it is made by systemd-run",
    "init": "it is no server",
    **dict.fromkeys(("cron", "crond", "cronie", "fcron", "anacron"), "it runs users' crontabs"),
    **dict.fromkeys(("at", "atd"), "it runs users' jobs"),
    **dict.fromkeys(
        ("inetd", "xinetd", "openbsd-inetd", "inetutils-inetd"), "it runs other servers, too"
    ),
    **dict.fromkeys(("ssh", "sshd", "dropbear", "telnetd"), "users log in by it"),
    **dict.fromkeys(("getty", "serial-getty", "autovt", "console-getty"), "users log in by it"),
    **dict.fromkeys(("docker", "containerd", "podman"), "it runs containers of any kind"),
    **dict.fromkeys(
        ("sendmail", "postfix", "exim", "exim4", "opensmtpd", "courier-mta"),
        "it runs programs that users name in .forward",
    ),
    **dict.fromkeys(("apache2", "httpd", "lighttpd", "nginx"), "it runs web pages' programs"),
}


UNPROVEN = {
    "courier": "journald takes the blanks off a message, and with them the proof that it was cut; "
    "have rsyslog write a file",
}
"""Formats whose messages prove nothing once they went through a journal, and why."""


class Place(NamedTuple):
    """How far a journal was read: the cursor of the last entry, as journalctl writes it.

    `open_streams` are the ids of streams whose last entry was cut: their next one may be the rest.
    `doubted` is in how many bytes of messages the rest of one may stand whose head was suppressed.
    """

    cursor: str
    open_streams: tuple[str, ...] = ()
    doubted: int = 0


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


def name(matches: Sequence[str]) -> str:
    """What a journal is called in messages and in the state."""
    return f"journal {' '.join(matches)}"


def question(matches: Sequence[str], place: Place) -> tuple[str, ...]:
    """What `idle` asks, to learn whether anything is behind the place: cursor and matches."""
    return (place.cursor, *matches, "+", *_DROPPED)


def objection_to(matches: Sequence[str]) -> str | None:
    """Why these matches prove nothing, None if they choose a POP server's own entries.

    Several values of one field are alternatives, several fields must all fit; see journalctl(1).
    """
    chosen: dict[str, list[str]] = {}
    for match in matches:
        found = _MATCH.fullmatch(match)
        if found is None or "\0" in match:
            return f'has "{match}"; a match is FIELD=value, as _SYSTEMD_UNIT=dovecot.service'
        chosen.setdefault(found[1], []).append(found[2])
    units, users = chosen.get("_SYSTEMD_UNIT", []), chosen.get("_UID", [])
    for unit in units:
        if (why := _objection_to_unit(unit)) is not None:
            return f'has the unit "{unit}": {why}; name the unit of the POP server'
    if not units:
        for user in users:
            if (why := _objection_to_user(user)) is not None:
                return f'has _UID "{user}": {why}; name the unit of the POP server'
    if not units and not users:
        named = f": any user can have {', '.join(chosen)}" if chosen else ""
        return f"needs _SYSTEMD_UNIT=, the unit of the POP server, or _UID= of its own user{named}"
    return None


def _objection_to_unit(unit: str) -> str | None:
    found = _UNIT.fullmatch(unit)
    if found is None:
        return "it is no name of a service"
    name, kind = found[1], found[3]
    for stem in (name, name.partition("-")[0] if kind == "scope" or name[:4] == "run-" else name):
        if stem in _USERS_UNITS:
            return _USERS_UNITS[stem]
    if kind == "scope":
        return "a scope holds whatever was started in it"
    return "it runs web pages' programs" if re.fullmatch(r"php[\d.]*-fpm", name) else None


def _objection_to_user(user: str) -> str | None:
    if not re.fullmatch(r"[0-9]{1,10}", user):
        return "it is no number"
    if int(user) > _LAST_SYSTEM_USER:
        return f"a server's own user has a number up to {_LAST_SYSTEM_USER}"
    return None


class JournalReading:
    """What is new in a journal since `position`: iterate `frames()`, then take `position`.

    `edge` (UTC epoch seconds) is the time before which no login matters. `cut_behind` tells in how
    many bytes behind a cut message its rest may stand; see `formats`. `entries` counts,
    `unusable` those of them that are no evidence, and `dropped` how often journald's rate limit has
    dropped messages. `anew`, known with the first frame, says whether
    the reading begins at the edge, so that what was said before may not be known. After
    `deadline` (seconds of `time.monotonic`) it ends where it is, `unfinished`, and the next one
    goes on; nothing is ever `given_up`.
    """

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
        self.name = name(matches)
        self.position = position
        self.entries = self.unusable = self.dropped = 0
        self.anew = position is None
        self.unfinished = False
        self.given_up = ""
        self._edge = max(0, int(edge - LATE))
        self._cut_behind = cut_behind
        self._command = [
            *("journalctl", "--quiet", "--no-pager", "--output=json"),
            *(f"--output-fields={','.join(FIELDS)}", *options),
        ]
        self._matches = [*matches, "+", *_DROPPED]
        self._deadline = deadline
        self._open: dict[str, None] = {}
        self._doubted = 0

    def frames(self) -> Iterator[Frame]:
        """Yield the new messages in the journal's order.

        Raises `SapdError` 66 if the journal can't be read; the place is then what it was.
        """
        if self.position is not None:
            self._open = dict.fromkeys(self.position.open_streams)
            self._doubted = self.position.doubted
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
            self.position = Place(cursor, tuple(self._open), self._doubted)

    def _entries(self) -> Iterator[dict[str, Any]]:
        """The entries behind the place; those from the edge on if it is lost."""
        if self.position is not None and _CURSOR.fullmatch(self.position.cursor):
            with closing(self._run(f"--cursor={self.position.cursor}")) as entries:
                first = next(entries, None)
                if first is not None and first["__CURSOR"] == self.position.cursor:
                    yield from entries
                    return
        self.anew = True
        self._open.clear()
        self._doubted = 0
        with closing(self._run(f"--since=@{self._edge}")) as entries:
            yield from entries

    def _run(self, start: str) -> Generator[dict[str, Any], None, None]:
        """Run journalctl from there on; stop it when the time is up."""
        rest = b""
        try:
            with child.Running([*self._command, start, *self._matches]) as running:
                for block in running.blocks(_SILENT):
                    *lines, rest = (rest + block).split(b"\n")
                    for line in lines:
                        yield self._parsed(line)
                    if len(rest) > _LONGEST:
                        raise self._failed("an entry is endless")
                    if self.entries and time.monotonic() > self._deadline:
                        self.unfinished = True
                        return
                status, said = running.end(_SILENT)
        except TimeoutError:
            raise self._failed(f"journalctl says nothing for {_SILENT:.0f} s") from None
        except OSError as error:
            why = f"journalctl can't be started: {error.strerror or error}"
            raise self._failed(why) from None
        if status < 0:
            raise self._failed(f"journalctl was ended by signal {-status}")
        if status > 0:
            words = said.decode(errors="replace").strip().splitlines()
            why = words[-1] if words else f"journalctl ends with status {status}"
            if "permission" in why.lower():
                why = f"{why.rstrip('.')}; run it as root, or in the group systemd-journal"
            raise self._failed(why)

    def _parsed(self, line: bytes) -> dict[str, Any]:
        try:
            entry = json.loads(line)
            if isinstance(entry["__CURSOR"], str):
                return dict(entry)
        except (ValueError, LookupError, TypeError, RecursionError):
            pass
        raise self._failed(f"journalctl writes no JSON: {line[:80].decode(errors='replace')}")

    def _frame(self, entry: dict[str, Any]) -> Frame | None:
        """The entry's message with what journald and the server say about it; None if it has none.

        It is no evidence either if it may be a part of a message.
        """
        program, stamp = _value(entry, "SYSLOG_IDENTIFIER"), _stamp(entry)
        message = OVERLONG if entry.get("MESSAGE", b"") is None else _value(entry, "MESSAGE")
        if entry.get("MESSAGE_ID") == _DROPPED_ID and entry.get("_TRANSPORT") == "driver":
            self.dropped += 1
            self._doubted = max(self._doubted, self._cut_behind())
            return None
        doubted = self._continues(entry)
        if message is not None and self._doubted > 0:
            self._doubted = max(0, self._doubted - len(message))
            doubted = True
        if doubted or message is None or program is None or not _PROGRAM.fullmatch(program):
            return None
        if stamp is None:
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

    def _failed(self, why: str) -> errors.SapdError:
        return errors.SapdError(errors.LOG_UNREADABLE, self.name, f"can't be read: {why}")


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
