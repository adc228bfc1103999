"""Whose lines a log holds: a syslog daemon's, or a server's own. Pure.

**A syslog daemon's file.** A client's words stand behind a head that the daemon wrote, and no line
has two frames (see `frames`). So every line is read in the syslog frame that it has: no text of a
client's brings another, and neither a second daemon, nor a change of daemon, nor stray lines lose
anything. Lines without such a head are nothing.

**A server's own file.** Where the server writes a client's newline as it is, whole lines are the
client's. So only lines with the server's own head count, whatever else stands there, and a file
that was found to be a server's stays that until a new file begins.

A file is a server's own if any of its first lines has an own head, of a format of the log's, by
however few; but a stamp such as syslog daemons write, which some of their notes begin with, tells
that only where there are fewer lines of syslog's. nginx lets newlines through, so a line of its is
looked for in every block, whatever the formats. Where two servers' heads stand, or where more than
one line in a hundred has no known head, nothing is known of who writes the file, and nothing there
is evidence. Indented lines go on with the one before and don't count for that; nothing that is left
out there has a server's own head.

In what docker compose writes, each container is a file of its own kind: one that has printed a line
without a head within a day may print a client's newlines, and is not believed.
"""

from collections import Counter
from collections.abc import Sequence

from sapd.events import frames
from sapd.events.formats import Format
from sapd.events.frames import OWN, compiled
from sapd.timestamps import STAMPS

UNKNOWN = ""
"""Stands for the frame of a log of which nobody knows who writes it."""

_SAMPLE = 64 * 1024  # bytes; no nginx writes a message of more than 2,048
_MOST_WITHOUT = 100  # one line in so many may have no known head
_NGINX = f"{OWN}-slashes"
_NGINX_HEAD = b"(?:^|\n)\0*" + STAMPS["slashes"] + rb" \[[a-z]+\] \d+#\d+: "
_LIKE_SYSLOG = ("own-traditional", "own-rfc3339", "own-iso", "own-ctime", "own-precise")


class Framing:
    """Finds the frame in which to read each of a log's blocks.

    `name` is the one found last, `UNKNOWN` before there is any. Of a syslog file it is that of some
    recent line: the others' count as well.
    """

    def __init__(
        self,
        formats: Sequence[Format],
        known: str | None,
        fixed: str | None = None,
        containers: dict[str, float] | None = None,
        now: float = 0,
    ) -> None:
        """`known` is what was found before, `fixed` what the log's setting says.

        To `containers` those are added that print lines of their own, with `now`.
        """
        self._own_heads = [head for format in formats for head in format.own_file]
        self._fixed = fixed
        self._containers: dict[str, float] = {} if containers is None else containers
        self._now = now
        self.name = fixed or known or UNKNOWN

    def of_block(self, block: bytes, lead: bytes = b"", *, at_head: bool = False) -> str:
        """The frame for a block of whole lines.

        `lead` are lines that stand before it; it is `at_head` at the beginning of a file.
        """
        if self._fixed is None:
            self.name = self._found(block, lead, at_head=at_head)
        for text in (lead, block):
            self._note_containers(text)
        return self.name

    def _note_containers(self, text: bytes) -> None:
        """Note whose container has printed a line without a head."""
        if b" | " not in text:
            return
        frame = self.name if frames.is_syslog(self.name) else None
        for line in text.split(b"\n"):
            container = frames.container_of(line)
            blank = line.endswith(b"| ")
            if container and not blank and not frames.is_syslog(frames.name_in(line, frame)):
                self._containers[container.decode()] = self._now

    def _found(self, block: bytes, lead: bytes, *, at_head: bool) -> str:
        if any(_has_nginx(text) for text in (lead, block)):
            return _NGINX
        if at_head or not self.name:
            return self._first(_last_lines(lead) + _first_lines(block)) or self.name
        if frames.is_syslog(self.name):
            last = block[block.rfind(b"\n", 0, -1) + 1 :].removesuffix(b"\n").lstrip(b"\0")
            return frames.name_in(last, self.name) or self.name
        return self.name

    def _first(self, sample: bytes) -> str:
        """The frame of a file of which nothing is known yet but these lines."""
        found: Counter[str | None] = Counter(
            self._of(line.lstrip(b"\0")) for line in sample.removesuffix(b"\n").split(b"\n")
        )
        without = found.pop(None, 0)
        found.pop(UNKNOWN, None)
        syslog = {name: n for name, n in found.items() if frames.is_syslog(name)}
        own = {name: n for name, n in found.items() if name not in syslog}
        if own and (own.keys() - {*_LIKE_SYSLOG} or sum(own.values()) >= sum(syslog.values())):
            return str(next(iter(own))) if len(own) == 1 else UNKNOWN
        if not syslog or without * _MOST_WITHOUT > without + sum(syslog.values()):
            return UNKNOWN
        return str(max(syslog, key=lambda name: syslog[name]))

    def _of(self, line: bytes) -> str | None:
        """The frame of a line; None if its head is no known one, `UNKNOWN` if it needs none."""
        name = frames.name_of(line)
        if frames.is_syslog(name):
            return UNKNOWN if frames.is_note(line) else name
        if any(head.match(line) for head in self._own_heads):
            return name or OWN
        if (
            frames.is_note(line)
            or frames.container_of(line)
            or line[:1].isspace()
            or name in _LIKE_SYSLOG
        ):
            return UNKNOWN
        return None


def _first_lines(text: bytes) -> bytes:
    return text if len(text) <= _SAMPLE else text[: text.rfind(b"\n", 0, _SAMPLE) + 1]


def _last_lines(text: bytes) -> bytes:
    return text if len(text) <= _SAMPLE else text[text.find(b"\n", -_SAMPLE) + 1 or len(text) :]


def _has_nginx(text: bytes) -> bool:
    """Whether a line of nginx's own file stands in a text."""
    return b"#" in text and compiled(_NGINX_HEAD).search(text) is not None
