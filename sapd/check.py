"""Is this set-up sound? Looks at everything as a run would.

Nothing is changed; only a folder of scratch, gone at the end, lets makemap try the source.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from time import time

from sapd import errors, files, state
from sapd.access import Published, Sendmail, Source, untouched
from sapd.config import Access, Config, Log
from sapd.maillog import Reading
from sapd.recogniser import Recogniser
from sapd.timestamps import AHEAD, Clock

_HASH_MAGIC = 0x061561  # Berkeley DB, db_page.h: DB_HASHMAGIC, the fourth word of the first page


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `status` is 0 if it is sound, else the fitting exit status."""

    status: int
    text: str


def findings(config: Config) -> Iterator[Finding]:
    """Yield the findings, each problem with its remedy."""
    yield Finding(0, f"{config.path}: the configuration is valid")
    for log in config.logs:
        yield from _log(log, config)
    problem: Finding | None = None
    published: Published | None = None
    try:
        published = state.load(config.state_directory).published
    except errors.SapdError as error:
        problem = Finding(error.status, str(error))
    yield from _access(config.access, config.state_directory, published)
    yield problem or _state_folder(config.state_directory)


def _log(log: Log, config: Config) -> Iterator[Finding]:
    now = time()
    clock = Clock(now, log.zone)
    recogniser = Recogniser(log.formats, clock)
    others = [other.path for other in config.logs]
    reading = Reading(log.path, None, now - config.rules.longest, 0, clock, others)
    counts = {"login": 0, "logout": 0, "connect": 0}
    ahead = 0
    last = b""
    try:
        for block in reading.blocks():
            last = block[block.rfind(b"\n", 0, -1) + 1 :]
            for event in recogniser.events(block):
                counts[event.event] += 1
                ahead += event.time > now + AHEAD
        changed = os.stat(log.path).st_mtime
    except errors.SapdError as problem:
        yield Finding(problem.status, str(problem))
        return
    except OSError as error:
        yield Finding(errors.LOG_UNREADABLE, f"{log.path}: can't be read: {error.strerror}")
        return
    names = ", ".join(log.formats)
    if reading.lines_read == 0:
        yield Finding(errors.LOG_UNREADABLE, f"{log.path}: is empty; does the POP server log here?")
    elif sum(counts.values()) == 0:
        yield Finding(
            errors.LOG_UNREADABLE,
            f"{log.path}: no line of {reading.lines_read} read fits {names}; see sapd match, and "
            "whether the POP server logs logins, and logs here",
        )
    else:
        said = ", ".join(f"{count} {event}" for event, count in counts.items())
        yield Finding(0, f"{log.path}: {reading.lines_read} lines read, of {names}: {said}")
    if recogniser.unusable:
        yield Finding(
            errors.LOG_UNREADABLE,
            f"{log.path}: lines whose address or time is none: {recogniser.unusable}; "
            "see sapd match",
        )
    if ahead:
        yield Finding(
            errors.LOG_UNREADABLE,
            f"{log.path}: logins stamped ahead of now: {ahead}; set timezone for this log",
        )
    behind = changed - (clock.of_line(last) or changed)
    halves = round(behind / 1800)
    if 1 <= halves <= 28 and abs(behind - 1800 * halves) < 60:
        yield Finding(
            errors.LOG_UNREADABLE,
            f"{log.path}: its last stamp is {halves / 2:g} h before its last change; if that "
            "line is not old, set timezone for this log",
        )
    if log.keep_lines is not None:
        try:
            os.close(files.open_in_place(log.path, writing=False))
            writable = os.access(log.path, os.W_OK)
        except (OSError, errors.SapdError) as problem:
            yield Finding(errors.CANT_CREATE, f"{problem}; it can't be cut")
        else:
            if writable:
                yield Finding(0, f"{log.path}: can be cut")
            else:
                yield Finding(errors.NO_PERMISSION, f"{log.path}: can't be cut: not writable")


def _access(access: Access, state_directory: str, published: Published | None) -> Iterator[Finding]:
    if os.access(access.makemap, os.X_OK):
        yield Finding(0, f"{access.makemap}: is there")
    else:
        yield Finding(
            errors.MAKEMAP_FAILED,
            f"{access.makemap}: can't be run; it comes with sendmail (sendmail-bin)",
        )
    if access.source is not None:
        folder = state_directory
        if not os.path.isdir(folder):
            folder = os.path.dirname(folder)  # where the first run makes it
        try:
            source = Source(access.source, access.tag)
            with TemporaryDirectory(dir=folder) as scratch:
                Sendmail(os.path.join(scratch, "check.db"), access.makemap, source).build(b"")
            yield Finding(0, f"{access.source}: makemap makes {source.count} entries of it")
        except errors.SapdError as problem:
            yield Finding(problem.status, str(problem))
        except OSError as error:
            reason = f"was not tried with makemap: {folder}: {error.strerror}"
            yield Finding(errors.status_of(error), f"{access.source}: {reason}")
    yield from _folders(access.database)
    try:
        fd = files.open_in_place(access.database, writing=False)
    except FileNotFoundError:
        yield Finding(errors.CANT_CREATE, f"{access.database}: is missing; sapd run makes it")
        return
    except errors.SapdError as problem:
        yield Finding(problem.status, str(problem))
        return
    try:
        magic, mode = os.pread(fd, 4, 12), os.fstat(fd).st_mode
    finally:
        os.close(fd)
    if _HASH_MAGIC not in (int.from_bytes(magic, "little"), int.from_bytes(magic, "big")):
        yield Finding(
            errors.CANT_CREATE, f"{access.database}: is no hash database; sapd run makes it anew"
        )
    elif access.source is None and not mode & stat.S_IROTH:
        yield Finding(
            errors.NO_PERMISSION,
            f"{access.database}: sendmail may be unable to read it, and says nothing; "
            f"chmod 0644 {access.database}",
        )
    elif not os.access(access.database, os.W_OK):
        yield Finding(errors.NO_PERMISSION, f"{access.database}: is not writable for this user")
    elif published is not None and not untouched(access.database, published):
        yield Finding(
            errors.MAKEMAP_FAILED,
            f"{access.database}: was changed since sapd made it; sapd run makes it anew",
        )
    else:
        yield Finding(0, f"{access.database}: is a hash database")


def _folders(path: str) -> Iterator[Finding]:
    """Folders on the path that make sendmail refuse the map ("unsafe map file")."""
    folder = os.path.dirname(path)
    while True:
        try:
            mode = os.stat(folder).st_mode
        except OSError as error:
            yield Finding(errors.CANT_CREATE, f"{folder}: {error.strerror}; make the folder")
        else:
            if mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX:
                yield Finding(
                    errors.CANT_CREATE,
                    f"{folder}: others may write there, so sendmail refuses {path}; "
                    f"chmod go-w {folder}",
                )
        if folder == os.path.dirname(folder):
            return
        folder = os.path.dirname(folder)


def _state_folder(directory: str) -> Finding:
    if os.path.isdir(directory):
        if os.access(directory, os.W_OK | os.X_OK):
            return Finding(0, f"{directory}: the state can be saved")
        return Finding(errors.NO_PERMISSION, f"{directory}: is not writable for this user")
    if not os.path.islink(directory) and os.access(os.path.dirname(directory), os.W_OK | os.X_OK):
        return Finding(0, f"{directory}: sapd run makes it")
    return Finding(errors.CANT_CREATE, f"{directory}: is missing and can't be made; make it")
