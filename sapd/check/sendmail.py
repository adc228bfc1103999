"""Whether sendmail's map can be built, replaced and read, and whether sendmail heeds it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sapd import errors, files
from sapd.check.finding import Finding, Note, problem
from sapd.check.look import Look
from sapd.check.readable import why_unreadable, writable_folders
from sapd.maps.live import Published, is_untouched

if TYPE_CHECKING:
    from sapd.maps.sendmail import Sendmail

_HASH_MAGIC = 0x061561  # Berkeley DB, db_page.h: DB_HASHMAGIC, the fourth word of the first page
_FEATURES = {  # of sendmail's, that look a limit up
    "client_rate": "ratecontrol",
    "client_connections": "conncontrol",
    "greet_pause": "greet_pause",
}


def findings(
    server: Sendmail, published: Published | None, scratch: str, root: str
) -> Iterator[Finding]:
    """What a run would meet at the map, and sendmail; see `maps.Map.findings`."""
    cf = os.path.join(root, "etc/mail/sendmail.cf")
    yield from _building(server, scratch)
    for folder in writable_folders(server.path, cf):
        reason = f"others may write there, so sendmail refuses {server.path}"
        yield Finding(errors.CANT_CREATE, f"{folder}: {reason}; chmod go-w {folder}")
    yield _live_map(server, published, cf)
    yield from _limits(server, cf)


def _building(server: Sendmail, scratch: str) -> Iterator[Finding]:
    if os.access(server.makemap, os.X_OK):
        yield Finding(0, f"{server.makemap}: is there")
    else:
        reason = "can't be run; it comes with sendmail (sendmail-bin)"
        yield Finding(errors.MAKEMAP_FAILED, f"{server.makemap}: {reason}")
    if server.source_path is None:
        return
    try:
        with TemporaryDirectory(dir=scratch) as folder:
            trial = server.trial(os.path.join(folder, "check.db"))
            with trial.built(b""):
                pass
        count = trial.source.count
        yield Finding(0, f"{server.source_path}: makemap makes {count} entries of it")
    except errors.SapdError as error:
        yield problem(error)
    except OSError as error:
        reason = f"was not tried with makemap: {scratch}: {error.strerror}"
        yield problem(errors.SapdError(errors.status_of(error), server.source_path, reason))


def _live_map(server: Sendmail, published: Published | None, cf: str) -> Finding:
    path = server.path
    try:
        fd = files.open_in_place(path, writing=False)
    except FileNotFoundError:
        return Finding(errors.CANT_CREATE, f"{path}: is missing; sapd run makes it")
    except errors.SapdError as error:
        return problem(error)
    try:
        magic = os.pread(fd, 4, 12)
    finally:
        os.close(fd)
    if _HASH_MAGIC not in (int.from_bytes(magic, "little"), int.from_bytes(magic, "big")):
        return Finding(errors.CANT_CREATE, f"{path}: is no hash database; sapd run makes it anew")
    if why := why_unreadable(path, cf):
        return Finding(errors.NO_PERMISSION, f"{path}: {why}")
    if not os.access(path, os.W_OK):
        reason = "is not writable for this user; run as root, or see examples/sendmail"
        return Finding(errors.NO_PERMISSION, f"{path}: {reason}")
    if published is not None and not is_untouched(path, published):
        reason = "was changed since sapd made it; sapd run makes it anew"
        return Finding(errors.MAKEMAP_FAILED, f"{path}: {reason}")
    return Finding(0, f"{path}: is a hash database")


def _limits(server: Sendmail, cf: str) -> Iterator[Finding]:
    """Whether the rules in sendmail.cf look each limit up, and in the map that sapd writes."""
    text = Look().text(cf)
    for setting, tag in server.tags.items():
        if tag not in server.limits:
            continue
        if text == "":
            reason = f"is not known to be heeded, because {cf} can't be read"
            yield Note(f"policy.{setting}: {reason}")
        elif re.search(rf"(?m)^R.*\b{tag}\b", text) is None:
            feature = f"FEATURE(`{_FEATURES[setting]}')"
            remedy = f"add {feature} to sendmail.mc, as examples/sendmail/limits.mc"
            reason = f"has no effect, for {cf} does not look {tag} up"
            yield Finding(errors.BAD_CONFIG, f"policy.{setting}: {reason}; {remedy}")
        elif (asked := _asked(text)) and not _same(asked, server.path):
            reason = f"has no effect, for sendmail looks {tag} up in {asked} only"
            remedy = f"remove it, or keep that one instead of {server.path}"
            yield Finding(errors.BAD_CONFIG, f"policy.{setting}: {reason}; {remedy}")
        else:
            counted = f", and counts over {_window(text)}" if tag == "ClientRate" else ""
            yield Finding(0, f"policy.{setting}: sendmail looks {tag} up{counted}")


def _asked(text: str) -> str | None:
    """The database behind the map `access`, in which the rules look; None if it is no one file."""
    found = re.findall(r"(?m)^Kaccess[ \t]+(?:hash|btree)\b.*[ \t](/\S+)", text)
    return f"{found[-1].removesuffix('.db')}.db" if found else None


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _window(text: str) -> str:
    """The time over which sendmail counts a client's connections; its default is a minute."""
    found = re.findall(r"(?mi)^O ConnectionRateWindowSize[ \t]*=[ \t]*(\w+)", text)
    return found[-1] if found else "60s"
