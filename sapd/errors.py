"""What can go wrong, each with the exit status that cron and scripts see.

The numbers are those of sysexits.h. A message names its subject (a file, mostly), then what is
wrong and what to do, in one line.
"""

from __future__ import annotations

import errno
import os

BAD_STATE = os.EX_DATAERR  # 65: the state can't be used and was set aside
LOG_UNREADABLE = os.EX_NOINPUT  # 66
MAKEMAP_FAILED = os.EX_UNAVAILABLE  # 69
BUG = os.EX_SOFTWARE  # 70
CANT_CREATE = os.EX_CANTCREAT  # 73: a file can't be written (what stands at its path)
IO_ERROR = os.EX_IOERR  # 74: a file can't be written (the disk)
LOCKED = os.EX_TEMPFAIL  # 75: another run holds the lock
NO_PERMISSION = os.EX_NOPERM  # 77
BAD_CONFIG = os.EX_CONFIG  # 78

_RIGHTS = {errno.EACCES, errno.EPERM}
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}


class SapdError(Exception):
    """A failure with an exit status, a subject and a reason: one line on stderr.

    `others` are further failures that are to be told with it.
    """

    others: tuple[SapdError, ...] = ()

    def __init__(self, status: int, subject: str, reason: str) -> None:
        """Keep the three parts; `str()` joins subject and reason."""
        super().__init__(f"{subject}: {reason}")
        self.status = status
        self.subject = subject
        self.reason = reason


def status_of(error: OSError) -> int:
    """Exit status for a file that can't be written: 77 no permission, 74 the disk, else 73."""
    if error.errno in _RIGHTS:
        return NO_PERMISSION
    return IO_ERROR if error.errno in _DISK else CANT_CREATE


def status_of_words(reason: str) -> int | None:
    """The same for another program's complaint that ends in the system's words, if it does."""
    for status, numbers in ((NO_PERMISSION, _RIGHTS), (IO_ERROR, _DISK)):
        if reason.endswith(tuple(map(os.strerror, numbers))):
            return status
    return None


def cannot_write(path: str, error: OSError) -> SapdError:
    """Turn a failed write, lock, rename or truncation of `path` into a `SapdError`."""
    return SapdError(status_of(error), path, f"can't be written: {error.strerror}")


def of_writing(path: str, error: OSError | SapdError) -> SapdError:
    """The same, where the failure may have got its words already."""
    return error if isinstance(error, SapdError) else cannot_write(path, error)


def bug(error: BaseException) -> SapdError:
    """What to say of an exception that nobody expected: its type, text and place."""
    place, trace = "", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f" at {os.path.basename(code.co_filename)}:{trace.tb_lineno} ({code.co_name})"
        trace = trace.tb_next
    what = f"{type(error).__name__}: {error}{place}"
    return SapdError(BUG, "a bug in sapd, please report it", what)
