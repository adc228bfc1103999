"""Whether nothing happened since the last run, told at next to no cost.

In most minutes nothing did, and to find that out should take no longer than starting Python. So a
run that found nothing to do notes how every file looked that it goes by, and until when time alone
changes nothing. The next run compares, and leaves.

A wrong "nothing happened" shuts somebody out, or leaves the relay open. So the note proves what it
says: for which configuration, program and boot it holds, and from when until when. Where anything
differs, or can't be told, something happened. How the files looked is taken before they are read,
so that a change meanwhile shows the next time, and a file that changed just then is not noted: it
could change again and look the same.
"""

from __future__ import annotations

import os
from time import clock_gettime, time

from sapd import defaults

try:
    from time import CLOCK_BOOTTIME as _SINCE_BOOT
except ImportError:  # Linux's own; elsewhere the usual clock counts from there, too
    from time import CLOCK_MONOTONIC as _SINCE_BOOT

TYPE_CHECKING = (
    False  # not typing's own: to load that, or collections.abc, takes half as long again
)
if TYPE_CHECKING:
    from collections.abc import Iterable

NAME = "idle"
"""The note's file in the state's folder."""

_FIRST, _LAST = "sapd's note of an idle minute, version 1", "end"
_LARGEST = 1024 * 1024  # bytes; of a longer file the rest is missing, and so the proof
_SETTLED = 0.1  # seconds; a file system's clock ticks every 1 to 10 ms


class Looks(dict[str, str]):
    """{path: how it looks}, of files that may be missing; `changed` is when the last one was."""

    def __init__(self, paths: Iterable[str]) -> None:
        """Look at them all."""
        self._taken, self.changed = time(), 0.0
        for path in paths:
            self[path] = _look(path)
            times = self[path].split()[4::5]
            self.changed = max(self.changed, *(int(changed) / 1e9 for changed in times), 0)

    def hold(self) -> bool:
        """Whether they all look the same now; False if they could do so although one changed."""
        return self.changed < self._taken - _SETTLED and self == Looks(self)

    def add(self, others: Looks) -> None:
        """Have others, taken earlier, among these."""
        self.update(others)
        self.changed = max(self.changed, others.changed)
        self._taken = min(self._taken, others._taken)


def _look(path: str) -> str:
    """What changes when a file is written or replaced, or what its name leads to is."""
    found = []
    for look in (os.lstat, os.stat):
        try:
            about = look(path)
        except OSError:
            return "missing"
        found += [about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns]
    return " ".join(map(str, found))


def note(config: str, looks: Looks, now: float, until: float) -> bytes | None:
    """The note's text, if there can be one: from `now` `until` then (UTC epoch) nothing is to do.

    `looks` has all files that a pass goes by, the configuration among them.
    """
    if any("\n" in path for path in looks) or now - looks.changed < _SETTLED:
        return None
    rows = [f"{path}\t{look}" for path, look in looks.items()]
    head = [os.path.abspath(config), *_machine(), repr(now), repr(until)]
    return os.fsencode("\n".join([_FIRST, *head, *rows, _LAST]))


def nothing_happened(config: str) -> bool:
    """Whether a run with this configuration, by its path, would find nothing to do."""
    try:
        # No link is followed: in another user's folder it could lead root to a device.
        text = _read(os.path.join(_guess(config), NAME), os.O_NOFOLLOW)
        first, path, program, boot, since, until, *rows, last = text.split("\n")
        return (
            [first, path, program, boot] == [_FIRST, os.path.abspath(config), *_machine()]
            and last == _LAST
            and float(since) <= time() < float(until)
            and all(look == _look(path) for path, _, look in (row.rpartition("\t") for row in rows))
        )
    except (OSError, ValueError):
        return False


def _guess(config: str) -> str:
    """The state's folder, as far as one can tell without reading TOML: the note proves it right."""
    _, _, table = _read(config).partition("[state]")
    _, _, value = table.partition("directory")
    directory = value.split('"')[1] if value.count('"') > 1 else defaults.STATE_DIRECTORY
    return os.path.join(os.path.dirname(os.path.abspath(config)), directory)


_PROGRAM = _look(__file__)  # as it is loaded: a run that goes on may outlive it


def boot_id() -> str:
    """What tells this start of the machine from any other: the kernel's id, else the time of it.

    The time is in whole seconds, since two clocks are never read at once. Where the clock was set
    meanwhile it is another, and so seems the boot.
    """
    try:
        found = _read("/proc/sys/kernel/random/boot_id").strip()
    except OSError:  # no Linux, or /proc is not there
        found = ""
    return found or f"at {round(time() - clock_gettime(_SINCE_BOOT))}"


def _machine() -> list[str]:
    """Which program this is, and which boot."""
    return [_PROGRAM, boot_id()]


def _read(path: str, flags: int = 0) -> str:
    """A small file's text; without waiting, if it is a FIFO."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    try:
        return os.fsdecode(os.read(fd, _LARGEST))
    finally:
        os.close(fd)
