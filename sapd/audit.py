"""The trail of who was let in, and why not: `audit.jsonl` in the state's folder, mode 0600.

A JSON object a line: `time` (when sapd acted), `event` (open, renew, close, refuse), `address`,
`account`, `login` (the log line's time), `reason`; times as RFC 3339 in UTC. A renewal is told once
an hour. The oldest lines go as a log's do (`cut`), so that one line may be the cut's marker.

A run that is killed before it saves its state tells the same again in the next pass. What can't be
written, because of the disk, is not told later; a power cut may take the last lines.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from math import ceil
from typing import NamedTuple

from sapd import cut, errors, files
from sapd.config import Config
from sapd.report import Change
from sapd.timestamps import rfc3339

NAME = "audit.jsonl"

_SYSLOGS = ("/dev/log", "/var/run/log")  # Linux, the BSDs
_AT_ONCE = 1000  # lines that are written
_MAIL_INFO = 2 << 3 | 6


class Entry(NamedTuple):
    """What was done; times in UTC epoch seconds, `login` None where there is none any more.

    `ended` is when the claim that was renewed or closed ended, or would have; None if not known.
    """

    time: float
    event: str
    address: str
    account: str
    login: float | None
    reason: str
    ended: float | None = None


def keep(config: Config, changes: Sequence[Change], now: float) -> list[errors.SapdError]:
    """Write down what changed at `now` (UTC epoch seconds); returns what kept it from that."""
    entries = [
        Entry(
            now,
            change.verb,
            change.address,
            change.account,
            change.login,
            change.reason,
            change.ended,
        )
        for change in changes
        if change.trailed
    ]
    if not entries:
        return []
    try:
        if config.audit.keep_lines:
            append(config.state_directory, entries, config.audit.keep_lines)
    except (OSError, errors.SapdError) as error:
        return [errors.of_writing(os.path.join(config.state_directory, NAME), error)]
    return []


def append(directory: str, entries: Sequence[Entry], keep_lines: int) -> None:
    """Add to the trail, and cut it to its last `keep_lines` lines when it has twice as many.

    Raises `SapdError`, or OSError.
    """
    path = os.path.join(directory, NAME)
    try:
        fd = files.open_in_place(path, writing=True)
    except FileNotFoundError:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        end = os.fstat(fd).st_size
        torn = end > 0 and os.pread(fd, 1, end - 1) != b"\n"  # the disk was full
        text = b"\n" * torn
        for start in range(0, len(entries), _AT_ONCE):
            text += b"".join(map(_line, entries[start : start + _AT_ONCE]))
            files.write_all(fd, text, end)
            end, text = end + len(text), b""
        cut.shorten(fd, keep_lines, 2 * keep_lines, rfc3339(entries[-1].time).encode())
    finally:
        os.close(fd)


def _line(entry: Entry) -> bytes:
    login = None if entry.login is None else rfc3339(entry.login)
    fields = entry._asdict() | {"time": rfc3339(entry.time), "login": login}
    del fields["ended"]
    if entry.ended is not None:
        fields["ended"] = rfc3339(ceil(entry.ended))
    return json.dumps(fields).encode("ascii") + b"\n"


def tell_syslog(config: Config, changes: Sequence[Change]) -> list[errors.SapdError]:
    """Tell syslog, facility mail, if that is wanted; returns what kept it from that.

    A syslog daemon that hangs, and takes no more messages, is not waited for (RFC 3164, as
    syslog(3) writes it).
    """
    told = [change for change in changes if change.trailed]
    if not config.audit.syslog or not told:
        return []
    import socket

    path = next(filter(os.path.exists, _SYSLOGS), _SYSLOGS[0])
    for number, change in enumerate(told):
        reason = f" ({change.reason})" if change.reason else ""
        text = f"{change.verb} {change.address} {change.account}{reason}"
        line = text.encode("unicode_escape")
        stamp = time.strftime("%b %e %H:%M:%S").encode("ascii")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
                daemon.setblocking(False)
                daemon.connect(path)
                daemon.send(b"<%d>%s sapd[%d]: %s" % (_MAIL_INFO, stamp, os.getpid(), line))
        except OSError as error:
            reason = f"takes no messages ({error.strerror}); {len(told) - number} were not told"
            return [errors.SapdError(errors.IO_ERROR, path, reason)]
    return []


def read(directory: str) -> Iterator[Entry]:
    """The trail, the oldest first; what is no entry is passed over.

    Raises OSError.
    """
    path = os.path.join(directory, NAME)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
        for line in file:
            try:
                yield _entry(json.loads(line))
            except (ValueError, TypeError, LookupError, RecursionError):
                continue


def _entry(read: dict[str, str | None]) -> Entry:
    login, ended = read["login"], read.get("ended")
    return Entry(
        time=_epoch(str(read["time"])),
        event=str(read["event"]),
        address=str(read["address"]),
        account=str(read["account"]),
        login=None if login is None else _epoch(login),
        reason=str(read["reason"]),
        ended=None if ended is None else _epoch(ended),
    )


def _epoch(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
