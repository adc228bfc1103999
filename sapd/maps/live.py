"""The live map: what was published, whether it still stands, and how a new one is put in place.

Failure contract. `put_in_place` copies a new file into the live inode, under its lock: a rename
would make sendmail answer 554 or 451 to the connection that opens the map at that moment, and
would never be seen by a session that is already open. Until the first byte is copied the old map
stands, after the last one the new. A run killed in between (milliseconds) leaves a mixed file; the
next one sees by the signature that this is not what was published, and does it again. Where the
live file is missing, or copying failed half-way, the new file is renamed into place.
"""

import fcntl
import os
import stat
import time
from typing import NamedTuple

from sapd import errors, files
from sapd.idle import boot_id as boot_id

try:
    from _blake2 import blake2b  # hashlib's own; hashlib itself takes 4 ms to load OpenSSL's
except ImportError:
    from hashlib import blake2b

LOCK_WAIT = 10.0
"""Seconds to wait for another program that holds the live map's lock."""

_BLOCK = 1024 * 1024


class Published(NamedTuple):
    """Signature of what was last put in place.

    `path`: the live map's; `wanted`: digest of the map's text; `file`: device, inode, size, and
    the times of the last change in nanoseconds; `boot`: which boot of the machine it was, because
    a power cut may undo what was on its way to the disk.
    """

    path: str
    wanted: str
    file: tuple[int, ...]
    boot: str


def digest(*parts: bytes) -> str:
    """A digest of these texts, in this order."""
    found = blake2b(digest_size=32)
    for part in parts:
        found.update(b"%d " % len(part))
        found.update(part)
    return found.hexdigest()


def signature(about: os.stat_result) -> tuple[int, ...]:
    """What changes when a file is written or replaced."""
    return (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)


def is_untouched(path: str, published: Published) -> bool:
    """Whether nobody changed the live map since it was published, and the machine was up."""
    try:
        found = signature(os.lstat(path))
    except OSError:
        return False
    return (published.path, published.file, published.boot) == (path, found, boot_id())


def left_behind(published: Published | None, path: str) -> str | None:
    """The map that was published before, if that is not at `path` and still lets people in."""
    if published is None or published.path == path or not os.path.exists(published.path):
        return None
    return published.path


def wait_for_lock(fd: int, how: int, path: str) -> None:
    """Take a lock (as of flock(2)) on the open live map; raises `SapdError` after `LOCK_WAIT`."""
    deadline = time.monotonic() + LOCK_WAIT
    while True:
        try:
            return fcntl.flock(fd, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                reason = f"another program has held its lock for {LOCK_WAIT:.0f} s"
                raise errors.SapdError(
                    errors.CANT_CREATE, path, reason + "; the old map stays in force"
                ) from None
            time.sleep(0.005)


def put_in_place(new: int, new_path: str, path: str, mode: int) -> tuple[int, ...]:
    """Copy the file open on `new` into the live map; return the map's signature.

    Where there is no live map the new file, at `new_path` in the same folder, becomes it, with
    `mode`. Raises `SapdError`, or OSError.
    """
    while True:
        try:
            live = files.open_in_place(path, writing=True)
        except FileNotFoundError:
            os.fchmod(new, mode)
            return rename(new, new_path, path)
        try:
            wait_for_lock(live, fcntl.LOCK_EX, path)
            if files.same_file(path, live):
                return _copy(new, new_path, live, path)
        finally:
            os.close(live)


def _copy(new: int, new_path: str, live: int, path: str) -> tuple[int, ...]:
    """Copy a new file into the live inode, whose lock is held."""
    size, before = os.fstat(new).st_size, os.fstat(live)
    try:
        files.reserve(live, size)
    except OSError:
        os.ftruncate(live, before.st_size)
        raise
    try:
        offset = 0
        while data := os.pread(new, _BLOCK, offset):
            files.write_all(live, data, offset)
            offset += len(data)
        os.ftruncate(live, size)
        os.fsync(live)
        # An open SMTP session looks the map up anew only if the seconds of its mtime differ.
        mtime = max(time.time_ns(), before.st_mtime_ns + 1_000_000_000)
        os.utime(live, ns=(mtime, mtime))
    except OSError:
        os.fchown(new, before.st_uid, before.st_gid)
        os.fchmod(new, stat.S_IMODE(before.st_mode))
        return rename(new, new_path, path)
    return signature(os.fstat(live))


def rename(new: int, new_path: str, path: str) -> tuple[int, ...]:
    """Make the file open on `new` the live map, on the disk; return its signature."""
    os.fsync(new)
    os.rename(new_path, path)
    files.sync_directory(path)
    return signature(os.fstat(new))
