"""Which mail servers run on this machine, by the names of their processes."""

from __future__ import annotations

import os
import re

from sapd.check.look import Look

_SERVERS = {  # a name of proc(5), cut after 15 characters
    r"sendmail.*": "sendmail",
    r"qmgr|pickup": "Postfix",
    r"exim.*": "Exim",
    r"smtpd": "OpenSMTPD",
    r"courierd|courieresmtpd|couriertcpd": "Courier",
    r"tcpserver": "tcpserver",
}


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
    if "Postfix" in found:
        found.discard("OpenSMTPD")  # Postfix has processes of that name, too
    return found


def _network(process: str) -> str | None:
    """The network namespace of a process; None if this user may not know it."""
    try:
        return os.readlink(os.path.join(process, "ns/net"))
    except OSError:
        return None
