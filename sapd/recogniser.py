"""A log line turned into a login, a logout, a connect, or nothing. Pure.

A line is evidence only if the POP server wrote every byte of it that matters (compare
CVE-2001-1075): what stands before the message must name the program, and a format's pattern must
fit the whole message, so that no text which a stranger can choose, in a sender's address or an
account that does not exist, is taken for a login.

This module knows how a line is framed: by syslog (RFC 3164's traditional form with either stamp,
or RFC 5424 section 6), or as a format says for the server's own file. Two wrappers around the
message are syslog daemons' own: Solaris' `[ID 210418 mail.info] `, and rsyslogd's `message
repeated 3 times: [ ...]` ($RepeatedMsgReduction).

A full disk or a power cut leaves half a line, to which a syslog daemon appends the next message. So
a line is no evidence if it holds a control byte or the head of another line, wherever it stands.

What a line means may depend on earlier ones, which the `Context` remembers from run to run.
"""

import re
from collections import deque
from collections.abc import Collection, Container, Iterator, Sequence
from functools import cache, cached_property
from itertools import pairwise
from typing import NamedTuple

from sapd import formats
from sapd.addresses import parse_address
from sapd.formats import EVENTS, LONGEST, Format, Line
from sapd.timestamps import STAMPS, Clock

DAY = 86400
"""Seconds after which a half-seen session is forgotten."""

WAIT = 1800
"""Seconds within which a login must follow its connect: servers drop silent clients."""

MINUTES = 10
"""Later minutes in which a writer must have logged before a cut message of its is forgotten."""

ANYONE = ""
"""The writer that stands for all, in `Context.cut`."""

_ORDER = 2.0  # seconds by which a login's stamp may lie before its connect's
_CONTEXT = ("connect", "cut")  # events that say something about later lines
_MOST_CONNECTS = 20_000  # of one log, waiting; strangers may leave as many as they like
_SD_ELEMENT = rb'\[[^\s=\]"]+(?: [^\s=\]"]+="(?:[^"\\\]]|\\.)*")*\]'
_HOST = rb"(?P<host>[^\s\[\]]*[^\s\[\]:])"  # no `popper[123]:`, where a line has no host
_PROGRAM = rb"(?P<program>[^\[\]:]{1,64}?)"
_FRAMES = (
    b"(?P<stamp>" + STAMPS["traditional"] + b"|" + STAMPS["rfc3339"] + b") " + _HOST + b" "
    + _PROGRAM + rb"(?:\[(?P<pid>\d+)\])?: (?P<message>.*)",
    rb"<\d{1,3}>1 (?P<stamp>" + STAMPS["rfc3339"] + b") " + _HOST + b" "
    + _PROGRAM + rb" (?P<pid>\d+|-) \S+ (?:-|(?:" + _SD_ELEMENT + rb")+) {1,2}"
    rb"(?:\xef\xbb\xbf)?(?P<message>.*)",
)  # fmt: skip
_STAMP = rb"(?:<\d{1,3}>1 )?(?:" + b"|".join(STAMPS.values()) + rb") "  # as at a line's head
_TIME = rb"\d:\d\d:\d|@[0-9a-f]{24} "  # a part of every stamp, found in a tenth of the time
_PART_OF_TIME = rb":\d\d:\d"  # found in a tenth of that: it begins with one certain byte
_OWN_HEAD = rb"[\w-]*:? ?"  # what servers write before a stamp in files of their own
_PROGRAM_HEAD = rb" [^\s\[\]:]+\[\d+\]: "
_CONTROL = bytes([*range(0x20), 0x7F])
_WRAPPERS = {  # by what they begin with
    b"[ID ": rb"\[ID \d+ [a-z0-9]+\.[a-z]+\] (?P<message>.*)",
    b"message repeated ": rb"message repeated \d+ times: \[ (?P<message>.*)\]",
}


@cache
def _compiled(pattern: bytes) -> re.Pattern[bytes]:
    """The pattern, compiled at its first use: that takes up to 1 ms, and most minutes need none."""
    return re.compile(pattern, re.DOTALL)


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
    """Why a line is no evidence although a format has a pattern for it, or might."""

    reason: str


_TOO_LONG = Rejection(f"it has {LONGEST} bytes or more, where a logger may have cut it")


class Frame(NamedTuple):
    """The parts of a line; host and program are empty in a server's own file, a missing pid "-"."""

    stamp: bytes
    host: bytes
    program: bytes
    pid: bytes
    message: bytes


class Doubt(NamedTuple):
    """How long the rest of a message that a writer's logger has cut may still come.

    It may stand in `left` more bytes of the writer's messages. courierlogger holds it back no
    longer than syslogd stands still: the doubt also ends when the writer has logged in `MINUTES`
    later minutes. `minutes` of them are over; `minute`, in the epoch, was the last.
    """

    left: int
    minutes: int = 0
    minute: int = 0

    def behind(self, length: int, minute: int) -> "Doubt | None":
        """What is left of it behind a message of `length` bytes in that minute; None if it ends."""
        left, minutes = self.left - length, self.minutes + (minute > self.minute)
        if left <= 0 or minutes >= MINUTES:
            return None
        return Doubt(left, minutes, max(minute, self.minute))


class Context:
    """What earlier lines of a log say about later ones.

    `connects` are half-seen sessions, {"host program[pid]": (address, UTC epoch seconds)}.
    `cut` has each writer whose logger has cut a message, {"host program": Doubt}; the writer
    `ANYONE` stands for all of them.
    """

    def __init__(
        self,
        connects: dict[str, tuple[str, float]] | None = None,
        cut: dict[str, Doubt] | None = None,
    ) -> None:
        """By default, nothing was said."""
        self.connects = connects or {}
        self.cut = cut or {}

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        """Compare what the two say."""
        return isinstance(other, Context) and vars(self) == vars(other)

    def expire(self, now: float) -> None:
        """Drop connects that are more than a day away from `now`, in either direction."""
        self.connects = {
            key: (address, time)
            for key, (address, time) in self.connects.items()
            if abs(now - time) <= DAY
        }


class Unusable:
    """Counts of lines that fit a pattern but are no evidence, by what is wrong with them.

    `cut`: it may be the rest of a message whose head a stranger wrote. `no_address`: a login
    without one. `torn`: it may be the work of two writers.
    """

    def __init__(self) -> None:
        """Count from zero."""
        self.address = self.stamp = self.cut = self.no_address = self.torn = 0


def syslog_frame(text: bytes) -> Frame | None:
    """Split a line as syslog daemons frame it; None if it has no such frame."""
    for frame in _FRAMES:
        if found := _compiled(frame).fullmatch(text):
            break
    else:
        return None
    message = found["message"]
    for beginning, wrapper in _WRAPPERS.items():
        if message.startswith(beginning) and (inner := _compiled(wrapper).fullmatch(message)):
            message = inner["message"]
    pid = found["pid"] or b"-"
    return Frame(found["stamp"], found["host"], found["program"], pid, message)


def _writes(format: Format, line: Frame) -> bool:
    """Whether a line's frame is that of one of the format's programs."""
    if format.programs.fullmatch(line.program) is None:
        return False
    return format.pid == "maybe" or (format.pid == "always") == (line.pid != b"-")


class Recogniser:
    """Recognises the lines of the given formats; if two fit a line, the first wins.

    `unusable` counts the lines that are no evidence; `just_cut` are the writers whose message was
    cut in the line looked at last.
    """

    def __init__(
        self,
        names: Sequence[str],
        clock: Clock,
        directory: str | None = None,
        context: Context | None = None,
        wanted: Container[str] = EVENTS,
        programs: Sequence[str] = (),
    ) -> None:
        """Load nothing yet; names, directory and programs are those of `formats.chosen`.

        `events` looks only for the kinds of event in `wanted`, and for those they depend on.
        """
        self._names = names
        self.clock = clock
        self._directory = directory
        self._programs = programs
        self._wanted = wanted
        self.context = context if context is not None else Context()
        self.unusable = Unusable()
        self.just_cut: set[str] = set()

    @cached_property
    def formats(self) -> list[Format]:
        """The formats, loaded at the first line: most minutes have none."""
        return formats.chosen(self._names, self._directory, self._programs)

    @cached_property
    def _kinds(self) -> list[tuple[Format, Line]]:
        return [(format, kind) for format in self.formats for kind in format.lines]

    @cached_property
    def _by_needle(self) -> dict[bytes, list[int]]:
        """Each needle's places in `_kinds`."""
        found: dict[bytes, list[int]] = {}
        for place, (_, kind) in enumerate(self._kinds):
            for needle in kind.needles:
                found.setdefault(needle, []).append(place)
        return found

    @cached_property
    def _needles(self) -> dict[bytes, bool]:
        """The needles to look for, and whether the order of the lines with it matters."""
        found: dict[bytes, bool] = {}
        in_turn = ("cut", "logout") if "logout" in self._wanted else ("cut",)
        for needle, places in self._by_needle.items():
            kinds = [self._kinds[place] for place in places]
            if any(kind.event in self._wanted or kind.event in _CONTEXT for _, kind in kinds):
                found[needle] = any(of.joins or kind.event in in_turn for of, kind in kinds)
        return {
            needle: any(found[longer] for longer in found if needle in longer)
            for needle in found
            if not any(other in needle for other in found if other != needle)
        }

    @cached_property
    def _cutting(self) -> list[tuple[Format, int, list[Line]]]:
        """The formats whose logger cuts, from how many bytes on, and the lines that are cut."""
        return [
            (format, format.cut_at, [kind for kind in format.lines if kind.event == "cut"])
            for format in self.formats
            if format.cut_at is not None
        ]

    def _places(self, text: bytes) -> list[int]:
        """The places in `_kinds` of the needles that a text holds, in order."""
        found: set[int] = set()
        for needle, places in self._by_needle.items():
            if needle in text:
                found.update(places)
        return sorted(found)

    def recognise(self, line: bytes) -> Event | Rejection | None:
        """What one line says; None if no format knows it.

        The newline is part of the line, and missing only at the end of a rotated log. Such a line
        may be half of one and is rejected: what looks like the address may be a stranger's words,
        which only the other half would show. Leading zeros are skipped: a power cut leaves them,
        and so does copytruncate where the writer does not append. Raises `SapdError` 78 if a
        format can't be loaded.
        """
        whole, text = line.endswith(b"\n"), line.removesuffix(b"\n").lstrip(b"\0")
        places = self._places(text)
        if not places and not self._cutting:
            return None
        syslog = syslog_frame(text)
        alone = syslog is not None and not _holds_time(
            text, text.find(syslog.stamp) + len(syslog.stamp)
        )
        doubted = self._note_cut(text, syslog, alone)
        if not whole:
            return Rejection("its end is missing")
        if len(text) >= LONGEST:
            return _TOO_LONG
        return self._evidence(places, text, syslog, alone, doubted)

    def recognise_frame(self, frame: Frame) -> Event | Rejection | None:
        """The same for a message that came with its frame, from a journal, and not as a line."""
        doubted = self._note_cut(b"", frame, alone=True)
        text = frame.message
        if len(text) >= LONGEST:
            return _TOO_LONG
        return self._evidence(self._places(text), b"", frame, False, doubted)

    def _evidence(
        self,
        places: Sequence[int],
        line: bytes,
        syslog: Frame | None,
        alone: bool,
        doubted: Collection[str],
    ) -> Event | Rejection | None:
        """What a line says, or a frame without one, going by the kinds at these places.

        It is `alone` if no stamp can stand in it behind that of `syslog`.
        """
        rejected = None
        for place in places:
            format, kind = self._kinds[place]
            for frame in frames_of(format, line, syslog):
                if kind.own_file and frame is syslog:
                    continue
                found = kind.pattern.fullmatch(frame.message)
                if found is None:
                    continue
                if kind.event == "cut":
                    rejected = Rejection("it was cut, so what follows may be a stranger's words")
                elif reason := _torn(line, frame, alone and frame is syslog):
                    self.unusable.torn += 1
                    return Rejection(reason)
                elif kind.event == "rejected":
                    rejected = rejected or Rejection(kind.reason)
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
        if doubted and _writer(frame) in doubted:
            self.unusable.cut += 1
            return Rejection("it may be the rest of a message whose head a stranger wrote")
        time = self.clock.epoch(frame.stamp)
        if time is None:
            self.unusable.stamp += 1
            return Rejection(f'"{_text(frame.stamp)}" is no time')
        address = None if named is None else parse_address(named)
        if named is not None and address is None:
            self.unusable.address += 1
            return Rejection(f'"{_text(named)}" is no address')
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
        key = f"{_writer(frame)}[{_text(frame.pid)}]"
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

    def _note_cut(self, text: bytes, syslog: Frame | None, alone: bool) -> set[str]:
        """The writers whose cut message this line may continue; note what it leaves open."""
        self.just_cut = set()
        doubted: set[str] = set()
        if not self._cutting:
            return doubted
        pieces = [text] if alone else _pieces(text)
        for number, piece in enumerate(pieces, start=1):
            frame_of_piece = syslog if piece == text else syslog_frame(piece)
            torn = number < len(pieces)
            for format, cut_at, heads in self._cutting:
                for frame in frames_of(format, piece, frame_of_piece):
                    cut = len(frame.message) >= cut_at or _is_head(heads, frame.message, torn)
                    if cut or self.context.cut:
                        doubted |= self._note_message(frame, format.cut_behind if cut else 0)
        return doubted

    def _note_message(self, frame: Frame, cut_behind: int) -> set[str]:
        """Note one message, behind which `cut_behind` bytes may hold its rest; who is doubted."""
        writer, doubts = _writer(frame), self.context.cut
        known = {name: doubts.pop(name) for name in (writer, ANYONE) if name in doubts}
        if not known and not cut_behind:
            return set()
        minute = int((self.clock.epoch(frame.stamp) or 0) // 60)
        for name, doubt in known.items():
            if (left := doubt.behind(len(frame.message), minute)) is not None:
                doubts[name] = left
        if cut_behind:
            doubts[writer] = Doubt(cut_behind, 0, minute)
            self.just_cut.add(writer)
        return {writer}

    def begin(self, block: bytes) -> None:
        """Look at the beginning of a file: where half a line stands, the other half is unknown.

        Zeros are no half line; see `recognise`.
        """
        text = block[: block.find(b"\n") + 1].removesuffix(b"\n").lstrip(b"\0")
        if not text or self.clock.of_line(text) is not None or syslog_frame(text) is not None:
            return
        if any(head.match(text) for format in self.formats for head in format.own_file):
            return
        if self._cutting:
            longest = max(format.cut_behind for format, *_ in self._cutting)
            self.context.cut[ANYONE] = Doubt(longest)

    def learn(self, block: bytes) -> None:
        """Take note of what a block's lines say about later ones, and of nothing else."""
        counted, self.unusable = self.unusable, Unusable()
        for _ in self.events(block):
            pass
        self.unusable = counted

    @property
    def cuts(self) -> bool:
        """Whether any of the formats' loggers cuts messages."""
        return bool(self._cutting)

    @property
    def needles(self) -> Collection[bytes]:
        """The texts that lines are found by: every line of interest holds one of them."""
        return self._needles.keys()

    def order_matters(self, needle: bytes) -> bool:
        """Whether lines with this needle affect what later ones mean."""
        return self._needles[needle]

    def has_cut(self, block: bytes) -> bool:
        """Whether a message may have been cut in or before a block."""
        return bool(self._cutting) and (
            bool(self.context.cut) or _has_long(block, min(cut for _, cut, _ in self._cutting))
        )

    def events(self, block: bytes) -> Iterator[Event]:
        """The events of a block of whole lines, in the order of its lines.

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
            if self.context.cut and not every:
                every, starts = True, _line_starts(block, end)

    def _found(self, block: bytes) -> deque[int]:
        """Where the lines begin that hold a needle."""
        starts = set()
        for needle in self._needles:
            at = block.find(needle)
            while at >= 0:
                starts.add(block.rfind(b"\n", 0, at) + 1)
                end = block.find(b"\n", at)
                at = block.find(needle, end) if end >= 0 else -1
        return deque(sorted(starts))


def frames_of(format: Format, text: bytes, syslog: Frame | None) -> Iterator[Frame]:
    """The frames in which the format's programs may have written a line.

    `syslog` is what `syslog_frame` says of the line.
    """
    if syslog is not None and _writes(format, syslog):
        yield syslog
    for head in format.own_file:
        if found := head.match(text):
            groups = found.groupdict(b"")
            yield Frame(groups["stamp"], b"", groups.get("program", b""), b"-", text[found.end() :])


def _line_starts(block: bytes, start: int) -> deque[int]:
    """Where the block's lines begin, from the one at `start` on."""
    ends = (found.end() for found in _compiled(rb"\n").finditer(block, start))
    return deque(at for at in (start, *ends) if at < len(block))


def _holds_time(text: bytes, start: int = 0) -> bool:
    """Whether a stamp may stand in a text, from `start` on."""
    if _compiled(_PART_OF_TIME).search(text, start) is None and b"@" not in text:
        return False
    return _compiled(_TIME).search(text, start) is not None


def _pieces(text: bytes) -> list[bytes]:
    """A line, divided where the heads of other lines stand in it."""
    heads = [found.start() for found in _compiled(_STAMP).finditer(text)]
    if heads and _compiled(_OWN_HEAD).fullmatch(text[: heads[0]]):
        heads[0] = 0  # the line's own
    ends = [*dict.fromkeys([0, *heads]), len(text)]
    return [text[start:end] for start, end in pairwise(ends)]


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
        and any(found.start() != own for found in _compiled(_STAMP).finditer(behind))
    )
    if stamped or (b"]: " in message and _compiled(_PROGRAM_HEAD).search(message)):
        return "it holds the head of another line, as after a full disk"
    return ""


def _is_head(heads: Sequence[Line], message: bytes, torn: bool) -> bool:
    """Whether a message is one of these kinds of cut message, or has lost what would tell."""
    for kind in heads:
        for needle in kind.needles:
            if needle in message and (torn or kind.pattern.fullmatch(message) is not None):
                return True
    return False


def _writer(frame: Frame) -> str:
    return f"{_text(frame.host)} {_text(frame.program)}"


def _has_long(block: bytes, length: int) -> bool:
    """Whether one of a block's lines has `length` bytes or more.

    From line to line in steps of almost that length: a third of the time that splitting takes.
    """
    start = 0
    while len(block) - start >= length:
        start = block.rfind(b"\n", start, start + length) + 1
        if start == 0:
            return True
    return False


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
