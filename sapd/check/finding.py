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
    """One thing that was looked at; `status` is 0 if it is sound, else the fitting exit status.

    The `text` is a line: the subject, a colon, what was found; behind the last semicolon, as in
    all that sapd says, the remedy, unless the line ends in another program's words (`quotes`).
    """

    status: int
    text: str
    quotes: bool = False

    @property
    def state(self) -> str:
        """What a line of `sapd check` begins with: ok, note or problem."""
        return "problem" if self.status else "ok"

    @property
    def remedy(self) -> str:
        """What to do about it; empty if there is nothing to be done, or nothing is known."""
        done = self.quotes or self.state == "ok"
        return "" if done else self.text.rpartition("; ")[2] * ("; " in self.text)

    def as_object(self) -> dict[str, object]:
        """For JSON: state, text, remedy and status."""
        remedy = self.remedy
        text = self.text.removesuffix(f"; {remedy}") if remedy else self.text
        return {"state": self.state, "text": text, "remedy": remedy, "status": self.status}


class Note(Finding):
    """What the administrator should know, though nothing need be wrong."""

    def __init__(self, text: str, quotes: bool = False) -> None:
        """Of status 0."""
        super().__init__(0, text, quotes)

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
