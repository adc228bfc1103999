"""Whether a log is what the configuration says: there, in these formats, by nobody else."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from time import time

from sapd import errors, files
from sapd.check.finding import Finding, Note, problem
from sapd.check.rotation import rotates
from sapd.check.syslogs import SYSLOG_CONFS, syslog_sources
from sapd.config import Config, Log
from sapd.crowds import crowds
from sapd.events import explain, frames
from sapd.events.context import Context
from sapd.events.formats import AUTO, load, usable
from sapd.events.framing import Framing
from sapd.events.recogniser import Event, Recogniser, Rejection, Unusable
from sapd.reading import dated
from sapd.reading.maillog import Reading
from sapd.timestamps import AHEAD, Clock

_MISSES = 2000  # of the last lines, in which near misses are looked for
_JOURNAL = b"LPKSHHRH"
_MOST_NEAR = 10  # logins that were read, to each that nearly fits
_MOST_LOOKED_AT = 10_000  # lines that nearly fit
_LINE = 160  # characters of a line that is shown


@dataclass
class _Seen:
    """What a log holds, as the configured formats read it, and as the others do."""

    lines: int = 0
    frame: str = ""
    last: bytes = b""
    ahead: int = 0
    syslog: bool = False
    events: Counter[str] = field(default_factory=Counter)
    logins: Counter[str] = field(default_factory=Counter)  # by format
    opening: int = 0  # logins that name an address
    others: Counter[str] = field(default_factory=Counter)  # logins, by formats not configured
    unreadable: list[str] = field(default_factory=list)
    clients: set[tuple[str, str, float]] = field(default_factory=set)  # address, account, hour
    near: Counter[str] = field(default_factory=Counter)  # near logins, by format
    differences: dict[str, Counter[str]] = field(default_factory=dict)  # of those, by format
    latest: deque[bytes] = field(default_factory=lambda: deque(maxlen=_MISSES))  # lines

    def count_login(self, event: Event, now: float) -> None:
        self.logins[event.format] += 1
        self.opening += event.address is not None
        self.ahead += event.time > now + AHEAD
        if event.address is not None:
            self.clients.add((event.address, event.account, event.time // 3600 * 3600))


def findings(log: Log, config: Config, root: str) -> Iterator[Finding]:
    """What a run would meet in one log; `root` is where /etc is looked for."""
    if log.pattern:
        log = log._replace(path=_latest_file(log))
        yield Finding(0, f"{log.pattern}: is {log.path} now")
    if _is_a_journal(log.path):
        remedy = 'write journal = ["_SYSTEMD_UNIT=..."] in the place of path, with its unit'
        reason = "is a file of the systemd journal, and no text"
        yield Finding(errors.LOG_UNREADABLE, f"{log.path}: {reason}; {remedy}")
        return
    now = time()
    clock = Clock(now, log.zone)
    folder = config.formats_directory
    names, others = _formats_of(log, folder)
    if not names:
        return  # what is wrong with them was said
    recogniser = Recogniser(names, clock, folder, programs=log.programs, only=log.frame)
    try:
        seen = _look(log, config, recogniser, Recogniser(others, clock, folder))
        changed = os.stat(log.path).st_mtime
    except errors.SapdError as error:
        yield problem(error)
        return
    except OSError as error:
        reason = f"can't be read: {error.strerror}"
        yield problem(errors.SapdError(errors.LOG_UNREADABLE, log.path, reason))
        return
    for reason in seen.unreadable:
        yield Note(f"{log.path}: {reason}")
    yield from _formats(log, seen, recogniser, folder)
    yield from _evidence(log, seen, recogniser.unusable)
    yield from _zone(log, changed - (clock.of_line(seen.last) or changed))
    yield from _unframed(log, recogniser)
    yield from _folder(log)
    yield from _crowds(log, seen, config)
    yield from _cutting(log, root)
    if seen.syslog:
        yield from _forgeable(log.path, root, hostless=seen.frame.endswith("hostless"))


def _formats_of(log: Log, folder: str) -> tuple[list[str], list[str]]:
    """The names of the formats that the log is read in, and of those that it is looked for."""
    formats = usable(folder)
    if AUTO in log.formats:
        names = [name for name in formats if load(name, folder).auto]
    else:
        names = [name for name in log.formats if name in formats]
    others = [name for name in formats if name not in names or load(name, folder).inherits]
    return names, others


def _latest_file(log: Log) -> str:
    """Of a log whose name is the date: today's file, or one before if that is not there yet."""
    now = time()
    names = [log.file(now), *dated.earlier(log.pattern, now, now, log.zone)]
    return next(filter(os.path.exists, names), names[0])


def _is_a_journal(path: str) -> bool:
    """By its first bytes: systemd.io/JOURNAL_FILE_FORMAT."""
    try:
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            return file.read(len(_JOURNAL)) == _JOURNAL
    except OSError:
        return False


def _zone(log: Log, behind: float) -> Iterator[Finding]:
    """Whether a log's last stamp lies whole half hours `behind` its last change (seconds)."""
    halves = round(behind / 1800)
    if 1 <= halves <= 28 and abs(behind - 1800 * halves) < 60:
        reason = f"its last stamp is {halves / 2:g} h before its last change"
        remedy = "if that line is not old, set timezone for this log"
        yield Finding(errors.LOG_UNREADABLE, f"{log.path}: {reason}; {remedy}")


def _look(log: Log, config: Config, recogniser: Recogniser, rest: Recogniser) -> _Seen:
    """Read it from the window's edge on; raises `SapdError`."""
    now = recogniser.clock.now
    edge = now - config.rules.longest
    others = [other.file(now) for other in config.logs]
    earlier = dated.earlier(log.pattern, now, edge, log.zone)
    reading = Reading(log.path, None, edge, 0, recogniser.clock, others, earlier, counting=True)
    containers = recogniser.context.containers = rest.context.containers
    framing = Framing([*recogniser.formats, *rest.formats], None, log.frame, containers)
    seen = _Seen()
    for block in reading.blocks():
        seen.last = block[block.rfind(b"\n", 0, -1) + 1 :]
        lead = b"" if seen.frame else reading.lead
        seen.frame = framing.of_block(block, lead, at_head=reading.at_head)
        recogniser.context.frame = rest.context.frame = seen.frame
        for event in recogniser.events(block, partial(_note_near, seen, recogniser)):
            seen.events[event.event] += 1
            if event.event == "login":
                seen.count_login(event, now)
        seen.others.update(one.format for one in rest.events(block) if one.event == "login")
        seen.latest.extend(block.removesuffix(b"\n").split(b"\n")[-_MISSES:])
    seen.lines = reading.lines_read
    seen.unreadable = [f"the rotated file {one.path} {one.why}" for one in reading.missed]
    frame = frames.split(seen.last.removesuffix(b"\n"))
    seen.syslog = frame is not None and frame.program != b""
    return seen


def _note_near(
    seen: _Seen, recogniser: Recogniser, line: bytes, rejected: Rejection | None
) -> None:
    """Count a line that is none, if it is a login in words of its server's that are not known."""
    if rejected is not None:
        near = explain.Near(rejected.of, f"because {rejected.reason}") if rejected.of else None
    elif seen.near.total() < _MOST_LOOKED_AT:
        near = explain.near_login(recogniser.formats, line, recogniser.context.frame or "")
    else:
        near = None
    if near is not None:
        seen.near[near.format] += 1
        seen.differences.setdefault(near.format, Counter())[near.difference] += 1


def _unframed(log: Log, recogniser: Recogniser) -> Iterator[Finding]:
    """What may be logins, but has no head that proves who wrote it."""
    if count := recogniser.unusable.unframed:
        containers = ", ".join(name.rstrip("|") for name in recogniser.context.containers)
        which = f"; containers that print lines of their own: {containers}" * bool(containers)
        reason = f"lines that may be logins, but have no frame that is believed here: {count}"
        yield Note(f"{log.path}: {reason}{which}; see FRAMES in sapd.toml(5)", quotes=True)


def _folder(log: Log) -> Iterator[Finding]:
    """Whether others may put files there that look like rotated ones."""
    folder = os.path.dirname(os.path.realpath(log.path))
    if os.stat(folder).st_mode & stat.S_IWOTH:
        reason = "anybody may write to this folder, and make files that look like the log's"
        yield Note(f"{folder}: {reason}; run chmod o-w {folder}")


def _crowds(log: Log, seen: _Seen, config: Config) -> Iterator[Finding]:
    """Who opens the relay for many, though it is no single user's device."""
    for crowd in crowds(seen.clients):
        if not config.rules.forbids(crowd.address):
            where = f"{log.path}: {crowd.accounts} accounts logged in from {crowd.address}"
            what = "if that is a webmail, a monitor or a proxy, shut it"
            remedy = f'[policy] never = ["{crowd.address}"]'
            yield Note(f"{where}, in {crowd.hours} hours of a day; {what}: {remedy}")


def _formats(log: Log, seen: _Seen, recogniser: Recogniser, folder: str) -> Iterator[Finding]:
    """Whether the log is written in a frame that is known, and in the formats configured."""
    if seen.lines == 0:
        what = "holds no whole line" if os.path.getsize(log.path) else "is empty"
        yield Finding(errors.LOG_UNREADABLE, f"{log.path}: {what}; does the POP server log here?")
        return
    read = f"{log.path}: {seen.lines} line{'s' * (seen.lines != 1)} read"
    if not seen.frame:
        reason = f"{read}, of which more than 1 in 100 have no known frame, so none is believed"
        remedy = f"set frame for this log, to one of {', '.join(frames.NAMES)}"
        yield Finding(errors.LOG_UNREADABLE, f"{reason}; {remedy}")
    elif seen.events["login"]:
        yield from _logins(log, seen, read, recogniser, folder)
    else:
        yield from _no_login(log, seen, read, recogniser, folder)


def _no_login(
    log: Log, seen: _Seen, read: str, recogniser: Recogniser, folder: str
) -> Iterator[Finding]:
    what = "no login, only logouts," if seen.events else "no line"
    formats = "any known format" if AUTO in log.formats else f"the format {', '.join(log.formats)}"
    reason = f"{read}, {what} in {formats}"
    if seen.others:
        remedy = f"set formats to what has logins here: {_counts(seen.others)}"
        yield Finding(errors.LOG_UNREADABLE, f"{reason}; {remedy}")
        return
    remedy = "does the POP server log logins, and here? See sapd match --explain"
    yield Finding(errors.LOG_UNREADABLE, f"{reason}; {remedy}")
    names = [format.name for format in recogniser.formats]
    context = Context(frame=seen.frame)
    clock, only = recogniser.clock, log.frame
    again = Recogniser(names, clock, folder, context, programs=log.programs, only=only)
    for line, lacks in _near_misses(seen.latest, again):
        yield Note(f"{log.path}: nearest to one comes, but {lacks}: {line}", quotes=True)


def _logins(
    log: Log, seen: _Seen, read: str, recogniser: Recogniser, folder: str
) -> Iterator[Finding]:
    """Of which formats they are, and whether all that matter are configured, and no others."""
    rest = ", ".join(f"{kind} {seen.events[kind]}" for kind in ("logout", "connect"))
    text = f"{read}, login: {_counts(seen.logins)}; {rest}; frame {seen.frame}"
    wrong = [name for name, n in seen.near.items() if n * _MOST_NEAR > seen.logins[name]]
    if not wrong:
        yield Finding(0, text)
    for name, number in seen.near.items():
        (difference, _), *_ = seen.differences[name].most_common(1)
        reason = f"logins that nearly fit {name}, and open nothing: {number}, {difference}"
        if name in wrong:
            yield Finding(errors.LOG_UNREADABLE, f"{text}; but {reason}", quotes=True)
        else:
            yield Note(f"{log.path}: {reason}", quotes=True)
    if AUTO in log.formats:
        named = ", ".join(f'"{name}"' for name, _ in seen.logins.most_common())
        reason = "all formats are tried on every line"
        yield Note(f"{log.path}: {reason}; write formats = [{named}]: stricter and faster")
    known = [format.name for format in recogniser.formats]
    others = Counter(  # without qpopper-stats, where what it reads is qpopper's logout
        {
            name: count
            for name, count in seen.others.items()
            if load(name, folder).inherits not in known
        }
    )
    if others:
        reason = f"has logins of formats not named, which open nothing: {_counts(others)}"
        yield Note(f"{log.path}: {reason}")


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common())


def _near_misses(lines: Iterable[bytes], recogniser: Recogniser) -> list[tuple[str, str]]:
    """The three of the lines that come nearest to an event, each kind once, and what they lack."""
    kinds: dict[bytes, tuple[tuple[float, int], bytes, str]] = {}
    for line in lines:
        kind = re.sub(rb"\d+", b"0", line)
        if kind in kinds:
            continue
        found = recogniser.recognise(line + b"\n")
        if not isinstance(found, Event):
            nearness, reason = explain.miss(recogniser.formats, line)
            kinds[kind] = nearness, line, found.reason if found else reason
    nearest = sorted(kinds.values(), reverse=True)[:3]
    return [(_shown(line), reason) for (near, _), line, reason in nearest if near > 0]


def _shown(line: bytes) -> str:
    text = line.decode("utf-8", "backslashreplace")
    return text if len(text) <= _LINE else text[:_LINE] + "…"


def _evidence(log: Log, seen: _Seen, unusable: Unusable) -> Iterator[Finding]:
    """What keeps lines that fit from opening anything."""
    see = "see sapd match --explain"
    for count, what in ((unusable.address, "address"), (unusable.stamp, "time")):
        if count:
            reason = f"lines whose {what} is none: {count}; {see}"
            yield Finding(errors.LOG_UNREADABLE, f"{log.path}: {reason}")
    if unusable.no_address:
        reason = f"logins that name no address, and open nothing: {unusable.no_address}; {see}"
        if seen.opening:
            yield Note(f"{log.path}: {reason}")
        else:
            yield Finding(errors.LOG_UNREADABLE, f"{log.path}: {reason}")
    for count, why in (
        (unusable.cut, "because a message before them was cut"),
        (unusable.torn, "because they may be the work of two writers"),
    ):
        if count:
            yield Note(f"{log.path}: lines not believed, {why}: {count}; {see}")
    if seen.ahead:
        yield Finding(
            errors.LOG_UNREADABLE,
            f"{log.path}: logins stamped ahead of now: {seen.ahead}; set timezone for this log",
        )


def _cutting(log: Log, root: str) -> Iterator[Finding]:
    """Who shortens the log: sapd, logrotate, or, which is wrong, both or nobody."""
    if log.pattern:
        reason = "a file for each date, and nothing of sapd's deletes old ones"
        yield Note(f"{log.pattern}: {reason}; see find -mtime, or maxage of logrotate")
        return
    look = rotates(log.path, os.path.join(root, "etc/logrotate.conf"))
    rotating = look.found
    if look.unread:
        unread = ", ".join(look.unread)
        yield Note(
            f"{log.path}: whether logrotate shortens it can't be told: {unread}", quotes=True
        )
    if log.keep_lines is None:
        if not rotating and not look.unread:
            yield Note(
                f"{log.path}: nothing shortens it; set keep_lines, or see sapd init --logrotate"
            )
        return
    if rotating:
        where = ", ".join(rotating)
        reason = f"keep_lines and {where} both shorten it; take it out of one of them"
        yield Finding(errors.BAD_CONFIG, f"{log.path}: {reason}")
    try:
        os.close(files.open_in_place(log.path, writing=False))
        writable = os.access(log.path, os.W_OK)
    except (OSError, errors.SapdError) as error:
        yield Finding(errors.CANT_CREATE, f"{error}; it can't be cut")
    else:
        if writable:
            yield Finding(0, f"{log.path}: can be cut")
        else:
            reason = "can't be cut: not writable for this user; take keep_lines out, or run as root"
            yield Finding(errors.NO_PERMISSION, f"{log.path}: {reason}")


def _forgeable(path: str, root: str, *, hostless: bool) -> Iterator[Note]:
    """Say who can write a login without being asked for a password; nobody can prevent it.

    What names no host may be the server's own file, as Dovecot's is, if syslog does not write it.
    """
    found = syslog_sources(path, tuple(os.path.join(root, conf) for conf in SYSLOG_CONFS)).found
    if hostless and not found:
        return
    where = f" ({', '.join(found)})" if found else ""
    reason = f"any local user can write a login there through syslog{where}; a file that only the"
    yield Note(f"{path}: {reason} POP server writes can't be forged so")
