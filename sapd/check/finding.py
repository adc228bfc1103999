"""What a check finds."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from sapd.errors import SapdError

_REMEDIES = {
    os.strerror(errno.EACCES): "try it as the user who runs sapd",
    os.strerror(errno.EISDIR): "name a file",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `status` is 0 if it is sound, else the fitting exit status."""

    status: int
    text: str

    @property
    def state(self) -> str:
        """What a line of `sapd check` begins with: ok, note or problem."""
        return "problem" if self.status else "ok"


class Note(Finding):
    """What the administrator should know, though nothing need be wrong."""

    def __init__(self, text: str) -> None:
        """Of status 0."""
        super().__init__(0, text)

    @property
    def state(self) -> str:
        """See `Finding`."""
        return "note"


def problem(error: SapdError) -> Finding:
    """What a run would fail with, and a remedy where the system's own words have none."""
    for words, remedy in _REMEDIES.items():
        if words in error.reason:
            return Finding(error.status, f"{error}; {remedy}")
    return Finding(error.status, str(error))
