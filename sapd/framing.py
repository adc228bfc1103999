"""Which frame a log has: one, found from what nearly all of its lines have. Pure.

A line's head is written by the logger, and no line has two frames (see `frames`). So a stranger
whose words stand in a syslog daemon's lines, however many, gives none of them another frame. But a
server's own file may hold lines that are wholly a stranger's, where the server writes a newline of
his: nginx does. So wherever lines of such a file are found, the file is taken for what they are, by
however few, and stays that; only a new file may be another. And where else more than one line in a
hundred has no known head, nothing is known of who writes it, and nothing there is evidence.

Among frames of syslog daemons a change of daemon is followed at once: when a block has no line of
the frame known, or at its end three lines or more of another.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from sapd import frames
from sapd.formats import Format
from sapd.frames import OWN

UNKNOWN = ""
"""Stands for the frame of a log that has none, or several."""

_SAMPLE = 64 * 1024  # bytes
_MOST_WITHOUT = 100  # one line in so many may have no known head
_CHANGED = 3  # lines of another frame at the end of a block
_WEAK = ("own-traditional", "own-rfc3339", "own-iso", "own-ctime", "own-precise")
"""A stamp such as syslog daemons write, and then something else: some of their notes are so."""


class Framing:
    """Divides a log's blocks where its frame changes.

    `name` is the frame found last, `UNKNOWN` before there is any.
    """

    def __init__(
        self, formats: Sequence[Format], known: str | None, fixed: str | None = None
    ) -> None:
        """`known` is what was found before, `fixed` what the log's setting says."""
        self._own_heads = [head for format in formats for head in format.own_file]
        self._fixed = fixed
        self.name = fixed or known or UNKNOWN

    def parts(
        self, block: bytes, lead: bytes = b"", *, at_head: bool = False
    ) -> Iterator[tuple[str, bytes]]:
        """The block's parts, each with the frame that it has.

        `lead` are lines that stand before it; it is `at_head` at the beginning of a file.
        """
        if self._fixed is None and not self._fits_at_start(block):
            self.name = self._first(lead[-_SAMPLE:], block)
        if self._fixed is not None or not self.name or self._fits_at_end(block):
            yield self.name, block
            return
        start, found = self._tail(block)
        if self._may_change(found, whole=start == 0, at_head=at_head):
            if start:
                yield self.name, block[:start]
            self.name = next(iter(found))
            yield self.name, block[start:]
        else:
            yield self.name, block

    def of(self, line: bytes) -> str | None:
        """The frame that a line has; None if none is known."""
        name = frames.name_of(line)
        if name is None and any(head.match(line) for head in self._own_heads):
            return OWN
        return name

    def _first(self, lead: bytes, block: bytes) -> str:
        """The frame of a log of which nothing is known yet but these lines."""
        sample = lead[lead.find(b"\n") + 1 :] + block[:_SAMPLE]
        whole = (line.lstrip(b"\0") for line in frames.lines_of(sample))
        lines = [line for line in whole if not frames.is_note(line)]
        if len(block) > _SAMPLE:
            del lines[-1:]  # half a line
        found = Counter(self.of(line) for line in lines)
        without = found.pop(None, 0) - bool(lines and self.of(lines[0]) is None)
        own = {name: n for name, n in found.items() if name and name.startswith(OWN)}
        strong = {name: n for name, n in own.items() if name not in _WEAK}
        syslog = {name: n for name, n in found.items() if name not in own}
        chosen = strong or syslog or own
        if not chosen or (not strong and without * _MOST_WITHOUT > len(lines)):
            return UNKNOWN
        return str(max(chosen, key=lambda name: chosen[name]))

    def _fits_at_start(self, block: bytes) -> bool:
        """Whether a frame is known; one that is weak also has to fit the block's first line."""
        if self.name not in _WEAK:
            return bool(self.name)
        line = block[: block.find(b"\n") + 1].removesuffix(b"\n").lstrip(b"\0")
        return frames.split(line, self.name) is not None

    def _fits_at_end(self, block: bytes) -> bool:
        """Whether the block's last line, the quickest to find, has the frame."""
        line = block[block.rfind(b"\n", 0, -1) + 1 :].removesuffix(b"\n")
        return frames.split(line.lstrip(b"\0"), self.name) is not None

    def _tail(self, block: bytes) -> tuple[int, Counter[str]]:
        """Where what stands behind the last line of the frame begins, and the frames in it."""
        found: Counter[str] = Counter()
        end = len(block)
        while end > 0:
            start = block.rfind(b"\n", 0, end - 1) + 1
            line = block[start:end].removesuffix(b"\n").lstrip(b"\0")
            if not frames.is_note(line):
                if frames.split(line, self.name) is not None:
                    break
                if (name := self.of(line)) is not None and name not in _WEAK:
                    found[name] += 1
                if len(found) > 1:
                    break
            end = start
        return end, found

    def _may_change(self, found: Counter[str], *, whole: bool, at_head: bool) -> bool:
        """Whether the log goes on with the frame of these lines, of which it has none else."""
        if len(found) != 1:
            return False
        if self.name.startswith(OWN) and self.name not in _WEAK:
            return whole and at_head
        return whole or found.total() >= _CHANGED
