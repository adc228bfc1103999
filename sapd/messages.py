"""What is printed, and the exit status that goes with it. The only printer, but for `cli`'s tables.

Everything is one line, with what a terminal or a mail could stumble over escaped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress

from sapd import errors, files
from sapd.report import Report


class ReaderLeft(Exception):  # noqa: N818 -- no error: `sapd list | head` has seen enough
    """Nobody reads standard output any more."""


def open_standard_streams() -> None:
    """Have all three, able to print everything: no file must get the number of a closed one."""
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # the lowest free number is then its own
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        elif name != "stdin":
            stream.reconfigure(errors="backslashreplace")


def status_of(act: Callable[[], int | None]) -> int:
    """Do it, say in one line what went wrong, if anything did, and give the exit status."""
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
    except ReaderLeft:
        return 0
    except OSError as error:
        complain("error", f"{error.filename or 'standard output'}: {error.strerror}")
        return errors.status_of(error)
    except Exception as error:
        complain("error", str(errors.bug(error)))
        return errors.BUG


def complain(kind: str, text: str) -> None:
    """One line on standard error."""
    with suppress(OSError):  # there is nowhere left to say it
        sys.stderr.write(f"sapd: {kind}: {one_line(text)}\n")
        sys.stderr.flush()


def one_line(text: str) -> str:
    """The text with everything escaped that a terminal, or a line of mail, could stumble over."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def say(text: str) -> None:
    """One line on standard output; raises `ReaderLeft`."""
    write(one_line(text))


def write(text: str) -> None:
    """A text, and a newline, on standard output as it is; raises `ReaderLeft`."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise ReaderLeft from None


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
    with suppress(ReaderLeft):
        for verb, text in report.actions:
            if verb == "read":
                if verbose > 1:
                    say(f"read {text}")
            elif dry:
                say(f"would {verb} {text}")
            elif verbose:
                say(f"{verb} {text}")
    return report.status
