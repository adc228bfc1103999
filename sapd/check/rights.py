"""Whether the user as whom a run goes on may do what it must.

A run by root goes on as the owner of a separate map's folder, and a crontab or unit may name a user
of its own: root, who may do all, would not meet what they meet.
"""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from time import time
from typing import Any, NamedTuple

from sapd import defaults, errors, files, maps
from sapd.check.finding import Finding
from sapd.config import Config, Log

_OWN = ("state.json", "lock", "audit.jsonl", "last-pass", "idle")
"""What runs leave in the state's folder."""


_LIMIT = 20.0  # seconds


class User(NamedTuple):
    """An account with its groups; the name of one without is its number."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    @property
    def is_me(self) -> bool:
        """Whether this process has its rights already."""
        return self.uid == os.geteuid()


def user_of(uid: int, gid: int = -1) -> User:
    """The account of a number; one that has no name has no more groups than `gid`."""
    try:
        found = pwd.getpwuid(uid)
    except KeyError:
        return User(str(uid), uid, gid, ())
    groups = os.getgrouplist(found.pw_name, found.pw_gid)
    return User(found.pw_name, uid, found.pw_gid, tuple(groups))


def of_a_run(config: Config, started_as: str | None) -> User | None:
    """As whom a run goes on that is started as that user; None if that can't be told.

    Where nothing starts it (None), root may be the one who will.
    """
    if started_as is None and os.geteuid() != 0:
        return None
    try:
        user = user_of(0 if started_as is None else pwd.getpwnam(started_as).pw_uid)
    except KeyError:  # said with the schedule
        return None
    folder = maps.chosen(config.access).belongs_to
    if user.uid == 0 and folder is not None and os.path.isdir(folder):
        about = os.stat(folder)
        user = user_of(about.st_uid, about.st_gid)
    return user


def run_as(
    user: User, command: Sequence[str], environment: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end with a user's rights, which root alone can give away.

    Raises OSError, also if it can't be started, and `subprocess.TimeoutExpired`.
    """
    other: dict[str, Any] = {}
    if not user.is_me:
        other = {"user": user.uid, "group": user.gid, "extra_groups": user.groups}
    done: subprocess.CompletedProcess[bytes] = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_LIMIT,
        cwd="/",
        env=environment,
        check=False,
        **other,
    )
    return done


def findings(config: Config, user: User) -> Iterator[tuple[str, Finding]]:
    """Yield (path, problem) for what this user may not do, though it is there."""
    if not user.is_me and os.geteuid() != 0:
        return
    yield from _own_files(config, user)
    server = maps.chosen(config.access)
    if server.belongs_to is not None:
        for path, rights in ((server.belongs_to, ("-w", "-x")), (server.path, ("-w",))):
            if os.path.exists(path) and not _may(user, path, *rights):
                yield path, _give_away(path, user, f"{user.name} {path}")
    if user.is_me:
        return  # what can't be read was met
    for part in (os.__file__, files.__file__):
        if not _may(user, part, "-r"):
            reason = f"can't be read by {user.name}, as whom a run goes on"
            remedy = "install Python and sapd where everybody can read them"
            yield part, Finding(errors.NO_PERMISSION, f"{part}: {reason}; {remedy}")
    read = [
        config.path,
        *server.watched(),
        *(log.file(time()) for log in config.logs if not log.journal),
    ]
    for path in dict.fromkeys(filter(os.path.exists, read)):
        if path != server.path and not _may(user, path, "-r"):
            reason = f"can't be read by {user.name}, as whom a run goes on"
            yield path, Finding(errors.NO_PERMISSION, f"{path}: {reason}; {_let_read(path, user)}")
    for log in config.logs:
        yield from _cutting(log, user)
        yield from _journal(log, user)


def _own_files(config: Config, user: User) -> Iterator[tuple[str, Finding]]:
    """The folder of the state and what is in it; one finding for all that has to be given away."""
    directory = config.state_directory
    if not os.path.isdir(directory):
        if not _may(user, os.path.dirname(directory), "-w", "-x"):
            remedy = f"install -d -o {user.name} -m 755 {directory}"
            reason = f"is missing, and {user.name}, as whom a run goes on, can't make it"
            yield directory, Finding(errors.CANT_CREATE, f"{directory}: {reason}; {remedy}")
        return
    own = [os.path.join(directory, name) for name in _OWN]
    wrong = [
        path
        for path in (directory, *own)
        if os.path.isdir(path) or (os.path.isfile(path) and not os.path.islink(path))
        if not _is_his(path, user)
    ]
    if len(wrong) > 1:
        finding = _give_away(wrong[0], user, f"-R {user.name} {directory}")
    for path in wrong:
        yield path, finding if len(wrong) > 1 else _give_away(path, user, f"{user.name} {path}")


def _is_his(path: str, user: User) -> bool:
    """Whether a file or folder is the user's own, or root's and all the same his to use."""
    rights = ("-r", "-w", "-x") if os.path.isdir(path) else ("-r", "-w")
    return os.stat(path).st_uid in (0, user.uid) and _may(user, path, *rights)


def _give_away(path: str, user: User, arguments: str) -> Finding:
    reason = f"belongs to {user_of(os.stat(path).st_uid).name}, and a run goes on as {user.name}"
    return Finding(errors.NO_PERMISSION, f"{path}: {reason}; chown {arguments}")


def _cutting(log: Log, user: User) -> Iterator[tuple[str, Finding]]:
    path = log.path
    if log.keep_lines is not None and os.path.isfile(path) and not _may(user, path, "-w"):
        reason = f"can't be cut by {user.name}, as whom a run goes on"
        remedy = "let him write to it, or take keep_lines out"
        yield path, Finding(errors.NO_PERMISSION, f"{path}: {reason}; {remedy}")


def _journal(log: Log, user: User) -> Iterator[tuple[str, Finding]]:
    folders = [folder for folder in defaults.JOURNALS if os.path.isdir(folder)]
    files = [
        os.path.join(inner.path, "system.journal")
        for folder in folders
        for inner in os.scandir(folder)
        if os.path.isfile(os.path.join(inner.path, "system.journal"))
    ]
    if log.journal and any(not _may(user, file, "-r") for file in files):
        reason = f"can't be read by {user.name}, as whom a run goes on"
        remedy = f"usermod -aG systemd-journal {user.name}"
        yield log.path, Finding(errors.NO_PERMISSION, f"{log.path}: {reason}; {remedy}")


def _may(user: User, path: str, *rights: str) -> bool:
    """Whether the user has these rights to a file or folder, each as test(1) names it."""
    return all(run_as(user, ["test", right, path]).returncode == 0 for right in rights)


def _let_read(path: str, user: User) -> str:
    """How the user gets at a file; the first folder that he can't pass is what keeps him out."""
    folder = os.path.dirname(path)
    while folder != "/":
        if not _may(user, folder, "-x"):
            return f"let him pass {folder}"
        folder = os.path.dirname(folder)
    about = os.stat(path)
    if about.st_mode & 0o040 and about.st_gid not in (0, *user.groups):
        try:
            return f"usermod -aG {grp.getgrgid(about.st_gid).gr_name} {user.name}"
        except KeyError:
            pass
    return f"setfacl -m u:{user.name}:r {path}, or chmod o+r it"
