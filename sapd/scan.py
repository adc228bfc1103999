"""The events of a log's blocks, each text looked at once.

Most lines hold no needle of any format and are skipped. Of the others most are logins seen before:
two lines that differ only in stamp and process id say the same, at another time. So the recogniser
sees only the latest of them. Where 30 % of the lines are logins, this takes 1 µs a login instead of
12.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from math import inf

from sapd.formats import LONGEST
from sapd.recogniser import Event, Recogniser
from sapd.timestamps import Clock

_MOST = 20_000  # texts, and stamps, to remember
_HEAD = re.compile(rb"(\S{3} [ \d]\d \S{8}|\S+)( \S+ [^\s\[\]:]+\[)\d+(\]: .*)")
"""Stamp; host and program; process id; the message up to the needle."""


def safe_start(recogniser: Recogniser, blocks: Iterable[bytes]) -> int:
    """The last place where a log may be made to begin: bytes from its beginning, a line's start.

    Whoever reads on from there believes no line that the recogniser doubts, who is to know nothing
    yet and sees the whole: `blocks` of whole lines, up to the last place to consider.
    """
    safe = offset = 0
    for block in blocks:
        if offset == 0:
            recogniser.begin(block)
        if recogniser.has_cut(block) or any(needle in block for needle in recogniser.needles):
            for found in re.finditer(rb"[^\n]*\n|[^\n]+", block):
                doubted = set(recogniser.context.cut)
                recogniser.recognise(found[0])
                if doubted <= recogniser.just_cut:
                    safe = offset
                offset += len(found[0])
        else:
            offset += len(block)
        if not recogniser.context.cut:
            safe = offset
    return safe


class _Shape:
    """Lines whose heads differ only in the digits of the stamp and in the process id.

    `stamp` and `longest` are lengths in bytes: of a head's stamp, and of the longest head. `last`
    has for each text behind the needle the head with the latest time; `latest` is the latest time
    of all (UTC epoch seconds).
    """

    def __init__(self, stamp: bytes, writer: bytes, needle: bytes, message: bytes) -> None:
        self.stamp = len(stamp)
        self.needle = needle
        self.longest = len(stamp + writer + message) + 10
        stamps = re.sub(rb"\d", rb"\\d", re.escape(stamp))
        head = stamps + re.escape(writer) + rb"\d{1,10}" + re.escape(message)
        self.heads = re.compile(b"(?:" + head + b"\n)+")
        self.last: dict[bytes, bytes] = {}
        self.latest = -inf


class _Times(dict[bytes, float]):
    """The UTC epoch seconds of stamps; infinity for what is no time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __missing__(self, stamp: bytes) -> float:
        time = self._clock.epoch(stamp)
        self[stamp] = inf if time is None else time
        return self[stamp]


class Deduplicator:
    """Goes through a log's blocks: call `events` for each in turn, and `flush` at the end.

    Of lines that differ only in stamp and process id, it may give only the latest. Lines stamped
    later than `until` (UTC epoch seconds) are all given.
    """

    def __init__(self, recogniser: Recogniser, until: float) -> None:
        """Look at nothing yet."""
        self._recogniser = recogniser
        self._until = until
        self._shapes: dict[bytes, _Shape] = {}
        self._times = _Times(recogniser.clock)

    def events(self, block: bytes) -> Iterator[Event]:
        """The events of a block of whole lines, except those that are deferred to `flush`."""
        if not self._defer(block):
            yield from self.flush()  # before this block can change what those lines mean
            yield from self._recogniser.events(block)
        elif sum(len(shape.last) for shape in self._shapes.values()) > _MOST:
            yield from self.flush()

    def flush(self) -> Iterator[Event]:
        """The deferred events: each text once, at its latest time."""
        for shape in self._shapes.values():
            for text, head in shape.last.items():
                found = self._recogniser.recognise(head + shape.needle + text + b"\n")
                if isinstance(found, Event):
                    yield found
        self._shapes.clear()

    def _defer(self, block: bytes) -> bool:
        """Remember a block's lines for `flush`; False if they must be looked at one by one."""
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
        if -1 in ends:  # a line holds the needle twice, or has no end
            return False
        heads = [part[part.rfind(b"\n") + 1 :] for part in [first, *rest[:-1]]]
        texts = [part[:end] for part, end in zip(rest, ends, strict=True)]
        shape = self._shape(heads[0], needle)
        if shape is None or not shape.heads.fullmatch(b"\n".join(heads) + b"\n"):
            return False
        if shape.longest + len(needle) + max(map(len, texts)) >= LONGEST:
            return False
        return self._note(shape, heads, texts)

    def _shape(self, head: bytes, needle: bytes) -> _Shape | None:
        """The shape of lines with this head; None if there is no such."""
        found = _HEAD.fullmatch(head)
        if found is None:
            return None
        stamp, writer, message = found.groups()
        key = b"\n".join([re.sub(rb"\d", b"0", stamp), writer, needle, message])
        if key not in self._shapes:
            self._shapes[key] = _Shape(stamp, writer, needle, message)
        return self._shapes[key]

    def _note(self, shape: _Shape, heads: list[bytes], texts: list[bytes]) -> bool:
        """Keep the latest head of each text; False if a stamp lies behind `until`."""
        stamps = [head[: shape.stamp] for head in heads]
        if len(self._times) > _MOST:
            self._times.clear()
        times = [self._times[stamp] for stamp in sorted(set(stamps))]
        if max(times) > self._until:
            return False
        if times[0] >= shape.latest and times == sorted(times) and stamps == sorted(stamps):
            shape.last.update(zip(texts, heads, strict=True))  # none is earlier than the one before
        else:
            for text, head, stamp in zip(texts, heads, stamps, strict=True):
                before = shape.last.setdefault(text, head)
                if self._times[stamp] > self._times[before[: shape.stamp]]:
                    shape.last[text] = head
        shape.latest = max(shape.latest, *times)
        return True
