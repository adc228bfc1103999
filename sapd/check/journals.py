"""Whether a journal is what the configuration says: there, kept, and with logins."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from time import time

from sapd import child, errors
from sapd.check.finding import Finding, Note, problem
from sapd.check.look import Look
from sapd.config import Config, Log
from sapd.events.context import DAY
from sapd.events.formats import usable
from sapd.events.recogniser import Event, Recogniser
from sapd.reading.journal import JournalReading
from sapd.reading.journal_matches import objection_to
from sapd.timestamps import Clock

_CONFS = (
    *("usr/lib/systemd/journald.conf.d", "usr/local/lib/systemd/journald.conf.d"),
    *("run/systemd/journald.conf.d", "etc/systemd/journald.conf.d"),
)
_SETTING = re.compile(r"(?m)^\s*(\w+)\s*=[ \t]*(.*?)[ \t]*$")
_SERVERS = re.compile(r"pop|imap|dovecot|cyrus|perdition|mail")  # in a unit's name
_LIMIT = 10.0  # seconds


def findings(log: Log, config: Config, root: str) -> Iterator[Finding]:
    """What a run would meet in one journal; `root` is where /etc is looked for."""
    settings = _settings(root)
    yield _storage(settings, root)
    names = [name for name in log.formats if name in usable(config.formats_directory)]
    if not names:
        return  # what is wrong with them was said
    now = time()
    recogniser = Recogniser(names, Clock(now), config.formats_directory)
    reading = JournalReading(log.journal, None, now - max(config.rules.longest, DAY))
    seen, logins = Counter[str](), Counter[str]()
    try:
        for frame in reading.frames():
            found = recogniser.recognise_frame(frame)
            if isinstance(found, Event):
                seen[found.event] += 1
                logins[found.format] += found.event == "login"
    except errors.SapdError as error:
        yield problem(error)
        return
    if reading.dropped:
        burst = "raise RateLimitBurst= in journald.conf, or set it to 0"
        yield Finding(
            errors.LOG_UNREADABLE,
            f"{log.path}: journald dropped messages {reading.dropped} times, and logins may have "
            f"been among them; {burst}",
        )
    elif settings.get("RateLimitBurst") != "0" and settings.get("RateLimitIntervalSec") != "0":
        yield Note(f"{log.path}: journald drops what a unit logs too fast; {_limit(settings)}")
    yield _logins(log, reading.entries, seen, logins)


def _logins(log: Log, entries: int, seen: Counter[str], logins: Counter[str]) -> Finding:
    if entries == 0:
        others = units()
        near = f" (units that log here: {', '.join(others)})" if others else ""
        reason = f"{log.path}: no entry since yesterday; is this the POP server's unit{near}?"
        return Finding(errors.LOG_UNREADABLE, reason)
    read = f"{log.path}: {entries} entries read"
    if not logins:
        reason = "does the POP server log logins? See sapd match --explain --journal"
        formats = ", ".join(log.formats)
        return Finding(errors.LOG_UNREADABLE, f"{read}, no login in the format {formats}; {reason}")
    counts = ", ".join(f"{name} {count}" for name, count in logins.most_common())
    rest = ", ".join(f"{kind} {seen[kind]}" for kind in ("logout", "connect"))
    return Finding(0, f"{read}, login: {counts}; {rest}")


def _storage(settings: dict[str, str], root: str) -> Finding:
    """Whether the journal outlives a restart of the machine."""
    kept = os.path.join(root, "var/log/journal")
    storage = settings.get("Storage", "auto")
    if storage == "none":
        reason = "Storage=none in journald.conf: there is no journal; set Storage=persistent"
        return Finding(errors.LOG_UNREADABLE, reason)
    if storage == "volatile" or (storage == "auto" and not os.path.isdir(kept)):
        reason = "the journal is in memory only, and logins go with a restart; "
        return Note(f"{kept}: {reason}set Storage=persistent in journald.conf")
    return Finding(0, f"{kept}: the journal is kept")


def _limit(settings: dict[str, str]) -> str:
    burst = settings.get("RateLimitBurst", "10000")
    interval = settings.get("RateLimitIntervalSec", "30s")
    return f"the limit is {burst} messages in {interval}"


def _settings(root: str) -> dict[str, str]:
    """What journald.conf and its drop-ins say, a later one over an earlier; journald.conf(5)."""
    look, paths = Look(), {}
    for folder in _CONFS:
        for name in look.names(os.path.join(root, folder)):
            if name.endswith(".conf"):
                paths[name] = os.path.join(root, folder, name)
    texts = [look.text(os.path.join(root, "etc/systemd/journald.conf"))]
    texts += [look.text(paths[name]) for name in sorted(paths)]
    return {key: value for text in texts for key, value in _SETTING.findall(text)}


def units() -> list[str]:
    """Units that may be a POP server's; none if they can't be told."""
    try:
        command = ["journalctl", "--quiet", "--no-pager", "--field=_SYSTEMD_UNIT"]
        done = child.run(command, b"", 1, _LIMIT)
    except (OSError, TimeoutError):
        return []
    units = sorted(set(done.said.decode(errors="replace").split()))
    return [
        unit
        for unit in units
        if _SERVERS.search(unit) and objection_to([f"_SYSTEMD_UNIT={unit}"]) is None
    ]
