"""How a line begins, in syslog files and what is like them: one grammar for every format. Pure.

A frame is what a logger writes around a message: stamp, host, program, process number, sometimes
facility and priority. Each has a name and a pattern for its head, up to where the message begins:

`traditional`           `STAMP host program[pid]: ` of rsyslog, syslog-ng, sysklogd, the BSDs; the
                        stamp is RFC 3164's or RFC 3339's, also in turn
`short-precise`, `iso`, `ctime`   the same with other stamps: with microseconds (journalctl -o
                        short-precise), `2026-11-22 10:41:05`, ctime(3)'s
`rfc5424`               RFC 5424 section 6
`busybox`               `STAMP host mail.info program[pid]: ` (sysklogd/syslogd.c)
`hostless`              `STAMP program[pid]: ` (busybox syslogd -S)
`aix`                   `STAMP host mail:info program[pid]: `
`freebsd`               `STAMP <mail.info> host program[pid]: ` (syslogd -v or -vv)
`logread`               `STAMP mail.info program[pid]: ` (OpenWrt's logread, whose stamp is ctime's)
`metalog`               `STAMP [program] `, which names no process
`level-first`           `<22>STAMP host program[pid]: `; `level-first-hostless` without the host
`docker-compose`        `name | ` before a traditional one; before others it is
                        `docker-compose-busybox` and so on

In most of them the stamp may have any of these shapes, and facility and priority any spelling that
`prefixes` knows. What no such head fits and begins with a stamp is a server's own file: `own-` and
the shape, or `own` where only a format knows the head.

No line has two frames: where one could be read in two ways the patterns say which it is. The host
never ends in a colon and has no brackets, so that `program[123]:` does not stand in its place.
"""

import re
from functools import cache
from typing import NamedTuple

from sapd.events.prefixes import COLON_LEVEL, CONTAINER, LEVEL, PLAIN_LEVEL, WORD
from sapd.timestamps import STAMPS

LONGEST = 1000
"""Bytes of a line. Loggers cut long messages, and a cut line may end where a stranger wants."""

OWN = "own"
"""The frame of a server's own file whose head only a format knows."""

_CONTAINER = b"(?P<container>" + CONTAINER + b")"
_SD_ELEMENT = rb'\[[^\s=\]"]+(?: [^\s=\]"]+="(?:[^"\\\]]|\\.)*")*\]'
_PID = rb"(?:\[(?P<pid>\d*)\])?: "
_PLAIN_HOST = rb"[^\s\[\]]*[^\s\[\]:]"
_HOST = b"(?P<host>" + _PLAIN_HOST + b") "
_PLAIN_PROGRAM = rb"[^\s\[\]:-][^\s\[\]:]{0,63}"
_PROGRAM = b"(?P<program>" + _PLAIN_PROGRAM + rb"(?: -\w+)?)" + _PID
_ANY_PROGRAM = rb"(?P<program>(?![\s-])[^\[\]:]{1,64}?)" + _PID  # blanks may stand in it
_NO_LEVEL = b"(?!" + LEVEL + b" )"
# `mail x popper[1]: ` has a facility and a host, `mail popper -s[1]: ` a host named "mail".
_NO_WORD = (
    b"(?!" + WORD + b" " + _PLAIN_HOST + b" " + _PLAIN_PROGRAM + rb"(?: -\w+)?(?:\[\d*\])?: )"
)
# Neither in the host's place nor in the program's; in one piece, for it takes long to compile.
_NO_LEVEL_YET = b"(?!(?:" + _PLAIN_HOST + b" )?" + LEVEL + b" )"
_WITH_HOST = _NO_LEVEL_YET + _NO_WORD + _HOST + b"(?!" + WORD + b" )" + _ANY_PROGRAM
_SHAPES = {
    "traditional": ("traditional", "rfc3339"),
    "short-precise": ("precise",),
    "iso": ("iso",),
    "ctime": ("ctime",),
}


def _stamp(*shapes: str) -> bytes:
    return b"(?P<stamp>" + b"|".join(STAMPS[shape] for shape in shapes) + b") "


_ANY = _stamp(*(shape for shapes in _SHAPES.values() for shape in shapes))
_FIRST = b"(?:" + LEVEL + b" ?|" + WORD + b" )"
_PLAIN = {
    **{name: _stamp(*shapes) + _WITH_HOST for name, shapes in _SHAPES.items()},
    "busybox": _ANY + _NO_LEVEL + _HOST + b"(?:" + PLAIN_LEVEL + b"|" + WORD + b") " + _PROGRAM,
    "hostless": _ANY + _PROGRAM,
    "aix": _ANY + _NO_LEVEL + _HOST + COLON_LEVEL + b" " + _PROGRAM,
    "freebsd": _ANY
    + b"(?:"
    + LEVEL
    + b"|"
    + WORD
    + b") (?!"
    + WORD
    + b" )"
    + _NO_LEVEL
    + _HOST
    + _PROGRAM,
    "logread": _ANY + LEVEL + b" " + _PROGRAM,
    "metalog": _ANY + _NO_LEVEL + rb"\[(?P<program>(?!\d+\])[^\s\[\]:]{1,64})\] ",
}
_HEADS = {
    **_PLAIN,
    "rfc5424": rb"<\d{1,3}>1 " + _stamp("rfc3339") + _HOST
    + rb"(?P<program>[^\[\]:]{1,64}?) (?P<pid>\d+|-) \S+ (?:-|(?:" + _SD_ELEMENT
    + rb")+) {1,2}(?:\xef\xbb\xbf)?",
    "level-first": _FIRST + _ANY + _WITH_HOST,
    "level-first-hostless": _FIRST + _ANY + _PROGRAM,
    "docker-compose": _CONTAINER + _PLAIN["traditional"],
    **{
        f"docker-compose-{name}": _CONTAINER + head
        for name, head in _PLAIN.items()
        if name != "traditional"
    },
}  # fmt: skip

NAMES = tuple(_HEADS)
"""The frames that a log's setting may name."""

ALIASES = dict.fromkeys(("rfc3339", "short", "short-iso", "short-iso-precise"), "traditional")
"""Other names for them, the last three journalctl's."""

_OWN_FILE = rb"(?:[\w-]+: )?(?:" + b"|".join(
    b"(?P<%b>%b)" % (shape.encode(), pattern) for shape, pattern in STAMPS.items()
) + rb")(?![\w:.,])"  # fmt: skip
_MARK = b"(?:" + b"|".join(STAMPS.values()) + rb") \S+ sapd\[\d+\]: log cut, "
_WRAPPERS = {  # by what they begin with
    b"[ID ": rb"\[ID \d+ [a-z0-9]+\.[a-z]+\] (?P<message>.*)",
    b"message repeated ": rb"message repeated \d+ times: \[ (?P<message>.*)\]",
}
# Bytes that busybox syslogd reads of a message, by its build: 256 unless somebody said more.
_BUSYBOX_READS = (256, 512)
_LONGEST_NAME = 200  # bytes of a container's name, and blanks behind
_CUT_SHORT = ("busybox", "hostless", "logread")  # what their names end in
_LEAST_UNWRITTEN, _MOST_UNWRITTEN = 3 + 1, 5 + 16 + 1  # bytes: `<5>`, or `<191>` and a stamp; a NUL


class Frame(NamedTuple):
    """The parts of a line; host and program are empty in a server's own file.

    A missing process number is "-", one that the frame has no place for is empty. `name` is that
    of the frame; a message that comes with its parts, from a journal, has none. What stands before
    a container's lines begins the host, up to a |: whoever writes there is of that container.
    """

    stamp: bytes
    host: bytes
    program: bytes
    pid: bytes
    message: bytes
    name: str = ""


@cache
def compiled(pattern: bytes) -> re.Pattern[bytes]:
    """The pattern, compiled at its first use: that takes up to 1 ms, and most minutes need none."""
    return re.compile(pattern, re.DOTALL)


def head(line: bytes, name: str) -> re.Match[bytes] | None:
    """Where the frame of this name stands at a line's beginning, with `stamp` and the others."""
    return compiled(_HEADS[name]).match(line) if name in _HEADS else None


def name_of(line: bytes) -> str | None:
    """Which frame a line has; None if it begins with no stamp that is known."""
    for name in _HEADS:
        if head(line, name):
            return name
    found = compiled(_OWN_FILE).match(line)
    return f"{OWN}-{found.lastgroup}" if found else None


def is_frame(name: str) -> bool:
    """Whether there is a frame of this name."""
    return name in _HEADS or name in (OWN, *(f"{OWN}-{shape}" for shape in STAMPS))


def is_syslog(name: str | None) -> bool:
    """Whether this is a frame of syslog files, and none of servers' own."""
    return name in _HEADS


def is_own(name: str | None) -> bool:
    """Whether this is the frame of a server's own file."""
    return name is not None and name.startswith(OWN)


def name_in(line: bytes, log: str | None) -> str | None:
    """Which frame a line has in a log of that frame; None if it has none that counts there.

    In a syslog file any syslog frame counts, in a server's own file that one alone. With `log`
    None each line is taken for a log of its own.
    """
    if log is not None and head(line, log):
        return log
    name = name_of(line)
    if log is None:
        return name
    if is_syslog(log):
        return name if is_syslog(name) else None
    return log if name == (log if log != OWN else None) else None


def split(line: bytes, log: str | None = None) -> Frame | None:
    """A line's parts, in a log of that frame; None if it has none there, see `name_in`.

    Of a server's own file the parts are empty, and the message is the whole line: only the
    server's format knows more.
    """
    found = head(line, log) if log is not None else None
    name = log if found is not None else name_in(line, log)
    if name is None:
        return None
    found = found or head(line, name)
    if found is None:
        return Frame(b"", b"", b"", b"-", line, name)
    parts = found.groupdict(b"")
    pid = parts["pid"] or b"-" if "pid" in parts else b""
    message = line[found.end() :]
    for beginning, wrapper in _WRAPPERS.items():
        if message.startswith(beginning) and (inner := compiled(wrapper).fullmatch(message)):
            message = inner["message"]
    host = container_of(line) + parts.get("host", b"")
    return Frame(parts["stamp"], host, parts["program"], pid, message, name)


def container_of(line: bytes) -> bytes:
    """The container whose line docker compose wrote, and a |; nothing if it is none's."""
    found = compiled(CONTAINER).match(line) if b" | " in line[:_LONGEST_NAME] else None
    return found[0].replace(b" ", b"") if found else b""


def is_note(line: bytes) -> bool:
    """Whether a line is no message: an empty one, zeros, journalctl's notes, the mark of a cut."""
    text = line.lstrip(b"\0")
    if not text or text.startswith(b"-- "):
        return True
    return b" sapd[" in text and compiled(_MARK).match(text) is not None


def may_be_cut(line: bytes, frame: Frame) -> bool:
    """Whether the logger of such frames may have cut the message at the length that it has.

    What busybox syslogd, and perhaps an older OpenWrt's logd, reads of a message begins with `<22>`
    and a stamp, which a sender may leave out; a control byte was read as one, and is written as
    two, the first a ^.
    """
    found = head(line, frame.name) if frame.name.endswith(_CUT_SHORT) else None
    if found is None:
        return False
    written = line[found.start("program") :]
    most, least = len(written), len(written) - written.count(b"^")
    return any(
        least <= size - _LEAST_UNWRITTEN and most >= size - _MOST_UNWRITTEN
        for size in _BUSYBOX_READS
    )


def longest(name: str | None) -> int:
    """Bytes of a line in this frame, of which none that is shorter was cut."""
    cut = name is None or name.endswith(_CUT_SHORT)
    return _BUSYBOX_READS[0] - _MOST_UNWRITTEN if cut else LONGEST
