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
from typing import NamedTuple

from sapd.events import frames
from sapd.events.recogniser import Event, Recogniser
from sapd.timestamps import Clock

_MOST = 20_000  # texts, and stamps, to remember


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


class _Head(NamedTuple):
    """A line up to a needle: what stands around its stamp and its process id, which may be none."""

    before: bytes
    stamp: bytes
    between: bytes
    has_pid: bool
    behind: bytes

    def but_digits(self) -> _Head:
        """What the heads of one shape have in common."""
        return self._replace(stamp=re.sub(rb"\d", b"0", self.stamp))


def _head(line: bytes, length: int, name: str) -> _Head | None:
    """The parts of a line's first `length` bytes; None if its frame does not end in them."""
    found = frames.head(line, name)
    if found is None or found.end() > length:
        return None
    line = line[:length]
    start, end = found.span("stamp")
    first, last = found.span("pid") if "pid" in found.groupdict() else (-1, -1)
    if not line[first:last].isdigit():
        return _Head(line[:start], line[start:end], line[end:], False, b"")
    return _Head(line[:start], line[start:end], line[end:first], True, line[last:])


class _Shape:
    """Lines whose heads differ only in the digits of the stamp and in the process id.

    `stamp` is where a head's stamp stands, `longest` the length of the longest head; a line of
    `too_long` bytes or more may have been cut. `last`
    has for each text behind the needle the head with the latest time; `latest` is the latest time
    of all (UTC epoch seconds).
    """

    def __init__(self, head: _Head, needle: bytes, too_long: int) -> None:
        self.too_long = too_long
        self.stamp = slice(len(head.before), len(head.before + head.stamp))
        self.needle = needle
        self.longest = len(head.before + head.stamp + head.between + head.behind) + 10
        stamps = re.sub(rb"\d", rb"\\d", re.escape(head.stamp))
        process = rb"\d{1,10}" if head.has_pid else b""
        parts = re.escape(head.before), stamps, re.escape(head.between), process
        self.heads = re.compile(b"(?:" + b"".join(parts) + re.escape(head.behind) + b"\n)+")
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
        self._shapes: dict[tuple[_Head, bytes], _Shape] = {}
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
        shape = self._shape(heads[0] + needle + texts[0], len(heads[0]), needle)
        if shape is None or not shape.heads.fullmatch(b"\n".join(heads) + b"\n"):
            return False
        if shape.longest + len(needle) + max(map(len, texts)) >= shape.too_long:
            return False
        return self._note(shape, heads, texts)

    def _shape(self, line: bytes, length: int, needle: bytes) -> _Shape | None:
        """The shape of lines whose heads are like this line's first bytes; None if there is none.

        The needle stands behind these.
        """
        name = frames.name_in(line, self._recogniser.context.frame)
        found = name and _head(line, length, name)
        if not name or not found:
            return None
        key = found.but_digits(), needle
        if key not in self._shapes:
            self._shapes[key] = _Shape(found, needle, frames.longest(name))
        return self._shapes[key]

    def _note(self, shape: _Shape, heads: list[bytes], texts: list[bytes]) -> bool:
        """Keep the latest head of each text; False if a stamp lies behind `until`."""
        stamps = [head[shape.stamp] for head in heads]
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
                if self._times[stamp] > self._times[before[shape.stamp]]:
                    shape.last[text] = head
        shape.latest = max(shape.latest, *times)
        return True
