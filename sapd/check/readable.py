"""Whether sendmail can read the map."""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from sapd.check.look import Look, account


@dataclass(frozen=True)
class _Sendmail:
    """As whom sendmail reads maps, and which of its checks were switched off."""

    uid: int = 0
    groups: frozenset[int] = frozenset([0])
    trusted: int | None = None
    blame: frozenset[str] = frozenset(["truststickybit"])  # as Debian has it


def why_unreadable(database: str, cf: str = "/etc/mail/sendmail.cf") -> str | None:
    """Why sendmail can't read the map, with the remedy; None if it can, or if that is unknown.

    Measured with sendmail 8.17 (libsmutil's safefile.c says the same). It refuses a map not only
    when the system does: root reads what is its own, TrustedUser's, or open to root's groups or
    to all; a file of anybody else with mode 0640 it calls unsafe. Through a folder it goes with
    the same rights, but there TrustedUser is a stranger: /etc/mail as smmta 2750 is refused.
    RunAsUser counts as itself and its groups. It does not matter whether others may write to the
    file, nor, in folders where only their owners write, whether it is a symbolic or hard link. A
    refused map is 451 for every client; if it is optional (`-o`) it opens nothing, silently.
    """
    sendmail = _sendmail(cf)
    if sendmail is None:
        return None
    who = f"sendmail (as {_user(sendmail.uid)})"
    try:
        for folder in _folders(os.path.dirname(database), set()):
            status = os.stat(folder)
            if not _may(sendmail, status, {sendmail.uid}, stat.S_IXOTH):
                return f"{who} can't pass {folder}, {_rights(status)}; chmod a+x {folder}"
        status = os.stat(database)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file; move it away"
    trusted = sendmail.trusted if sendmail.uid == 0 else None
    if not _may(sendmail, status, {sendmail.uid, trusted}, stat.S_IROTH):
        return f"{who} can't read it, {_rights(status)}; chmod 0644 {database}"
    return None


def writable_folders(database: str, cf: str = "/etc/mail/sendmail.cf") -> list[str]:
    """The folders on the map's path in which others may write, so that sendmail refuses the map.

    Measured with sendmail 8.17: symbolic links are followed, and every folder on the way counts.
    Whose the folder is does not matter. DontBlameSendmail may exempt sticky folders
    (TrustStickyBit, which Debian sets and sendmail does not), those of groups
    (GroupWritableDirPathSafe), or all (MapInUnsafeDirPath).
    """
    blame = (_sendmail(cf) or _Sendmail()).blame
    if "mapinunsafedirpath" in blame:
        return []
    bits = stat.S_IWOTH if "groupwritabledirpathsafe" in blame else stat.S_IWGRP | stat.S_IWOTH
    found = []
    for folder in _folders(os.path.dirname(database), set()):
        try:
            mode = os.stat(folder).st_mode
        except OSError:
            continue
        if mode & bits and not (mode & stat.S_ISVTX and "truststickybit" in blame):
            found.append(folder)
    return found


def _folders(folder: str, links: set[str]) -> Iterator[str]:
    """Every folder that sendmail looks at on the way into this one: safedirpath in safefile.c."""
    path = "/"
    yield path
    for name in folder.split("/"):
        if name in ("", "."):
            continue
        above, path = path, os.path.join(path, name)
        if name == "..":
            continue
        if not os.path.islink(path):
            yield path
        elif path not in links:
            links.add(path)
            with suppress(OSError):
                yield from _folders(os.path.join(above, os.readlink(path)), links)


def _sendmail(cf: str) -> _Sendmail | None:
    """What sendmail.cf says of it; None without a readable one, or if it names no such user."""
    text = Look().text(cf)
    if text == "":
        return None
    options: dict[str, list[str]] = {}
    # "O Name=value" with just one blank; the name in any case, the value maybe on more lines.
    for key, value in re.findall(r"(?m)^O (\w+)[ \t]*=(.*)", re.sub(r"\n[ \t]", " ", text)):
        options.setdefault(key.lower(), []).append(value.split("#")[0].strip())
    blame: set[str] = set()
    for word in re.split(r"[\s,]+", " ".join(options.get("dontblamesendmail", [])).lower()):
        blame = set() if word == "safe" else blame | {word}
    trusted = account(options.get("trusteduser", [""])[-1])
    run_as, _, group = re.sub(r"[:./]", " ", options.get("runasuser", ["root"])[-1]).partition(" ")
    runner = account(run_as)
    if runner is None:
        return None
    try:
        gid = (int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid) if group else None
    except KeyError:
        return None
    gid = runner.pw_gid if gid is None else gid
    return _Sendmail(
        runner.pw_uid,
        frozenset(os.getgrouplist(runner.pw_name, gid)),
        None if trusted is None else trusted.pw_uid,
        frozenset(blame),
    )


def _may(sendmail: _Sendmail, status: os.stat_result, owners: set[int | None], right: int) -> bool:
    """Whether the mode grants a right; of owner, group and others, the first that fits decides."""
    if status.st_uid in owners:
        right <<= 6
    elif status.st_gid in sendmail.groups:
        right <<= 3
    return bool(status.st_mode & right)


def _rights(status: os.stat_result) -> str:
    mode = stat.S_IMODE(status.st_mode)
    return f"which is {_user(status.st_uid)}'s with mode {mode:04o}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
