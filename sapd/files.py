"""Locks and replacements that leave either the old file or the new one, whatever happens.

Failure contract. `replace`: until the rename the old file stands, after it the new one; a
leftover `PATH.new` is overwritten by the next call. `lock`: the lock ends with the process; its
file is never unlinked, because a run that waits on an unlinked file would hold a lock nobody
else can see.
"""

import contextlib
import errno
import fcntl
import os
import pwd
import stat

from sapd import errors

_LONGEST_HOLDER = 20  # bytes of a process number


class Locked(Exception):  # noqa: N818 -- a state of affairs, not an error: the run leaves silently
    """Another run has held the lock `since` a time (UTC epoch seconds).

    `holder` is its process number, empty if its file does not tell. `complaint` is to be said of
    it, if anything.
    """

    complaint = ""

    def __init__(self, since: float, holder: str) -> None:
        """Keep both."""
        super().__init__()
        self.since = since
        self.holder = holder


def become_owner(folder: str) -> None:
    """As root, go on as the user to whom the folder belongs, with his groups, for good.

    He may put anything at any name in his folder, between any two calls: with his own rights alone
    no file that is not his can be harmed, and what is made is his. Nothing is done where there is
    no such folder. Raises `SapdError` 77 if this process may not become another, or if he may not
    read this program, of which Python loads parts only when they are wanted.
    """
    if os.geteuid() != 0:
        return
    try:
        found = os.stat(folder)
        if found.st_uid == 0:
            return
        group, groups = found.st_gid, list[int]()
        with contextlib.suppress(KeyError):  # a number without a name has no more groups
            user = pwd.getpwuid(found.st_uid)
            group, groups = user.pw_gid, os.getgrouplist(user.pw_name, user.pw_gid)
        os.setgroups(groups)
        os.setgid(group)
        os.setuid(found.st_uid)
    except FileNotFoundError:
        return
    except OSError as error:
        reason = f"belongs to user {found.st_uid}, whom root can't become: {error.strerror}"
        raise errors.SapdError(errors.NO_PERMISSION, folder, reason) from None
    for part in (os.__file__, __file__):
        if not os.access(part, os.R_OK):
            reason = f"belongs to user {found.st_uid}, who may not read {part} of this program"
            raise errors.SapdError(errors.NO_PERMISSION, folder, reason)


def lock(path: str) -> int:
    """Take the lock at `path` (mode 0600) without waiting; return its descriptor.

    The file's time of change then says since when it is held, its text by which process; not where
    a link or anything else was planted, which can be locked all the same. Raises `Locked` if
    another process holds it, `SapdError` if the file can't be had.
    """
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
    except OSError as error:
        try:
            fd = os.open(path, os.O_RDONLY | flags)  # a file system that is read-only now
        except OSError:
            raise errors.cannot_write(path, error) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        locked = Locked(os.fstat(fd).st_mtime, (_holder(fd) or b"").decode("ascii"))
        os.close(fd)
        raise locked from None
    except OSError as error:
        os.close(fd)
        raise errors.cannot_write(path, error) from None
    with contextlib.suppress(OSError):  # a disk that is full, or read-only
        if _holder(fd) is not None:
            os.utime(fd)
            text = b"%d\n" % os.getpid()
            os.ftruncate(fd, os.pwrite(fd, text, 0))
    return fd


def _holder(fd: int) -> bytes | None:
    """The text of a lock's file; None if that is not one that `lock` alone writes to."""
    about = os.fstat(fd)
    if (stat.S_ISREG(about.st_mode), about.st_nlink, about.st_uid) != (True, 1, os.geteuid()):
        return None
    text = os.pread(fd, _LONGEST_HOLDER + 1, 0).strip(b"\0\n")  # a power cut leaves zeros
    return text if len(text) <= _LONGEST_HOLDER and (text.isdigit() or not text) else None


def is_trusted(about: os.stat_result) -> bool:
    """Whether only root, or the user that this process runs as, may change a file or folder.

    Root trusts nobody else. Group 0 is root's own.
    """
    others = stat.S_IWOTH | (stat.S_IWGRP if about.st_gid != 0 else 0)
    return about.st_uid in (0, os.geteuid()) and not about.st_mode & others


def refuse_untrusted(path: str) -> None:
    """Raise `SapdError` 78, with the remedy, if others may change a file or its folder.

    What is not there is not refused.
    """
    for place in (path, os.path.dirname(os.path.abspath(path))):
        try:
            about = os.stat(place)
        except OSError:
            continue
        if is_trusted(about):
            continue
        if about.st_uid in (0, os.geteuid()):
            reason = f"can be changed by others; chmod go-w {place}"
        else:
            reason = f"belongs to another user, who can change it; chown {os.geteuid()} {place}"
        raise errors.SapdError(errors.BAD_CONFIG, place, reason)


def write_all(fd: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset` (bytes); raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def reserve(fd: int, size: int) -> None:
    """Have room on the disk for the file's first `size` bytes, where the system can reserve it.

    The BSDs' ZFS calls that invalid, musl offers it on fewer file systems than glibc, and OpenBSD
    not at all; writing may then fail halfway. Raises OSError if there is no room.
    """
    try:
        os.posix_fallocate(fd, 0, size)
    except AttributeError:
        pass
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


def replace(path: str, data: bytes, mode: int, *, durable: bool = True) -> None:
    """Make `path` hold `data`, with `mode` whatever the umask; on the disk, if it is to be durable.

    Raises `SapdError`; the old file then stands, unless only its folder could not be synced.
    """
    new = path + ".new"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(new, flags, mode)
        try:
            os.fchmod(fd, mode)
            write_all(fd, data, 0)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(new, path)
        if durable:
            sync_directory(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise errors.cannot_write(path, error) from None


def sync_directory(path: str) -> None:
    """Put the names in `path`'s folder on the disk, so that a rename outlives a power cut."""
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def open_in_place(path: str, *, writing: bool) -> int:
    """Open a file that is to be changed in place: never through a link, never anything else.

    With `writing` false the same file is only looked at, as a dry run does. Returns a descriptor
    without O_APPEND. Raises FileNotFoundError if nothing is there, and `SapdError` for symbolic
    links, hard links, folders, FIFOs and what can't be opened.
    """
    flags = os.O_RDWR if writing else os.O_RDONLY
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):  # the second on FreeBSD
            reason = "is a symbolic link and is not written through; name the file itself"
            raise errors.SapdError(errors.CANT_CREATE, path, reason) from None
        raise errors.cannot_write(path, error) from None
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        reason = "is not a regular file; move it away"
    elif found.st_nlink > 1:
        reason = "has hard links, whose contents would change too; remove them or make it a copy"
    else:
        return fd
    os.close(fd)
    raise errors.SapdError(errors.CANT_CREATE, path, reason)


def same_file(path: str, fd: int) -> bool:
    """Whether `path` still names the file that `fd` is open on, and no other name does."""
    try:
        found = os.lstat(path)
        return found.st_nlink == 1 and os.path.samestat(found, os.fstat(fd))
    except OSError:
        return False
