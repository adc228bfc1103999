"""Faults on demand: strace kills a program, or has a call fail, at any system call of its."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CHANGING = (
    "write,pwrite64,writev,pwritev,pwritev2,sendfile,copy_file_range,"
    "?rename,renameat,renameat2,?link,linkat,?symlink,symlinkat,?unlink,unlinkat,"
    "?mkdir,mkdirat,?mknod,mknodat,?creat,?open,openat,openat2,truncate,ftruncate,fallocate,"
    "fsync,fdatasync,sync_file_range,msync,flock,?chmod,fchmod,fchmodat,?chown,fchown,?lchown,"
    "fchownat,?utime,?utimes,?futimesat,utimensat,setxattr,fsetxattr"
)
"""All calls that write, rename, create, cut, sync, lock, or change mode, owner or times."""

_CALL = re.compile(r"(\w+)\(")
_OPENS = re.compile(r"(open(at2?)?|creat)\(")
_LOOKS = re.compile(r"\bO_RDONLY\b(?!.*\b(O_CREAT|O_DIRECTORY)\b)")


class Call(NamedTuple):
    """A system call: the `nth` of its name in its process; `text` is strace's line."""

    name: str
    nth: int
    text: str

    @property
    def killed(self) -> str:
        """The fault of a process that is killed as it enters the call."""
        return f"inject={self.name}:signal=SIGKILL:when={self.nth}"

    def failing(self, error: str) -> str:
        """The fault of a call that does nothing, and gives `error` ("EIO")."""
        return f"inject={self.name}:error={error}:when={self.nth}"


def strace(*faults: str, trace: str = "/dev/null") -> tuple[str, ...]:
    """Command in front of a program that has it meet `faults`, and writes its calls to `trace`.

    The programs that it starts are left in peace.
    """
    options = [part for fault in faults for part in ("-e", fault)]
    return ("strace", "-qq", "-y", "-s16", "-o", trace, "-e", f"trace={CHANGING}", *options)


def calls(trace: Path, about: Path) -> list[Call]:
    """The calls that change something, from the first on that names a file below `about`."""
    found = list(_calls(trace.read_text()))
    first = next(n for n, call in enumerate(found) if str(about) in call.text)
    return [call for call in found[first:] if _changes(call.text, str(about))]


def struck(trace: Path) -> Call:
    """The call that never returned, or else the one that was made to fail."""
    *found, last = _calls(trace.read_text())
    failed = (call for call in found if call.text.endswith("(INJECTED)"))
    return last if last.text.endswith("= ?") else next(failed, last)


def _changes(text: str, about: str) -> bool:
    """Whether it is none of the many calls that open a file to read it, or a module."""
    return not _OPENS.match(text) or (about in text and not _LOOKS.search(text))


def _calls(text: str) -> Iterator[Call]:
    counts: dict[str, int] = {}
    for line in text.splitlines():
        if found := _CALL.match(line):
            counts[found[1]] = counts.get(found[1], 0) + 1
            yield Call(found[1], counts[found[1]], line)
