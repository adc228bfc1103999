"""Whether sendmail's map can be built, replaced and read, and whether sendmail heeds it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sapd import errors, files
from sapd.check.finding import Finding, Note, problem
from sapd.check.readable import why_unreadable, writable_folders
from sapd.maps import sendmail_cf
from sapd.maps.databases import kind_of
from sapd.maps.live import Published, is_untouched
from sapd.maps.sendmail_cf import DEFAULT
from sapd.maps.sendmail_entries import TAGS

if TYPE_CHECKING:
    from sapd.maps.sendmail import Sendmail

_FEATURES = {  # of sendmail's, that look a limit up
    "client_rate": "ratecontrol",
    "client_connections": "conncontrol",
    "greet_pause": "greet_pause",
}


def findings(
    server: Sendmail, published: Published | None, scratch: str, root: str
) -> Iterator[Finding]:
    """What a run would meet at the map, and sendmail; see `maps.Map.findings`."""
    cf = (
        server.makemap.cf
        if server.makemap.cf != DEFAULT
        else os.path.join(root, DEFAULT.lstrip("/"))
    )
    text = sendmail_cf.read(cf)
    yield from _building(server, scratch)
    for folder in writable_folders(server.path, cf):
        reason = f"others may write there, so sendmail refuses {server.path}"
        yield Finding(errors.CANT_CREATE, f"{folder}: {reason}; chmod go-w {folder}")
    yield _live_map(server, published, cf)
    yield from _lockable(server)
    yield from _asking(server, cf, text)
    yield from _limits(server, cf, text)


def _building(server: Sendmail, scratch: str) -> Iterator[Finding]:
    if os.access(server.makemap.program, os.X_OK):
        yield Finding(0, f"{server.makemap.program}: is there")
    else:
        reason = "can't be run; it comes with sendmail (sendmail-bin)"
        yield Finding(errors.MAKEMAP_FAILED, f"{server.makemap.program}: {reason}")
    if server.source_path is None:
        return
    try:
        with TemporaryDirectory(dir=scratch) as folder:
            suffix = sendmail_cf.SUFFIXES[server.makemap.type]
            trial = server.trial(os.path.join(folder, "check" + suffix))
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
        kind = kind_of(fd)
    finally:
        os.close(fd)
    if kind is None:
        reason = f"is not a {server.makemap.type} database; sapd run makes a new one"
        return Finding(errors.CANT_CREATE, f"{path}: {reason}")
    if kind != server.makemap.type:
        reason = (
            f"is a {kind} database, which sapd run does not replace by a {server.makemap.type} one"
        )
        remedy = f'set access.type = "{kind}", or move it away'
        return Finding(errors.BAD_CONFIG, f"{path}: {reason}; {remedy}")
    if why := why_unreadable(path, cf):
        return Finding(errors.NO_PERMISSION, f"{path}: {why}")
    if not os.access(path, os.W_OK):
        reason = (
            "is not writable for this user; run as root, or see sapd init --sendmail separate-map"
        )
        return Finding(errors.NO_PERMISSION, f"{path}: {reason}")
    if published is not None and not is_untouched(path, published):
        reason = "was changed since sapd made it; sapd run makes it anew"
        return Finding(errors.MAKEMAP_FAILED, f"{path}: {reason}")
    return Finding(0, f"{path}: is a {kind} database")


def _lockable(server: Sendmail) -> Iterator[Finding]:
    """Whoever may read a map may hold its lock, and keep sapd from copying a new one into it."""
    if server.source_path is not None or not os.path.isfile(server.path):
        return
    if os.stat(server.path).st_mode & stat.S_IROTH:
        reason = "every local user may read it, and so hold its lock"
        remedy = f"chgrp it to the mail server's group, and chmod o-r {server.path}"
        yield Note(f"{server.path}: {reason}; {remedy}")


def _asking(server: Sendmail, cf: str, text: str) -> Iterator[Finding]:
    """Whether sendmail asks the map, as a database of its type, and for the entries in it."""
    path = server.path
    if text == "":
        yield Note(f"{path}: is not known to be asked, because {cf} can't be read")
        return
    example = " separate-map" if server.source_path is None else ""
    if server.closes_by_itself and server.source_path is not None:
        example = " self-closing"
    remedy = f"add the lines of sapd init --sendmail{example} to sendmail.mc"
    named = sendmail_cf.of_database(text, path)
    if not named:
        yield Finding(errors.BAD_CONFIG, f"{path}: {_not_named(server, cf, text, remedy)}")
        return
    name, kind, _ = named[-1]
    ours = server.makemap.type
    if kind != ours:
        reason = f"sendmail reads it as a {kind} map, by {cf}, and sapd makes a {ours} one"
        yield Finding(errors.BAD_CONFIG, f'{path}: {reason}; set access.type = "{kind}"')
    elif not _is_looked_up(server, text, name):
        what = f"entries with {server.entries.tag}" if server.entries.tag else "addresses"
        reason = f"{cf} has no rule that looks {what} up in its map {name}"
        yield Finding(errors.BAD_CONFIG, f"{path}: {reason}; {remedy}")
    elif server.closes_by_itself and _skips_checks(text):
        reason = "an open address is spared all checks of its mail's sender"
        order = "put FEATURE(`delay_checks') before the lines of sapd init --sendmail self-closing"
        yield Finding(errors.BAD_CONFIG, f"{path}: by {cf} {reason}; {order}")
    else:
        yield Finding(0, f"{path}: sendmail asks it, as its map {name}")
        yield _closing(server)


def _not_named(server: Sendmail, cf: str, text: str, remedy: str) -> str:
    """What sendmail asks in place of this map, and what to do."""
    access = sendmail_cf.keyed_maps(text).get("access")
    if server.source_path is None:
        return f"{cf} has no map of that file; {remedy}"
    if access is None:
        return f"{cf} has no map for access; {remedy}"
    if access.database is None:
        return f"sendmail asks a map of class {access.kind}, by {cf}; {remedy}"
    asked = f"sendmail asks {access.database}, by {cf}"
    return f'{asked}; set access.database = "{access.database}"'


def _is_looked_up(server: Sendmail, text: str, name: str) -> bool:
    """The rules for `Connect:` put the tag in front of an address by themselves."""
    if server.closes_by_itself or server.source_path is None:
        return sendmail_cf.is_asked(text, name, server.entries.tag)
    return (
        re.search(rf"(?m)^R.*[<( ]\+? ?{re.escape(server.entries.tag.rstrip(':'))}\b", text)
        is not None
    )


def _skips_checks(text: str) -> bool:
    """With delay_checks nothing else checks the mail of whoever the rules let in."""
    delayed = sendmail_cf.ruleset(text, "Delay_TLS_Clt") != ""
    return delayed and "$>checkmail" not in sendmail_cf.ruleset(text, "Local_Relay_Auth")


def _closing(server: Sendmail) -> Finding:
    """What closes an address, should the schedule stop."""
    if server.closes_by_itself:
        return Finding(
            0, f"{server.path}: sendmail closes an address by itself when its time is over"
        )
    reason = "only a run closes an address: if the schedule stops, it stays open"
    return Note(f"{server.path}: {reason}; see access.self_closing")


def _limits(server: Sendmail, cf: str, text: str) -> Iterator[Finding]:
    """Whether the rules in sendmail.cf look each limit up, and in the map that sapd writes."""
    for setting, tag in TAGS.items():
        if tag not in server.entries.limits:
            continue
        if text == "":
            reason = f"is not known to be heeded, because {cf} can't be read"
            yield Note(f"policy.{setting}: {reason}")
        elif re.search(rf"(?m)^R.*\b{tag}\b", text) is None:
            feature = f"FEATURE(`{_FEATURES[setting]}')"
            remedy = f"add {feature} to sendmail.mc, as sapd init --sendmail limits"
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
    access = sendmail_cf.keyed_maps(text).get("access")
    return access.database if access else None


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _window(text: str) -> str:
    """The time over which sendmail counts a client's connections; its default is a minute."""
    found = re.findall(r"(?mi)^O ConnectionRateWindowSize[ \t]*=[ \t]*(\w+)", text)
    return found[-1] if found else "60s"
