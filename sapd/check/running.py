"""Which mail servers run on this machine, by the names of their processes."""

from __future__ import annotations

import os
import re

from sapd.check.look import Look

_SERVERS = {  # a name of proc(5), cut after 15 characters: the value of access.server
    r"sendmail.*": "sendmail",
    r"qmgr|pickup": "postfix",
    r"exim.*": "exim",
    r"smtpd": "opensmtpd",
    r"courierd|courieresmtpd|couriertcpd": "courier",
    r"tcpserver": "tcpserver",
}


def another_one(server: str, root: str = "/") -> str | None:
    """Which mail servers run, if not the one that is configured; None if it does, or none."""
    found = mail_servers(root)
    return " and ".join(sorted(found)) if found and server not in found else None


def mail_servers(root: str = "/") -> set[str]:
    """The names of those that run; `root` is where /proc is looked for.

    What runs in another network than this process, in a container perhaps, does not count.
    """
    look = Look()
    folder = os.path.join(root, "proc")
    ours = _network(os.path.join(folder, "self"))
    found = set()
    for pid in filter(str.isdigit, look.names(folder)):
        process = os.path.join(folder, pid)
        name = look.text(os.path.join(process, "comm")).strip()
        for pattern, server in _SERVERS.items():
            if re.fullmatch(pattern, name) and _network(process) in (ours, None):
                found.add(server)
    if "postfix" in found:
        found.discard("opensmtpd")  # Postfix has processes of that name, too
    return found


def _network(process: str) -> str | None:
    """The network namespace of a process; None if this user may not know it."""
    try:
        return os.readlink(os.path.join(process, "ns/net"))
    except OSError:
        return None
