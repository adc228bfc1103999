"""The configuration: TOML to named tuples, with errors that name file, key and remedy."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import tzinfo
from functools import partial
from math import inf
from time import time
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sapd import defaults, errors, files, maps, settings, timestamps, toml_file
from sapd.addresses import contains
from sapd.events import formats, frames
from sapd.idle import Snapshot
from sapd.reading import dated
from sapd.reading.logfile import COMPRESSED
from sapd.relay import Rules
from sapd.toml_table import Refused, Table, nearest

if TYPE_CHECKING:
    from sapd.addresses import Network

T = TypeVar("T")

_DECISIVE = ("server",)
"""Settings on which it depends what others mean."""

_ALIKE = 0.7
"""How alike two names of formats must be for one to be meant by the other."""


class Log(NamedTuple):
    """One log to read; `zone` None is the system's, `keep_lines` None never cuts.

    `programs` stand in place of those that the formats name, which hold where there are none.
    `journal` has the matches of a journal, whose `path` is no file, but what it is called. Nor is
    that of a log whose name is the date; it is the `pattern`, too (see `dated`). `frame` is that of
    its lines; None where it is to be found from them.
    """

    path: str
    formats: tuple[str, ...]
    zone: tzinfo | None = None
    keep_lines: int | None = None
    cut_above: int = 0
    programs: tuple[str, ...] = ()
    journal: tuple[str, ...] = ()
    pattern: str = ""
    frame: str | None = None

    def file(self, now: float) -> str:
        """The file that is written to at `now` (UTC epoch seconds)."""
        return dated.current(self.pattern, now, self.zone) if self.pattern else self.path

    def is_at(self, path: str) -> bool:
        """Whether this is the path of one of its files, whatever its date."""
        return dated.fits(self.pattern, path) if self.pattern else path == self.path


class Audit(NamedTuple):
    """How many lines of the trail are kept, 0 for no trail; whether syslog is told, too."""

    keep_lines: int = 10_000
    syslog: bool = False


class Config(NamedTuple):
    """Everything that the file says. Paths are absolute.

    `snapshot` is how the file and the administrator's own formats looked before they were read.
    """

    path: str
    logs: tuple[Log, ...]
    access: maps.Access
    state_directory: str
    rules: Rules
    audit: Audit
    formats_directory: str
    snapshot: Snapshot


class Readable(NamedTuple):
    """What can be read of a configuration that has a mistake.

    Where it `names_access` not, the default is not what was meant, perhaps.
    """

    state_directory: str | None = None
    access: maps.Access | None = None
    rules: Rules | None = None
    names_access: bool = True


class Mistake(errors.SapdError):
    """The configuration can't be used; `readable` is what a run may go by to close."""

    def __init__(self, mistakes: list[errors.SapdError], readable: Readable) -> None:
        """Stand for the first mistake; the `others` are told, too."""
        first, *others = mistakes
        super().__init__(first.status, first.subject, first.reason)
        self.others = tuple(others)
        self.readable = readable


def load(path: str) -> Config:
    """Read and check the file; raises `Mistake` (78, or 77 if it may not be read)."""
    snapshot = Snapshot([path])
    try:
        os.path.abspath(path)
    except OSError:
        reason = "can't be found from here: the current folder is gone; cd to another one"
        raise Mistake([errors.SapdError(errors.BAD_CONFIG, path, reason)], Readable()) from None
    try:
        files.refuse_untrusted(path)
        top = toml_file.read(path)
    except errors.SapdError as problem:
        raise Mistake([problem, *problem.others], Readable()) from None
    return _Sections(top, snapshot).config()


class _Sections:
    """Reads each section by itself, so that a mistake in one does not hide the others."""

    def __init__(self, top: Table, snapshot: Snapshot) -> None:
        self._top = top
        self._snapshot = snapshot
        self._mistakes: list[errors.SapdError] = []
        self._wrong: set[tuple[int, str]] = set()
        self._pretended: set[tuple[int, str]] = set()

    def _try(self, section: Callable[[], T]) -> T | None:
        """Read a section; None if it has mistakes.

        To find them all it is read again without what was wrong, or with something sound in its
        place, for as long as that finds more.
        """
        sound = True
        while True:
            try:
                found = section()
            except Refused as mistake:
                sound = False
                if not self._get_past(mistake):
                    return None
            except errors.SapdError as mistake:
                self._mistakes.append(mistake)
                return None
            else:
                return found if sound else None

    def _get_past(self, mistake: Refused) -> bool:
        """Note a mistake, and put it out of the way; whether that could be done."""
        table, key = mistake.table, mistake.key
        place = table.identity, key
        if place not in self._wrong:
            self._mistakes.append(mistake)
        self._wrong |= {place, (table.identity, mistake.meant)}
        if key in _DECISIVE or place in self._pretended:
            return False
        if table.has(key) and key != "journal":  # without that, path would seem to be missing
            table.without(key)
            return True
        self._pretended.add(place)
        return table.pretend(key)

    def config(self) -> Config:
        top = self._top
        self._try(lambda: top.only(*settings.EXAMPLES[""]))
        folder = self._try(lambda: top.path("formats_directory", defaults.FORMATS_DIRECTORY))
        known = self._try(lambda: self._formats(folder)) if folder else None
        logs = self._logs(known, folder or defaults.FORMATS_DIRECTORY)
        policy = self._try(lambda: top.table("policy")) or Table(top.file, "policy", {})
        self._try(lambda: policy.only(*settings.EXAMPLES["policy"]))
        access = self._try(lambda: maps.access_of(top.table("access"), policy))
        directory = self._try(lambda: _state_directory(top))
        rules = self._rules(policy)
        trail = self._try(lambda: _audit(top))
        if folder and logs and access and directory and rules and trail and not self._mistakes:
            config = Config(top.file, logs, access, directory, rules, trail, folder, self._snapshot)
            self._try(lambda: _refuse_a_logout_that_is_never_logged(policy, config))
            self._try(lambda: _refuse_one_file_for_two(top, config))
            if not self._mistakes:
                return config
        in_order = sorted(self._mistakes, key=lambda mistake: getattr(mistake, "line", 0) or inf)
        raise Mistake(in_order, Readable(directory, access, rules, top.has("access")))

    def _logs(self, known: list[str] | None, folder: str) -> tuple[Log, ...]:
        """The logs; where the `known` formats are not known their names are not looked at."""
        found: list[Log] = []
        seen: dict[str, Table] = {}
        for table in self._try(lambda: _some_logs(self._top)) or []:
            log = self._try(partial(_log, table, known, folder))
            if log is None:
                continue
            found.append(log)
            path = log.path if log.journal else os.path.realpath(log.file(time()))
            first = seen.setdefault(path, table)
            if first is not table and not log.journal:
                why = f"names the same file as line {first.line_of('path')}; remove one [[log]]"
                self._mistakes.append(Refused(table, "path", f"log.path {why}"))
        return tuple(found)

    def _rules(self, policy: Table) -> Rules | None:
        windows: dict[Network, float] = {}
        rules = self._try(lambda: _rules(self._top, policy))
        never = rules.never if rules else ()
        tables = self._try(lambda: self._top.tables("network"))
        if tables is None:
            return None
        for table in tables:
            read = self._try(partial(_windows, table, never, windows))
            if read is None:
                rules = None
            windows |= read or {}
        return rules._replace(windows=tuple(windows.items())) if rules else None

    def _formats(self, folder: str) -> list[str]:
        looked_at = formats.looked_at(folder)
        self._snapshot.add(Snapshot(looked_at))
        for file in looked_at[1:]:
            files.refuse_untrusted(file)
        return formats.names(folder)


def _state_directory(top: Table) -> str:
    state = top.table("state")
    state.only(*settings.EXAMPLES["state"])
    return state.path("directory", defaults.STATE_DIRECTORY)


def _audit(top: Table) -> Audit:
    audit = top.table("audit")
    audit.only(*settings.EXAMPLES["audit"])
    kept = audit.count("keep_lines", 0)
    return Audit(Audit().keep_lines if kept is None else kept, audit.flag("syslog"))


def _some_logs(top: Table) -> list[Table]:
    tables = top.tables("log")
    if not tables:
        top.refuse("log", "is missing; add the POP server's log")
    return tables


def _windows(
    table: Table, never: Sequence[Network], others: Mapping[Network, float]
) -> dict[Network, float]:
    """The windows of a [[network]], beside those of the others."""
    table.only(*settings.EXAMPLES["network"])
    window = table.seconds("window")
    found: dict[Network, float] = {}
    for network in table.networks("networks"):
        if network in found or network in others:
            table.refuse("networks", f'names "{network}" a second time')
        for shut in never:
            if contains(shut, network):
                why = f'gives "{network}" a window, and policy.never shuts "{shut}"'
                table.refuse("networks", f"{why}; remove one of them")
        found[network] = window
    return found


def _rules(top: Table, policy: Table) -> Rules:
    """The rules without those of [[network]]."""
    denied = policy.texts("deny_accounts", ())
    if "" in denied:
        policy.refuse("deny_accounts", "has an empty name")
    return Rules(
        window=top.seconds("window", defaults.WINDOW),
        never=policy.networks("never", ()),
        after_logout=policy.seconds("after_logout") if policy.has("after_logout") else None,
        most_accounts=policy.count("max_accounts_per_address"),
        one_address=policy.flag("one_address_per_account"),
        denied=denied,
    )


def _refuse_a_logout_that_is_never_logged(policy: Table, config: Config) -> None:
    if config.rules.after_logout is None:
        return
    for log in config.logs:
        for format in formats.chosen(log.formats, config.formats_directory):
            if format.logs_out:
                return
    names = ", ".join(dict.fromkeys(name for log in config.logs for name in log.formats))
    why = f"needs logouts with their address, and log.formats has none: {names}; remove one of them"
    policy.refuse("after_logout", why)


def _refuse_one_file_for_two(top: Table, config: Config) -> None:
    """A log may be cut, and a database is rewritten: neither may be another file, too."""
    roles = [(log.file(time()), "log.path") for log in config.logs if not log.journal]
    roles += [
        *((path, setting) for setting, path in maps.chosen(config.access).files().items()),
        (os.path.abspath(config.path), "the configuration"),
        (os.path.join(config.state_directory, "state.json"), "the state"),
        (os.path.join(config.state_directory, "lock"), "the lock of the state"),
        (os.path.join(config.state_directory, "audit.jsonl"), "the audit trail"),
    ]
    seen: dict[str, str] = {}
    for path, role in roles:
        real = os.path.realpath(path)
        if real in seen:
            top.refuse(role, f'is "{path}", the same file as {seen[real]}; name another')
        seen[real] = role


def _log(table: Table, known: list[str] | None, folder: str) -> Log:
    table.only(*settings.EXAMPLES["log"])
    path, matches = _journal(table) if table.has("journal") else (table.path("path"), ())
    names = table.texts("formats", ("qpopper",))
    for name in names:
        if known is not None and name not in [formats.AUTO, *known]:
            own = "" if "/" in name else f"; or put {name}.toml into {folder}"
            near = nearest(name, known, _ALIKE)
            table.refuse("formats", f'has no format "{name}"{near}{own * (not near.endswith("?"))}')
    if formats.AUTO in names and len(names) > 1:
        table.refuse("formats", f'has "{formats.AUTO}", which stands for all, beside others')
    if not names:
        table.refuse("formats", f"is empty; known are {', '.join(known or ())}")
    programs = table.texts("programs", ())
    for program in programs:
        if why := formats.objection_to(program):
            table.refuse("programs", why)
    if programs and formats.AUTO in names:
        table.refuse("programs", "needs formats that are named: which of them do these write?")
    zone = None
    if (zone_name := table.text("timezone", "")) != "":
        try:
            zone = timestamps.zone(zone_name)
        except ValueError as error:
            table.refuse("timezone", f"is wrong: {error}")
    keep, above = _lengths(table)
    if matches:
        return Log(path, names, zone, keep, above, programs, matches)
    log = Log(path, names, zone, keep, above, programs, frame=_frame(table))
    return _of_file(table, log)


def _lengths(table: Table) -> tuple[int | None, int]:
    """`keep_lines` and `cut_above`."""
    keep = table.count("keep_lines")
    above = table.count("cut_above")
    if above is not None and keep is None:
        table.refuse("cut_above", "needs keep_lines, the number of lines to keep")
    if above is not None and keep is not None and above < keep:
        table.refuse("cut_above", f"is {above}, less than keep_lines {keep}; make it at least that")
    return keep, above if above is not None else keep or 0


def _of_file(table: Table, log: Log) -> Log:
    """The log with its path as it is meant; what a date in that excludes is refused."""
    if log.path.endswith(COMPRESSED):
        table.refuse("path", "is compressed; name the file that is written to")
    if why := dated.objection_to(log.path):
        table.refuse("path", why)
    if not dated.is_dated(log.path):
        return log._replace(path=dated.current(log.path, 0, None))
    if log.keep_lines is not None:
        reason = "is for one file that grows, and path has a date"
        remedy = "delete old files by cron: find FOLDER -name 'NAME*' -mtime +30 -delete"
        table.refuse("keep_lines", f"{reason}; {remedy}")
    return log._replace(pattern=log.path)


def _frame(table: Table) -> str | None:
    """The frame of the log's lines, if the setting is there."""
    if not table.has("frame"):
        return None
    name = table.one_of("frame", (*frames.NAMES, *frames.ALIASES), "")
    return frames.ALIASES.get(name, name)


def _journal(table: Table) -> tuple[str, tuple[str, ...]]:
    """A journal's name, and its matches; settings are refused that only a file can have."""
    from sapd.reading import journal_matches  # which nobody else pays for

    matches = table.texts("journal")
    if (why := journal_matches.objection_to(matches)) is not None:
        table.refuse("journal", why)
    for key, reason in {
        "path": "stands beside journal; a log is one of them, so write a [[log]] for each",
        "keep_lines": "is for files; a journal is kept short by SystemMaxUse= in journald.conf",
        "cut_above": "is for files; a journal is kept short by SystemMaxUse= in journald.conf",
        "timezone": "is for files; a journal's times name none",
        "frame": "is for files; a journal's entries have none",
    }.items():
        if table.has(key):
            table.refuse(key, reason)
    for name in table.texts("formats", ("qpopper",)):
        if name == formats.AUTO:
            table.refuse("formats", f'has "{name}"; of a journal name what the unit writes')
        if name in journal_matches.UNPROVEN:
            table.refuse("formats", f'has "{name}": {journal_matches.UNPROVEN[name]}')
    return journal_matches.name(matches), matches
