"""What a program and all its children ask of the kernel about files, as strace tells it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_LINE = re.compile(r"(\w+)\((.*)\) += (.*)")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_OPENED = re.compile(r".*O_CREAT.*, (0[0-7]*)")
_DESCRIPTOR = re.compile(r"\d+<([^>]*)>")
_SPAWNS = ("fork", "vfork", "clone", "clone3")


class Call(NamedTuple):
    """One of the kernel's calls: its name, arguments and result as strace writes them."""

    name: str
    arguments: str
    result: str

    @property
    def paths(self) -> list[str]:
        """The paths among the arguments; of a program that is started, its own."""
        named = _TEXT.findall(self.arguments)
        return (named[:1] if self.name == "execve" else named) + _DESCRIPTOR.findall(self.arguments)

    def mode(self, umask: int) -> int | None:
        """The mode that it gives to its file, under this umask; None if it gives none."""
        if self.result.startswith("-1"):
            return None
        if self.name in ("chmod", "fchmod", "fchmodat"):
            return int(re.findall(r", (0[0-7]*)", self.arguments)[0], 8)
        if self.name in ("mkdir", "mkdirat"):
            return int(self.arguments.rpartition(", ")[2], 8) & ~umask
        found = _OPENED.fullmatch(self.arguments)
        return int(found[1], 8) & ~umask if found and self.name == "openat" else None


class Trace:
    """What the command behind `prefix` did, once it has ended."""

    def __init__(self, folder: Path) -> None:
        """`folder` is made for this."""
        folder.mkdir()
        self._folder = folder
        self.prefix = (
            *("strace", "-ff", "-qq", "-y", "-s", "4096", "-o", str(folder / "of")),
            *("-e", f"trace=%file,%creds,fchmod,fchown,umask,ftruncate,{','.join(_SPAWNS)}"),
            *("-e", "signal=none"),
        )

    def processes(self) -> list[list[Call]]:
        """The calls of each process, in the order in which the processes were started."""
        traces = sorted(self._folder.iterdir(), key=lambda trace: int(trace.suffix[1:]))
        return [list(_calls(trace)) for trace in traces]

    def modes(self, umask: int) -> Iterator[tuple[str, int]]:
        """The modes that paths were given, the first ones as of their birth.

        `umask` is the caller's. Only the first process starts others, who inherit its own.
        """
        inherited = [umask]
        for process, current in zip(self.processes(), inherited, strict=False):
            for call in process:
                if call.name == "umask":
                    current = int(call.arguments, 8)
                elif call.name in _SPAWNS:
                    inherited.append(current)
                elif (mode := call.mode(current)) is not None:
                    yield call.paths[0] if call.name != "fchmod" else call.paths[-1], mode


def _calls(trace: Path) -> Iterator[Call]:
    for line in trace.read_text(errors="backslashreplace").splitlines():
        if found := _LINE.fullmatch(line):
            yield Call(found[1], found[2], found[3])
