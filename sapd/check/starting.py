"""Whether what starts sapd does so: the schedule, its program, and who heeds the schedule."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import version

from sapd import errors
from sapd.check import rights
from sapd.check.finding import Finding, Note
from sapd.check.running import cron_runs
from sapd.check.schedules import Schedules, Start
from sapd.check.table import ask
from sapd.config import Config

_SYSTEMD = "run/systemd/system"  # sd_booted(3)
_GENERATOR = "usr/lib/systemd/system-generators/systemd-crontab-generator"  # systemd-cron's
_CRONS = ("usr/sbin/cron", "usr/sbin/crond")


def findings(config: Config, look: Schedules, root: str) -> Iterator[Finding]:
    """What is to be said of the schedules that were found; `root` is where /proc is looked for."""
    for ignored in look.ignored:
        yield Finding(errors.BAD_CONFIG, ignored)
    where = ", ".join(look.found)
    if len(look.found) > 1:
        yield Note(f"sapd run is started from more than one place: {where}")
    elif where:
        yield Finding(0, f"sapd run is started by {where}")
    elif look.unread:
        unread = ", ".join(look.unread)
        yield Note(f"nothing was found that starts sapd run, but not all was seen: {unread}", True)
    else:
        remedy = "sapd init --cron >/etc/cron.d/sapd, or sapd init --systemd"
        yield Finding(errors.BAD_CONFIG, f"nothing starts sapd run; {remedy}")
    for start in look.starts:
        yield from _program(start)
        yield from _interval(start, config)
    if os.path.isdir(os.path.join(root, "proc")):
        for start in look.starts:
            yield from _timer(start, root) if start.timer else _cron(start, root)


def _program(start: Start) -> Iterator[Finding]:
    """Whether the program is there, and runs, as the user for whom it is started."""
    remedy = "sapd init --cron, or --systemd, prints a schedule with the right one"
    path = shutil.which(start.program, path=start.path)
    if path is None:
        there = "is not on its PATH" if "/" not in start.program else "can't be run"
        if os.path.isabs(start.program) and not os.path.exists(start.program):
            there = "is missing"
        reason = f"the program that it starts, {start.program}, {there}"
        yield Finding(errors.BAD_CONFIG, f"{start.where}: {reason}; {remedy}")
        return
    try:
        user = rights.user_of(pwd.getpwnam(start.user).pw_uid)
    except KeyError:
        reason = f"has no user {start.user} to start it as"
        yield Finding(errors.BAD_CONFIG, f"{start.where}: {reason}; name one that is there")
        return
    if not user.is_me and os.geteuid() != 0:
        return  # what he may run only he can tell
    try:
        done = rights.run_as(user, [path, "--version"], {"PATH": start.path})
    except (OSError, subprocess.TimeoutExpired):
        done = None
    if done is None or done.returncode != 0 or b"sapd" not in done.stdout:
        reason = f"{path} does not run as {start.user}"
        yield Finding(errors.BAD_CONFIG, f"{start.where}: {reason}; {remedy}")
        return
    yield Finding(0, f"{start.where}: {path} runs as {start.user}")
    theirs, ours = done.stdout.decode("utf-8", "replace").split()[-1], version("sapd")
    if theirs != ours:
        yield Note(f"{start.where}: {path} is version {theirs}, and this is {ours}; {remedy}")
    owner = os.stat(path).st_uid
    if owner not in (0, user.uid):
        reason = f"{path} belongs to {rights.user_of(owner).name}, and is run by {start.user}"
        yield Note(f"{start.where}: {reason}; install it as root")


def _interval(start: Start, config: Config) -> Iterator[Finding]:
    """A login waits for up to an interval, and is good for what is left of its window."""
    window = min([config.rules.window, *(seconds for _, seconds in config.rules.windows)])
    if start.interval is not None and start.interval * 2 > window:
        reason = (
            f"starts sapd every {start.interval / 60:g} minutes, and a window of "
            f"{window / 60:g} minutes is over by then or soon after"
        )
        yield Finding(errors.BAD_CONFIG, f"{start.where}: {reason}; start it every minute")


def _cron(start: Start, root: str) -> Iterator[Finding]:
    systemd = os.path.isdir(os.path.join(root, _SYSTEMD))
    if cron_runs(root) or (systemd and os.path.exists(os.path.join(root, _GENERATOR))):
        return
    there = any(os.path.exists(os.path.join(root, cron)) for cron in _CRONS)
    remedy = "service cron start" if there else "apt-get install cron, or sapd init --systemd"
    yield Finding(errors.BAD_CONFIG, f"{start.where}: cron does not run; {remedy}")


def _timer(start: Start, root: str) -> Iterator[Finding]:
    if not os.path.isdir(os.path.join(root, _SYSTEMD)):
        reason = "systemd does not run here, and so starts nothing"
        yield Finding(errors.BAD_CONFIG, f"{start.where}: {reason}; see sapd init --cron")
        return
    done = ask(["systemctl", "is-active", start.timer])
    if done is not None and done.said.strip() in (b"inactive", b"failed"):
        reason = f"is enabled, but {done.said.decode().strip()}"
        remedy = f"systemctl start {start.timer}"
        yield Finding(errors.BAD_CONFIG, f"{start.where}: {reason}; {remedy}")
