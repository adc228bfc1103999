"""Looking at files that are not sapd's: nothing that stands there raises anything."""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

_LARGEST = 4 << 20  # bytes of one file that are looked at


@dataclass
class Look:
    """What was found, what would count but is not heeded, and what could not be read."""

    found: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)  # each with the reason and a remedy
    unread: list[str] = field(default_factory=list)  # each with the reason

    def text(self, path: str) -> str:
        """The text of a regular file; nothing if it is another thing, is absent or unreadable."""
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                return ""
            with open(path, "rb") as file:
                return os.fsdecode(file.read(_LARGEST))
        except (OSError, ValueError) as error:
            self._blame(path, error)
            return ""

    def names(self, folder: str) -> list[str]:
        """The names in a folder, in order; none if it is absent or unreadable."""
        try:
            return sorted(os.listdir(folder))
        except (OSError, ValueError) as error:
            self._blame(folder, error)
            return []

    def _blame(self, path: str, error: Exception) -> None:
        absent = (FileNotFoundError, NotADirectoryError, ValueError)  # ValueError: a NUL in a name
        if isinstance(error, OSError) and not isinstance(error, absent):
            self.unread.append(f"{path}: {error.strerror}")


def fits(pattern: str, path: str) -> bool:
    """As glob(7): no wildcard stands for a slash, or for the dot that a name begins with."""
    names, patterns = path.split("/"), pattern.split("/")
    return len(names) == len(patterns) and all(
        fnmatchcase(name, wanted) and (wanted.startswith(".") or not name.startswith("."))
        for name, wanted in zip(names, patterns, strict=True)
    )


def account(name: str) -> pwd.struct_passwd | None:
    """The account of that name or number."""
    try:
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, ValueError, OverflowError):
        return None
