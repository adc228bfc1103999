"""Who starts sapd: cron, and systemd's timers."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from typing import NamedTuple

from sapd.check.look import Look, account
from sapd.defaults import CONFIG

UNKNOWN_INTERVAL = 100.0
"""Seconds between two runs, where the schedule can't be read."""

_CRON_NAME = re.compile(r"[A-Za-z0-9_-]+")  # cron(8), "DEBIAN SPECIFIC": the rules of run-parts
_TIMES = re.compile(r"\s*(?:@\w+|(?:\S+\s+){4}\S+)\s+")
_RUN = re.compile(
    r"(?P<program>(?<![\w./-])(?:[\w./@+:,=-]*/)?sapd)['\"]?\s+run(?![\w.-])([^;&|)]*)"
)
_PATH = {"crontab": "/usr/bin:/bin", "unit": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"}
"""Where a program without a folder is looked for: crontab(5), systemd.exec(5)."""
_UNITS = [  # systemd.unit(5), the first has precedence
    "etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system",
    "usr/lib/systemd/system", "lib/systemd/system",
]  # fmt: skip


class Start(NamedTuple):
    """One of the places that start `sapd run`.

    `program` is a path, or a name that was found nowhere on `path`; `user` is as whom, `interval`
    the seconds between two runs, None if they could not be read. `timer` is the timer's name.
    """

    where: str
    program: str
    path: str
    user: str
    interval: float | None
    timer: str = ""


@dataclass
class Schedules(Look):
    """Also what is known of each schedule that was found."""

    starts: list[Start] = field(default_factory=list)

    @property
    def intervals(self) -> list[float]:
        """Seconds between two runs, of each schedule that could be read."""
        return [start.interval for start in self.starts if start.interval is not None]


def interval(config: str, root: str = "/") -> float:
    """Seconds between two runs by the schedule that was found."""
    return min(schedules(os.path.abspath(config), root).intervals, default=UNKNOWN_INTERVAL)


def schedules(config: str = CONFIG, root: str = "/", owner: int = 0) -> Schedules:
    """The lines of crontabs, as FILE:LINE, and the enabled timers that start `sapd run`.

    With this configuration, and not as a dry run or only at boot. What starts it through a script
    of another name is not seen, nor what is seldom: anacron and cron.daily. `owner` is whose
    files cron heeds.
    """
    look = Schedules()
    _crontab(look, os.path.join(root, "etc/crontab"), config, owner)
    folder = os.path.join(root, "etc/cron.d")
    for name in look.names(folder):
        _crontab(look, os.path.join(folder, name), config, owner, _CRON_NAME)
    folder = os.path.join(root, "var/spool/cron/crontabs")
    for name in look.names(folder):
        if account(name) is not None:  # cron passes over others, as what an editor left
            _crontab(look, os.path.join(folder, name), config, None, user=name)
    _timers(look, root, config)
    return look


def _crontab(
    look: Schedules,
    path: str,
    config: str,
    owner: int | None,
    names: re.Pattern[str] | None = None,
    user: str = "",
) -> None:
    """One crontab; `user` is whose it is, empty for one whose lines name him."""
    text = look.text(path)
    starts = []
    for number, line in enumerate(text.split("\n"), 1):
        # A "%" ends the command, crontab(5); names of settings don't begin with a digit.
        if re.match(r"\s*(?:[\d*]|@(?!reboot\b))", line):
            program = _started(re.split(r"(?<!\\)%", line)[0], text, config)
            if program is not None:
                rest = _TIMES.sub("", line, count=1).split(maxsplit=1)
                whose = user or (rest[0] if rest else "")
                found = re.findall(r"(?m)^\s*PATH\s*=\s*[\"']?([^\s\"']+)", text)
                where = (found or [_PATH["crontab"]])[-1]
                starts.append(
                    Start(f"{path}:{number}", program, where, whose, _cron_interval(line))
                )
    if not starts:
        return
    reason = _why_cron_ignores(path, text, owner, names)
    if reason is None:
        look.found += [start.where for start in starts]
        look.starts += starts
    else:
        look.ignored.append(f"{path}: {reason}")


def _cron_interval(line: str) -> float | None:
    """Seconds between two runs, crontab(5); None for what is not the same all day long."""
    fields = line.split()
    if fields[0] == "@hourly":
        return 3600
    if fields[1:5] != ["*"] * 4:
        return None
    if found := re.fullmatch(r"(?:\*|0-59)(?:/(\d+))?", fields[0]):
        return 60.0 * int(found[1] or 1) or None
    if re.fullmatch(r"[\d,]+", fields[0]):
        minutes = sorted(int(minute) for minute in fields[0].split(",") if minute)
        return 60.0 * max(
            (after - before) % 60 or 60
            for before, after in zip(minutes, minutes[1:] + minutes[:1], strict=True)
        )
    return None


def _timer_interval(timer: str) -> float | None:
    """The same for a timer, systemd.time(7), in its usual spellings."""
    for value in _settings(timer, "OnCalendar"):
        if value in ("minutely", "*:0/1", "*-*-* *:*:00"):
            return 60
        if found := re.fullmatch(r"\*:(?:\*|0*)/(\d+)(?::00)?", value):
            return 60.0 * int(found[1]) or None
    for value in _settings(timer, "OnUnitActiveSec") + _settings(timer, "OnUnitInactiveSec"):
        if found := re.fullmatch(r"(\d+)\s*(s|sec|m|min)?", value):
            return float(found[1]) * (60 if (found[2] or "s").startswith("m") else 1) or None
    return None


def _why_cron_ignores(
    path: str, text: str, owner: int | None, names: re.Pattern[str] | None
) -> str | None:
    """Why Debian's cron (3.0pl1-162, measured) leaves out a whole file, with the remedy."""
    if names is not None and names.fullmatch(os.path.basename(path)) is None:
        return "cron passes over a name with other characters than A-Z a-z 0-9 _ -; rename it"
    try:
        link, file = os.lstat(path), os.stat(path)
    except OSError:
        return None
    if not text.endswith("\n"):
        return "cron passes over a file whose last line has no end; add a newline"
    if owner is None:  # a user's own, which crontab(1) writes
        return None
    if {link.st_uid, file.st_uid} != {owner}:
        return f"cron passes over a file that is not root's; chown -h root {path}"
    if file.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"cron passes over a file that others may write to; chmod go-w {path}"
    if file.st_nlink != 1:
        return "cron passes over a file with a hard link; make it a copy"
    return None


def _started(command: str, file: str, config: str) -> str | None:
    """The program by which a command of that file starts `sapd run` with this configuration."""
    command = re.split(r"(?:^|\s)#", command)[0]
    for start in _RUN.finditer(command):
        options = start[2].replace('"', " ").replace("'", " ")
        if re.search(r"(?<!\S)(?:-v*nv*|--dry-run)(?!\S)", options):
            continue
        given = re.search(r"(?<!\S)(?:-v*c|--config)[\s=]*(\S+)", options)
        named = [given[1]] if given else []
        for text, before in ((command, r"\b"), (file, r"(?m)^\s*(?:Environment=.*?)?[\"']?\b")):
            named += re.findall(before + r"SAPD_CONFIG\s*=\s*[\"']?([^\s\"';&]+)", text)[-1:]
        path = (named or [CONFIG])[0]
        if not os.path.isabs(path):  # from a folder that only the command knows
            path = os.path.join(os.path.dirname(config), os.path.basename(path))
        if "\0" not in path and os.path.realpath(path) == os.path.realpath(config):
            return start[1]
    return None


def _timers(look: Schedules, root: str, config: str) -> None:
    looked_at = set()
    for place in _UNITS:
        folder = os.path.join(root, place)
        for wants in look.names(folder):
            if not wants.endswith((".wants", ".requires")):
                continue
            for name in look.names(os.path.join(folder, wants)):
                if name.endswith(".timer") and name not in looked_at:
                    looked_at.add(name)
                    start = _timer_start(look, root, name, config)
                    if start is not None:
                        where = os.path.join(folder, wants, name)
                        look.found.append(where)
                        look.starts.append(start._replace(where=where))


def _timer_start(look: Look, root: str, name: str, config: str) -> Start | None:
    timer = _unit(look, root, name)
    if timer == "":  # masked, or gone
        return None
    default = name.removesuffix(".timer") + ".service"
    service = _unit(look, root, (_settings(timer, "Unit") or [default])[-1])
    user = (_settings(service, "User") or ["root"])[-1]
    for line in _settings(service, "ExecStart"):
        program = _started(line, service, config)
        if program is not None:
            return Start("", program, _PATH["unit"], user, _timer_interval(timer), name)
    return None


def _unit(look: Look, root: str, name: str) -> str:
    """A unit's text, systemd.unit(5): the first file of its name or template, and drop-ins."""
    template = re.sub(r"@[^@]+(\.\w+)$", r"@\1", name)
    text = ""
    for wanted in dict.fromkeys([name, template]):
        paths = (os.path.join(root, place, wanted) for place in _UNITS)
        path = next(filter(os.path.exists, paths), None)
        if path is not None:
            text = look.text(path)
            break
    if text == "":
        return ""
    drop_ins: dict[str, str] = {}
    for wanted in dict.fromkeys([name, template]):
        for place in _UNITS:
            folder = os.path.join(root, place, f"{wanted}.d")
            for drop_in in look.names(folder):
                if drop_in.endswith(".conf"):
                    drop_ins.setdefault(drop_in, os.path.join(folder, drop_in))
    return "\n".join([text, *(look.text(drop_ins[drop_in]) for drop_in in sorted(drop_ins))])


def _settings(unit: str, key: str) -> list[str]:
    """A setting's values, systemd.syntax(7): an empty one forgets those before it."""
    values: list[str] = []
    for line in unit.replace("\\\n", " ").split("\n"):
        if found := re.match(rf"\s*{key}\s*=(.*)", line):
            values = [*values, found[1].strip()] if found[1].strip() else []
    return values
