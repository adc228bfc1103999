"""Formats as data: what comes with sapd, and what an administrator may add."""

import os
import re
import time
from pathlib import Path

import pytest

from sapd import errors
from sapd.events import formats, frames
from sapd.events.doubts import frames_of
from sapd.events.formats import Format
from sapd.events.recogniser import Event, Recogniser
from sapd.timestamps import Clock, moment, zone
from tests import samples

NOW = moment("2026-11-22T20:00:00Z", None)

GOOD = {
    "description": '"a server of our own"',
    "programs": '["ourpop"]',
    "line": """
[[line]]
event = "login"
needles = ["hello "]
pattern = 'hello (?P<account>\\S+) at (?P<address>\\S*)'
example = 'hello bob at 192.0.2.10'
""",
}
LINE = b"Nov 22 10:41:05 mx1 ourpop[4242]: hello eve at 192.0.2.77\n"


def write(folder: Path, name: str = "ours", **changes: str) -> Path:
    """Write a format; a change of "" leaves the key out."""
    folder.mkdir(exist_ok=True)
    keys = {**GOOD, **changes}
    tables = keys.pop("line")
    file = folder / f"{name}.toml"
    text = "".join(f"{key} = {value}\n" for key, value in keys.items() if value)
    file.write_text(text + tables)
    return file


def shipped() -> list[Format]:
    return [formats.load(name) for name in formats.names()]


def test_the_formats_are_those_that_have_samples() -> None:
    assert formats.names() == samples.folders()


@pytest.mark.parametrize("name", formats.names())
def test_every_pattern_needle_and_own_head_has_a_sample(name: str) -> None:
    format = formats.load(name)
    texts = [samples.data(row).removesuffix(b"\n") for row in samples.rows(name)]
    messages = [
        frame.message for text in texts for frame in frames_of(format, text, frames.split(text))
    ]
    for kind in format.lines:
        fitting = [message for message in messages if kind.pattern.fullmatch(message)]
        assert fitting, kind.pattern.pattern
        assert all(any(needle in message for needle in kind.needles) for message in fitting)
    if format.inherits:
        texts += [samples.data(row) for row in samples.rows(format.inherits)]
    for head in format.own_file:
        assert any(head.match(text) for text in texts), head.pattern


@pytest.mark.parametrize("name", formats.names())
def test_examples_fit_and_patterns_are_fast(name: str) -> None:
    for kind in formats.load(name).lines:
        found = kind.pattern.fullmatch(kind.example)
        assert found is not None
        assert any(needle in kind.example for needle in kind.needles)
        needs_none = kind.event in ("connect", "cut", "rejected")
        assert needs_none or "account" in kind.pattern.groupindex
        assert not formats.takes_long(kind.pattern, kind.example)


@pytest.mark.parametrize("name", formats.names())
def test_every_needle_is_of_use(name: str) -> None:
    texts = [samples.data(row) for row in samples.rows(name)]
    for kind in formats.load(name).lines:
        for needle in kind.needles:
            assert needle in kind.example or any(needle in text for text in texts), needle


def test_qpoppers_formats_read_stats_lines_alike() -> None:
    stats = [
        {kind.pattern.pattern for kind in formats.load(name).lines if b"Stats: " in kind.needles}
        for name in ("qpopper", "qpopper-stats")
    ]
    assert stats[0] == stats[1]


def test_a_file_in_a_folder_is_a_format(tmp_path: Path) -> None:
    assert "ours" not in formats.names(str(tmp_path))
    write(tmp_path)
    assert "ours" in formats.names(str(tmp_path))
    assert "qpopper" in formats.names(str(tmp_path))
    for wanted in (["ours"], ["qpopper", "ours"], ["auto"]):
        event = Recogniser(wanted, Clock(NOW), str(tmp_path)).recognise(LINE)
        assert event is not None
        assert event[:4] == ("login", "ours", "192.0.2.77", "eve")


def test_a_file_replaces_the_shipped_format_of_its_name(tmp_path: Path) -> None:
    write(tmp_path, "qpopper")
    recogniser = Recogniser(["qpopper"], Clock(NOW), str(tmp_path))
    event = recogniser.recognise(LINE)
    assert isinstance(event, Event)
    assert event.format == "qpopper"
    qpopper = 'Nov 22 10:41:05 mx1 popper[1]: (v4) POP login by user "bob" at (h) 192.0.2.10\n'
    assert recogniser.recognise(qpopper.encode()) is None


def test_a_file_may_inherit_from_a_shipped_format(tmp_path: Path) -> None:
    write(tmp_path, "qpopper", programs='["mypopper"]', inherit='"qpopper"', line="")
    recogniser = Recogniser(["qpopper"], Clock(NOW), str(tmp_path))
    line = 'Nov 22 10:41:05 mx1 mypopper[1]: (v4) POP login by user "bob" at (h) 192.0.2.10\n'
    assert recogniser.recognise(line.encode()) is not None
    assert recogniser.recognise(line.replace("mypopper", "popper").encode()) is None


@pytest.mark.parametrize("name", formats.names())
def test_every_shipped_format_may_have_other_programs(tmp_path: Path, name: str) -> None:
    base = formats.load(name)
    write(tmp_path, programs='["another"]', inherit=f'"{name}"', line="")
    ours = formats.load("ours", str(tmp_path))
    assert (ours.lines, ours.own_file, ours.cut_at) == (base.lines, base.own_file, base.cut_at)
    assert ours.program_names == ("another",)


def test_lines_of_its_own_are_tried_although_it_inherits(tmp_path: Path) -> None:
    write(tmp_path, inherit='"dovecot"', line=GOOD["line"].replace("'hello (", "'.*hello ("))
    with pytest.raises(errors.SapdError, match="may be a stranger's"):
        formats.load("ours", str(tmp_path))


@pytest.mark.parametrize(
    ("shape", "stamp"),
    [
        ("{slashes}", "2026/11/22 10:41:05"),
        ("{clf}", "22/Nov/2026:10:41:05 +0000"),
        ("{epoch}", "1795344065"),
        ("{epoch}", "1795344065.250"),
        ("{day_first}", "22.11.2026 10:41:05"),
        ("{day_first}", "22/11/2026 10:41:05"),
        ("{log4j}", "2026-11-22 10:41:05,123"),
        ("{iso},\\d{3}", "2026-11-22 10:41:05,123"),
    ],
)
def test_stamps_of_a_file_of_ones_own(tmp_path: Path, shape: str, stamp: str) -> None:
    write(tmp_path, programs="", own_file=f"['{shape} ']".replace("\\\\", "\\"))
    line = f"{stamp} hello eve at 192.0.2.77\n".encode()
    event = Recogniser(["ours"], Clock(NOW, zone("UTC")), str(tmp_path)).recognise(line)
    assert isinstance(event, Event)
    assert int(event.time) == moment("2026-11-22T10:41:05Z", None)


def test_no_folder_and_other_files_in_it_are_nothing(tmp_path: Path) -> None:
    assert formats.names(str(tmp_path / "none")) == formats.names()
    (tmp_path / "ours.toml~").write_text("x")
    (tmp_path / ".ours.toml").write_text("x")
    (tmp_path / "README").write_text("x")
    assert formats.names(str(tmp_path)) == formats.names()
    with pytest.raises(errors.SapdError, match="can't be read: Not a directory"):
        formats.names(str(tmp_path / "README"))


LOOP = GOOD["line"].replace("\\S+", "(?:\\w+\\s?)*")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"description": ""}, "description is missing"),
        ({"description": '""'}, "line 1: description is empty"),
        ({"programs": '"x"'}, "programs must be a list of quoted strings"),
        ({"programs": ""}, "programs is missing"),
        ({"pid": '"often"'}, 'line 3: pid is "often"; known are always, maybe, never'),
        ({"pid": "[]"}, "line 3: pid must be a quoted string"),
        ({"cut_at": "0"}, "line 3: cut_at is 0; it must be at least 1"),
        ({"cut_at": "7"}, "cut_at and cut_behind go together"),
        ({"cut_at": "true"}, "line 3: cut_at must be a whole number"),
        ({"own_file": "['x ']"}, "own_file needs one stamp, as {traditional}, {rfc3339}"),
        (
            {"own_file": "['(?P<stamp>\\d+/\\d+/\\d+ [\\d:]+) ']"},
            "own_file has a stamp of its own; write one of {traditional}, {rfc3339}, {trace}",
        ),
        ({"own_file": "['{iso} {iso} ']"}, "own_file is not a regular expression: redefinition"),
        ({"inherit": '"nothing"'}, 'inherit is "nothing", which is not a format of sapd\'s'),
        ({"programme": '["x"]'}, 'line 3: programme is not a setting; did you mean "programs"?'),
        ({"line": ""}, "line is missing"),
        ({"line": "line = 3"}, "line 3: line must be one or more tables, as [[line]]"),
        ({"line": "line = [3]"}, "line must be one or more tables"),
        (
            {"line": GOOD["line"].replace("login", "hello")},
            'line 5: line.event is "hello"; known are connect, cut, login, logout, rejected',
        ),
        (
            {"line": GOOD["line"].replace("needles", "needle")},
            'line 6: line.needle is not a setting; did you mean "needles"?',
        ),
        ({"line": GOOD["line"].replace('"hello "', "")}, "needles must name a text"),
        ({"line": GOOD["line"].replace('"hello "', '""')}, "needles must name a text"),
        (
            {"line": GOOD["line"].replace('"hello "', '"bye"')},
            "needles has no text that",
        ),
        (
            {"line": GOOD["line"].replace("(?P<account>", "(")},
            "pattern has a group with",
        ),
        ({"line": GOOD["line"].replace("(?P<account>", "(?:")}, "pattern needs a group (?P<acc"),
        (
            {"line": GOOD["line"].replace("account", "acount")},
            'pattern has a group "acount"; known',
        ),
        (
            {"line": GOOD["line"].replace("hello (", "hello ((")},
            "pattern is not a regular expression",
        ),
        ({"line": GOOD["line"].replace("hello (", "[[a]](")}, "Possible nested set"),
        ({"line": GOOD["line"].replace("hello (", "(?i)hello (")}, "global flags not at the start"),
        (
            {"line": GOOD["line"].replace(" at 192", " from 192")},
            "example does not fit the pattern",
        ),
        (
            {"line": GOOD["line"].replace("example", "sample")},
            'line 8: line.sample is not a setting; did you mean "example"?',
        ),
        ({"line": GOOD["line"].replace('"login"', '"rejected"')}, "line 4: line.reason is missing"),
        ({"line": GOOD["line"].replace('event = "login"', "")}, "line 4: line.event is missing"),
        ({"line": GOOD["line"].replace("'hello (", "'.*hello (")}, "may be a stranger's"),
        ({"line": GOOD["line"].replace("\\S*)'", "\\S*).*'")}, "may be a stranger's"),
        (
            {"line": GOOD["line"].replace("192.0.2.10", "host")},
            'has "host" for its address',
        ),
        ({"line": GOOD["line"].replace('"hello "', '"192.0"')}, "needles has no text that every"),
        ({"programs": '["*"]'}, 'programs has "*"; write a name'),
        ({"programs": '["ourpop[1]"]'}, 'programs has "ourpop[1]"'),
        ({"programs": '["ourpop:"]'}, 'programs has "ourpop:"'),
        ({"programs": '[""]'}, 'programs has ""'),
        ({"own_file": "['(?P<progam>x){iso} ']"}, 'own_file has a group "progam"'),
        ({"own_file": "['(?:\\w+\\s?)*x{iso} ']"}, "own_file takes too long"),
        ({"line": LOOP}, "line 7: line.pattern takes too long"),
        (
            {"line": GOOD["line"].replace('"login"', '"connect"').replace("address", "_x")},
            "pattern needs a group (?P<address>...)",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, changes: dict[str, str], says: str
) -> None:
    file = write(tmp_path, **changes)
    with pytest.raises(errors.SapdError, match=re.escape(says)) as raised:
        formats.load("ours", str(tmp_path))
    assert raised.value.status == errors.BAD_CONFIG
    assert raised.value.subject == str(file)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"\xff", b"x", b"x = ", b"[" * 10_000, b""])
def test_a_file_that_is_no_toml_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ours.toml").write_bytes(content)
    with pytest.raises(errors.SapdError, match=r"ours.toml: "):
        formats.load("ours", str(tmp_path))
    (tmp_path / "ours.toml").unlink()
    (tmp_path / "ours.toml").mkdir()
    with pytest.raises(errors.SapdError, match=r"ours.toml: is a folder; move it away"):
        formats.load("ours", str(tmp_path))


def test_an_unknown_name_is_said() -> None:
    with pytest.raises(errors.SapdError, match="qpoper: no format of this name; known are apple"):
        formats.load("qpoper")


@pytest.mark.parametrize(
    "pattern",
    [
        rb"(?P<account>(?:\w+)+) at (?P<address>\S*)",
        rb"hello (?P<account>(?:\w|\w\w)*) at (?P<address>\S*)",
        rb"hello (?P<account>.*.*.*.*) at (?P<address>.*)",
        rb"(?P<account>(?:.|\s)*) at (?P<address>.*)",
        rb"hello (?P<account>(?:[a-z]|\d+)+) at (?P<address>\S*)",
    ],
)
def test_patterns_that_a_line_can_keep_busy_are_found_soon(pattern: bytes) -> None:
    start = time.process_time()
    assert formats.takes_long(re.compile(pattern), b"hello bob at 192.0.2.10")
    assert (
        time.process_time() - start < 20
    )  # not a speed: without the growing lengths it never ends


def test_an_alternative_is_anchored_at_both_ends(tmp_path: Path) -> None:
    line = GOOD["line"].replace("hello (", "x|hello (")
    write(tmp_path, line=line)
    recogniser = Recogniser(["ours"], Clock(NOW), str(tmp_path))
    assert recogniser.recognise(LINE) is not None
    assert recogniser.recognise(LINE.replace(b": hello", b": x hello")) is None
    assert recogniser.recognise(LINE.replace(b".77", b".77 x")) is None


@pytest.mark.parametrize(
    ("glob", "program", "fits"),
    [
        ("*/imap*", "cyrus/imaps", True),
        ("*/imap*", "a/b/imap", False),
        ("*/imap*", "sm-mta", False),
        ("perdition.*", "perdition.imap4", True),
        ("perdition.*", "perditionximap4", False),
        ("pop.d", "popxd", False),
        ("a*", "a b", False),
    ],
)
def test_stars_in_programs(tmp_path: Path, glob: str, program: str, fits: bool) -> None:
    write(tmp_path, programs=f'["{glob}"]')
    line = LINE.replace(b"ourpop", program.encode())
    assert frames.split(line.removesuffix(b"\n")) is not None
    event = Recogniser(["ours"], Clock(NOW), str(tmp_path)).recognise(line)
    assert isinstance(event, Event) == fits


def test_auto_is_no_name(tmp_path: Path) -> None:
    write(tmp_path, "auto")
    with pytest.raises(errors.SapdError, match=r"auto.toml: stands for all formats"):
        formats.names(str(tmp_path))


def test_repeated_words_are_found_slow() -> None:
    pattern = rb"hello (?P<account>\S+)(?:(?: \w+=\w+)+)* at (?P<address>\S*)"
    assert formats.takes_long(re.compile(pattern), b"hello bob k=v at 192.0.2.10")


def test_a_pipe_is_no_format(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ours.toml")
    with pytest.raises(
        errors.SapdError, match=r"ours.toml: can't be read: it is not a regular file; move it away"
    ):
        formats.load("ours", str(tmp_path))
