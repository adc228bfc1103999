"""What is printed, and the exit status that goes with it. The only printer, but for `cli`'s tables.

Everything is one line, with what a terminal or a mail could stumble over escaped.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable

from sapd import errors, files
from sapd.report import Report
from sapd.timestamps import localised

_failures: dict[str, OSError] = {}  # {stream: why it takes no more}


def open_standard_streams() -> None:
    """Have all three, able to print everything: no file must get the number of a closed one.

    To write to one that was closed fails, as it does in other programs.
    """
    _failures.clear()
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # the lowest free number is then its own
            fd = os.open(os.devnull, os.O_RDONLY)
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(fd, mode, encoding="utf-8"))  # noqa: SIM115
        elif name != "stdin":
            stream.reconfigure(errors="backslashreplace")


def status_of(act: Callable[[], int | None]) -> int:
    """Do it, say in one line what went wrong, if anything did, and give the exit status.

    All that was printed is written then, or its failure said: 0 becomes 74, but not where a reader
    left. End by `os._exit`: the interpreter would try once more to write it, and end with 120.
    """
    status = _status_of(act)
    _write("stdout")
    failure = _failures.get("stdout")
    if failure is not None and not isinstance(failure, BrokenPipeError):
        complain("error", f"standard output: {failure.strerror}")
    lost = any(not isinstance(failure, BrokenPipeError) for failure in _failures.values())
    return status or (errors.IO_ERROR if lost else 0)


def _status_of(act: Callable[[], int | None]) -> int:
    try:
        return act() or 0
    except KeyboardInterrupt:
        return 130
    except files.Locked as locked:
        if locked.complaint:
            complain("error", locked.complaint)
        return errors.LOCKED
    except errors.SapdError as problem:
        for one in (problem, *problem.others):
            complain("error", str(one))
        return problem.status
    except OSError as error:
        if isinstance(error, BrokenPipeError) and not _nobody_reads():  # another pipe
            complain("error", str(errors.bug(error)))
            return errors.BUG
        if error.filename is None:  # from click, which prints the help by itself
            _failures.setdefault("stdout", error)
            return 0
        complain("error", f"{error.filename}: {error.strerror}")
        return errors.status_of(error)
    except Exception as error:
        complain("error", str(errors.bug(error)))
        return errors.BUG


def complain(kind: str, text: str) -> None:
    """One line on standard error."""
    _write("stderr", f"sapd: {kind}: {one_line(localised(text))}\n")


def aside(text: str) -> None:
    """One line on standard error that is no complaint."""
    _write("stderr", f"{one_line(text)}\n")


def one_line(text: str) -> str:
    """The text with everything escaped that a terminal, or a line of mail, could stumble over."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def say(text: str) -> None:
    """One line on standard output."""
    write(one_line(text))


def write(text: str) -> None:
    """A text, and a newline, on standard output as it is; nothing if that takes no more."""
    if not unwritable():
        _write("stdout", f"{text}\n")


def unwritable() -> bool:
    """Whether standard output takes no more: its reader left, as `head` does, or it is full."""
    return "stdout" in _failures


def _nobody_reads() -> bool:
    """Whether standard output is a pipe that was closed at its other end."""
    ready = select.poll()
    ready.register(sys.stdout.fileno(), select.POLLOUT)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in ready.poll(0))


def _write(name: str, text: str | None = None) -> None:
    """Write a text, if there is one, and what was written before; note why if that fails."""
    stream = getattr(sys, name)
    try:
        if text is not None:
            stream.write(text)
        stream.flush()
    except OSError as error:
        _failures.setdefault(name, error)


def tell_what_is_new(report: Report, told: set[str], *, verbose: int = 0) -> set[str]:
    """Say what became of a pass, but no complaint that was `told`; give those of this one."""
    complaints = {*map(": ".join, report.warnings), *map(str, report.problems)}
    report.warnings = [warning for warning in report.warnings if ": ".join(warning) not in told]
    report.problems = [problem for problem in report.problems if str(problem) not in told]
    tell(report, verbose=verbose)
    return complaints


def tell(report: Report, *, dry: bool = False, verbose: int = 0) -> int:
    """Say what became of a pass, and give its exit status."""
    for subject, text in report.warnings:
        complain("warning", f"{subject}: {text}")
    for problem in report.problems:
        complain("error", str(problem))
    for verb, text in report.actions:
        if verb == "read":
            if verbose > 1:
                say(f"read {text}")
        elif dry or verbose:
            say(localised(f"{'would ' * dry}{verb} {text}"))
    return report.status
