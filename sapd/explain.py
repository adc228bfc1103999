"""Why a line is nothing: the question people have when "it does not work". Pure, and slow.

A pattern can't say how far it fits, so it is cut shorter and shorter until it does.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import NamedTuple

from sapd import frames
from sapd.doubts import frames_of
from sapd.formats import Format, Line
from sapd.frames import Frame

_MOST_NAMES = 9
_BEGINNING = '"Nov 22 10:41:05 host program[123]: ", or with an RFC 3339 stamp, or as in RFC 5424'
_LONGEST_REST = 60  # characters


class Miss(NamedTuple):
    """How near a line came to being an event, and what it lacks; compare the nearness."""

    nearness: tuple[float, int]
    reason: str


def miss(formats: Sequence[Format], line: bytes) -> Miss:
    """Tell what a line lacks, newline or not, that is none of the formats' events.

    Nearer than anything is a line of the right program with a needle, then one that lacks either.
    """
    text = line.removesuffix(b"\n")
    syslog = frames.split(text)
    misses = [
        found
        for format in formats
        for frame in frames_of(format, text, syslog)
        if (found := _of_message(format, frame)) is not None
    ]
    if misses:
        return max(misses, key=lambda miss: miss.nearness)
    needle = 2 * any(
        needle in text for format in formats for kind in format.lines for needle in kind.needles
    )
    if syslog is None:
        return Miss((needle, 0), f"it does not begin as a line of syslog does: {_BEGINNING}")
    program = _text(syslog.program)
    for format in formats:
        if format.programs.fullmatch(syslog.program):
            lacks = "has no process number" if format.pid == "always" else "has a process number"
            reason = f'its program, "{program}", {lacks}, unlike that of {format.name}'
            return Miss((1.5 + needle, 0), reason)
    known = list(dict.fromkeys(name for format in formats for name in format.program_names))
    if len(known) <= _MOST_NAMES:
        return Miss((needle, 0), f'its program, "{program}", is none of {", ".join(known)}')
    near = get_close_matches(program.lower(), known, 1)
    hint = f'; the nearest is "{near[0]}"' if near else ""
    return Miss((needle, 0), f'its program, "{program}", is none that the formats name{hint}')


def _of_message(format: Format, frame: Frame) -> Miss | None:
    """What a format's message lacks; None if it may be no message of that server at all."""
    kinds = [kind for kind in format.lines if kind.event not in ("cut", "rejected")]
    fittings = [_fitting(kind, frame.message) for kind in kinds]
    needle, end, fits = max(fittings)
    kind = kinds[fittings.index((needle, end, fits))]
    nearness = 2.0 + 2 * needle, end
    if fits == 1 and end == len(frame.message):
        needles = ", ".join(f'"{_text(needle)}"' for needle in kind.needles)
        return Miss(nearness, f"it is {format.name}'s, but holds none of the needles {needles}")
    if end == 0:
        if not frame.host:  # in the server's own file the frame is little more than a stamp
            return None
        return Miss(nearness, f"it is {format.name}'s, but none of its events")
    rest = _text(frame.message[end:])
    rest = rest if len(rest) <= _LONGEST_REST else rest[:_LONGEST_REST] + "…"
    lacks = f'because of "{rest}"' if rest else "because it ends too early"
    reason = f"it is {format.name}'s, but no {kind.event} {lacks}; one reads"
    return Miss(nearness, f"{reason}: {_text(kind.example)}")


def _fitting(kind: Line, message: bytes) -> tuple[bool, int, float]:
    """Whether it holds a needle, and how many of its bytes fit how much (0 to 1) of the pattern."""
    needle = any(needle in message for needle in kind.needles)
    heads = _heads(kind.pattern)
    for length, head in heads:
        if found := head.match(message):
            return needle, found.end(), length / heads[0][0]
    return needle, 0, 0


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
    return data.decode("utf-8", "backslashreplace")
