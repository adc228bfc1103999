"""The live map: what was published, whether it still stands, and how a new one is put in place.

Failure contract. `put_in_place` copies a new file into the live inode, under its lock: a rename
would make sendmail answer 554 or 451 to the connection that opens the map at that moment, and
would never be seen by a session that is already open. All blocks are allocated before the first
byte is copied; until then the old map stands, after the last byte the new one. A run killed in
between (milliseconds) leaves a mixed file; the next one sees by the signature that this is not what
was published, and does it again. Where the live file is missing, where somebody holds its lock for
too long, or where copying failed half-way, the new file is renamed into place.

The live file never has holes, so that a smaller map can be copied into it on a full disk, too.
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from sapd import errors, files
from sapd.idle import boot_id as boot_id

try:
    from _blake2 import blake2b  # hashlib's own; hashlib itself takes 4 ms to load OpenSSL's
except ImportError:
    from hashlib import blake2b

LOCK_WAIT = 10.0
"""Seconds to wait for another program that holds the live map's lock."""

LOCK_WAIT_AGAIN = 1.0
"""The same, if the lock could not be had the last time."""

_IN_MEMORY = ("/run", "/dev/shm")  # noqa: S108 -- a folder of our own is made there
_BLOCK = 1024 * 1024
_SECOND = 1_000_000_000  # nanoseconds


class Published(NamedTuple):
    """What was last put in place.

    `path`: the live map's; `wanted`: digest of the map's text; `content`: digest of the file;
    `file`: its device, inode, size, and the times of the last change in nanoseconds; `boot`: which
    boot of the machine it was, because a power cut may undo what was on its way to the disk;
    `lock_was_held`: by another program, so that it was renamed into place; `entries`: how many
    the map has, 0 if that was not counted.
    """

    path: str
    wanted: str
    content: str
    file: tuple[int, ...]
    boot: str
    lock_was_held: bool = False
    entries: int = 0


def digest(*parts: bytes) -> str:
    """A digest of these texts, in this order."""
    found = blake2b(digest_size=32)
    for part in parts:
        found.update(b"%d " % len(part))
        found.update(part)
    return found.hexdigest()


def is_untouched(path: str, published: Published) -> bool:
    """Whether nobody changed the live map since it was published, and the machine was up.

    Where the file system's times are whole seconds they prove nothing about the second of the
    publishing, so the content is compared, too.
    """
    if (published.path, published.boot) != (path, boot_id()):
        return False
    try:
        found = os.lstat(path)
        if _signature(found) != published.file:
            return False
        return found.st_ctime_ns % _SECOND != 0 or _content(path) == published.content
    except OSError:
        return False


def _signature(about: os.stat_result) -> tuple[int, ...]:
    """What changes when a file is written or replaced."""
    return (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)


def _content(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return _content_of(fd)
    finally:
        os.close(fd)


def _content_of(fd: int) -> str:
    found, offset = blake2b(digest_size=32), 0
    while data := os.pread(fd, _BLOCK, offset):
        found.update(data)
        offset += len(data)
    return found.hexdigest()


def is_published(path: str, wanted: str, published: Published | None) -> bool:
    """Whether the live map is what was published last, of a text with the digest `wanted`."""
    return published is not None and published.wanted == wanted and is_untouched(path, published)


def left_behind(published: Published | None, path: str) -> str | None:
    """The map that was published before, if that is not at `path` and still lets people in."""
    if published is None or published.path == path or not os.path.exists(published.path):
        return None
    return published.path


def has_lock(fd: int, how: int, seconds: float) -> bool:
    """Take a lock (as of flock(2)) within so many seconds; whether that could be done."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)


@contextmanager
def memory_folder() -> Iterator[str]:
    """A private folder in memory (tmpfs), for building where the disk is full; gone at the end.

    Raises OSError if there is none that this user may write to.
    """
    from tempfile import TemporaryDirectory

    usable = [folder for folder in _IN_MEMORY if os.access(folder, os.W_OK | os.X_OK)]
    if not usable:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with TemporaryDirectory(prefix="sapd-", dir=max(usable, key=_room)) as folder:  # mode 0700
        yield folder


def _room(folder: str) -> int:
    about = os.statvfs(folder)
    return about.f_bavail * about.f_frsize


class New(NamedTuple):
    """A new map, built and checked: the open file, its path, and whether that is on tmpfs."""

    fd: int
    path: str
    elsewhere: bool = False


def put_in_place(
    new: New,
    path: str,
    wanted: str,
    mode: int,
    group: str | None,
    before: Published | None,
    examine: Callable[[int], None] = lambda _: None,
) -> Published:
    """Make the new map the live one, at `path`; `wanted` is the digest of its text.

    Where there is no live map the new file becomes it, with `mode`, and `group` if it can be had;
    else everybody may read it. `before` is what was published last. `examine` is given the live
    map, open and locked, and raises `SapdError` if that may not be replaced. Raises OSError, and
    `SapdError` for a path that may not be written to.
    """
    impatient = before is not None and before.lock_was_held
    while True:
        try:
            live = files.open_in_place(path, writing=True)
        except FileNotFoundError:
            _give_to(new.fd, mode, group)
            return _published(path, wanted, new, _rename(new, path))
        try:
            locked = has_lock(live, fcntl.LOCK_EX, LOCK_WAIT_AGAIN if impatient else LOCK_WAIT)
            examine(live)
            if not locked:
                _give_like(new.fd, os.fstat(live))
                return _published(path, wanted, new, _rename(new, path), lock_was_held=True)
            if files.same_file(path, live):
                return _published(path, wanted, new, _copy(new, live, path))
        finally:
            os.close(live)


def rename_into_place(new: New, path: str, wanted: str, mode: int) -> Published:
    """Make the new map the live one, at `path`, with `mode`, where the mail server wants a rename.

    Raises OSError; the old one then stands, unless only its folder could not be synced.
    """
    os.fchmod(new.fd, mode)
    return _published(path, wanted, new, _rename(new, path))


def changed_in_place(fd: int, path: str, wanted: str) -> Published:
    """What was published by writing to the live file itself, which is open; raises OSError."""
    os.fsync(fd)
    return Published(path, wanted, _content_of(fd), _signature(os.fstat(fd)), boot_id())


def published_despite(publish: Callable[[str | None], Published]) -> Published:
    """Have a map published, and if the disk has no room, have it built in memory.

    `publish` is called with the folder to build in, None for that of the live map. Raises
    `SapdError`, which says what was wrong the first time.
    """
    try:
        return publish(None)
    except errors.SapdError as problem:
        if problem.status != errors.IO_ERROR:
            raise
        try:
            with memory_folder() as folder:
                return publish(folder)
        except (OSError, errors.SapdError):
            raise problem from None


def _published(
    path: str, wanted: str, new: New, found: os.stat_result, *, lock_was_held: bool = False
) -> Published:
    content = _content_of(new.fd)
    return Published(path, wanted, content, _signature(found), boot_id(), lock_was_held)


def _give_to(fd: int, mode: int, group: str | None) -> None:
    """Have only the group read what nobody else need read, or lock, if that is possible."""
    if group is not None:
        import grp

        try:
            os.fchown(fd, -1, grp.getgrnam(group).gr_gid)
        except (KeyError, OSError):
            mode |= 0o004
    os.fchmod(fd, mode)


def _give_like(fd: int, about: os.stat_result) -> None:
    with suppress(PermissionError):
        os.fchown(fd, about.st_uid, about.st_gid)
    os.fchmod(fd, stat.S_IMODE(about.st_mode))


def _copy(new: New, live: int, path: str) -> os.stat_result:
    """Copy a new file into the live inode, whose lock is held."""
    size, before = os.fstat(new.fd).st_size, os.fstat(live)
    try:
        files.reserve(live, size)
    except OSError:
        os.ftruncate(live, before.st_size)
        raise
    try:
        offset = 0
        while data := os.pread(new.fd, _BLOCK, offset):
            files.write_all(live, data, offset)
            offset += len(data)
        os.ftruncate(live, size)
        os.fsync(live)
        # An open SMTP session looks the map up anew only if the seconds of its mtime differ.
        mtime = max(time.time_ns(), before.st_mtime_ns + _SECOND)
        os.utime(live, ns=(mtime, mtime))
    except OSError:
        _give_like(new.fd, before)
        return _rename(new, path)
    return os.fstat(live)


def _rename(new: New, path: str) -> os.stat_result:
    """Make the new file the live map, on the disk and without holes."""
    if new.elsewhere:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    files.reserve(new.fd, os.fstat(new.fd).st_size)
    os.fsync(new.fd)
    os.rename(new.path, path)
    files.sync_directory(path)
    return os.fstat(new.fd)
