"""Which mail servers run on this machine, and whether cron does, by the names of processes."""

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
_CRONS = {"cron", "crond", "fcron", "bcron-sched"}


def another_one(server: str, root: str = "/") -> str | None:
    """Which mail servers run, if not the one that is configured; None if it does, or none."""
    found = mail_servers(root)
    return " and ".join(sorted(found)) if found and server not in found else None


def mail_servers(root: str = "/") -> set[str]:
    """The names of those that run; `root` is where /proc is looked for.

    What runs in another network than this process, in a container perhaps, does not count.
    """
    names = _names(root)
    found = {
        server
        for pattern, server in _SERVERS.items()
        if any(re.fullmatch(pattern, name) for name in names)
    }
    if "postfix" in found:
        found.discard("opensmtpd")  # Postfix has processes of that name, too
    return found


def cron_runs(root: str = "/") -> bool:
    """Whether a cron daemon runs, whichever it is."""
    return not _names(root).isdisjoint(_CRONS)


def _names(root: str) -> set[str]:
    """What the processes of this network are called, proc(5)."""
    look = Look()
    folder = os.path.join(root, "proc")
    ours = _network(os.path.join(folder, "self"))
    processes = [os.path.join(folder, pid) for pid in filter(str.isdigit, look.names(folder))]
    return {
        look.text(os.path.join(process, "comm")).strip()
        for process in processes
        if _may_be_here(process, ours)
    }


def _may_be_here(process: str, ours: str | None) -> bool:
    """Whether a process is in our network, or, where this can't be known, in no container."""
    network = _network(process)
    if network is None or ours is None:
        return not _is_inside(process)
    return network == ours


def _is_inside(process: str) -> bool:
    """Whether a process has a process number of its own kind too, as in a container; proc(5)."""
    found = re.search(r"(?m)^NSpid:(.*)$", Look().text(os.path.join(process, "status")))
    return found is not None and len(found[1].split()) > 1


def _network(process: str) -> str | None:
    """The network namespace of a process; None if this user may not know it."""
    try:
        return os.readlink(os.path.join(process, "ns/net"))
    except OSError:
        return None
