"""A log line turned into a login, a logout, a connect, or nothing. Pure.

A line is evidence only if the POP server wrote every byte of it that matters (compare
CVE-2001-1075): what stands before the message must name the program, and a format's pattern must
fit the whole message, so that no text which a stranger can choose, in a sender's address or an
account that does not exist, is taken for a login.

A log is a syslog daemon's or a server's own (see `framing`): in the one only lines with a syslog
frame count, in the other only those with the server's own head. So no text of a client's can bring
a frame of its own.

A full disk or a power cut leaves half a line, to which a syslog daemon appends the next message. So
a line is no evidence if it holds a control byte or the head of another line, wherever it stands.

What a line means may depend on earlier ones, which the `Context` remembers from run to run.
"""

import re
from collections import deque
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from typing import NamedTuple

from sapd.addresses import parse_address
from sapd.events import frames
from sapd.events.context import Context
from sapd.events.doubts import STAMP, Doubts, frames_of, writer
from sapd.events.formats import EVENTS, Format, Line
from sapd.events.frames import LONGEST, Frame, compiled
from sapd.events.kinds import Kinds
from sapd.timestamps import Clock

WAIT = 1800
"""Seconds within which a login must follow its connect: servers drop silent clients."""

_ORDER = 2.0  # seconds by which a login's stamp may lie before its connect's
_MOST_CONNECTS = 20_000  # of one log, waiting; strangers may leave as many as they like
_TIME = rb"\d:\d\d:\d|@[0-9a-f]{24} "  # a part of every stamp, found in a tenth of the time
_PART_OF_TIME = rb":\d\d:\d"  # found in a tenth of that: it begins with one certain byte
_PROGRAM_HEAD = rb" [^\s\[\]:]+\[\d+\]: "
_CONTROL = bytes([*range(0x20), 0x7F])


class Event(NamedTuple):
    """What a line says; `time` is UTC epoch seconds, `address` as `ipaddress` writes it.

    `address` is None if neither the line nor an earlier one of the same process names it; such a
    login opens nothing.
    """

    event: str
    format: str
    address: str | None
    account: str
    time: float


class Rejection(NamedTuple):
    """Why a line is no evidence although a format has a pattern for it, or might.

    If it is a login in words of the server's that are not known, `of` is the format.
    """

    reason: str
    of: str = ""


_TOO_LONG = Rejection(f"it has {LONGEST} bytes or more, where a logger may have cut it")
_CUT_BY_SYSLOGD = Rejection("it is as long as those that busybox syslogd cuts, at 256 bytes or so")


class Unusable:
    """Counts of lines that fit a pattern but are no evidence, by what is wrong with them.

    `cut`: it may be the rest of a message whose head a stranger wrote. `no_address`: a login
    without one. `torn`: it may be the work of two writers. `unframed`: it holds a needle, but its
    frame does not count in this log.
    """

    def __init__(self) -> None:
        """Count from zero."""
        self.address = self.stamp = self.cut = self.no_address = self.torn = self.unframed = 0


class Recogniser:
    """Recognises the lines of the given formats; if two fit a line, the first wins.

    `unusable` counts the lines that are no evidence, `framed` those that hold a needle and have a
    frame that counts.
    """

    def __init__(
        self,
        names: Sequence[str],
        clock: Clock,
        directory: str | None = None,
        context: Context | None = None,
        wanted: Container[str] = EVENTS,
        programs: Sequence[str] = (),
        only: str | None = None,
    ) -> None:
        """Load nothing yet; names, directory and programs are those of `formats.chosen`.

        `events` looks only for the kinds of event in `wanted`, and for those they depend on. `only`
        names a frame that the log's setting demands of every line.
        """
        self._only = only
        self.framed = 0
        self.clock = clock
        self.context = context if context is not None else Context()
        self.unusable = Unusable()
        self._kinds = Kinds(names, directory, programs, wanted)
        self._doubts = Doubts(self._kinds, clock)

    @property
    def formats(self) -> list[Format]:
        """The formats, loaded at the first line: most minutes have none."""
        return self._kinds.formats

    @property
    def just_cut(self) -> set[str]:
        """The writers whose message was cut in the line looked at last."""
        return self._doubts.just_cut

    def recognise(self, line: bytes) -> Event | Rejection | None:
        """What one line says; None if no format knows it, or if it has not the log's frame.

        The newline is part of the line, and missing only at the end of a rotated log. Such a line
        may be half of one and is rejected: what looks like the address may be a stranger's words,
        which only the other half would show. Leading zeros are skipped: a power cut leaves them,
        and so does copytruncate where the writer does not append. Raises `SapdError` 78 if a
        format can't be loaded.
        """
        whole, text = line.endswith(b"\n"), line.removesuffix(b"\n").lstrip(b"\0")
        kinds = self._kinds.at(text)
        if not kinds and not self._kinds.cutting:
            return None
        name = self.context.frame
        frame = frames.split(text, name)
        of_this_log = frame is not None or name is None
        if frame is not None and not self._counts(frame):
            of_this_log = False
        if kinds and of_this_log:
            self.framed += 1
        elif kinds and b"\0" not in text and frames.name_of(text):  # else it may be half a line
            self.unusable.unframed += 1
        if frame is None and name is not None and self._kinds.cutting:
            frame = frames.split(text)  # a message that was cut leaves its rest all the same
        alone = frame is not None and not _holds_time(
            text, text.find(frame.stamp) + len(frame.stamp)
        )
        doubted = self._doubts.note(self.context, text, frame, alone)
        if not of_this_log:
            return None
        if not whole:
            return Rejection("its end is missing")
        if len(text) >= LONGEST:
            return _TOO_LONG
        return self._evidence(kinds, text, frame, alone, doubted)

    def _counts(self, frame: Frame) -> bool:
        """Whether lines of this frame, and of this container, count in the log."""
        container, bar, _ = frame.host.partition(b"|")
        return self._only in (None, frame.name) and (
            not bar or _text(container + bar) not in self.context.containers
        )

    def recognise_frame(self, frame: Frame) -> Event | Rejection | None:
        """The same for a message that came with its frame, from a journal, and not as a line."""
        doubted = self._doubts.note(self.context, b"", frame, alone=True)
        text = frame.message
        if len(text) >= LONGEST:
            return _TOO_LONG
        return self._evidence(self._kinds.at(text), b"", frame, False, doubted)

    def _evidence(
        self,
        kinds: Sequence[tuple[Format, Line]],
        line: bytes,
        whole: Frame | None,
        alone: bool,
        doubted: Collection[str],
    ) -> Event | Rejection | None:
        """What a line says, or a frame without one, going by these kinds.

        `whole` is what `frames.split` says of the line. It is `alone` if no stamp can stand in it
        behind its own.
        """
        rejected = None
        for format, kind in kinds:
            for frame in frames_of(format, line, whole):
                if kind.own_file and frame is whole:
                    continue
                found = kind.pattern.fullmatch(frame.message)
                if found is None:
                    continue
                if kind.event == "cut":
                    rejected = Rejection("it was cut, so what follows may be a stranger's words")
                elif reason := _torn(line, frame, alone and frame is whole):
                    self.unusable.torn += 1
                    return Rejection(reason)
                elif kind.event == "rejected":
                    of = format.name if kind.own_words and not doubted else ""
                    rejected = rejected or Rejection(kind.reason, of)
                elif frame is whole and frames.may_be_cut(line, frame):
                    rejected = rejected or _CUT_BY_SYSLOGD
                else:
                    return self._event(format, kind, frame, found, doubted)
        return rejected

    def _event(
        self,
        format: Format,
        kind: Line,
        frame: Frame,
        found: re.Match[bytes],
        doubted: Collection[str],
    ) -> Event | Rejection:
        groups = found.groupdict()
        named = groups.get("address")
        if doubted and writer(frame) in doubted:
            self.unusable.cut += 1
            return Rejection("it may be the rest of a message whose head a stranger wrote")
        time = self.clock.epoch(frame.stamp)
        if time is None:
            self.unusable.stamp += 1
            return Rejection(f'"{_text(frame.stamp)}" is not a time')
        address = None if named is None else parse_address(named)
        if named is not None and address is None:
            self.unusable.address += 1
            return Rejection(f'"{_text(named)}" is not an address')
        if format.joins:
            address = self._joined(kind, frame, address, time)
        if kind.event == "login" and address is None:
            self.unusable.no_address += 1
        account = _text(groups.get("account") or b"")
        if groups.get("domain"):
            account += f"@{_text(groups['domain'])}"
        return Event(kind.event, format.name, address, account, time)

    def _joined(self, kind: Line, frame: Frame, address: str | None, time: float) -> str | None:
        """The line's own address, or that of its connect, which serves one login."""
        key = f"{writer(frame)}[{_text(frame.pid)}]"
        waiting = self.context.connects
        if kind.event == "connect" and address is not None:
            waiting.pop(key, None)
            waiting[key] = (address, time)
            if len(waiting) > _MOST_CONNECTS:
                del waiting[next(iter(waiting))]  # the oldest
        elif kind.event == "login":
            connect = waiting.pop(key, None)
            if address is None and connect and -_ORDER <= time - connect[1] <= WAIT:
                return connect[0]
        return address

    def begin(self, block: bytes) -> None:
        """Look at the beginning of a file: where half a line stands, the other half is unknown.

        Zeros are no half line; see `recognise`.
        """
        self._doubts.begin(self.context, block)

    def learn(self, block: bytes) -> None:
        """Take note of what a block's lines say about later ones, and of nothing else."""
        counted = self.unusable, self.framed
        self.unusable = Unusable()
        for _ in self.events(block):
            pass
        self.unusable, self.framed = counted

    @property
    def cuts(self) -> bool:
        """Whether any of the formats' loggers cuts messages."""
        return bool(self._kinds.cutting)

    @property
    def needles(self) -> Collection[bytes]:
        """The texts that lines are found by: every line of interest holds one of them."""
        return self._kinds.needles.keys()

    def order_matters(self, needle: bytes) -> bool:
        """Whether lines with this needle affect what later ones mean."""
        return self._kinds.needles[needle]

    def has_cut(self, block: bytes) -> bool:
        """Whether a message may have been cut in or before a block."""
        return self._doubts.has_cut(self.context, block)

    def events(
        self, block: bytes, missed: Callable[[bytes, Rejection | None], None] | None = None
    ) -> Iterator[Event]:
        """The events of a block of whole lines, in the order of its lines.

        `missed` is told of each line that is none, though it was looked at.

        While a message may have been cut, every line is looked at. Otherwise the whole block is
        searched for the needles, and only lines that hold one are looked at: few do in a mail log
        shared with an MTA.
        """
        every = self.has_cut(block)
        starts = _line_starts(block, 0) if every else self._found(block)
        while starts:
            start = starts.popleft()
            end = block.find(b"\n", start) + 1 or len(block)
            found = self.recognise(block[start:end])
            if isinstance(found, Event):
                yield found
            elif missed is not None:
                missed(block[start:end], found)
            if self.context.cut and not every:
                every, starts = True, _line_starts(block, end)

    def _found(self, block: bytes) -> deque[int]:
        """Where the lines begin that hold a needle."""
        starts = set()
        for needle in self._kinds.needles:
            at = block.find(needle)
            while at >= 0:
                starts.add(block.rfind(b"\n", 0, at) + 1)
                end = block.find(b"\n", at)
                at = block.find(needle, end) if end >= 0 else -1
        return deque(sorted(starts))


def _line_starts(block: bytes, start: int) -> deque[int]:
    """Where the block's lines begin, from the one at `start` on."""
    ends = (found.end() for found in compiled(rb"\n").finditer(block, start))
    return deque(at for at in (start, *ends) if at < len(block))


def _holds_time(text: bytes, start: int = 0) -> bool:
    """Whether a stamp may stand in a text, from `start` on."""
    if compiled(_PART_OF_TIME).search(text, start) is None and b"@" not in text:
        return False
    return compiled(_TIME).search(text, start) is not None


def _torn(line: bytes, frame: Frame, alone: bool) -> str:
    """Why a line, or a frame without one, may be the work of two writers; nothing if it can't.

    No stamp can stand behind its own if it is `alone`.
    """
    text, message = line or frame.message, frame.message
    if len(text.translate(None, _CONTROL)) < len(text):
        return "it holds a control byte, as after a power cut"
    behind = line.partition(frame.stamp)[2] if line else message
    own = len(behind) - len(message)  # some messages begin with a stamp of the server's own
    stamped = (
        not alone
        and _holds_time(behind)
        and any(found.start() != own for found in compiled(STAMP).finditer(behind))
    )
    if stamped or (b"]: " in message and compiled(_PROGRAM_HEAD).search(message)):
        return "it holds the head of another line, as after a full disk"
    return ""


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
