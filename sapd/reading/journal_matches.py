"""Which matches choose a POP server's own journal entries, and which prove nothing. Pure."""

import re
from collections.abc import Sequence

_LAST_SYSTEM_USER = 999  # login.defs(5), SYS_UID_MAX
_MATCH = re.compile(r"(_{0,2}[A-Z][A-Z0-9_]*)=(.+)", re.DOTALL)
_UNIT = re.compile(r"([A-Za-z0-9:_.\\-]+?)(@[A-Za-z0-9:_.\\-]*)?\.(service|scope)")

# Units that run what users tell them to: whoever has an account, or can have a mail delivered to a
# program of his, writes to the journal in their names.
_USERS_UNITS = {
    "user": "it runs the users' own units",
    "session": "it is a user's session",
    "run": "it is made by systemd-run",
    "init": "it is not a server",
    **dict.fromkeys(("cron", "crond", "cronie", "fcron", "anacron"), "it runs users' crontabs"),
    **dict.fromkeys(("at", "atd"), "it runs users' jobs"),
    **dict.fromkeys(
        ("inetd", "xinetd", "openbsd-inetd", "inetutils-inetd"), "it runs other servers, too"
    ),
    **dict.fromkeys(("ssh", "sshd", "dropbear", "telnetd"), "users log in by it"),
    **dict.fromkeys(("getty", "serial-getty", "autovt", "console-getty"), "users log in by it"),
    **dict.fromkeys(("docker", "containerd", "podman"), "it runs containers of any kind"),
    **dict.fromkeys(
        ("sendmail", "postfix", "exim", "exim4", "opensmtpd", "courier-mta"),
        "it runs programs that users name in .forward",
    ),
    **dict.fromkeys(("apache2", "httpd", "lighttpd", "nginx"), "it runs web pages' programs"),
}


UNPROVEN = {
    "courier": "journald takes the blanks off a message, and with them the proof that it was cut; "
    "have rsyslog write a file",
}
"""Formats whose messages prove nothing once they went through a journal, and why."""


def name(matches: Sequence[str]) -> str:
    """What a journal is called in messages and in the state."""
    return f"journal {' '.join(matches)}"


def objection_to(matches: Sequence[str]) -> str | None:
    """Why these matches prove nothing, None if they choose a POP server's own entries.

    Several values of one field are alternatives, several fields must all fit; see journalctl(1).
    """
    chosen: dict[str, list[str]] = {}
    for match in matches:
        found = _MATCH.fullmatch(match)
        if found is None or "\0" in match:
            return f'has "{match}"; a match is FIELD=value, as _SYSTEMD_UNIT=dovecot.service'
        chosen.setdefault(found[1], []).append(found[2])
    units, users = chosen.get("_SYSTEMD_UNIT", []), chosen.get("_UID", [])
    for unit in units:
        if (why := _objection_to_unit(unit)) is not None:
            return f'has the unit "{unit}": {why}; name the unit of the POP server'
    if not units:
        for user in users:
            if (why := _objection_to_user(user)) is not None:
                return f'has _UID "{user}": {why}; name the unit of the POP server'
    if not units and not users:
        named = f": any user can have {', '.join(chosen)}" if chosen else ""
        return f"needs _SYSTEMD_UNIT=, the unit of the POP server, or _UID= of its own user{named}"
    return None


def _objection_to_unit(unit: str) -> str | None:
    found = _UNIT.fullmatch(unit)
    if found is None:
        return "it is not the name of a service"
    name, kind = found[1], found[3]
    for stem in (name, name.partition("-")[0] if kind == "scope" or name[:4] == "run-" else name):
        if stem in _USERS_UNITS:
            return _USERS_UNITS[stem]
    if kind == "scope":
        return "a scope holds whatever was started in it"
    return "it runs web pages' programs" if re.fullmatch(r"php[\d.]*-fpm", name) else None


def _objection_to_user(user: str) -> str | None:
    if not re.fullmatch(r"[0-9]{1,10}", user):
        return "it is not a number"
    if int(user) > _LAST_SYSTEM_USER:
        return f"a server's own user has a number up to {_LAST_SYSTEM_USER}"
    return None
