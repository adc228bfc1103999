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

from sapd.addresses import parse_address
from sapd.events import frames
from sapd.events.doubts import frames_of, writes
from sapd.events.formats import Format, Line
from sapd.events.frames import Frame

_MOST_NAMES = 9
_BEGINNING = '"Nov 22 10:41:05 host program[123]: ", or with an RFC 3339 stamp, or as in RFC 5424'
_LONGEST_REST = 60  # characters


class Miss(NamedTuple):
    """How near a line came to being an event, and what it lacks; compare the nearness."""

    nearness: tuple[float, int]
    reason: str


class Near(NamedTuple):
    """A login of a format's server in words that are not known, and the words."""

    format: str
    difference: str


def near_login(formats: Sequence[Format], line: bytes, frame: str) -> Near | None:
    """Whether a line of the log's frame, which is no event, begins as a login and ends otherwise.

    It counts only if it fits up to the account and the address, which must be one: no stranger can
    write that much in the server's words, and what follows them is the server's.
    """
    text = line.removesuffix(b"\n")
    syslog = frames.split(text, frame)
    if syslog is None:
        return None
    for format in formats:
        for written in [] if format.failures_look_alike else frames_of(format, text, syslog):
            for kind in format.lines:
                if kind.event == "login" and any(one in written.message for one in kind.needles):
                    end = _behind_who(kind.pattern, written.message)
                    if end is not None:
                        return Near(format.name, _difference(written.message[end:]))
    return None


def _behind_who(pattern: re.Pattern[bytes], message: bytes) -> int | None:
    """How far a message fits a pattern, if that is beyond the account and an address."""
    for _, head in _heads(pattern):
        if not {"account", "address"} <= head.groupindex.keys():
            return None
        found = head.match(message)
        if found is not None:
            return found.end() if parse_address(found["address"] or b"") is not None else None
    return None


def miss(formats: Sequence[Format], line: bytes, frame: str | None = None) -> Miss:
    """Tell what a line lacks, newline or not, that is none of the formats' events.

    Nearer than anything is a line of the right program with a needle, then one that lacks either.
    `frame` is that of the log.
    """
    text = line.removesuffix(b"\n")
    syslog = frames.split(text)
    if frame and frames.split(text, frame) is None and syslog is not None:
        return Miss((0, 0), f"its frame is {syslog.name}, and that of the log {frame}")
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
    for format in formats:
        if _fits_but_for_its_program(format, syslog):
            remedy = f'if that is {format.name}\'s, set programs = ["{program}"] for the log'
            reason = f'its program, "{program}", is none of {format.name}\'s, and all else fits'
            return Miss((1.4 + needle, 0), f"{reason}; {remedy}")
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
    # Of several that fit as far the first: older versions' lines stand behind.
    best = max(
        range(len(kinds)), key=lambda number: (*fittings[number][:2], fittings[number][2] == 1)
    )
    (needle, end, fits), kind = fittings[best], kinds[best]
    nearness = 2.0 + 2 * needle, end
    if fits == 1 and end == len(frame.message):
        needles = ", ".join(f'"{_text(needle)}"' for needle in kind.needles)
        return Miss(nearness, f"it is {format.name}'s, but holds none of the needles {needles}")
    if end == 0:
        if not frame.host:  # in the server's own file the frame is little more than a stamp
            return None
        return Miss(nearness, f"it is {format.name}'s, but none of its events")
    lacks = _difference(frame.message[end:])
    what, reads = f"not a {kind.event}", "one reads"
    if kind.event == "login" and b"fail" in _beginning(frame, end):
        what, reads = "a failed login", "a login reads"
    reason = f"it is {format.name}'s, but {what} {lacks}; {reads}"
    return Miss(nearness, f"{reason}: {_text(kind.example)}")


def _beginning(frame: Frame, end: int) -> bytes:
    """What follows the part that fits, up to the first field, in small letters."""
    return frame.message[end : end + _LONGEST_REST].partition(b"=")[0].lower()


def _difference(rest: bytes) -> str:
    """Why a message does not fit, of which this is left behind what does."""
    text = _text(rest)
    text = text if len(text) <= _LONGEST_REST else text[:_LONGEST_REST] + "…"
    return f'because of "{text}"' if text else "because it ends too early"


def _fits_but_for_its_program(format: Format, frame: Frame) -> bool:
    named = format.written_by([_text(frame.program)])
    return writes(named, frame) and any(
        kind.event == "login" and not kind.own_file and kind.pattern.fullmatch(frame.message)
        for kind in format.lines
    )


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
