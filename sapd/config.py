"""The configuration: TOML to named tuples, with errors that name file, key and remedy."""

import os
import re
import tomllib
from datetime import tzinfo
from typing import Any, NamedTuple, NoReturn

from sapd import defaults, errors, formats, relay, timestamps
from sapd.idle import Looks
from sapd.relay import Network, Rules

_LONGEST = 366 * 86400
LIMITS = {
    "client_rate": "ClientRate",
    "client_connections": "ClientConn",
    "greet_pause": "GreetPause",
}
"""The settings in [policy] that are limits, and the tags of sendmail's entries for them."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Log(NamedTuple):
    """One log to read; `zone` None is the system's, `keep_lines` None never cuts."""

    path: str
    formats: tuple[str, ...]
    zone: tzinfo | None = None
    keep_lines: int | None = None
    cut_above: int = 0


class Access(NamedTuple):
    """The map; `source` None means a separate map that holds sapd's entries alone.

    `limits` are (tag, value) of further entries for each address that is open.
    """

    database: str
    source: str | None = None
    makemap: str = "/usr/sbin/makemap"
    tag: str = "Connect:"
    limits: tuple[tuple[str, int], ...] = ()


class Audit(NamedTuple):
    """How many lines of the trail are kept, 0 for no trail; whether syslog is told, too."""

    keep_lines: int = 10_000
    syslog: bool = False


class Config(NamedTuple):
    """Everything that the file says. Paths are absolute.

    `looks` is how the file and the administrator's own formats looked before they were read.
    """

    path: str
    logs: tuple[Log, ...]
    access: Access
    state_directory: str
    rules: Rules
    audit: Audit
    formats_directory: str
    looks: Looks


def load(path: str) -> Config:
    """Read and check the file; raises `SapdError` 78, or 77 if it may not be read."""
    looks = Looks([path])
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
    return _config(_Table(path, "", read), looks)


def _config(top: "_Table", looks: Looks) -> Config:
    top.only(
        *("window", "formats_directory", "log", "access", "state", "network", "policy", "audit")
    )
    formats_directory = top.path("formats_directory", defaults.FORMATS_DIRECTORY)
    looks.add(Looks(formats.looked_at(formats_directory)))
    known = formats.names(formats_directory)
    logs = tuple(_log(table, known) for table in top.tables("log"))
    if not logs:
        top.refuse("log", "is missing; add [[log]] with the path of the POP server's log")
    policy = top.table("policy")
    access = _access(top.table("access"), _limits(policy))
    if access.limits and access.source is None:
        key = next(key for key in LIMITS if policy.has(key))
        why = "needs access.source: a map without it is a separate one"
        policy.refuse(key, f"{why}, and sendmail looks limits up in its own access.db alone")
    state = top.table("state")
    state.only("directory")
    directory = state.path("directory", defaults.STATE_DIRECTORY)
    rules = _rules(top, policy)
    _refuse_a_logout_that_is_never_logged(policy, rules, logs, formats_directory)
    audit = top.table("audit")
    audit.only("keep_lines", "syslog")
    kept = audit.count("keep_lines", 0)
    trail = Audit(Audit().keep_lines if kept is None else kept, audit.flag("syslog"))
    config = Config(top.file, logs, access, directory, rules, trail, formats_directory, looks)
    _refuse_one_file_for_two(top, config)
    return config


def _rules(top: "_Table", policy: "_Table") -> Rules:
    policy.only(
        *("never", "after_logout", "max_accounts_per_address", "one_address_per_account"),
        *("deny_accounts", *LIMITS),
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
                if relay.contains(shut, network):
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
    policy: "_Table", rules: Rules, logs: tuple[Log, ...], directory: str
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


def _limits(policy: "_Table") -> tuple[tuple[str, int], ...]:
    """The limits by sendmail's tags; a pause is in milliseconds (cf/README, greet_pause)."""
    limits = []
    for key, tag in LIMITS.items():
        if policy.has(key):
            pause = key == "greet_pause"
            limit = int(policy.seconds(key) * 1000) if pause else policy.count(key) or 0
            limits.append((tag, limit))
    return tuple(limits)


def _refuse_one_file_for_two(top: "_Table", config: Config) -> None:
    """A log may be cut, and a database is rewritten: neither may be another file, too."""
    roles = [(log.path, "log.path") for log in config.logs]
    roles += [
        *([(config.access.source, "access.source")] if config.access.source else []),
        (config.access.database, "access.database"),
        (config.access.makemap, "access.makemap"),
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


def _log(table: "_Table", known: list[str]) -> Log:
    table.only("path", "formats", "timezone", "keep_lines", "cut_above")
    path = table.path("path")
    names = table.texts("formats", ("qpopper",))
    for name in names:
        if name not in [formats.AUTO, *known]:
            table.refuse("formats", f'has no format "{name}"{_nearest(name, known)}')
    if formats.AUTO in names and len(names) > 1:
        table.refuse("formats", f'has "{formats.AUTO}", which stands for all, beside others')
    if not names:
        table.refuse("formats", f"is empty; known are {', '.join(known)}")
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
    return Log(path, names, zone, keep, above if above is not None else keep or 0)


def _access(table: "_Table", limits: tuple[tuple[str, int], ...]) -> Access:
    table.only("source", "database", "makemap", "tag")
    database = table.path("database", "/etc/mail/access.db")
    if not database.endswith(".db"):
        table.refuse("database", "must end in .db, because makemap appends it")
    text = database.removesuffix(".db")
    source = None
    if table.has("source"):
        source = table.path("source")
    elif not table.has("database"):
        source = text
    elif os.path.exists(text):
        # Without it a run would replace the administrator's entries by sapd's alone.
        table.refuse("source", f'is missing; set source = "{text}", or name another database')
    tag = table.text("tag", "Connect:")
    if not re.fullmatch(r"([A-Za-z][A-Za-z0-9_-]*:)?", tag):
        table.refuse("tag", f'is "{tag}"; it is a word and a colon, as "Connect:", or empty')
    makemap = next(filter(os.path.exists, defaults.MAKEMAP), defaults.MAKEMAP[0])
    return Access(database, source, table.path("makemap", makemap), tag, limits)


def seconds(text: str) -> float:
    """A duration such as 90s, 30m, 8h or 2d in seconds; raises ValueError."""
    found = re.fullmatch(r"(\d{1,9})\s*([smhd])", text.strip())
    duration = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < duration <= _LONGEST:
        raise ValueError(f'is "{text}"; write a number and s, m, h or d, as "30m", up to 366d')
    return duration


class _Table:
    """One table of the file."""

    def __init__(self, file: str, name: str, values: dict[str, Any]) -> None:
        self.file = file
        self._name = name
        self._values = values

    def refuse(self, key: str, why: str) -> NoReturn:
        where = f"{self._name}.{key}" if self._name else key
        raise errors.SapdError(errors.BAD_CONFIG, self.file, f"{where} {why}")

    def has(self, key: str) -> bool:
        return key in self._values

    def only(self, *known: str) -> None:
        """Refuse every other key."""
        for key in self._values:
            if key not in known:
                self.refuse(key, f"is no setting{_nearest(key, list(known))}")

    def _get(self, key: str, kind: type, what: str) -> Any:
        value = self._values.get(key)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            self.refuse(key, f"must be {what}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self._get(key, str, f'a text in quotes, as {key} = "..."')
        if value is None:
            value = default
        if value is None:
            self.refuse(key, "is missing")
        return str(value)

    def path(self, key: str, default: str | None = None) -> str:
        """A path, absolute, or relative to the file's folder."""
        text = self.text(key, default)
        try:
            usable = text != "" and b"\0" not in os.fsencode(text)
        except UnicodeEncodeError:
            usable = False
        if not usable:
            self.refuse(key, "is no path that this system can name")
        folder = os.path.dirname(os.path.abspath(self.file))
        return os.path.normpath(os.path.join(folder, text))

    def seconds(self, key: str, default: str | None = None) -> float:
        try:
            return seconds(self.text(key, default))
        except ValueError as error:
            self.refuse(key, str(error))

    def count(self, key: str, least: int = 1) -> int | None:
        value: int | None = self._get(key, int, "a whole number")
        if value is not None and value < least:
            self.refuse(key, f"is {value}; it must be at least {least}")
        return value

    def flag(self, key: str) -> bool:
        value = self._values.get(key, False)
        if not isinstance(value, bool):
            self.refuse(key, "must be true or false")
        return value

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        value = self._get(key, list, f'a list of texts, as {key} = ["..."]')
        if value is None:
            if default is None:
                self.refuse(key, "is missing")
            return default
        if not all(isinstance(item, str) for item in value):
            self.refuse(key, f'must be a list of texts, as {key} = ["..."]')
        return tuple(value)

    def networks(self, key: str, default: tuple[str, ...] | None = None) -> tuple[Network, ...]:
        found: list[Network] = []
        for text in self.texts(key, default):
            try:
                found.append(relay.network(text))
            except ValueError as error:
                self.refuse(key, f'has "{text}": {error}; networks look like 192.0.2.0/24')
        return tuple(found)

    def table(self, key: str) -> "_Table":
        value = self._get(key, dict, f"a table, as [{key}]")
        return _Table(self.file, key, value or {})

    def tables(self, key: str) -> list["_Table"]:
        value = self._get(key, list, f"one or more tables, as [[{key}]]") or []
        if not all(isinstance(item, dict) for item in value):
            self.refuse(key, f"must be one or more tables, as [[{key}]]")
        return [_Table(self.file, key, item) for item in value]


def _nearest(word: str, known: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, known, 1, 0.5)
    return f'; did you mean "{near[0]}"?' if near else f"; known are {', '.join(sorted(known))}"
