"""The configuration: TOML to named tuples, with errors that name file, key and remedy."""

from __future__ import annotations

import os
import tomllib
from datetime import tzinfo
from typing import NamedTuple

from sapd import defaults, errors, formats, maps, timestamps
from sapd.addresses import Network, contains
from sapd.idle import Snapshot
from sapd.relay import Rules
from sapd.toml_table import Table, nearest


class Log(NamedTuple):
    """One log to read; `zone` None is the system's, `keep_lines` None never cuts.

    `programs` stand in place of those that the formats name, which hold where there are none.
    """

    path: str
    formats: tuple[str, ...]
    zone: tzinfo | None = None
    keep_lines: int | None = None
    cut_above: int = 0
    programs: tuple[str, ...] = ()


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


def load(path: str) -> Config:
    """Read and check the file; raises `SapdError` 78, or 77 if it may not be read."""
    snapshot = Snapshot([path])
    try:
        with open(path, "rb") as file:
            read = tomllib.load(file)
    except PermissionError as error:
        reason = f"can't be read: {error.strerror}"
        raise errors.SapdError(errors.NO_PERMISSION, path, reason) from None
    except OSError as error:
        reason = f"can't be read: {error.strerror}; name the configuration with -c"
        raise errors.SapdError(errors.BAD_CONFIG, path, reason) from None
    except (ValueError, RecursionError) as error:
        raise errors.SapdError(errors.BAD_CONFIG, path, f"is not TOML: {error}") from None
    return _config(Table(path, "", read), snapshot)


def _config(top: Table, snapshot: Snapshot) -> Config:
    top.only(
        *("window", "formats_directory", "log", "access", "state", "network", "policy", "audit")
    )
    formats_directory = top.path("formats_directory", defaults.FORMATS_DIRECTORY)
    snapshot.add(Snapshot(formats.looked_at(formats_directory)))
    known = formats.names(formats_directory)
    logs = tuple(_log(table, known) for table in top.tables("log"))
    if not logs:
        top.refuse("log", "is missing; add [[log]] with the path of the POP server's log")
    policy = top.table("policy")
    access = maps.access_of(top.table("access"), policy)
    state = top.table("state")
    state.only("directory")
    directory = state.path("directory", defaults.STATE_DIRECTORY)
    rules = _rules(top, policy)
    _refuse_a_logout_that_is_never_logged(policy, rules, logs, formats_directory)
    audit = top.table("audit")
    audit.only("keep_lines", "syslog")
    kept = audit.count("keep_lines", 0)
    trail = Audit(Audit().keep_lines if kept is None else kept, audit.flag("syslog"))
    config = Config(top.file, logs, access, directory, rules, trail, formats_directory, snapshot)
    _refuse_one_file_for_two(top, config)
    return config


def _rules(top: Table, policy: Table) -> Rules:
    policy.only(
        *("never", "after_logout", "max_accounts_per_address", "one_address_per_account"),
        *("deny_accounts", *maps.LIMITS),
    )
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


def _refuse_a_logout_that_is_never_logged(
    policy: Table, rules: Rules, logs: tuple[Log, ...], directory: str
) -> None:
    if rules.after_logout is None:
        return
    for log in logs:
        for format in formats.chosen(log.formats, directory):
            if format.logs_out:
                return
    names = ", ".join(dict.fromkeys(name for log in logs for name in log.formats))
    why = f"needs logouts with their address, and log.formats has none: {names}; remove one of them"
    policy.refuse("after_logout", why)


def _refuse_one_file_for_two(top: Table, config: Config) -> None:
    """A log may be cut, and a database is rewritten: neither may be another file, too."""
    roles = [(log.path, "log.path") for log in config.logs]
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


def _log(table: Table, known: list[str]) -> Log:
    table.only("path", "formats", "programs", "timezone", "keep_lines", "cut_above")
    path = table.path("path")
    names = table.texts("formats", ("qpopper",))
    for name in names:
        if name not in [formats.AUTO, *known]:
            table.refuse("formats", f'has no format "{name}"{nearest(name, known)}')
    if formats.AUTO in names and len(names) > 1:
        table.refuse("formats", f'has "{formats.AUTO}", which stands for all, beside others')
    if not names:
        table.refuse("formats", f"is empty; known are {', '.join(known)}")
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
    return Log(path, names, zone, keep, above if above is not None else keep or 0, programs)
