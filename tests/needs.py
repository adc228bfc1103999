"""What a test needs besides Python, held against its marks.

A test that is not marked fails as soon as it starts a program, or gives a file away, that its marks
don't speak of. So `-m "not servers and not makemap and not root"` stays what it promises, though
the tests nearly always run where everything is there.
"""

import os
import sys
from collections.abc import Iterable
from typing import Any

import pytest

PROGRAMS = {
    "makemap": {"makemap"},
    "root": {"setpriv"},
    # Daemons, what mounts or makes namespaces, and tools that Debian does not install by itself.
    "servers": {
        "cron", "rsyslogd", "sendmail-mta", "ip", "mount", "umount", "unshare", "nsenter",
        "apt-get", "bzip2", "cdb", "db_dump", "db_verify", "faketime", "logrotate", "m4", "setfacl",
        "man", "mandoc", "strace", "systemctl", "xz",
    },
}  # fmt: skip
"""The programs that only a test with the mark may start."""

_UNCHANGED = 0xFFFF_FFFF  # what -1 has become by then
_IMPLIED = {"servers": {"makemap", "root"}}
_MARK_OF = {program: mark for mark, programs in PROGRAMS.items() for program in programs}
_allowed: set[str] | None = None


def marked(names: Iterable[str] | None) -> None:
    """The test that begins has these marks; None: it has ended."""
    global _allowed
    if names is None:
        _allowed = None
        return
    _allowed = set(names)
    for name in _allowed & set(_IMPLIED):
        _allowed |= _IMPLIED[name]


def ask(mark: str, why: str) -> None:
    """Fail the test that runs if it lacks a mark."""
    if _allowed is not None and mark not in _allowed:
        pytest.fail(f"this test {why}: mark it with @pytest.mark.{mark}")


def watch() -> None:
    """From now on, in this process."""
    sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "os.chown":
        path, user, group, *_ = arguments
        mine = (_UNCHANGED, os.geteuid()), (_UNCHANGED, os.getegid(), *os.getgroups())
        # sapd itself, which has the file open, only keeps an owner.
        if not isinstance(path, int) and (user not in mine[0] or group not in mine[1]):
            ask("root", "gives a file away")
    elif event in ("subprocess.Popen", "os.posix_spawn", "os.exec"):
        program, command = arguments[:2]
        words = [command] if isinstance(command, str | bytes | os.PathLike) else command
        for word in (program, *words):
            name = os.path.basename(os.fsdecode(word))
            if name in _MARK_OF:
                ask(_MARK_OF[name], f"starts {name}")
