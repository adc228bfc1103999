"""Work that something happens to in its midst, at a step that changes or reads files."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

Event = Callable[[], object]

_STEPS = {
    "chmod", "fchmod", "fchown", "flock", "fork_exec", "fsync", "ftruncate", "mkdir", "open",
    "posix_fallocate", "pread", "pwrite", "rename", "unlink", "utime",
}  # fmt: skip


@contextmanager
def happening(events: Mapping[int, Event]) -> Iterator[None]:
    """Have each event happen at the step of its number, from 0 on: each call is two, in and out.

    What is still to come when the work ends does not happen.
    """
    steps = 0

    def note(frame: FrameType, event: str, function: Any) -> None:
        nonlocal steps
        if event in ("c_call", "c_return") and function.__name__ in _STEPS:
            steps += 1
            if steps - 1 in events:
                events[steps - 1]()

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)


def killed(step: int, work: Event, events: Mapping[int, Event] | None = None) -> bool:
    """Do the work in a child that kills itself, and what it started, at the step of that number.

    Returns whether it came so far. Work that fails by itself is a failure here, too.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setsid()
            with happening({**(events or {}), step: lambda: os.killpg(0, signal.SIGKILL)}):
                work()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False
