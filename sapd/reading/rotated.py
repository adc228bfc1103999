"""The rotated neighbours of a log: their names, their order, and their files.

The names, beside the log or beside what it is a link to:
- LOG.1, LOG-20261122, LOG.2026-11-22, LOG.old: logrotate(8), savelog(8), newsyslog(8)
- for mail.log also mail-20261122.log and mail.1.log: logrotate's `extension`
- for `current` those of multilog, svlogd and s6-log: @ and a TAI64N stamp, `.s` or `.u`; `previous`
- the earlier dates of a name that is the date, or that of what a link leads to
- each of them compressed

A name says nothing of who made the file. So in a folder where others may make files, only those of
root, of the log's owner and of the user who reads count.
"""

import io
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import NamedTuple

from sapd.reading.logfile import COMPRESSED, File, Packed, Plain, open_regular

_MOST_OPEN = 100  # rotated files
_PACKED = r"(?:\.(?:gz|bz2|xz|zst))?"
_SUFFIX = re.compile(rf"([.-](?:\d[\dT:_.-]*|old)){_PACKED}")
_MIDDLE = r"(-\d[\dT:_.-]{5,}|\.\d[\dT:_.-]*)"  # a number behind a dash may name another log
_SUPERVISED = re.compile(rf"@([0-9a-f]{{24}})\.[su]{_PACKED}|(previous)")
_NEWEST = -(1 << 128)
_LEAST_DIGITS = 6  # of a date in a name
_MOST_LOOKED_AT = 2000  # files, for one with an unknown name


class Rotating(Exception):  # noqa: N818 -- not an error: look again
    """A neighbour was renamed between listing and opening it."""


class Neighbour(NamedTuple):
    """A rotated file: its path, its mtime (ns), and its place in the order of names."""

    path: str
    changed: int
    age: int

    @property
    def is_compressed(self) -> bool:
        """Whether nothing more will be written to it."""
        return self.path.endswith(COMPRESSED)


def newest(path: str, earlier: Sequence[str], most: int) -> list[str]:
    """The paths of a log's rotated files, by name; at most so many. See `neighbours`."""
    found = sorted(_rotated(path, earlier).values(), key=lambda found: found[1])[:most]
    return [entry.path for entry, _ in found]


def folders(path: str) -> list[str]:
    """The folders in which a log's rotated files may stand."""
    return [os.path.dirname(name) for name in _names(path)]


def neighbours(path: str, earlier: Sequence[str], others: Collection[str]) -> list[Neighbour]:
    """A log's rotated files, newest first.

    `earlier` are the names that it had before, if its name is the date; `others` are paths of other
    logs, never taken for one. Raises `Rotating`.
    """
    rotated = _rotated(path, earlier)
    found: list[Neighbour] = []
    for entry, age in rotated.values():
        stem, extension = os.path.splitext(entry.path)
        if entry.path in others or (extension in COMPRESSED and stem in rotated):
            continue  # being compressed right now: the plain file is whole
        try:
            about = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            raise Rotating from None
        if stat.S_ISREG(about.st_mode) and not is_foreign(entry.path, about.st_uid, path):
            found.append(Neighbour(entry.path, about.st_mtime_ns, age))
    return sorted(found, key=lambda one: (one.age, -one.changed, one.path))


def is_foreign(path: str, owner: int, log: str = "") -> bool:
    """Whether a stranger may have made a file of this owner, under the name that a log may have."""
    folder = os.stat(os.path.dirname(path))
    trusted = {0, os.geteuid()}
    with suppress(OSError):
        trusted.add(os.stat(log).st_uid)
    others_write = folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return owner not in trusted and (others_write != 0 or folder.st_uid not in trusted)


def others_beside(path: str, known: Collection[str]) -> Iterator[str]:
    """The regular files in a log's folders, and in folders in these, but for those known."""
    looked_at = 0
    for top in folders(path):
        for folder in [top, *_entries(top, os.DirEntry.is_dir)]:
            for file in _entries(folder, os.DirEntry.is_file):
                looked_at += 1
                if looked_at > _MOST_LOOKED_AT:
                    return
                if file not in known:
                    yield file


def _entries(folder: str, kind: Callable[..., bool]) -> list[str]:
    with suppress(OSError):
        return [entry.path for entry in os.scandir(folder) if kind(entry, follow_symlinks=False)]
    return []


class Neighbours:
    """A log's rotated files, opened when asked for.

    Those last changed before `modified_since` (UTC epoch seconds) hold nothing that matters; they
    are only what stands `before` another. After `deadline` reading a compressed one raises
    `OutOfTime`. `unreadable` says of those that were asked for why they can't be read, by path.
    """

    def __init__(
        self, every: list[Neighbour], modified_since: float, deadline: float, opened: ExitStack
    ) -> None:
        """`every` is what `neighbours` found."""
        self._every = every
        self.found = [one for one in every if one.changed >= modified_since * 1e9]
        self._deadline = deadline
        self._stack = opened
        self._plain = _Opened(opened)
        self._files: dict[str, File | None] = {}
        self.unreadable: dict[str, str] = {}

    def newest_first(self) -> Iterator[tuple[Neighbour, File]]:
        """Each with its file, as far as they can be read."""
        for place in self.found:
            if (file := self._open(place)) is not None:
                yield place, file

    def before(self, place: Neighbour | None) -> File | None:
        """The next older file, whenever it was changed; the newest if `place` is None."""
        older = self._every if place is None else self._every[self._every.index(place) + 1 :]
        return next((file for one in older if (file := self._open(one)) is not None), None)

    def _open(self, place: Neighbour) -> File | None:
        path = place.path
        if path not in self._files:
            try:
                self._files[path] = self._opened(path)
            except FileNotFoundError:
                raise Rotating from None
            except OSError as error:  # not ours to read: as good as not there
                self._files[path] = None
                self.unreadable[path] = f"can't be read: {error.strerror or error}"
        return self._files[path]

    def _opened(self, path: str) -> File:
        extension = os.path.splitext(path)[1]
        if os.path.basename(path)[:1] == "@" and extension not in COMPRESSED:
            extension = _packing(path)
        if extension not in COMPRESSED:
            return self._plain.reopened(path)
        packed = self._stack.enter_context(io.FileIO(open_regular(path)))
        return Packed(extension, packed, self._deadline, self._stack)


def _packing(path: str) -> str:
    """How a file is compressed by its content: multilog's processors add nothing to its name."""
    with io.FileIO(open_regular(path)) as file:
        head = file.read(6)
    magic = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
    return next((packing for start, packing in magic.items() if head.startswith(start)), "")


class _Opened:
    """Open files by their paths, the latest used; a log may have more neighbours than a process."""

    def __init__(self, stack: ExitStack) -> None:
        self._files: dict[str, io.FileIO] = {}
        stack.callback(self._close)

    def reopened(self, path: str) -> Plain:
        """A file that is closed when many others were used since.

        Raises FileNotFoundError, and OSError if it is not a regular file. Reading raises
        `Rotating` if its name has become another file's.
        """
        about = os.fstat(self._file(path).fileno())

        def same() -> io.FileIO:
            file = self._file(path)
            if not os.path.samestat(os.fstat(file.fileno()), about):
                raise Rotating
            return file

        return Plain(same)

    def _file(self, path: str) -> io.FileIO:
        file = self._files.pop(path, None)
        if file is None:
            file = io.FileIO(open_regular(path))
        self._files[path] = file
        if len(self._files) > _MOST_OPEN:
            self._files.pop(next(iter(self._files))).close()
        return file

    def _close(self) -> None:
        for file in self._files.values():
            file.close()


def _names(path: str) -> set[str]:
    """A log's own path, and if it is a link, that of its target."""
    folder, name = os.path.split(path)
    return {os.path.realpath(path), os.path.join(os.path.realpath(folder), name)}


def _rotated(path: str, earlier: Sequence[str]) -> dict[str, tuple[os.DirEntry[str], int]]:
    """What stands there under a rotated log's name, by path, with its age; see `Neighbour`."""
    itself = os.path.realpath(path)
    places = [(folder, _ages(name, path)) for folder, name in map(os.path.split, _names(path))]
    dated: dict[str, dict[str, int]] = {}
    for number, (folder, name) in enumerate(map(os.path.split, earlier), 1):
        dated.setdefault(folder, {})[name] = number
    places += [(folder, _age_of_date(names)) for folder, names in dated.items()]
    found: dict[str, tuple[os.DirEntry[str], int]] = {}
    for folder, age_of in places:
        with suppress(OSError):
            for entry in os.scandir(folder):
                age = age_of(entry.name)
                if age is not None and entry.path != itself:
                    found.setdefault(entry.path, (entry, age))
    return found


_AgeOf = Callable[[str], int | None]
"""Says of a name whether it is a rotated file's, and how old that is; see `Neighbour`."""


def _ages(name: str, path: str) -> _AgeOf:
    """For the rotated files of a log with this name; it may be what the link `path` leads to."""
    dots = [found.start() for found in re.finditer(r"\.", name)][-2:]
    inside = [
        re.compile(rf"{re.escape(name[:dot])}{_MIDDLE}{re.escape(name[dot:])}{_PACKED}")
        for dot in dots
        if dot > 0
    ]
    digits = re.sub(r"\D", "", name)
    is_dated = os.path.islink(path) and len(digits) >= _LEAST_DIGITS
    like = re.compile(
        re.sub(r"\d+", lambda run: rf"(\d{{{len(run[0])}}})", re.escape(name)) + _PACKED
    )

    def age_of(other: str) -> int | None:
        if other.startswith(name) and (found := _SUFFIX.fullmatch(other, len(name))):
            return _age(found[1])
        for pattern in inside:
            if found := pattern.fullmatch(other):
                return _age(found[1])
        if name == "current" and (found := _SUPERVISED.fullmatch(other)):
            return -int(found[1], 16) if found[1] else _NEWEST
        if is_dated and (found := like.fullmatch(other)) and "".join(found.groups()) < digits:
            return -int("".join(found.groups()))
        return None

    return age_of


def _age_of_date(names: dict[str, int]) -> _AgeOf:
    """For the earlier names of a log whose name is the date: the days or hours since."""
    unpacked = re.compile(_PACKED + "$")
    return lambda name: names.get(unpacked.sub("", name, count=1))


def _age(date: str) -> int:
    """Sorts rotated names, newest first: dates, the latest first, then .1 before .2."""
    digits = re.sub(r"\D", "", date) or "0"
    return int(digits) if len(digits) < _LEAST_DIGITS else -int(digits)
