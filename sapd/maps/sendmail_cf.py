"""The maps that a sendmail.cf names, and what its rules ask them.

A K line is `Kname class flags file`; with two of one name the last one counts (doc/op/op.me,
"K -- Key File Declaration"). The class adds its suffix to the file unless that is there.
"""

import os
import re
import stat
from typing import NamedTuple

SUFFIXES = {"hash": ".db", "btree": ".db", "cdb": ".cdb"}
"""{map class: what makemap and sendmail append to the name of its file}"""

DEFAULT = "/etc/mail/sendmail.cf"

_LARGEST = 4 << 20  # bytes of a file that are read


class KeyedMap(NamedTuple):
    """A K line: the map's name, its class, and its file without the suffix (or empty)."""

    name: str
    kind: str
    file: str

    @property
    def database(self) -> str | None:
        """The path of the database, if the class is one that makemap makes."""
        suffix = SUFFIXES.get(self.kind)
        return self.file + suffix if suffix and self.file.startswith("/") else None


def read(path: str) -> str:
    """The text of a sendmail.cf, continued lines joined; empty if it can't be read."""
    try:
        with open(path, "rb", opener=_nonblocking) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return ""
            text = os.fsdecode(file.read(_LARGEST))
    except OSError:
        return ""
    return re.sub(r"\n[ \t]+", " ", text)


def _nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def keyed_maps(text: str) -> dict[str, KeyedMap]:
    """The maps of a configuration by their names."""
    found = {}
    for name, kind, rest in re.findall(r"(?m)^K[ \t]*([\w.]+)[ \t]+(\w+)(.*)", text):
        words = [word for word in rest.split() if not word.startswith("-")]
        file = words[-1] if words else ""
        suffix = SUFFIXES.get(kind, "")
        found[name.lower()] = KeyedMap(name, kind, file.removesuffix(suffix) if suffix else file)
    return found


def of_database(text: str, database: str) -> list[KeyedMap]:
    """The maps whose file this is, whatever their class."""
    wanted = _without_suffix(os.path.realpath(database))
    return [
        found
        for found in keyed_maps(text).values()
        if found.file.startswith("/") and _without_suffix(os.path.realpath(found.file)) == wanted
    ]


def _without_suffix(path: str) -> str:
    base, suffix = os.path.splitext(path)
    return base if suffix in SUFFIXES.values() else path


def is_asked(text: str, name: str, tag: str = "") -> bool:
    """Whether a rule looks something with this tag up in the map of that name."""
    return re.search(rf"(?m)^R.*\$\({re.escape(name)} {re.escape(tag)}", text) is not None


def ruleset(text: str, name: str) -> str:
    """The rules of a ruleset, from all the places that add to it."""
    parts = re.findall(rf"(?m)^S[ \t]*{name}\b.*\n((?:(?!S).*\n)*)", text)
    return "".join(line for part in parts for line in part.splitlines(True) if line[0] == "R")
