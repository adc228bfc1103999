"""makemap(8): makes a database of entries, and lists those of one.

Failure contract. It writes only to the path that it is given; what it leaves there when it fails
must not be used.
"""

import os
from collections.abc import Collection, Sequence
from typing import NamedTuple

from sapd import child, errors
from sapd.maps import sendmail_cf

LIMIT = 60.0
"""Seconds that makemap may take, and more for a large text (a million entries: about ten)."""

_LARGE = 1024 * 1024  # bytes of text
_SLOW = 500_000  # bytes of text a second, at least


class Makemap(NamedTuple):
    """The program, the type of its databases, and sendmail's configuration, which it reads.

    `live` is the map that stays in force when it fails; `source` is the administrator's file,
    whose lines come first in the text, None if there is none.
    """

    program: str
    type: str
    cf: str
    live: str
    source: str | None

    def make(self, path: str, text: bytes) -> None:
        """Make a database of the text; raises `SapdError` if makemap refuses it, and OSError."""
        # Without a cache of that size makemap takes eight times as long over a million entries.
        cache = ["-c", str(4 * len(text))] if len(text) > _LARGE else []
        done = self._run([*cache, self.type, path], text, 2, _limit(text))
        if done.status != 0:
            raise self._complaint(done, path)

    def check(self, path: str, text: bytes, expected: int, own: Collection[bytes]) -> None:
        """Count what was made of the text, and look for each of sapd's own entries in it.

        These are in lower case. Raises `SapdError`, and OSError.
        """
        made = self._run(["-u", self.type, path], b"", 1, _limit(text)).said.lower().splitlines()
        if len(made) != expected:
            raise self.failed(f"makemap made {len(made)} entries of {expected}")
        if missing := set(own).difference(made):
            raise self.failed(f"the new map lacks {len(missing)} of sapd's entries")

    def live_entries(self, limit: float) -> list[bytes]:
        """The lines of the live map, keys in lower case, within so many seconds.

        Raises `SapdError`.
        """
        if not os.path.lexists(self.live):
            return []
        dump = self._run(["-u", self.type, self.live], b"", 1, limit)
        if dump.status != 0:
            reason = f"can't be read; makemap ended with status {dump.status}"
            raise errors.SapdError(errors.MAKEMAP_FAILED, self.live, reason)
        return dump.said.splitlines()

    def failed(self, reason: str) -> errors.SapdError:
        """What is to be said when the new map can't be used."""
        reason = f"{reason}; the old map stays in force"
        return errors.SapdError(errors.MAKEMAP_FAILED, self.live, reason)

    def _run(self, arguments: Sequence[str], text: bytes, stream: int, limit: float) -> child.Ended:
        # As root makemap insists on a sendmail.cf, from which it wants no more than TrustedUser.
        exists = os.path.exists(self.cf)
        options = ["-C", self.cf if exists else os.devnull]
        if exists and self.cf == sendmail_cf.DEFAULT:
            options = []  # its own default, which an ordinary user need not be able to read
        try:
            return child.run([self.program, *options, *arguments], text, stream, limit)
        except TimeoutError:
            reason = f"took longer than {limit:.0f} s; the old map stays in force"
            raise errors.SapdError(errors.MAKEMAP_FAILED, self.program, reason) from None
        except OSError as error:
            if error.filename is None:  # not the program: the text found no room
                raise
            reason = f"can't be run: {error.strerror}; it comes with sendmail (sendmail-bin)"
            raise errors.SapdError(errors.MAKEMAP_FAILED, self.program, reason) from None

    def _complaint(self, done: child.Ended, path: str) -> errors.SapdError:
        said = done.said.decode("utf-8", "backslashreplace").splitlines()
        said = [line for line in said if line and not line.startswith("WARNING:")]
        reason = said[0] if said else f"makemap ended with status {done.status}"
        reason = reason.removeprefix("makemap: ").removeprefix(f"{path}: ")
        subject = (reason.startswith("line ") and self.source) or self.live
        more = f" (and {len(said) - 1} more)" if len(said) > 1 else ""
        status = errors.status_of_words(reason)  # makemap calls all of them 73
        if status is None and reason.startswith("line "):  # for cdb a duplicate is 74
            status = errors.MAKEMAP_FAILED
        if status is None:
            known = (errors.CANT_CREATE, errors.IO_ERROR, errors.NO_PERMISSION)
            status = done.status if done.status in known else errors.MAKEMAP_FAILED
        reason = f"{reason}{more}; makemap refused it, the old map stays in force"
        return errors.SapdError(status, subject, reason)


def _limit(text: bytes) -> float:
    return LIMIT + len(text) / _SLOW
