"""Which logs of this machine hold lines of a POP or IMAP server, and how many."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from sapd import errors, timestamps
from sapd.check import journals, table
from sapd.check.look import Look
from sapd.check.rotation import rotates
from sapd.check.syslogs import SYSLOG_CONFS, syslog_sources
from sapd.events import formats, frames
from sapd.events.context import DAY
from sapd.events.framing import Framing
from sapd.events.recogniser import Event, Recogniser
from sapd.reading import journal, journal_matches
from sapd.timestamps import Clock

_TAIL = 4 << 20  # bytes of a log that are looked at
_MOST = 200  # files
_PATIENCE = 20.0  # seconds for all of them
_ENTRIES = 200_000  # of a journal
_OTHERS = re.compile(  # rotated, compressed, binary, or about other things
    r".*(\.\d+|[.-]\d{8}|\.old|\.gz|\.bz2|\.xz|\.zst|\.journal~?)"
    r"|[wb]tmp.*|lastlog|faillog|dpkg\.log|alternatives\.log|bootstrap\.log"
)
_USUAL = ("var/log/mail.log", "var/log/maillog", "var/log/mail")  # Debian, Red Hat, SUSE
_DAEMONS = ("usr/sbin/rsyslogd", "usr/sbin/syslog-ng", "usr/sbin/syslogd", "sbin/syslogd")
_JOURNALD = "run/systemd/journal/socket"
_SERVERS = {  # where a server's program lies: its format, and its unit, if it lives on
    "usr/sbin/dovecot": ("dovecot", "dovecot.service"),
    "usr/lib/cyrus/bin/master": ("cyrus", "cyrus-imapd.service"),
    "usr/libexec/cyrus-imapd/master": ("cyrus", "cyrus-imapd.service"),
    "usr/sbin/courierlogger": ("courier", ""),
    "usr/sbin/in.qpopper": ("qpopper", ""),
    "usr/sbin/popper": ("qpopper", ""),
    "usr/sbin/popa3d": ("popa3d", ""),
    "usr/sbin/solid-pop3d": ("solid-pop3d", ""),
    "usr/sbin/teapop": ("teapop", ""),
    "usr/sbin/vm-pop3d": ("vm-pop3d", ""),
    "usr/sbin/ipop3d": ("uw-imap", ""),
}


class Seen(NamedTuple):
    """What the end of a log holds, or the last day of a unit's journal.

    `path` is empty for a journal, `unit` for a file. `lines` counts all, `logins` those that name
    an address, by format, and `servers` the lines of each format's programs. `zone` is empty if
    the stamps name one or the system's fits them, else one that does, or "?". `cutters` are the
    files by which logrotate shortens the log.
    """

    path: str = ""
    unit: str = ""
    lines: int = 0
    logins: Counter[str] = Counter()  # noqa: RUF012 -- nobody changes it
    servers: Counter[str] = Counter()  # noqa: RUF012
    zone: str = ""
    dated: bool = False
    cutters: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is called in comments."""
        return self.path or f"the journal of {self.unit}"


class Found(NamedTuple):
    """What there is: the logs that hold something, the servers, and where those would log.

    `dovecot` is the file of its own that Dovecot writes, or empty; `mail` is where syslog writes
    what is about mail, or empty without a syslog daemon. `unread` are files that this user may not
    read, each with the reason.
    """

    logs: tuple[Seen, ...] = ()
    servers: tuple[tuple[str, str], ...] = ()
    dovecot: str = ""
    mail: str = ""
    journald: bool = False
    unread: tuple[str, ...] = ()


def look(root: str = "/") -> Found:
    """Look at the machine whose / is `root`."""
    deadline, counting = time.monotonic() + _PATIENCE, _Counting()
    dovecot = _dovecots_own() if root == "/" else ""
    unread, logs = list[str](), list[Seen]()
    for path in dict.fromkeys([dovecot] * bool(dovecot) + sorted(_files(root, unread))[:_MOST]):
        if time.monotonic() > deadline:
            unread.append(f"{path} and what comes behind it: there was too much to look at")
            break
        seen = counting.file(path, root, unread)
        if seen.logins or seen.servers:
            logs.append(seen)
    if root == "/":
        logs += filter(lambda seen: seen.logins or seen.servers, map(counting.unit, _units()))
    return Found(
        tuple(logs),
        tuple(of for path, of in _SERVERS.items() if os.path.exists(os.path.join(root, path))),
        dovecot,
        _of_syslog(root),
        os.path.exists(os.path.join(root, _JOURNALD)),
        tuple(unread),
    )


def _files(root: str, unread: list[str]) -> Iterator[str]:
    """The files below /var/log, and in its folders, that may be logs."""
    look = Look()
    top = os.path.join(root, "var/log")
    for name in look.names(top):
        path = os.path.join(top, name)
        names = [path]
        if os.path.isdir(path) and not os.path.islink(path) and name != "journal":
            names = [os.path.join(path, inner) for inner in look.names(path)]
        for file in names:
            if not file.isprintable() or _OTHERS.fullmatch(os.path.basename(file)):
                continue
            if os.path.isfile(file) and not os.path.islink(file):
                yield file
    unread += look.unread


def _units() -> list[str]:
    return [unit for unit in journals.units() if unit.isprintable()]


def _dovecots_own() -> str:
    """The file to which Dovecot writes logins: doveconf(1), and its `log_path`s."""
    for setting in ("info_log_path", "log_path"):
        done = table.ask(["doveconf", "-h", setting])
        said = done.said.decode("utf-8", "replace").strip() if done and done.status == 0 else ""
        if said.startswith("/") and said.isprintable():
            return "" if said.startswith("/dev/") else said
        if said == "syslog":
            return ""
    return ""


def _of_syslog(root: str) -> str:
    if not any(os.path.exists(os.path.join(root, daemon)) for daemon in _DAEMONS):
        return ""
    confs = tuple(os.path.join(root, conf) for conf in SYSLOG_CONFS)
    usual = [os.path.join(root, name) for name in _USUAL]
    return next((path for path in usual if syslog_sources(path, confs).found), usual[0])


class _Counting:
    """Counts what logs hold, by all formats that need no administrator's word."""

    def __init__(self) -> None:
        known = [formats.load(name) for name in formats.names()]
        self._formats = [format for format in known if format.auto]
        self._names = [format.name for format in self._formats]
        self._inheriting = [format.name for format in self._formats if format.inherits]
        self._by_program: dict[bytes, list[str]] = {}

    def file(self, path: str, root: str, unread: list[str]) -> Seen:
        """What the end of a file holds."""
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                changed = os.fstat(file.fileno()).st_mtime
                file.seek(max(0, size - _TAIL))
                block = file.read(_TAIL)
        except OSError as error:
            unread.append(f"{path}: {error.strerror}")
            return Seen(path)
        if size > _TAIL:
            block = block[block.find(b"\n") + 1 :]
        block = block[: block.rfind(b"\n") + 1]
        logins = self._logins(block)
        lines = block.split(b"\n")[:-1]
        servers = Counter(
            name
            for line in lines
            if (frame := frames.split(line))
            for name in self._writers(frame.program)
        )
        cutters = rotates(path, os.path.join(root, "etc/logrotate.conf")).found
        zone, dated = _zone(lines[-1], changed) if lines else ("", False)
        return Seen(path, "", len(lines), logins, servers, zone, dated, tuple(cutters))

    def _logins(self, block: bytes) -> Counter[str]:
        logins = Counter[str]()
        for names in (self._names, self._inheriting):
            recogniser = Recogniser(names, Clock(time.time()))
            counts = Counter[str]()
            recogniser.context.frame = Framing(recogniser.formats, None).of_block(block)
            counts.update(one.format for one in recogniser.events(block) if _opens(one))
            for name, count in counts.items():
                if formats.load(name).inherits not in logins:
                    logins[name] = count
        return logins

    def unit(self, unit: str) -> Seen:
        """What the last day of a unit's journal holds."""
        now = time.time()
        names = [name for name in self._names if name not in journal_matches.UNPROVEN]
        recogniser = Recogniser(names, Clock(now))
        logins, servers, lines = Counter[str](), Counter[str](), 0
        try:
            reading = journal.JournalReading([f"_SYSTEMD_UNIT={unit}"], None, now - DAY)
            for lines, frame in enumerate(reading.frames(), 1):
                found = recogniser.recognise_frame(frame)
                if isinstance(found, Event) and _opens(found):
                    logins[found.format] += 1
                servers.update(set(self._writers(frame.program)) & set(names))
                if lines >= _ENTRIES:
                    break
        except errors.SapdError:
            return Seen("", unit)
        return Seen("", unit, lines, logins, servers, "", True)

    def _writers(self, program: bytes) -> list[str]:
        if program not in self._by_program:
            self._by_program[program] = [
                format.name for format in self._formats if format.programs.fullmatch(program)
            ]
        return self._by_program[program]


def _opens(event: Event) -> bool:
    return event.event == "login" and event.address is not None


def _zone(last: bytes, changed: float) -> tuple[str, bool]:
    """A zone that a log's last stamp fits if the system's doesn't; whether the stamp names one.

    The stamp is taken to be as old as the file's last change (UTC epoch seconds).
    """
    now = time.time()
    here = Clock(now).of_line(last)
    universal = Clock(now, timestamps.zone("UTC")).of_line(last)
    east = Clock(now, timestamps.zone("Etc/GMT-5")).of_line(last)
    if here is None or universal is None or universal == east:
        return "", here is not None
    if abs(changed - here) < 1800:
        return "", False
    if abs(changed - universal) < 60:
        return "UTC", False
    halves = round((changed - here) / 1800)
    fits = abs(halves) <= 28 and abs(changed - here - 1800 * halves) < 60
    return "?" if fits else "", False
