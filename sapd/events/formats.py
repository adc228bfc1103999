"""What POP and IMAP servers write, as data: one TOML file a format. Loading checks it.

The formats that come with sapd lie in `popformats/`. A file of the same shape in the folder that
the setting `formats_directory` names adds one, or replaces the one of the same name. Its keys:

`description`, `source`   one line for people; the versions, files and documents it was made from
`programs`                the names that stand before the message in syslog; `*` is any part of one
`pid`                     whether `[123]` follows the name: "always" (default), "never" or "maybe"
`own_file`                regular expressions for what stands before the message in the server's
                          own file, with a stamp's shape in braces: `{traditional} `; a group
                          `program` tells whose messages `cut_at` is about. The shapes are those
                          of `timestamps.STAMPS`; days come first only in `{day_first}`
`cut_at`, `cut_behind`    bytes; where the server's logger cuts long messages, and a stranger can
                          choose where: one of that length is no evidence, nor are the next so many
                          bytes of the program's messages
`failures_look_alike`     true where a stranger's failed login may begin as a login does: then lines
                          that nearly fit are not counted by `check`
`strangers_log_out`       true where logouts are also written for sessions that never logged in:
                          then they end nothing
`auto`                    false for a format that `AUTO` leaves out, because only an administrator
                          can know that it holds
`parts`                   a table of texts that patterns name in braces: `{elements}`
`inherit`                 a format of sapd's own, for every key that is left out

and for each kind of line a table `[[line]]`:

`event`                   "login", "logout" or "connect"; where a login names no address, it is that
                          of the `connect` by the same process; or "cut" for a message that was cut,
                          though it is shorter than `cut_at`; or "rejected" for what is no login,
                          and looks like one
`needles`                 texts of which every such line has one: they are looked for first
`pattern`                 a regular expression for the whole message, both ends included, with the
                          groups `account` (and `domain`) and `address`; `(?P<_x>` is free. What
                          is not in a group must not fit just anything: a stranger's words would
`example`                 a message that it fits
`reason`                  of what is "rejected", why: for people
`own_file`                true for a line that counts in the server's own file alone
`own_words`               true for what is "rejected" for words of the server's that are not known,
                          and for none of a client's: `check` counts it
"""

import os
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from sapd import errors, toml_file
from sapd.addresses import parse_address
from sapd.events.frames import LONGEST
from sapd.timestamps import STAMPS
from sapd.toml_table import Table

AUTO = "auto"
"""Stands for all formats, for people who don't know what they run."""

_SHIPPED = os.path.join(os.path.dirname(os.path.dirname(__file__)), "popformats")
_KEYS = (
    *("description", "source", "programs", "pid", "own_file", "inherit", "parts", "line"),
    *("cut_at", "cut_behind", "strangers_log_out", "failures_look_alike", "auto"),
)
_LINE_KEYS = ("event", "needles", "pattern", "example", "reason", "own_file", "own_words")
_PIDS = ("always", "never", "maybe")
EVENTS = ("login", "logout", "connect", "cut", "rejected")
_GROUPS = ("account", "domain", "address")
# What is repeated to find slow ways, beside the parts of the example.
_ATOMS = (b"a", b"0", b" ", b".", b"-", b"[", b", ", b"a ", b"=")
_SLOW = 0.02  # seconds for one line; a sound pattern takes a thousandth of that


class Line(NamedTuple):
    """One kind of line: what to look for first, and the pattern of the whole message."""

    event: str
    needles: tuple[bytes, ...]
    pattern: re.Pattern[bytes]
    example: bytes
    reason: str = ""
    own_file: bool = False
    own_words: bool = False


class Format(NamedTuple):
    """What one server writes; see the keys above."""

    name: str
    inherits: str | None
    program_names: tuple[str, ...]
    programs: re.Pattern[bytes]
    pid: str
    own_file: tuple[re.Pattern[bytes], ...]
    cut_at: int | None
    cut_behind: int
    strangers_log_out: bool
    lines: tuple[Line, ...]
    auto: bool = True
    failures_look_alike: bool = False

    def written_by(self, programs: Sequence[str]) -> "Format":
        """The same lines, under other names of programs."""
        return self._replace(program_names=tuple(programs), programs=_globs(programs))

    @property
    def joins(self) -> bool:
        """Whether logins may take their address from an earlier line of the process."""
        return any(line.event == "connect" for line in self.lines)

    @property
    def logs_out(self) -> bool:
        """Whether its logouts say, and prove, from which address somebody logged out."""
        return not self.strangers_log_out and any(
            line.event == "logout" and "address" in line.pattern.groupindex for line in self.lines
        )


def names(directory: str | None = None) -> list[str]:
    """The known formats, in alphabetical order; raises `SapdError` if the folder can't be read."""
    found = {_stem(file): file for folder in _folders(directory) for file in _files(folder)}
    if AUTO in found:
        reason = "stands for all formats, and can't be the name of one; rename the file"
        raise errors.SapdError(errors.BAD_CONFIG, str(found[AUTO]), reason)
    return sorted(found)


def chosen(
    wanted: Sequence[str], directory: str | None = None, programs: Sequence[str] = ()
) -> list[Format]:
    """Load the formats of these names, of all names for `AUTO`, in that order.

    `programs` stand in place of the formats' own: Dovecot's `instance_name` is its tag.

    Raises `SapdError` 78 that names file and key of what is wrong with one.
    """
    every = names(directory) if AUTO in wanted else wanted
    found = [load(name, directory) for name in every]
    if AUTO in wanted:
        found = [format for format in found if format.auto]
    return [format.written_by(programs) for format in found] if programs else found


def usable(directory: str | None = None) -> list[str]:
    """The names of the formats that can be loaded."""
    found = []
    for name in names(directory):
        with suppress(errors.SapdError):
            found.append(load(name, directory).name)
    return found


@lru_cache(maxsize=100)
def load(name: str, directory: str | None = None) -> Format:
    """Load one format, and try out one that doesn't come with sapd; raises `SapdError` 78."""
    for folder in _folders(directory):
        file = os.path.join(folder, f"{name}.toml")
        if os.path.lexists(file):
            return _of_file(file, shipped=folder == _SHIPPED)
    reason = f"no format of this name; known are {', '.join(names(directory))}"
    raise errors.SapdError(errors.BAD_CONFIG, name, reason)


def _folders(directory: str | None) -> list[str]:
    return [*([directory] if directory else []), _SHIPPED]


def _files(folder: str) -> list[str]:
    """The formats in a folder, which need not exist; hidden files and editors' copies are none."""
    try:
        found = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        reason = f"can't be read: {error.strerror}; chmod a+rx it, or name another folder"
        raise errors.SapdError(errors.BAD_CONFIG, folder, reason) from None
    named = [name for name in found if name.endswith(".toml") and not name.startswith(".")]
    return [os.path.join(folder, name) for name in named]


def _stem(file: str) -> str:
    return os.path.basename(file).removesuffix(".toml")


def looked_at(directory: str) -> list[str]:
    """All names by which formats of the administrator's own are found."""
    return [directory, *_files(directory)]


def _of_file(file: str, *, shipped: bool) -> Format:
    """One file. What it inherits needs no trial: that is as good as the shipped format."""
    own = _read(file)
    read = _with_inherited(own)
    read.only(*_KEYS)
    parts = _parts(read.table("parts"))
    _filled(read, "description")  # for people, but they need it
    programs = read.texts("programs", ())
    for program in programs:
        if why := objection_to(program):
            read.refuse("programs", why)
    heads = read.texts("own_file", ())
    if not programs and not heads:
        read.refuse("programs", "is missing; name the programs as syslog does")
    cut_at, cut_behind = read.count("cut_at"), read.count("cut_behind")
    if (cut_at is None) != (cut_behind is None):
        read.refuse("cut_at", "and cut_behind go together")
    lines = read.tables("line")
    if not lines:
        read.refuse("line", "is missing; add [[line]] with event, needles, pattern, example")
    tried = {key: own.has(key) and not shipped for key in ("own_file", "line")}
    return Format(
        name=_stem(file),
        inherits=read.text("inherit") if read.has("inherit") else None,
        program_names=programs,
        programs=_globs(programs),
        pid=read.one_of("pid", _PIDS, "always"),
        own_file=tuple(_head(read, head, is_tried=tried["own_file"]) for head in heads),
        cut_at=cut_at,
        cut_behind=cut_behind or 0,
        strangers_log_out=read.flag("strangers_log_out"),
        auto=read.flag("auto", default=True),
        failures_look_alike=read.flag("failures_look_alike"),
        lines=tuple(_line(line, parts, is_tried=tried["line"]) for line in lines),
    )


def _read(file: str) -> Table:
    return toml_file.read(file, {}, "move it away")


def _with_inherited(own: Table) -> Table:
    if not own.has("inherit"):
        return own
    name = own.text("inherit")
    base = os.path.join(_SHIPPED, f"{name}.toml")
    if not os.path.isfile(base):
        own.refuse("inherit", f'is "{name}", which is not a format of sapd\'s')
    return own.over(_with_inherited(_read(base)))


def _parts(read: Table) -> dict[str, str]:
    """The texts by their names in braces; one may name those before it."""
    parts: dict[str, str] = {}
    for name in read.names():
        parts[f"{{{name}}}"] = _filled_in(_filled(read, name), parts)
    return parts


def _filled(read: Table, key: str) -> str:
    """A text that must be there, and not be empty."""
    return read.text(key) or read.refuse(key, "is empty")


def _line(read: Table, parts: dict[str, str], *, is_tried: bool) -> Line:
    read.only(*_LINE_KEYS)
    event = read.one_of("event", EVENTS)
    needles = read.texts("needles")
    if not needles or "" in needles:
        read.refuse("needles", "must name a text that every such line holds")
    pattern = _compiled(read, "pattern", _filled_in(_filled(read, "pattern"), parts))
    _refuse_groups(read, pattern, event)
    line = Line(
        event,
        tuple(needle.encode() for needle in needles),
        pattern,
        _filled(read, "example").encode(),
        _filled(read, "reason") if event == "rejected" else "",
        read.flag("own_file"),
        read.flag("own_words"),
    )
    if is_tried:
        _try_out(read, line)
    return line


def _refuse_groups(read: Table, pattern: re.Pattern[bytes], event: str) -> None:
    """Refuse a pattern with other groups than its event has."""
    groups = set(pattern.groupindex)
    for group in groups:
        if group not in _GROUPS and not group.startswith("_"):
            read.refuse("pattern", f'has a group "{group}"; known are {", ".join(_GROUPS)}')
    if pattern.groups > len(groups):
        read.refuse("pattern", "has a group without a name; write (?:...)")
    needs = {"connect": ["address"], "cut": [], "rejected": []}
    for needed in needs.get(event, ["account"]):
        if needed not in groups:
            read.refuse("pattern", f"needs a group (?P<{needed}>...)")


def _try_out(read: Table, line: Line) -> None:
    """Do what the tests do for the shipped formats: does it fit, how long can it take."""
    found = line.pattern.fullmatch(line.example)
    if found is None:
        read.refuse("example", "does not fit the pattern")
    rest = without_groups(found)
    if not any(needle in rest for needle in line.needles):
        read.refuse("needles", "has no text that every such line holds")
    named = found.groupdict().get("address")
    if named is not None and parse_address(named) is None:
        read.refuse("example", f'has "{named.decode()}" for its address')
    for spoilt in (b"\0 " + line.example, line.example + b" \0"):
        fits = line.pattern.fullmatch(spoilt)
        if fits is not None and b"\0" in without_groups(fits):
            reason = "fits with any words before or behind, which may be a stranger's"
            read.refuse("pattern", reason)
    if takes_long(line.pattern, line.example):
        reason = f"takes too long on a line made to that end, over {_SLOW} s; simplify it"
        read.refuse("pattern", reason)


def _head(read: Table, text: str, *, is_tried: bool) -> re.Pattern[bytes]:
    shapes = ", ".join(f"{{{shape}}}" for shape in STAMPS)
    if "(?P<stamp>" in text:
        read.refuse("own_file", f"has a stamp of its own; write one of {shapes}: {text}")
    own = text
    for shape, pattern in STAMPS.items():
        own = own.replace(f"{{{shape}}}", f"(?P<stamp>{pattern.decode()})")
    head = _compiled(read, "own_file", own)
    for group in head.groupindex:
        if group not in ("stamp", "program") and not group.startswith("_"):
            read.refuse("own_file", f'has a group "{group}"; known is program')
    if "stamp" not in head.groupindex:
        read.refuse("own_file", f"needs one stamp, as {shapes}: {text}")
    if is_tried and takes_long(head, b""):
        read.refuse("own_file", f"takes too long, over {_SLOW} s, on some line: {text}")
    return head


def _compiled(read: Table, key: str, text: str) -> re.Pattern[bytes]:
    """The pattern in brackets of its own, so that `a|b` has both ends anchored, too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of what may mean something else one day
            return re.compile(b"(?:" + text.encode() + b")")
    except (re.error, Warning, OverflowError, RecursionError) as error:
        read.refuse(key, f"is not a regular expression: {error}")


def objection_to(program: str) -> str | None:
    """What is wrong with a program's name, `*` included; None if nothing is."""
    if re.fullmatch(r"[^\[\]:]{1,64}", program) and program.strip("* "):
        return None
    return f'has "{program}"; write a name as it stands before [123]: in syslog'


def _filled_in(text: str, parts: dict[str, str]) -> str:
    for name, part in parts.items():
        text = text.replace(name, part)
    return text


def _globs(programs: Sequence[str]) -> re.Pattern[bytes]:
    return re.compile(b"|".join(map(_glob, programs)) or rb"(?!)")


def _glob(program: str) -> bytes:
    r"""A program's name as a pattern; `*` is no blank, slash, bracket or colon."""
    return rb"[^\s/\[\]:]*".join(re.escape(part.encode()) for part in program.split("*"))


def takes_long(pattern: re.Pattern[bytes], example: bytes) -> bool:
    """Whether a stranger's line of less than `LONGEST` bytes may keep a pattern busy.

    Every part of the example is repeated, in growing numbers, so that the exponential ones are
    found before they take for ever, and spoilt at the end, so that every way is tried.
    """
    for line in _hostile(example):
        if _seconds(pattern, line) > _SLOW and _seconds(pattern, line) > _SLOW:  # not by chance
            return True
    return False


def _hostile(example: bytes) -> Iterator[bytes]:
    ends = [0, *(part.end() for part in re.finditer(rb"\w+|\W", example))]
    parts = [
        ((start, end), example[start:end])
        for n, start in enumerate(ends)
        for end in ends[n + 1 : n + 5]  # as in " k=v"
    ]
    for size in (*range(8, 32, 4), *range(32, 160, 8), 256, LONGEST):
        for (start, end), text in [*parts, ((0, 0), b"")]:
            for again in dict.fromkeys([text, *_ATOMS]) if len(text) < 2 else [text]:
                head = example[:start] + (again * size)[:size]
                for rest in (example[end:] + b"\0", b" \0"):
                    yield (head + rest)[: LONGEST - 2] + b"\0"


def _seconds(pattern: re.Pattern[bytes], line: bytes) -> float:
    start = time.process_time()  # not the time that other processes take
    pattern.fullmatch(line)
    return time.process_time() - start


def without_groups(found: re.Match[bytes]) -> bytes:
    """What a pattern fitted outside its named groups."""
    rest = bytearray(found.string)
    for group in found.re.groupindex:
        if not group.startswith("_") and found.start(group) >= 0:
            start, end = found.span(group)
            rest[start:end] = b"\n" * (end - start)
    return bytes(rest)
