"""Which lines may be the rest of a message whose head a stranger wrote, because a logger cut it.

A line that is torn, because a disk was full or a power cut took half of it, may hold the heads of
such messages anywhere.
"""

from collections.abc import Sequence
from itertools import pairwise

from sapd.events import frames
from sapd.events.context import ANYONE, Context, Doubt
from sapd.events.formats import Format, Line
from sapd.events.frames import Frame, compiled
from sapd.events.kinds import Kinds
from sapd.events.prefixes import BEFORE_STAMP
from sapd.timestamps import STAMPS, Clock

STAMP = rb"(?:<\d{1,3}>1 )?(?:" + b"|".join(STAMPS.values()) + rb") "
"""A stamp as at a line's head."""

_OWN_HEAD = rb"(?:[\w-]*:? ?|" + BEFORE_STAMP + b")"


class Doubts:
    """Notes in a `Context` what each line leaves open.

    `just_cut` are the writers whose message was cut in the line looked at last.
    """

    def __init__(self, kinds: Kinds, clock: Clock) -> None:
        """Note nothing yet."""
        self._kinds = kinds
        self._clock = clock
        self.just_cut: set[str] = set()

    def note(self, context: Context, text: bytes, frame: Frame | None, alone: bool) -> set[str]:
        """The writers whose cut message this line may continue; note what it leaves open."""
        self.just_cut = set()
        doubted: set[str] = set()
        if not self._kinds.cutting:
            return doubted
        pieces = [text] if alone else _pieces(text)
        for number, piece in enumerate(pieces, start=1):
            frame_of_piece = frame if piece == text else frames.split(piece)
            torn = number < len(pieces)
            for format, cut_at, heads in self._kinds.cutting:
                for written in frames_of(format, piece, frame_of_piece):
                    cut = len(written.message) >= cut_at or _is_head(heads, written.message, torn)
                    if cut or context.cut:
                        behind = format.cut_behind if cut else 0
                        doubted |= self._note_message(context, written, behind)
        return doubted

    def _note_message(self, context: Context, frame: Frame, cut_behind: int) -> set[str]:
        """Note one message, behind which `cut_behind` bytes may hold its rest; who is doubted."""
        who, doubts = writer(frame), context.cut
        known = {name: doubts.pop(name) for name in (who, ANYONE) if name in doubts}
        if not known and not cut_behind:
            return set()
        minute = int((self._clock.epoch(frame.stamp) or 0) // 60)
        for name, doubt in known.items():
            if (left := doubt.behind(len(frame.message), minute)) is not None:
                doubts[name] = left
        if cut_behind:
            doubts[who] = Doubt(cut_behind, 0, minute)
            self.just_cut.add(who)
        return {who}

    def begin(self, context: Context, block: bytes) -> None:
        """Look at the beginning of a file: where half a line stands, the other half is unknown."""
        text = block[: block.find(b"\n") + 1].removesuffix(b"\n").lstrip(b"\0")
        if not text or self._clock.of_line(text) is not None or frames.name_of(text) is not None:
            return
        if any(head.match(text) for format in self._kinds.formats for head in format.own_file):
            return
        if self._kinds.cutting:
            longest = max(format.cut_behind for format, *_ in self._kinds.cutting)
            context.cut[ANYONE] = Doubt(longest)

    def has_cut(self, context: Context, block: bytes) -> bool:
        """Whether a message may have been cut in or before a block."""
        cutting = self._kinds.cutting
        return bool(cutting) and (
            bool(context.cut) or _has_long(block, min(cut.at for cut in cutting))
        )


def writes(format: Format, frame: Frame) -> bool:
    """Whether a line's frame is that of one of the format's programs.

    Where a frame has no place for the process number, those whose lines it joins are missing.
    """
    if format.programs.fullmatch(frame.program) is None:
        return False
    if not frame.pid:
        return not format.joins
    return format.pid == "maybe" or (format.pid == "always") == (frame.pid != b"-")


def frames_of(format: Format, text: bytes, frame: Frame | None) -> list[Frame]:
    """The frames in which the format's programs may have written a line.

    `frame` is what `frames.split` says of the line.
    """
    found = [frame] if frame is not None and writes(format, frame) else []
    for head in format.own_file:
        if match := head.match(text):
            groups, rest = match.groupdict(b""), text[match.end() :]
            found.append(Frame(groups["stamp"], b"", groups.get("program", b""), b"-", rest))
    return found


def writer(frame: Frame) -> str:
    """Who wrote a line: "host program"."""
    return b" ".join((frame.host, frame.program)).decode("utf-8", "surrogateescape")


def _pieces(text: bytes) -> list[bytes]:
    """A line, divided where the heads of other lines stand in it."""
    heads = [found.start() for found in compiled(STAMP).finditer(text)]
    if heads and compiled(_OWN_HEAD).fullmatch(text[: heads[0]]):
        heads[0] = 0  # the line's own
    ends = [*dict.fromkeys([0, *heads]), len(text)]
    return [text[start:end] for start, end in pairwise(ends)]


def _is_head(heads: Sequence[Line], message: bytes, torn: bool) -> bool:
    """Whether a message is one of these kinds of cut message, or has lost what would tell."""
    for kind in heads:
        for needle in kind.needles:
            if needle in message and (torn or kind.pattern.fullmatch(message) is not None):
                return True
    return False


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
