"""The events of a log's blocks, each text looked at once.

Most lines hold no needle of any format and are passed over. Of the others most are logins seen
before: two lines that differ in nothing but stamp and process id say the same, at another time. So
the recogniser sees one of them, and of the others only the latest time is kept. Where 30 % of the
lines are logins this takes 1 µs a login instead of 12.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import inf

from sapd.formats import LONGEST
from sapd.recogniser import Event, Recogniser
from sapd.timestamps import Clock

_MOST = 20_000  # texts, and stamps, that are remembered
_HEAD = re.compile(rb"(\S{3} [ \d]\d \S{8}|\S+)( \S+ [^\s\[\]:]+\[)\d+(\]: .*)")
"""Stamp; host and program; process id; and the message as far as the needle."""


class _Alike:
    """Lines whose heads differ in nothing but the stamp's digits and the process id.

    For each text behind the needle: `events` has what the recogniser made of it, `latest` its
    latest time (UTC epoch seconds); `logins` are those that are logins.
    """

    def __init__(self, stamp: bytes, writer: bytes, message: bytes) -> None:
        self.stamp = len(stamp)
        stamps = re.sub(rb"\d", rb"\\d", re.escape(stamp))
        head = stamps + re.escape(writer) + rb"\d{1,10}" + re.escape(message)
        self.heads = re.compile(b"(?:" + head + b"\n)+")
        self.events: dict[bytes, Event | None] = {}
        self.latest: dict[bytes, float] = {}
        self.logins: set[bytes] = set()


class _Times(dict[bytes, float]):
    """The UTC epoch seconds of stamps; infinite for what is no time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __missing__(self, stamp: bytes) -> float:
        time = self._clock.epoch(stamp)
        self[stamp] = inf if time is None else time
        return self[stamp]


class Scan:
    """Goes through a log's blocks: `events` of each in turn, and at the end `rest`.

    Of lines that say the same only the latest may be given. Lines stamped later than `until` (UTC
    epoch seconds) are given each. `logins` counts all of them.
    """

    def __init__(self, recogniser: Recogniser, until: float) -> None:
        """Look at nothing yet."""
        self._recogniser = recogniser
        self._until = until
        self._alike: dict[bytes, _Alike] = {}
        self._times = _Times(recogniser.clock)
        self.logins = 0

    def events(self, block: bytes) -> Iterator[Event]:
        """The events of a block of lines that can't wait; the others are in `rest`."""
        if not self._put_off(block):
            for event in self._recogniser.events(block):
                self.logins += event.event == "login"
                yield event
        elif sum(len(alike.latest) for alike in self._alike.values()) > _MOST:
            yield from self.rest()

    def rest(self) -> Iterator[Event]:
        """What was put off: each text once, at its latest time."""
        for alike in self._alike.values():
            for text, event in alike.events.items():
                if event is not None:
                    yield event._replace(time=alike.latest[text])
        self._alike.clear()

    def _put_off(self, block: bytes) -> bool:
        """Take note of a block's lines; False if they are to be looked at one by one."""
        if self._recogniser.has_cut(block):
            return False
        found = []
        for needle in self._recogniser.needles:
            parts = block.split(needle)
            if len(parts) > 1:
                found.append((needle, parts))
        if not found:
            return True
        ((needle, (first, *rest)), *others) = found
        if others or self._recogniser.order_matters(needle):
            return False
        ends = [part.find(b"\n") for part in rest]
        if -1 in ends:  # one line has two, or no end
            return False
        heads = [part[part.rfind(b"\n") + 1 :] for part in [first, *rest[:-1]]]
        alike = self._like(heads[0])
        if alike is None or not alike.heads.fullmatch(b"\n".join(heads) + b"\n"):
            return False
        texts = [part[:end] for part, end in zip(rest, ends, strict=True)]
        if len(self._times) > _MOST:
            self._times.clear()
        times = [self._times[head[: alike.stamp]] for head in heads]
        if max(times) > self._until or not self._know(
            alike, needle, dict(zip(texts, heads, strict=True))
        ):
            return False
        latest = alike.latest
        for text, time in zip(texts, times, strict=True):
            if time > latest[text]:
                latest[text] = time
        self.logins += sum(map(alike.logins.__contains__, texts))
        return True

    def _like(self, head: bytes) -> _Alike | None:
        """The lines like one with this head; None if it is of no such form."""
        found = _HEAD.fullmatch(head)
        if found is None:
            return None
        stamp, writer, message = found.groups()
        key = b"\n".join([re.sub(rb"\d", b"0", stamp), writer, message])
        if key not in self._alike:
            self._alike[key] = _Alike(stamp, writer, message)
        return self._alike[key]

    def _know(self, alike: _Alike, needle: bytes, heads: dict[bytes, bytes]) -> bool:
        """Have the texts recognised that are new, {text: head}; False if one is too long."""
        for text in set(heads).difference(alike.latest):
            line = heads[text] + needle + text + b"\n"
            if len(line) > LONGEST - 10:  # or would be, with another process id
                return False
            event = self._recogniser.recognise(line)
            if event is not None and event.time != self._times[line[: alike.stamp]]:
                return False
            alike.events[text], alike.latest[text] = event, -inf
            if event is not None and event.event == "login":
                alike.logins.add(text)
        return True
