"""Another program, run to its end. Not by `subprocess`: loading that takes 6 ms of every pass."""

import errno
import os
import select
import time
from collections.abc import Iterator
from typing import NamedTuple

_BLOCK = 1024 * 1024
_HELD = 3  # a descriptor that no program minds


class Ended(NamedTuple):
    """A program's exit status, negative for the signal that ended it, and what it said."""

    status: int
    said: bytes


def run(command: list[str], text: bytes, stream: int, limit: float) -> Ended:
    """Run a program with `text` for its input, and the umask 077.

    What it says on `stream` (1 or 2) is kept, the other goes nowhere. Raises OSError, with the
    program's name if it can't be started, and TimeoutError if it takes longer than `limit` seconds
    and had to be killed.
    """
    deadline = time.monotonic() + limit
    # Not through a pipe: makemap writes little at a time, and each time would wake this process.
    given, said, nowhere = _scratch(), _scratch(), os.open(os.devnull, os.O_WRONLY)
    lives, held = os.pipe()
    try:
        try:
            pid = _start(command, text, given, {stream: said, 3 - stream: nowhere, _HELD: held})
        finally:
            os.close(held)
        return Ended(_wait(pid, lives, deadline), os.pread(said, os.fstat(said).st_size, 0))
    finally:
        for fd in (given, said, nowhere, lives):
            os.close(fd)


def _scratch() -> int:
    """An empty file without a name: in memory, or where the system can't, in the usual folder."""
    try:
        return os.memfd_create("scratch")
    except AttributeError:
        pass
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _start(command: list[str], text: bytes, given: int, outputs: dict[int, int]) -> int:
    view = memoryview(text)
    while view:
        view = view[os.write(given, view) :]
    os.lseek(given, 0, os.SEEK_SET)
    ends = {0: given, **outputs}
    actions = [(os.POSIX_SPAWN_DUP2, fd, end) for end, fd in ends.items()]
    umask = os.umask(0o077)
    try:
        return os.posix_spawnp(command[0], command, os.environ, file_actions=actions, setsigmask=[])
    finally:
        os.umask(umask)


def _bury(pid: int) -> None:
    """Wait for a killed program to end, though not for ever: it may hang in the kernel."""
    for _ in range(1000):
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        select.select([], [], [], 0.001)


def _wait(pid: int, lives: int, deadline: float) -> int:
    """The status of a program that holds the other end of a pipe as long as it runs."""
    ready = select.poll()
    ready.register(lives, select.POLLIN)
    try:
        if not ready.poll(max(0, deadline - time.monotonic()) * 1000):
            raise TimeoutError
        return _ended(pid, deadline)
    except BaseException:
        os.kill(pid, 9)
        _bury(pid)
        raise


def _ended(pid: int, deadline: float) -> int:
    """The status of a program that ends just now, or in a moment."""
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            raise TimeoutError
        select.select([], [], [], 0.0005)


class Running:
    """A program whose output is read while it runs, from `with` to its end, which may be a kill."""

    def __init__(self, command: list[str], given: int | None = None) -> None:
        """Start nothing yet; what it reads is open on `given`, or it reads nothing."""
        self._command = command
        self._given = given
        self._pid = 0  # when it does not run

    def __enter__(self) -> "Running":
        """Start it; OSError if that can't be done."""
        self._said = _scratch()
        self._heard, output = os.pipe()
        given = os.open(os.devnull, os.O_RDONLY) if self._given is None else os.dup(self._given)
        try:
            self._pid = _start(self._command, b"", given, {1: output, 2: self._said})
        except BaseException:
            self._close()
            raise
        finally:
            os.close(given)
            os.close(output)
        return self

    def __exit__(self, *error: object) -> None:
        """Kill it if it still runs."""
        self._close()

    def blocks(self, silence: float) -> Iterator[bytes]:
        """What it writes, as it comes; TimeoutError if nothing comes for so many seconds."""
        ready = select.poll()
        ready.register(self._heard, select.POLLIN)
        while True:
            if not ready.poll(silence * 1000):
                raise TimeoutError
            block = os.read(self._heard, _BLOCK)
            if not block:
                return
            yield block

    def end(self, limit: float) -> Ended:
        """Wait for its end; what it said on standard error. TimeoutError after `limit` seconds."""
        status, self._pid = _ended(self._pid, time.monotonic() + limit), 0
        return Ended(status, os.pread(self._said, _BLOCK, 0))

    def _close(self) -> None:
        if self._pid:
            os.kill(self._pid, 9)
            _bury(self._pid)
            self._pid = 0
        for fd in (self._heard, self._said):
            os.close(fd)
