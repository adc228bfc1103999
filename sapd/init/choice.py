"""Which of the logs that were found a configuration names, and why."""

from __future__ import annotations

from collections import Counter

from sapd.init.logs import Found, Seen
from sapd.init.page import Section, Setting

_AUTO = ("auto",)
_FALLBACK = "/var/log/mail.log"


def sections(found: Found) -> list[Section]:
    """A `[[log]]` for each log that is needed; never none."""
    return _known(found) or [_nothing(found)]


def is_unknown(found: Found) -> bool:
    """Whether nothing tells where a POP or IMAP server logs."""
    return not _known(found)


def _known(found: Found) -> list[Section]:
    return _with_logins(found) or _with_lines(found) or _of_servers(found)


def _with_logins(found: Found) -> list[Section]:
    """For each format the log that has most of its logins; of equal ones the shortest."""
    best: dict[str, Seen] = {}
    for seen in found.logs:
        for name, count in seen.logins.items():
            before = best.get(name)
            if before is None or (-count, seen.lines) < (-before.logins[name], before.lines):
                best[name] = seen
    own = next((seen for seen in found.logs if seen.path and seen.path == found.dovecot), None)
    if own is not None and own.logins["dovecot"]:
        best["dovecot"] = own
    made = []
    for seen in {log.name: log for log in best.values()}.values():
        names = tuple(name for name, log in best.items() if log == seen)
        counts = ", ".join(f"{seen.logins[name]} of {name}" for name in names)
        whole = "in the last 24 hours" if seen.unit else f"in its last {seen.lines} lines"
        why = f"{seen.name} has logins {whole}: {counts}."
        made.append(_section(seen, names, f"{why}{_also(found, seen, names)}"))
    return made


def _also(found: Found, chosen: Seen, names: tuple[str, ...]) -> str:
    """Where else the same logins stand."""
    others = [
        seen for seen in found.logs if seen != chosen and any(seen.logins[name] for name in names)
    ]
    words = [f"{seen.name} ({sum(seen.logins[name] for name in names)})" for seen in others]
    journals = [seen.unit for seen in others if seen.unit]
    more = f" They stand in {', '.join(words)}, too." if words else ""
    if chosen.path and journals:
        more += (
            " No local user can forge what stands in the journal; to read it, write journal ="
            f' ["_SYSTEMD_UNIT={journals[0]}"] in the place of path.'
        )
    return more


def _with_lines(found: Found) -> list[Section]:
    """Where nobody has logged in yet: the log with most lines of a server's."""
    if found.dovecot:
        return []
    logs = sorted(found.logs, key=lambda seen: (-max(seen.servers.values()), seen.lines))
    if not logs:
        return []
    seen = logs[0]
    names = _likely(seen.servers, found)
    what = " or ".join(names) if names != _AUTO else "a known server"
    counts = max(seen.servers.values())
    why = f"{seen.name} has {counts} lines of {what}, though nobody has logged in yet."
    return [_section(seen, names, why)]


def _likely(servers: Counter[str], found: Found) -> tuple[str, ...]:
    """The formats whose programs wrote the lines; if several have such names, what is installed."""
    most = max(servers.values())
    names = [name for name, count in servers.items() if count == most]
    installed = [name for name, _ in found.servers if name in names]
    if len(names) == 1 or installed:
        return tuple(dict.fromkeys(installed or names))
    return _AUTO


def _of_servers(found: Found) -> list[Section]:
    """Where no log tells anything: by what is installed."""
    if not found.servers:
        return []
    name, unit = found.servers[0]
    if found.dovecot:
        why = f"Dovecot writes a file of its own, as `doveconf log_path` says: {found.dovecot}."
        seen = next((log for log in found.logs if log.path == found.dovecot), None)
        return [_section(seen or Seen(found.dovecot), ("dovecot",), why)]
    if not found.mail and found.journald and unit:
        why = f"{unit} is installed, and no syslog daemon is: its lines are in the journal."
        return [_section(Seen("", unit), (name,), why)]
    why = f"{name} is installed, but no log was found that has lines of its"
    where = "here syslog writes what is about mail." if found.mail else "this is only usual."
    return [_section(Seen(found.mail or _FALLBACK), (name,), f"{why}; {where}")]


def _nothing(found: Found) -> Section:
    why = "No POP or IMAP server and no line of one was found: name its log, and its format."
    return _section(Seen(found.mail or _FALLBACK), _AUTO, why)


def _section(seen: Seen, names: tuple[str, ...], why: str) -> Section:
    if seen.unit:
        where = Setting("journal", (f"_SYSTEMD_UNIT={seen.unit}",))
        return Section("[[log]]", why, [where, Setting("formats", names)])
    settings = [Setting("path", seen.path)]
    if names == _AUTO:
        auto = '"auto" tries all formats; `sapd check` says which one to write here.'
        settings.append(Setting("formats", names, auto))
    else:
        settings.append(Setting("formats", names))
    settings += _zone(seen)
    if seen.cutters:
        who = ", ".join(seen.cutters)
        why = f"{why} logrotate shortens it ({who}), so keep_lines must not."
    elif seen.lines:
        settings.append(
            Setting(
                *("keep_lines", 1_000_000, "Nothing shortens it. This would, in place:"), used=False
            )
        )
    return Section("[[log]]", why, settings)


def _zone(seen: Seen) -> list[Setting]:
    if seen.zone == "UTC":
        return [Setting("timezone", "UTC", "Its stamps name no zone, and are in UTC.")]
    if seen.zone:
        why = "Its last stamp, which names no zone, is hours from its last change: in which zone?"
        return [Setting("timezone", "Europe/Berlin", why, used=False)]
    return []
