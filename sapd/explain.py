"""Why a line is nothing: the question people have when "it does not work". Pure, and slow.

A pattern can't say how far it fits, so it is cut shorter and shorter until it does.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from sapd.formats import Format, Line
from sapd.recogniser import Framed, framed, frames

_MOST_NAMES = 6
_LONGEST_REST = 60  # characters


class Miss(NamedTuple):
    """How near a line came to being an event, from 0 to 2, and what it lacks."""

    nearness: float
    reason: str


def miss(formats: Sequence[Format], line: bytes) -> Miss:
    """Tell what a line lacks, newline or not, that is none of the formats' events."""
    text = line.removesuffix(b"\n")
    misses = [
        found
        for format in formats
        for frame in frames(format, text)
        if (found := _of_message(format, frame)) is not None
    ]
    if misses:
        return max(misses)
    needle = 0.25 * any(
        needle in text for format in formats for kind in format.lines for needle in kind.needles
    )
    frame = framed(text)
    if frame is None:
        return Miss(needle, "it does not begin as a line of syslog does")
    program = _text(frame.program)
    for format in formats:
        if format.programs.fullmatch(frame.program):
            lacks = "has no process number" if format.pid == "always" else "has a process number"
            return Miss(
                0.75 + needle, f'its program, "{program}", {lacks}, unlike that of {format.name}'
            )
    known = sorted({name for format in formats for name in format.program_names})
    names = ", ".join(known[:_MOST_NAMES]) + (" …" if len(known) > _MOST_NAMES else "")
    return Miss(0.25 + needle, f'its program, "{program}", is none of {names}')


def _of_message(format: Format, frame: Framed) -> Miss | None:
    """What a format's message lacks; None if it may be no message of that server at all."""
    kind = max(format.lines, key=lambda kind: _fitting(kind, frame.message))
    fits, end = _fitting(kind, frame.message)
    if end == 0:
        if not frame.host:  # in the server's own file the frame is little more than a stamp
            return None
        return Miss(1, f"it is {format.name}'s, but none of its events")
    rest = _text(frame.message[end:])
    rest = rest if len(rest) <= _LONGEST_REST else rest[:_LONGEST_REST] + "…"
    lacks = f'because of "{rest}"' if rest else "because it ends too early"
    reason = f"it is {format.name}'s, but no {kind.event} {lacks}; one reads"
    return Miss(1 + fits, f"{reason}: {_text(kind.example)}")


def _fitting(kind: Line, message: bytes) -> tuple[float, int]:
    """How much of the pattern (0 to 1) fits how many bytes of the message."""
    heads = _heads(kind.pattern)
    for length, head in heads:
        if found := head.match(message):
            return length / heads[0][0], found.end()
    return 0, 0


@lru_cache(maxsize=1000)
def _heads(pattern: re.Pattern[bytes]) -> list[tuple[int, re.Pattern[bytes]]]:
    """The beginnings of a pattern that are patterns, the longest first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(_shorter(_inner(pattern)))


def _shorter(whole: bytes) -> Iterator[tuple[int, re.Pattern[bytes]]]:
    for length in range(len(whole), 0, -1):
        try:
            yield length, re.compile(whole[:length])
        except re.error:
            continue


def _inner(pattern: re.Pattern[bytes]) -> bytes:
    return pattern.pattern[len(b"(?:") : -len(b")")]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
