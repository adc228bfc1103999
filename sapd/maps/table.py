"""A table of sapd's alone: what the maps have in common in which no entry is an administrator's.

What he refuses stands in his mail server's own configuration, before it asks this table.

Failure contract. The new file is written beside the live one and renamed onto it: there is either
the old table or the new one. A leftover of a killed run is overwritten by the next. Where the disk
has no room for another file, the new one is copied into the live one, if it has no more blocks.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from sapd import errors, files
from sapd.maps import Map, live
from sapd.maps.live import New

if TYPE_CHECKING:
    from sapd.maps.live import Published

DEFAULT = "/var/lib/sapd/relay"
MODE = 0o644
"""Nothing in it is secret, and mail servers read it as users of their own."""


class OwnTable(Map):
    """A table that is put in place by a rename: a text, unless a class builds more of it."""

    def __init__(self, path: str) -> None:
        """`path` is the live file's; a run by root goes on as its folder's owner."""
        self.path = path
        self.belongs_to: str | None = os.path.dirname(path)

    def objects_by(self) -> bytes:
        """See `Map`. He has none here."""
        return b""

    def is_published(self, wanted: bytes, published: Published | None) -> bool:
        """See `Map`."""
        return live.is_published(self.path, live.digest(wanted), published)

    def publish(self, wanted: bytes, before: Published | None = None) -> Published:
        """See `Map`."""
        return live.published_despite(lambda folder: self._publish(wanted, before, folder))

    def _publish(self, wanted: bytes, before: Published | None, folder: str | None) -> Published:
        if before is None and not all(map(self.is_own, self.lines())):
            reason = "holds what sapd did not write; move it away, or set access.database"
            raise errors.SapdError(errors.CANT_CREATE, self.path, reason)
        path = f"{folder or os.path.dirname(self.path)}/{os.path.basename(self.path)}.sapd-new"
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(path, flags, 0o600)
            try:
                files.write_all(fd, wanted, 0)
                return self._put(New(fd, path, folder is not None), wanted, before)
            finally:
                os.close(fd)
        except OSError as error:
            raise errors.cannot_write(self.path, error) from None
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _put(self, new: New, wanted: bytes, before: Published | None) -> Published:
        """Put a new file in place, by a rename if it lies beside the live one; raises OSError."""
        digest = live.digest(wanted)
        if new.elsewhere:
            return live.put_in_place(new, self.path, digest, MODE, None, before)
        return live.rename_into_place(new, self.path, digest, MODE)

    def is_own(self, line: bytes) -> bool:
        """Whether a line of a text may be sapd's, and not of a file of somebody else's."""
        raise NotImplementedError

    def lines(self) -> list[bytes]:
        """The lines of a live table that is a text, none if it is missing; raises `SapdError`."""
        try:
            with open(self.path, "rb") as file:
                return file.read().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            reason = f"can't be read: {error.strerror}"
            raise errors.SapdError(errors.status_of(error), self.path, reason) from None
