"""What the checks of the mail servers other than sendmail have in common."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence

from sapd import child, errors, files
from sapd.check.finding import Finding, Note, problem
from sapd.check.look import account
from sapd.maps.live import Published, is_untouched

_LIMIT = 20.0  # seconds for one question to a mail server's own tool
STAYS_OPEN = "a client that is closed may go on relaying in a session that it has open"


def program(path: str, made_by: str) -> Finding:
    """Whether the builder can be run."""
    if os.access(path, os.X_OK) and not os.path.isdir(path):
        return Finding(0, f"{path}: is there")
    return Finding(errors.MAKEMAP_FAILED, f"{path}: can't be run; it comes with {made_by}")


def ask(command: Sequence[str], stream: int = 1) -> child.Ended | None:
    """What a mail server's own tool says; None if it can't be asked."""
    found = shutil.which(command[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        return None
    try:
        return child.run([found, *command[1:]], b"", stream, _LIMIT)
    except (OSError, TimeoutError):
        return None


def live(path: str, published: Published | None, kind: str, spoilt: bool = False) -> Finding:
    """Whether the live map is there, can be written, and is what was published last."""
    try:
        os.close(files.open_in_place(path, writing=False))
    except FileNotFoundError:
        return Finding(errors.CANT_CREATE, f"{path}: is missing; sapd run makes it")
    except errors.SapdError as error:
        return problem(error)
    if spoilt:
        return Finding(errors.CANT_CREATE, f"{path}: is not a {kind}; sapd run makes a new one")
    if not os.access(os.path.dirname(path), os.W_OK | os.X_OK):
        reason = "can't be replaced by this user; run sapd as the owner of its folder"
        return Finding(errors.NO_PERMISSION, f"{path}: {reason}")
    if published is not None and not is_untouched(path, published):
        reason = "was changed since sapd made it; sapd run makes it anew"
        return Finding(errors.MAKEMAP_FAILED, f"{path}: {reason}")
    return Finding(0, f"{path}: is a {kind}")


def why_unreadable_for(name: str, path: str) -> str | None:
    """Why a user, by name or number, can't read a file; None if he can, or if that is unknown."""
    user = account(name)
    if user is not None:
        uid, groups = user.pw_uid, os.getgrouplist(user.pw_name, user.pw_gid)
    elif name.isdecimal():  # a number without a name has no groups
        uid, groups = int(name), []
    else:
        return None
    if uid == 0:
        return None
    folder = os.path.dirname(path)
    steps = [folder]
    while folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
        steps.insert(0, folder)
    for step, right in [*((step, stat.S_IXOTH) for step in steps), (path, stat.S_IROTH)]:
        try:
            about = os.stat(step)
        except OSError:
            return None
        if about.st_uid == uid:
            right <<= 6
        elif about.st_gid in groups:
            right <<= 3
        if not about.st_mode & right:
            who = f"user {name}" if user is None else user.pw_name
            return f"{who} can't {'read' if step == path else 'pass'} {step}"
    return None


def revoked() -> Note:
    """What holds for each server that looks only once a session."""
    return Note(f"{STAYS_OPEN}; it is closed from its next connection on")
