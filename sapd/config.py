"""The configuration: TOML to named tuples, with errors that name file, key and remedy."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from datetime import tzinfo
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sapd import defaults, errors, files, formats, maps, timestamps
from sapd.addresses import contains
from sapd.idle import Snapshot
from sapd.relay import Rules
from sapd.toml_table import Table, nearest

if TYPE_CHECKING:
    from sapd.addresses import Network

T = TypeVar("T")

_TOP = ("window", "formats_directory", "log", "access", "state", "network", "policy", "audit")
_POLICY = (
    *("never", "after_logout", "max_accounts_per_address", "one_address_per_account"),
    "deny_accounts",
)


class Log(NamedTuple):
    """One log to read; `zone` None is the system's, `keep_lines` None never cuts.

    `programs` stand in place of those that the formats name, which hold where there are none.
    `journal` has the matches of a journal, whose `path` is no file, but what it is called.
    """

    path: str
    formats: tuple[str, ...]
    zone: tzinfo | None = None
    keep_lines: int | None = None
    cut_above: int = 0
    programs: tuple[str, ...] = ()
    journal: tuple[str, ...] = ()


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
    """What can be read of a configuration that has a mistake."""

    state_directory: str | None = None
    access: maps.Access | None = None
    rules: Rules | None = None


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
        read = _read(path)
    except errors.SapdError as problem:
        raise Mistake([problem], Readable()) from None
    return _Sections(Table(path, "", read), snapshot).config()


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except PermissionError as error:
        status, reason = errors.NO_PERMISSION, f"can't be read: {error.strerror}"
    except FileNotFoundError:
        status = errors.BAD_CONFIG
        reason = "is missing; `sapd init` makes one for this machine, or name yours with -c"
    except OSError as error:
        status = errors.BAD_CONFIG
        reason = f"can't be read: {error.strerror}; name the configuration with -c"
    except (ValueError, RecursionError) as error:
        status, reason = errors.BAD_CONFIG, f"is not TOML: {error}"
    raise errors.SapdError(status, path, reason)


class _Sections:
    """Reads each section by itself, so that a mistake in one does not hide the others."""

    def __init__(self, top: Table, snapshot: Snapshot) -> None:
        self._top = top
        self._snapshot = snapshot
        self._mistakes: list[errors.SapdError] = []

    def _try(self, section: Callable[[], T]) -> T | None:
        try:
            return section()
        except errors.SapdError as mistake:
            self._mistakes.append(mistake)
            return None

    def config(self) -> Config:
        top = self._top
        self._try(lambda: top.only(*_TOP))
        folder = self._try(lambda: top.path("formats_directory", defaults.FORMATS_DIRECTORY))
        known = self._try(lambda: self._formats(folder)) if folder else None
        logs = self._try(lambda: _logs(top, known))
        policy = self._try(lambda: top.table("policy")) or Table(top.file, "policy", {})
        self._try(lambda: policy.only(*_POLICY, *maps.LIMITS))
        access = self._try(lambda: maps.access_of(top.table("access"), policy))
        directory = self._try(lambda: _state_directory(top))
        rules = self._try(lambda: _rules(top, policy))
        trail = self._try(lambda: _audit(top))
        if folder and logs and access and directory and rules and trail and not self._mistakes:
            config = Config(top.file, logs, access, directory, rules, trail, folder, self._snapshot)
            self._try(lambda: _refuse_a_logout_that_is_never_logged(policy, config))
            self._try(lambda: _refuse_one_file_for_two(top, config))
            if not self._mistakes:
                return config
        raise Mistake(self._mistakes, Readable(directory, access, rules))

    def _formats(self, folder: str) -> list[str]:
        looked_at = formats.looked_at(folder)
        self._snapshot.add(Snapshot(looked_at))
        for file in looked_at[1:]:
            files.refuse_untrusted(file)
        return formats.names(folder)


def _logs(top: Table, known: list[str] | None) -> tuple[Log, ...]:
    """The logs; where the `known` formats are not known their names are not looked at."""
    logs = tuple(_log(table, known) for table in top.tables("log"))
    if not logs:
        top.refuse("log", "is missing; add [[log]] with the path of the POP server's log")
    return logs


def _state_directory(top: Table) -> str:
    state = top.table("state")
    state.only("directory")
    return state.path("directory", defaults.STATE_DIRECTORY)


def _audit(top: Table) -> Audit:
    audit = top.table("audit")
    audit.only("keep_lines", "syslog")
    kept = audit.count("keep_lines", 0)
    return Audit(Audit().keep_lines if kept is None else kept, audit.flag("syslog"))


def _rules(top: Table, policy: Table) -> Rules:
    never = policy.networks("never", ())
    windows: dict[Network, float] = {}
    for table in top.tables("network"):
        table.only("networks", "window")
        window = table.seconds("window")
        for network in table.networks("networks"):
            if network in windows:
                table.refuse("networks", f'names "{network}" a second time')
            windows[network] = window
            for shut in never:
                if contains(shut, network):
                    why = f'gives "{network}" a window, and policy.never shuts "{shut}"'
                    table.refuse("networks", f"{why}; remove one of them")
    denied = policy.texts("deny_accounts", ())
    if "" in denied:
        policy.refuse("deny_accounts", "has an empty name")
    return Rules(
        window=top.seconds("window", defaults.WINDOW),
        windows=tuple(windows.items()),
        never=never,
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
    roles = [(log.path, "log.path") for log in config.logs if not log.journal]
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
            top.refuse(role, f'is "{path}", the same file as {seen[real]}')
        seen[real] = role


def _log(table: Table, known: list[str] | None) -> Log:
    table.only("path", "journal", "formats", "programs", "timezone", "keep_lines", "cut_above")
    path, matches = _journal(table) if table.has("journal") else (table.path("path"), ())
    names = table.texts("formats", ("qpopper",))
    for name in names:
        if known is not None and name not in [formats.AUTO, *known]:
            table.refuse("formats", f'has no format "{name}"{nearest(name, known)}')
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
    keep = table.count("keep_lines")
    above = table.count("cut_above")
    if above is not None and keep is None:
        table.refuse("cut_above", "needs keep_lines, the number of lines to keep")
    if above is not None and keep is not None and above < keep:
        table.refuse("cut_above", f"is {above}, less than keep_lines {keep}; make it at least that")
    above = above if above is not None else keep or 0
    return Log(path, names, zone, keep, above, programs, matches)


def _journal(table: Table) -> tuple[str, tuple[str, ...]]:
    """A journal's name, and its matches; settings are refused that only a file can have."""
    from sapd import journal_matches  # which nobody else pays for

    matches = table.texts("journal")
    if (why := journal_matches.objection_to(matches)) is not None:
        table.refuse("journal", why)
    for key, reason in {
        "path": "stands beside journal; a log is one of them, so write a [[log]] for each",
        "keep_lines": "is for files; a journal is kept short by SystemMaxUse= in journald.conf",
        "cut_above": "is for files; a journal is kept short by SystemMaxUse= in journald.conf",
        "timezone": "is for files; a journal's times name none",
    }.items():
        if table.has(key):
            table.refuse(key, reason)
    for name in table.texts("formats", ("qpopper",)):
        if name == formats.AUTO:
            table.refuse("formats", f'has "{name}"; of a journal name what the unit writes')
        if name in journal_matches.UNPROVEN:
            table.refuse("formats", f'has "{name}": {journal_matches.UNPROVEN[name]}')
    return journal_matches.name(matches), matches
