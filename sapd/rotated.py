"""The rotated neighbours of a log: their names, their order, and their files."""

import io
import os
import re
import stat
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from typing import NamedTuple

from sapd.logfile import COMPRESSED, File, Packed, Plain, open_regular

_MOST_OPEN = 100  # rotated files
_ROTATED = re.compile(r"[.-](\d[\dT:_.-]*|old)(\.(gz|bz2|xz))?")


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


def newest(path: str, most: int) -> list[str]:
    """The paths of a log's rotated files, by name; at most so many."""
    found = sorted(_rotated(path), key=lambda found: _age(found[1]))[:most]
    return [entry.path for entry, _ in found]


def folders(path: str) -> list[str]:
    """The folders in which a log's rotated files may stand."""
    return [os.path.dirname(name) for name in _names(path)]


def neighbours(path: str, others: Collection[str]) -> list[Neighbour]:
    """A log's rotated files (`LOG.1`, `LOG-20261122.gz` …), newest first.

    `others` are paths of other logs, never taken for one.
    """
    rotated = _rotated(path)
    paths = {entry.path for entry, _ in rotated}
    found: list[Neighbour] = []
    for entry, suffix in rotated:
        stem, extension = os.path.splitext(entry.path)
        if entry.path in others or (extension in COMPRESSED and stem in paths):
            continue  # being compressed right now: the plain file is whole
        try:
            about = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            raise Rotating from None
        if stat.S_ISREG(about.st_mode):
            found.append(Neighbour(entry.path, about.st_mtime_ns, _age(suffix)))
    return sorted(found, key=lambda one: (one.age, -one.changed, one.path))


class Neighbours:
    """A log's rotated files, opened when asked for.

    Those last changed before `modified_since` (UTC epoch seconds) hold nothing that matters; they
    are only what stands `before` another. After `deadline` reading a compressed one raises
    `OutOfTime`.
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
                if place.is_compressed:
                    packed = self._stack.enter_context(io.FileIO(open_regular(path)))
                    self._files[path] = Packed(path, packed, self._deadline, self._stack)
                else:
                    self._files[path] = self._plain.reopened(path)
            except FileNotFoundError:
                raise Rotating from None
            except OSError:
                self._files[path] = None  # not ours to read: as good as not there
        return self._files[path]


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


def _rotated(path: str) -> list[tuple[os.DirEntry[str], str]]:
    """What stands beside a log under a rotated log's name, with the suffix."""
    itself = os.path.realpath(path)
    found = []
    for folder, name in map(os.path.split, _names(path)):
        with suppress(OSError):
            for entry in os.scandir(folder):
                suffix = entry.name.removeprefix(name)
                if suffix != entry.name and _ROTATED.fullmatch(suffix) and entry.path != itself:
                    found.append((entry, suffix))
    return found


def _age(suffix: str) -> int:
    """Sorts rotated names, newest first: dates, the latest first, then .1 before .2."""
    digits = re.sub(r"\.(gz|bz2|xz)$|\D", "", suffix) or "0"
    return int(digits) if len(digits) < 6 else -int(digits)
