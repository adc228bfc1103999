"""Whether nothing happened since the last run, told at next to no cost.

In most minutes nothing did, and to find that out should take no longer than starting Python. So a
run that found nothing to do notes how every file looked that it goes by, and until when time alone
changes nothing. The next run compares, and leaves.

A wrong "nothing happened" shuts somebody out, or leaves the relay open. So the note proves what it
says: for which configuration, program and boot it holds, and from when until when. Where anything
differs, or can't be told, something happened. How the files looked is taken before they are read,
so that a change meanwhile shows the next time, and a file that changed just then is not noted: it
could change again and look the same.
"""

from __future__ import annotations

import os
from time import clock_gettime, time

from sapd import defaults

try:
    from time import CLOCK_BOOTTIME as _SINCE_BOOT
except ImportError:  # Linux's own; elsewhere the usual clock counts from there, too
    from time import CLOCK_MONOTONIC as _SINCE_BOOT

TYPE_CHECKING = (
    False  # not typing's own: to load that, or collections.abc, takes half as long again
)
if TYPE_CHECKING:
    from collections.abc import Iterable

NAME = "idle"
"""The note's file in the state's folder."""

LAST_PASS = "last-pass"  # noqa: S105 -- no password
"""The file in the state's folder whose time of change says when a pass came to its end."""

MINUTE = 60
"""Seconds; `LAST_PASS` is not touched more often."""

_QUESTION = "journal"
_PATIENCE = 10.0  # seconds for journalctl
_nothing_new: dict[str, str] = {}  # how the journals looked when there was nothing new in them
_FIRST, _LAST = "sapd's note of an idle minute, version 2", "end"
_LARGEST = 1024 * 1024  # bytes; of a longer file the rest is missing, and so the proof
_SETTLED = 0.1  # seconds; a file system's clock ticks every 1 to 10 ms ...
_SETTLED_COARSE = 2.1  # ... or every second, or two, if its times have no fraction


class Snapshot(dict[str, str]):
    """{path: how the file looks}; the file may be missing.

    `settled` (UTC epoch seconds) is when a change of any of them would have shown.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        """Look at them all."""
        self._taken, self.settled = time(), 0.0
        for path in paths:
            self[path] = _look(path)
            for changed in map(int, self[path].split()[4::5]):
                coarse = changed % 1_000_000_000 == 0
                settled = _SETTLED_COARSE if coarse else _SETTLED
                self.settled = max(self.settled, changed / 1e9 + settled)

    def unchanged(self) -> bool:
        """Whether all files look the same now; False if one may have changed all the same."""
        return self.settled < self._taken and self == Snapshot(self)

    def add(self, earlier: Snapshot) -> None:
        """Include an earlier snapshot of other files."""
        self.update(earlier)
        self.settled = max(self.settled, earlier.settled)
        self._taken = min(self._taken, earlier._taken)


def _look(path: str) -> str:
    """What changes when a file is written or replaced, or what its name leads to is."""
    found = []
    for look in (os.lstat, os.stat):
        try:
            about = look(path)
        except OSError:
            return "missing"
        found += [about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns]
    if path.endswith(".journal"):
        found.append(_entries(path))
    return " ".join(map(str, found))


def _entries(path: str) -> int:
    """The number of entries in a journal file, by its header: its times lag behind what is written.

    See systemd.io/JOURNAL_FILE_FORMAT. 0 if it can't be read: then no run can read it, either.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return int.from_bytes(os.pread(fd, 8, 152), "little")
        finally:
            os.close(fd)
    except OSError:
        return 0


def note(
    config: str,
    snapshot: Snapshot,
    now: float,
    until: float,
    questions: Iterable[Iterable[str]] = (),
) -> bytes | None:
    """The note's text, None if there can be none: nothing is to do from `now` to `until`.

    Times are UTC epoch seconds. The snapshot has all files that a pass goes by, the configuration
    among them. `questions` are for the journals: each a cursor, and what journalctl is to match.
    """
    asked = ["\t".join([_QUESTION, *question]) for question in questions]
    if any("\n" in row for row in [*snapshot, *asked]) or now < snapshot.settled:
        return None
    rows = [*asked, *(f"{path}\t{look}" for path, look in snapshot.items())]
    head = [os.path.abspath(config), *machine(), repr(now), repr(until)]
    return os.fsencode("\n".join([_FIRST, *head, *rows, _LAST]))


def nothing_happened(config: str) -> bool:
    """Whether a run with this configuration, by its path, would find nothing to do."""
    try:
        directory = state_directory(config)
        if directory is None:
            return False
        # No link is followed: in another user's folder it could lead root to a device.
        text = _read(os.path.join(directory, NAME), os.O_NOFOLLOW)
        first, path, program, boot, since, until, *rows, last = text.split("\n")
        nothing = (
            [first, path, program, boot] == [_FIRST, os.path.abspath(config), *machine()]
            and last == _LAST
            and float(since) <= time() < float(until)
            and _unchanged(rows)
        )
        if nothing:
            touch(directory)
        return nothing
    except (OSError, ValueError):
        return False


def _unchanged(rows: list[str]) -> bool:
    """Whether all files look as the note says; or else only a journal's, in which nothing is new.

    Something is written to a journal in every minute.
    """
    asked = [row.split("\t")[1:] for row in rows if row.startswith(f"{_QUESTION}\t")]
    looks = [row.rpartition("\t") for row in rows[len(asked) :]]
    changed = {path: now for path, _, look in looks if look != (now := _look(path))}
    if not changed or changed == _nothing_new:
        return True
    if not asked or not all(path.startswith(defaults.JOURNALS) for path in changed):
        return False
    nothing = all(_is_last(cursor, matches) for cursor, *matches in asked)
    if nothing:
        _nothing_new.clear()
        _nothing_new.update(changed)
    return nothing


def _is_last(cursor: str, matches: list[str]) -> bool:
    """Whether the entry of this cursor is in the journal, and none behind it. Raises OSError."""
    from sapd import child  # for nobody else

    command = ["journalctl", "--quiet", "--no-pager", "--output=json", "--output-fields=_PID"]
    done = child.run([*command, f"--cursor={cursor}", "--", *matches], b"", 1, _PATIENCE)
    whole = done.status == 0 and done.said.count(b"\n") == 1
    return whole and f'"__CURSOR":"{cursor}"'.encode() in done.said


def touch(directory: str) -> None:
    """Leave a trace of a pass: set the time of `LAST_PASS`, which must be there. Raises OSError."""
    path = os.path.join(directory, LAST_PASS)
    if abs(time() - os.lstat(path).st_mtime) >= MINUTE:
        os.utime(path, follow_symlinks=False)


def state_directory(config: str) -> str | None:
    """The state's folder, read line by line, without a TOML parser; None if that can't be told.

    The note then proves that it is the right one. Raises OSError.
    """
    table, found = "", defaults.STATE_DIRECTORY
    for line in _read(config).split("\n"):
        text = line.strip(" \t\r")
        if '"""' in text or "'''" in text or (not table and text.startswith(("state", '"', "'"))):
            return None  # a text of several lines, or the same table in another spelling
        if text.startswith("["):
            table = text.partition("#")[0].replace(" ", "").replace("\t", "")
            if table != "[state]" and ("state" in table or "\\" in table):
                return None
        elif table == "[state]" and "=" in text and not text.startswith("#"):
            key, _, value = text.partition("=")
            quoted = _quoted(value.strip())
            if key.strip() != "directory" or quoted is None:
                return None
            found = quoted
    return os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(config)), found))


def _quoted(value: str) -> str | None:
    """The text of a TOML string in one line, None if it is anything else, or has escapes."""
    quote = value[:1]
    text, end, rest = value[1:].partition(quote) if quote in ('"', "'") else ("", "", "")
    rest = rest.strip()
    whole = end and text and (not rest or rest.startswith("#"))
    return text if whole and "\\" not in text else None


_PROGRAM = _look(__file__)  # as it is loaded: a run that goes on may outlive it


def boot_id() -> str:
    """What tells this start of the machine from any other: the kernel's id, else the time of it.

    The time is in whole seconds, since two clocks are never read at once. Where the clock was set
    meanwhile it is another, and so seems the boot.
    """
    try:
        found = _read("/proc/sys/kernel/random/boot_id").strip()
    except OSError:  # no Linux, or /proc is not there
        found = ""
    return found or f"at {round(time() - clock_gettime(_SINCE_BOOT))}"


def machine() -> list[str]:
    """Which program this is, and which boot."""
    return [_PROGRAM, boot_id()]


def _read(path: str, flags: int = 0) -> str:
    """A small file's text; without waiting, if it is a FIFO."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    try:
        return os.fsdecode(os.read(fd, _LARGEST))
    finally:
        os.close(fd)
