"""The files that come with sapd: schedules, and lines for mail servers, syslog and logrotate.

The wheel has them in `share`, as pyproject.toml says; in a checkout they lie beside the package.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys

from sapd import defaults, errors

FILES = {
    "cron": {"every-minute": "cron/sapd", "often": "cron/sapd-often"},
    "systemd": {"service": "cron/sapd.service", "timer": "cron/sapd.timer"},
    "logrotate": {"qpopper": "cron/logrotate"},
    "rsyslog": {
        "qpopper": "examples/rsyslog/10-qpopper.conf",
        "pop-host": "examples/rsyslog/20-pop-host.conf",
        "relay": "examples/rsyslog/21-relay.conf",
    },
    "sendmail": {
        "access": "examples/sendmail/access.mc",
        "self-closing": "examples/sendmail/self-closing.mc",
        "separate-map": "examples/sendmail/separate-map.mc",
        "limits": "examples/sendmail/limits.mc",
    },
    "postfix": {
        "main": "examples/postfix/main.cf",
        "master": "examples/postfix/master.cf",
        "postscreen": "examples/postfix/postscreen.cf",
        "blocklist": "examples/postfix/blocklist.cf",
        "refusal": "examples/postfix/refusal.cf",
    },
    "exim": {
        "config": "examples/exim/exim.conf",
        "debian-main": "examples/exim/debian/000_sapd",
        "debian-acl": "examples/exim/debian/31_sapd",
    },
    "opensmtpd": {"config": "examples/opensmtpd/smtpd.conf"},
    "tcpserver": {"run": "examples/tcpserver/run"},
    "settings": {"all": "examples/sapd.toml"},
}
"""{option of `sapd init`: {its value: the file that it prints}}; the first value may be left out"""

PROGRAM = "/usr/local/bin/sapd"
"""The program's path in the files, which `text` replaces."""

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_PLAIN = re.compile(r"[\w./@+:,=-]+")


def text(kind: str, which: str, program: str, config: str = defaults.CONFIG) -> str:
    """One of `FILES`, which starts the program by this path, with this configuration.

    Raises `SapdError`: 73 if the file did not come with the package, 78 if a schedule can't name
    such a path.
    """
    name = FILES[kind][which]
    for folder in (os.path.join(_PACKAGE, "share"), os.path.dirname(_PACKAGE)):
        path = os.path.join(folder, name)
        try:
            with open(path, encoding="utf-8") as file:
                return _adapted(file.read(), kind, program, config)
        except FileNotFoundError:
            continue
    reason = f"did not come with the package in {_PACKAGE}; install sapd anew"
    raise errors.SapdError(errors.CANT_CREATE, name, reason)


def _adapted(text: str, kind: str, program: str, config: str) -> str:
    if kind in ("cron", "systemd"):
        for path in (program, config):
            if not _PLAIN.fullmatch(path):
                reason = (
                    "has characters that mean something to cron, sh or systemd; use a plain path"
                )
                raise errors.SapdError(errors.BAD_CONFIG, path, reason)
    given = "" if config == defaults.CONFIG else f" -c {config}"
    text = text.replace(f"{PROGRAM} run", f"{program} run{given}").replace(PROGRAM, program)
    return text.replace(defaults.CONFIG, config) if kind == "cron" else text


def program() -> str:
    """The path by which a schedule can start this program: links are kept, they outlive updates."""
    started = os.path.abspath(sys.argv[0])
    if os.path.basename(started) == "sapd" and os.path.isfile(started):
        return started
    beside = os.path.join(os.path.dirname(sys.executable), "sapd")
    return beside if os.access(beside, os.X_OK) else shutil.which("sapd") or PROGRAM


def called(program: str) -> str:
    """What a person types to start it: its name alone, where PATH leads there."""
    found = shutil.which("sapd")
    return "sapd" if found and os.path.abspath(found) == program else shlex.quote(program)
