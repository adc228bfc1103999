"""The events of a log's blocks, each text looked at once.

Most lines hold no needle of any format and are passed over. Of the others most are logins seen
before: two lines that differ in nothing but stamp and process id say the same, at another time. So
the recogniser sees the latest of them alone. Where 30 % of the lines are logins this takes 1 µs a
login instead of 12.
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

    `stamp` and `longest` are lengths in bytes: of a head's stamp, and of a head at most. For each
    text behind the needle, `last` has the head with the latest time; `upto` is the latest time of
    all (UTC epoch seconds).
    """

    def __init__(self, stamp: bytes, writer: bytes, needle: bytes, message: bytes) -> None:
        self.stamp = len(stamp)
        self.needle = needle
        self.longest = len(stamp + writer + message) + 10
        stamps = re.sub(rb"\d", rb"\\d", re.escape(stamp))
        head = stamps + re.escape(writer) + rb"\d{1,10}" + re.escape(message)
        self.heads = re.compile(b"(?:" + head + b"\n)+")
        self.last: dict[bytes, bytes] = {}
        self.upto = -inf


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
    epoch seconds) are given each.
    """

    def __init__(self, recogniser: Recogniser, until: float) -> None:
        """Look at nothing yet."""
        self._recogniser = recogniser
        self._until = until
        self._alike: dict[bytes, _Alike] = {}
        self._times = _Times(recogniser.clock)

    def events(self, block: bytes) -> Iterator[Event]:
        """The events of a block of lines that can't wait; the others are in `rest`."""
        if not self._put_off(block):
            yield from self.rest()  # what was put off is not to be seen in the light of this block
            yield from self._recogniser.events(block)
        elif sum(len(alike.last) for alike in self._alike.values()) > _MOST:
            yield from self.rest()

    def rest(self) -> Iterator[Event]:
        """What was put off: each text once, at its latest time."""
        for alike in self._alike.values():
            for text, head in alike.last.items():
                event = self._recogniser.recognise(head + alike.needle + text + b"\n")
                if event is not None:
                    yield event
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
        texts = [part[:end] for part, end in zip(rest, ends, strict=True)]
        alike = self._like(heads[0], needle)
        if alike is None or not alike.heads.fullmatch(b"\n".join(heads) + b"\n"):
            return False
        if alike.longest + len(needle) + max(map(len, texts)) >= LONGEST:
            return False
        return self._note(alike, heads, texts)

    def _like(self, head: bytes, needle: bytes) -> _Alike | None:
        """The lines like one with this head; None if it is of no such form."""
        found = _HEAD.fullmatch(head)
        if found is None:
            return None
        stamp, writer, message = found.groups()
        key = b"\n".join([re.sub(rb"\d", b"0", stamp), writer, needle, message])
        if key not in self._alike:
            self._alike[key] = _Alike(stamp, writer, needle, message)
        return self._alike[key]

    def _note(self, alike: _Alike, heads: list[bytes], texts: list[bytes]) -> bool:
        """Keep the latest head of each text; False if a stamp can't be put off."""
        stamps = [head[: alike.stamp] for head in heads]
        if len(self._times) > _MOST:
            self._times.clear()
        times = [self._times[stamp] for stamp in sorted(set(stamps))]
        if max(times) > self._until:
            return False
        if times[0] >= alike.upto and times == sorted(times) and stamps == sorted(stamps):
            alike.last.update(zip(texts, heads, strict=True))  # none is earlier than the one before
        else:
            for text, head, stamp in zip(texts, heads, stamps, strict=True):
                before = alike.last.setdefault(text, head)
                if self._times[stamp] > self._times[before[: alike.stamp]]:
                    alike.last[text] = head
        alike.upto = max(alike.upto, *times)
        return True
