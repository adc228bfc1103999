"""A mail server's own program, which builds a map or puts it in force, and its complaints."""

from __future__ import annotations

from collections.abc import Sequence

from sapd import child, errors, files

LIMIT = 60.0
"""Seconds that such a program may take, and more for a large text: a million entries are ten."""

_SLOW = 500_000  # bytes of text a second, at least

OLD_STANDS = "the old map stays in force"


def run(
    program: str, arguments: Sequence[str], text: bytes, stream: int, made_by: str
) -> child.Ended:
    """Run it to its end with `text` for its input, and keep what it says on `stream` (1 or 2).

    `made_by` is the package it comes with. Raises `SapdError` 69 if it can't be run or takes too
    long, and OSError if the text finds no room.
    """
    limit = LIMIT + len(text) / _SLOW
    try:
        return child.run([program, *arguments], text, stream, limit)
    except TimeoutError:
        reason = f"took longer than {limit:.0f} s; {OLD_STANDS}"
    except OSError as error:
        if error.filename is None:  # not the program: the text found no room
            raise
        reason = f"can't be run: {error.strerror}; it comes with {made_by}"
    raise errors.SapdError(errors.MAKEMAP_FAILED, program, reason) from None


def open_made(path: str, program: str, subject: str) -> int:
    """Open what a program that ended well should have made, for writing; raises `SapdError`."""
    try:
        return files.open_in_place(path, writing=True)
    except FileNotFoundError:
        name = program.rpartition("/")[2]
        reason = f"{name} ended well, and made nothing; {OLD_STANDS}"
        raise errors.SapdError(errors.MAKEMAP_FAILED, subject, reason) from None


def complaint(program: str, done: child.Ended, subject: str) -> errors.SapdError:
    """What to say of a program that failed, in its own first words."""
    name = program.rpartition("/")[2]
    lines = [line for line in done.said.decode("utf-8", "backslashreplace").splitlines() if line]
    lines = [line for line in lines if "warning:" not in line] or lines
    words = lines[0] if lines else f"ended with status {done.status}"
    for prefix in (f"{name}: ", "fatal: "):
        words = words.removeprefix(prefix)
    status = errors.status_of_words(words)
    if status is None:
        status = errors.MAKEMAP_FAILED
    return errors.SapdError(status, subject, f"{name}: {words}; {OLD_STANDS}")
