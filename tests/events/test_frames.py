"""Every frame times every format: what is read in a log of it, and that nothing else is."""

import json
import re
import time
from collections.abc import Iterator, Sequence
from datetime import UTC
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapd.events import formats, frames
from sapd.events.context import Context
from sapd.events.framing import UNKNOWN, Framing
from sapd.events.recogniser import Event, Recogniser, Rejection
from sapd.events.scan import Deduplicator
from sapd.timestamps import AHEAD, Clock, moment, zone
from tests.events.test_recogniser import OWN_HEADS, PIECES, SOCKET, TEMPLATES, filled_in
from tests.samples import event_of
from tests.site import Site

NOW = moment("2026-11-22T20:00:00Z", None)
AT = moment("2026-11-22T10:41:05Z", None)
CTIME = "Sun Nov 22 10:41:05 2026"
PLAIN = {
    "traditional": [
        "Nov 22 10:41:05 mx1 {}[4242]: ",
        "2026-11-22T10:41:05.123456+00:00 mx1 {}[4242]: ",
    ],
    "short-precise": ["Nov 22 10:41:05.123456 mx1 {}[4242]: "],
    "iso": ["2026-11-22 10:41:05 mx1 {}[4242]: "],
    "ctime": [CTIME + " mx1 {}[4242]: "],
    "hostless": ["Nov 22 10:41:05 {}[4242]: ", "2026-11-22T10:41:05Z {}[4242]: "],
    "busybox": [
        "Nov 22 10:41:05 mx1 mail.info {}[4242]: ",
        "Nov 22 10:41:05 mx1 info {}[4242]: ",
        "2026-11-22T10:41:05Z mx1 [mail.info] {}[4242]: ",
        "Nov 22 10:41:05 mx1 <22> {}[4242]: ",
    ],
    "aix": ["Nov 22 10:41:05 mx1 mail:info {}[4242]: "],
    "freebsd": [
        "Nov 22 10:41:05 <mail.info> mx1 {}[4242]: ",
        "Nov 22 10:41:05 <2.6> mx1 {}[4242]: ",
        "Nov 22 10:41:05 mail.info mx1 {}[4242]: ",
        "Nov 22 10:41:05 <22> mx1 {}[4242]: ",
        "Nov 22 10:41:05 mail info mx1 {}[4242]: ",
        "Nov 22 10:41:05 info mx1 {}[4242]: ",
    ],
    "logread": [CTIME + " mail.info {}[4242]: ", "Nov 22 10:41:05 mail.info {}[4242]: "],
    "metalog": ["Nov 22 10:41:05 [{}] "],
}  # fmt: skip
HEADS = {
    **PLAIN,
    "rfc5424": [
        "<149>1 2026-11-22T10:41:05.123456+00:00 mx1 {} 4242 - -  ",
        '<149>1 2026-11-22T10:41:05Z mx1 {} 4242 ID7 [a@1 x="y"][b@1] ',
    ],
    "level-first": [
        "<22>Nov 22 10:41:05 mx1 {}[4242]: ",
        "mail.info 2026-11-22T10:41:05Z mx1 {}[4242]: ",
        "mail.info<22> Nov 22 10:41:05 mx1 {}[4242]: ",
        "mail info Nov 22 10:41:05 mx1 {}[4242]: ",
        "info Nov 22 10:41:05 mx1 {}[4242]: ",
    ],
    "level-first-hostless": ["<22>Nov 22 10:41:05 {}[4242]: "],
    **{
        f"docker-compose-{name}".removesuffix("-traditional"): [
            f"pop-mail_1    | {head}" for head in heads
        ]
        for name, heads in PLAIN.items()
    },
}
ALL = [(name, head) for name, heads in HEADS.items() for head in heads]
FEW = [(name, heads[0]) for name, heads in HEADS.items() if not name.startswith("docker-compose-")]
WITHOUT_PID = [name for name in HEADS if name.endswith("metalog")]


def test_every_frame_has_an_example() -> None:
    assert set(HEADS) == set(frames.NAMES)


@pytest.mark.parametrize(("name", "head"), ALL)
def test_an_example_is_of_its_frame_alone(name: str, head: str) -> None:
    line = head.format("popper").encode() + b"Session from x: mx2 popper[7]: y"
    assert frames.name_of(line) == name
    assert [other for other in frames.NAMES if frames.head(line, other)] == [name]
    found = frames.split(line)
    assert found is not None
    pid = b"" if name in WITHOUT_PID else b"4242"
    assert (found.program, found.pid) == (b"popper", pid)
    host = b"" if "hostless" in name or "logread" in name or not pid else b"mx1"
    assert found.host == (b"pop-mail_1|" if name.startswith("docker-compose") else b"") + host
    assert found.message == b"Session from x: mx2 popper[7]: y"
    time = Clock(NOW, UTC).epoch(found.stamp)
    assert time is not None
    assert int(time) == AT
    assert Clock(NOW, UTC).of_line(line) == time


PIECES_OF_HEADS = [
    "Nov 22 10:41:05", "Nov 22 10:41:05.123456", "2026-11-22T10:41:05Z", "2026-11-22 10:41:05",
    CTIME, "mx1", "mail", "info", "mail.info", "mail:info", "<mail.info>", "<2.6>", "<22>", "<22>1",
    "[mail.info]", "mail.info<22>", "popper[7]:", "popper:", "popper", "[popper]", "-s[7]:", "-",
    "x y", "name  |", "popper[]:", ":", "mail:", "info[7]:", "[7]", "mail.info:",
    "auth|security:info",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES_OF_HEADS), min_size=1, max_size=7), st.sampled_from(" x"))
def test_no_line_has_two_frames(pieces: list[str], last: str) -> None:
    line = f"{' '.join(pieces)} {last}".encode()
    assert len([name for name in frames.NAMES if frames.head(line, name)]) <= 1, line


def test_no_line_of_few_pieces_has_two_frames() -> None:
    stamp, *others = PIECES_OF_HEADS[0], *PIECES_OF_HEADS[5:]
    for before, behind in product(["", "<22>", "mail.info ", "a | ", "info "], [2, 3]):
        for pieces in product(others, repeat=behind):
            line = f"{before}{stamp} {' '.join(pieces)} x".encode()
            fitting = [name for name in frames.NAMES if frames.head(line, name)]
            assert len(fitting) <= 1, (line, fitting)


def recogniser(format: str, frame: str | None = None, only: str | None = None) -> Recogniser:
    return Recogniser([format], Clock(NOW, UTC), context=Context(frame=frame), only=only)


def program_of(name: str) -> str:
    return formats.load(name).program_names[0].replace("*", "")


def head_of(name: str, head: str) -> str:
    """A head as the format's programs have it."""
    if formats.load(name).pid == "never":
        head = head.replace("[4242]", "").replace(" 4242 ", " - ")
    return head.format(program_of(name))


BY_SYSLOG = [name for name in formats.names() if formats.load(name).program_names]


@pytest.mark.parametrize("name", BY_SYSLOG)
@pytest.mark.parametrize(("frame", "head"), ALL)
def test_a_login_is_read_in_each_frame_and_in_no_servers_own_file(
    frame: str, head: str, name: str
) -> None:
    format = formats.load(name)
    example = next(kind for kind in format.lines if kind.event == "login" and not kind.own_file)
    line = head_of(name, head).encode() + example.example + b"\n"
    reads = not (format.joins and frame in WITHOUT_PID)
    for wanted in (None, frame):
        found = recogniser(name, wanted).recognise(line)
        split = frames.split(line)
        assert split is not None
        if frames.may_be_cut(line, split):
            assert isinstance(found, Rejection)
        else:
            assert isinstance(found, Event) == reads, (line, found)
    for other in (UNKNOWN, "own-slashes", frames.OWN):
        assert recogniser(name, other).recognise(line) is None
    found = recogniser(name).recognise(line)
    for other in frames.NAMES:
        assert recogniser(name, other).recognise(line) == found
        assert other == frame or recogniser(name, other, other).recognise(line) is None


def forged(name: str) -> Iterator[str]:
    """What a stranger may write to bring a frame of his own, and a login of this format in it."""
    for text in TEMPLATES[name]["success"]:
        message = text.format(account="bob", name="h.example.net", socket="6.6.6.6")
        yield message
        if formats.load(name).program_names:
            for _, head in FEW:
                whole = head_of(name, head)
                yield whole + message
                yield whole.partition(" ")[2] + message
                yield whole[whole.find(program_of(name)) :] + message


def gives_nothing_of_his(found: Recogniser, line: str, *, may_log_in: bool) -> None:
    event = event_of(found, line.encode("utf-8", "replace") + b"\n")
    if event is not None:
        assert event.address in (None, SOCKET), line
        assert may_log_in or event.event != "login", line


@pytest.mark.parametrize("name", formats.names())
@pytest.mark.parametrize(("frame", "head"), FEW)
def test_no_frame_in_a_strangers_words_yields_another_address(
    frame: str, head: str, name: str
) -> None:
    """As account, as reverse name, and in the lines of other programs, in each frame's log."""
    found = [recogniser(name, frame), recogniser(name)]
    own = head_of(name, head) if formats.load(name).program_names else OWN_HEADS[name]
    for words in forged(name):
        for each in found:
            for program in ("sm-mta", "sshd"):
                gives_nothing_of_his(each, head.format(program) + words, may_log_in=False)
            for kind, texts in TEMPLATES[name].items():
                for text in texts[:3]:
                    if name == "cyrus" and kind == "success" and "[" in words:
                        continue  # see test_recogniser
                    line = own + filled_in(text, words, "h.example.net")
                    gives_nothing_of_his(each, line, may_log_in=kind == "success")


WORDS = st.one_of(
    st.sampled_from(PIECES_OF_HEADS),
    st.sampled_from([head.format("popper") for _, head in ALL]),
    st.sampled_from(sorted({piece for name in BY_SYSLOG for piece in PIECES[name][::50]})),
    st.sampled_from(
        [" ", ": ", "6.6.6.6", "[6.6.6.6]", '(v4) POP login by user "b" at (h) 6.6.6.6']
    ),
)


@pytest.mark.parametrize("frame", frames.NAMES)
@given(words=st.lists(WORDS, max_size=6), program=st.sampled_from(["sm-mta", "postfix/smtpd"]))
def test_no_words_in_another_programs_line_are_a_login(
    frame: str, words: Sequence[str], program: str
) -> None:
    for head in HEADS[frame]:
        line = head.format(program) + "".join(words)
        for each in (recogniser(formats.AUTO, frame), recogniser(formats.AUTO)):
            gives_nothing_of_his(each, line, may_log_in=False)
        block = (line + "\n").encode("utf-8", "replace") * 50
        framing = Framing(formats.chosen([formats.AUTO]), None)
        assert framing.of_block(block) == frame


LOGIN = '(v4.0.5) POP login by user "bob" at (h.example.net) {} [pop_log.c:244]'


@pytest.mark.parametrize("frame", frames.NAMES)
def test_a_scan_of_each_frame_says_what_its_lines_say(frame: str) -> None:
    lines: list[bytes] = []
    for number in range(200):
        head = HEADS[frame][0].replace("4242", str(number))
        head = head.replace("41:05", f"41:{number % 60:02}")
        login = LOGIN.format(f"192.0.2.{number % 9}")
        lines.append((head.format("popper") + login).encode())
        lines.append(head.format("sm-mta").encode() + b"noise login by nobody")
    lines += [head.format("popper").encode() + LOGIN.format("6.6.6.6").encode() for _, head in ALL]
    lines = [line + b"\n" for line in lines]
    one_by_one = recogniser("qpopper", frame)
    expected = [event for line in lines if (event := event_of(one_by_one, line))]
    scan = Deduplicator(recogniser("qpopper", frame), NOW + AHEAD)
    blocks = [b"".join(lines[at : at + 20]) for at in range(0, len(lines), 20)]
    found = [event for block in blocks for event in scan.events(block)]
    found += scan.flush()
    assert latest(found) == latest(expected)
    assert len(latest(found)) >= 9


def latest(events: Sequence[Event]) -> dict[tuple[str | None, str], float]:
    found: dict[tuple[str | None, str], float] = {}
    for event in events:
        key = event.address, event.account
        found[key] = max(event.time, found.get(key, 0))
    return found


def framed(
    *blocks: bytes, known: str | None = None, names: Sequence[str] = (formats.AUTO,)
) -> list[str]:
    """The frame in which each block is read; the first is the head of a file."""
    framing = Framing(formats.chosen(names), known)
    return [framing.of_block(block, at_head=number == 0) for number, block in enumerate(blocks)]


def of(frame: str, program: str = "sm-mta", text: str = "x", times: int = 1) -> bytes:
    return (HEADS[frame][0].format(program) + text + "\n").encode() * times


def opened(
    *blocks: bytes, known: str | None = None, names: Sequence[str] = ("qpopper",)
) -> set[str]:
    """The addresses of the logins in these blocks of a log, as a run reads them."""
    context = Context(frame=known)
    found = Recogniser(names, Clock(NOW, UTC), context=context)
    framing = Framing(found.formats, known, None, context.containers, NOW)
    scan = Deduplicator(found, NOW + AHEAD)
    events: list[Event] = []
    for block in blocks:
        context.frame = framing.of_block(block)
        events += scan.events(block)
    events += scan.flush()
    return {event.address for event in events if event.address}


def test_lines_of_several_daemons_all_count() -> None:
    for before, after in product(frames.NAMES, repeat=2):
        first = of(before, "popper", LOGIN.format("192.0.2.1"))
        second = of(after, "popper", LOGIN.format("192.0.2.2"))
        both = {"192.0.2.1", "192.0.2.2"}
        for log in ([first * 50, second], [first * 50 + second], [first + second, first * 50]):
            assert opened(*log) == both
        assert opened(second, known=before) == {"192.0.2.2"}
        assert opened(first * 9 + second + first * 9) == both


def test_a_few_lines_of_another_frame_take_nothing_along() -> None:
    """A kernel whose lines have no host, among those of a daemon that writes one."""
    kernel = of("hostless", "kernel", "eth0 up", 3)
    for address in ("192.0.2.1", "192.0.2.2"):
        logins = of("traditional", "popper", LOGIN.format(address), 50)
        assert opened(kernel, logins + kernel, logins + kernel[: len(kernel) // 3]) == {address}


def test_what_has_no_known_head_is_no_evidence() -> None:
    known = of("traditional", times=30)
    assert framed(b"some program's own words\nand more\n" + known) == [UNKNOWN]
    many = b"half a line\n" + known * 10 + b"a stray line\n" * 2 + known
    assert framed(many) == ["traditional"]
    notes = (
        b"-- Boot 71 --\n\n\0\0\0\n2026-11-22T10:41:05Z mx1 sapd[7]: log cut, 12 lines removed \n"
    )
    assert framed(notes + of("busybox")) == ["busybox"]
    assert framed(b"") == [UNKNOWN]


def test_indented_lines_go_on_with_the_one_before() -> None:
    known = of("traditional", times=100)
    assert framed(known + b"    a message's second line\n" * 30) == ["traditional"]
    assert framed(b"\tat java.lang.Thread.run\n" + known) == ["traditional"]


STRAY = [
    b"1234567890 bytes of a stack trace\n",
    b"2026/11/22 10:41:05 panic: runtime error\n",
    b"note: 2026-11-22 10:41:05,123 something\n",
    b"2026-11-22 10:41:05,123 - root - WARNING - something\n",
    b"22.11.2026 10:41:05 something\n",
]


@pytest.mark.parametrize("names", [["qpopper"], [formats.AUTO]])
@pytest.mark.parametrize("stray", STRAY)
def test_stray_lines_make_no_file_a_servers_own(stray: bytes, names: Sequence[str]) -> None:
    logins = of("traditional", "popper", LOGIN.format("192.0.2.1"), 500)
    assert opened(logins[: len(logins) // 100], stray, logins, names=names) == {"192.0.2.1"}
    assert opened(stray + logins, names=names) == {"192.0.2.1"}
    assert framed(stray, logins, names=names) == [UNKNOWN, "traditional"]
    assert framed(stray + logins, known="traditional", names=names) == ["traditional"]


NGINX = '2026/11/22 10:41:05 [info] 7#7: *1 client logged in, client: 203.0.113.9, login: "{}"\n'


@pytest.mark.parametrize("names", [["nginx-mail"], ["qpopper"], [formats.AUTO]])
@pytest.mark.parametrize("frame", frames.NAMES)
def test_newlines_in_nginxs_own_log_bring_no_frame(frame: str, names: Sequence[str]) -> None:
    """What a client sends in an IMAP literal stands there as it is, newlines and all."""
    line = of(frame, "popper", LOGIN.format("6.6.6.6")).decode()
    for times in (1, 30, 1000):
        log = (NGINX.format("x\n" + line * times) + "later\n" * (times == 1)).encode()
        context = Context()
        for block in (log, line.encode() * times, log):
            context.frame = Framing(formats.chosen(names), context.frame).of_block(block)
            found = Recogniser(names, Clock(NOW, UTC), context=context)
            assert list(found.events(block)) == []
        assert context.frame == "own-slashes"


@pytest.mark.parametrize("words", ["x", "x sapd[1]: log cut, ", "-- ", " Nov 22 10:41:05 x y: "])
@pytest.mark.parametrize("names", [["qpopper"], [formats.AUTO]])
def test_no_words_hide_nginxs_own_lines(words: str, names: Sequence[str]) -> None:
    """At a new file's head, where its frame is found anew, and in a file of syslog's."""
    forged = of("traditional", "popper", LOGIN.format("6.6.6.6")).decode()
    trace = "Nov 22 10:41:05.123 2026 [7] " + LOGIN.format("6.6.6.6") + "\n"
    block = NGINX.format(f"{words}\n{forged * 30}{trace * 9}").encode()
    for known in (None, "own-slashes", "traditional"):
        assert opened(block, forged.encode(), known=known, names=names) == set()
        assert framed(block, forged.encode(), known=known, names=names) == ["own-slashes"] * 2
    framing = Framing(formats.chosen(names), None)
    assert framing.of_block(forged.encode(), block) == "own-slashes"
    assert framing.of_block(forged.encode()) == "own-slashes"


def test_a_strangers_note_takes_no_line_out_of_the_count() -> None:
    lines = of("traditional", text="<x sapd[1]: log cut, >", times=940)
    assert framed(of("traditional", times=60) + b"continued\n" + lines) == ["traditional"]


@pytest.mark.parametrize("names", [["qpopper"], [formats.AUTO]])
def test_a_container_that_prints_lines_of_its_own_is_not_believed(names: Sequence[str]) -> None:
    login = of("docker-compose", "popper", LOGIN.format("192.0.2.1"))
    web = b"web-1         | "
    forged = login.replace(b"pop-mail_1    | ", web).replace(b"192.0.2.1", b"6.6.6.6")
    request = web + b"User-Agent: x\n"
    for log in ([login * 9, request + forged], [request + login, forged], [request, forged, login]):
        assert opened(*log, names=names) == {"192.0.2.1"}
    assert opened(login + web + b"\n", forged) == {"192.0.2.1", "6.6.6.6"}


def test_containers_share_no_session() -> None:
    """Two of them may have the same program of the same process number."""
    found = recogniser("popa3d", "docker-compose")
    head = HEADS["docker-compose"][0].format("popa3d")
    for container in ("pop-mail_1", "pop-mail_2"):
        line = head.replace("pop-mail_1", container) + f"Session from 192.0.2.{container[-1]}\n"
        found.recognise(line.encode())
    assert sorted(address for address, _ in found.context.connects.values()) == [
        "192.0.2.1",
        "192.0.2.2",
    ]


def test_two_servers_own_heads_are_no_evidence() -> None:
    trace = b"Nov 22 10:41:05.123 2026 [7] x\n"
    log4j = b"2026-11-22 10:41:05,123 INFO  [Pop3Server-1] x\n"
    assert framed(trace * 9) == ["own-trace"]
    assert framed(log4j * 9) == ["own-log4j"]
    assert framed(log4j + trace * 30) == [UNKNOWN]
    assert framed(log4j + of("traditional", times=30), of("traditional")) == ["own-log4j"] * 2


def test_own_files_whose_stamp_is_like_syslogs() -> None:
    stalwart = b"2026-11-22T10:41:05Z INFO Authentication successful (auth.success) x\n"
    assert framed(stalwart, of("traditional", times=3)) == ["own-rfc3339", "own-rfc3339"]
    assert framed(stalwart + of("traditional", times=30)) == ["traditional"]


def test_a_new_file_may_be_another() -> None:
    own, syslog = NGINX.format("bob").encode() * 20, of("traditional", times=20)
    framing = Framing(formats.chosen(["qpopper"]), "own-slashes")
    assert framing.of_block(syslog) == "own-slashes"
    assert framing.of_block(b"no head\n" * 9, at_head=True) == "own-slashes"
    assert framing.of_block(syslog + own, at_head=True) == "own-slashes"
    assert framing.of_block(syslog, at_head=True) == "traditional"


def test_a_frame_that_is_named_stays() -> None:
    framing = Framing([], "traditional", "busybox")
    lines = of("traditional", times=9)
    assert framing.of_block(lines, at_head=True) == "busybox"


@pytest.mark.parametrize(
    ("beginning", "name"),
    [
        ("Nov 22 10:41:05 pop3-login: Info: ", "hostless"),
        ("dovecot: Nov 22 10:41:05 Info: ", "own-traditional"),
        ("2026-11-22 10:41:05 pop3-login: Info: ", "hostless"),
        ("@400000004a64a26d0a6bd8f4 pop3-login: Info: ", "own-tai64n"),
        ("2026/11/22 10:41:05 [info] 7#7: ", "own-slashes"),
        ("Nov 22 10:41:05.123 2026 [4242] ", "own-trace"),
        (CTIME + " [4242] ", "own-ctime"),
        ("Nov 22 10:41:05 [pop3d]: ", "own-traditional"),
        ("2026-11-22 10:41:05,123 INFO  [Pop3Server-1] ", "own-log4j"),
        ("Nov 22 2026 10:41:05 ", "own-apple"),
        ("Nov 22 10:41:05 last message repeated 2 times", "own-traditional"),
    ],
)
def test_servers_own_files(beginning: str, name: str) -> None:
    assert frames.name_of(beginning.encode() + b"x") == name


def test_a_note_among_a_daemons_lines_is_no_other_frame() -> None:
    note = b"Nov 22 10:41:05 mx1 last message repeated 2 times\n"
    lines = of("traditional", times=5)
    assert framed(lines + note * 9, note, note + lines) == ["traditional"] * 3
    assert framed(note, note + lines) == [UNKNOWN, "traditional"]


CUT = "User 'x' logged in from 6.6.6.6, nmsgs=0"  # `' - failed authentication` is what follows


@pytest.mark.parametrize("frame", ["busybox", "hostless", "docker-compose-busybox"])
@pytest.mark.parametrize("size", [256, 512])
def test_what_busybox_cuts_is_no_login(frame: str, size: int) -> None:
    """It reads one byte less than its size of `<22>`, a stamp and the message."""
    found = 0
    for pri, stamped in product(("<5>", "<22>", "<191>"), (True, False)):
        for escaped in (0, 9):
            read = f"{pri}{'Nov 22 10:41:05 ' * stamped}ipop3d[4242]: Login user=" + "^A" * escaped
            room = size - 1 - len(read) + escaped - len(" host=h [6.6.6.6]")
            message = f"Login user={'^A' * escaped}{'a' * room} host=h [6.6.6.6]"
            line = HEADS[frame][0].format("ipop3d") + message
            said = recogniser("uw-imap", frame).recognise(line.encode() + b"\n")
            assert isinstance(said, Rejection), line
            assert "busybox" in said.reason
            found += 1
    assert found == 12
    for room in (20, 100):
        line = f"{HEADS[frame][0].format('ipop3d')}Login user={'a' * room} host=h [192.0.2.1]"
        assert isinstance(recogniser("uw-imap", frame).recognise(line.encode() + b"\n"), Event)


def test_stamps_of_frames_in_the_logs_zone() -> None:
    berlin = Clock(NOW, zone("Europe/Berlin"))
    line = HEADS["short-precise"][0].format("popper") + LOGIN.format("192.0.2.1")
    event = Recogniser(["qpopper"], berlin).recognise(line.encode() + b"\n")
    assert isinstance(event, Event)
    assert event.time == AT - 3600 + 0.123456
    assert re.fullmatch(r".*\.123456", str(round(event.time, 6)))


def now_in(frame: str, address: str, program: str = "popper") -> str:
    """A login of this minute, in UTC."""
    stamp = time.strftime("%b %e %H:%M:%S", time.gmtime())
    head = HEADS[frame][0].replace("Nov 22 10:41:05", stamp)
    return head.format(program) + LOGIN.format(address) + "\n"


@pytest.mark.makemap
def test_a_run_keeps_the_frame_and_follows_a_change(site: Site) -> None:
    def frame() -> str:
        found: str = json.loads(site.state.read_text())["contexts"][str(site.log)]["frame"]
        return found

    site.configure(log_settings='timezone = "UTC"')
    site.write(now_in("busybox", "192.0.2.1") * 3, now_in("traditional", "192.0.2.2"))
    site.run()
    opened = {"192.0.2.1", "192.0.2.2"}
    assert (site.open_addresses(), frame()) == (opened, "busybox")
    site.write(now_in("docker-compose", "192.0.2.5"))
    site.run()
    opened |= {"192.0.2.5"}
    assert (site.open_addresses(), frame()) == (opened, "docker-compose")
    site.configure(log_settings='timezone = "UTC"\nframe = "busybox"')
    site.write(now_in("docker-compose", "192.0.2.6"), now_in("busybox", "192.0.2.7"))
    site.run()
    assert (site.open_addresses(), frame()) == ({*opened, "192.0.2.7"}, "busybox")


UNFRAMED = "lines that may be logins, but have no frame that is believed here: "


@pytest.mark.makemap
def test_what_was_not_believed_is_said_once_and_read_when_its_frame_is_known(site: Site) -> None:
    site.configure(log_settings='timezone = "UTC"')
    site.write("some words\n" * 3, now_in("traditional", "192.0.2.1"))
    assert f"{UNFRAMED}1; see sapd check" in site.sapd("run").stderr
    site.write("some words\n" * 3, now_in("traditional", "192.0.2.2"))
    site.run()
    assert site.open_addresses() == set()
    site.configure(log_settings='timezone = "UTC"\nframe = "traditional"')
    site.run()
    assert site.open_addresses() == {"192.0.2.1", "192.0.2.2"}
    site.write(now_in("busybox", "192.0.2.3"))
    assert f"{UNFRAMED}1; see sapd check" in site.sapd("run").stderr
    site.write(now_in("busybox", "192.0.2.4"))
    site.run()
    site.configure(log_settings='timezone = "UTC"')
    site.run()
    assert site.open_addresses() == {f"192.0.2.{number}" for number in (1, 2, 3, 4)}


@pytest.mark.makemap
@pytest.mark.parametrize("name", ["own-foo", "foo", "slashes"])
def test_a_frame_in_the_state_that_is_none_is_found_again(site: Site, name: str) -> None:
    site.configure(log_settings='timezone = "UTC"')
    site.write(now_in("traditional", "192.0.2.1"))
    site.run()
    site.state.write_text(site.state.read_text().replace('"traditional"', f'"{name}"'))
    site.write(now_in("traditional", "192.0.2.2"))
    site.run()
    assert site.open_addresses() == {"192.0.2.1", "192.0.2.2"}


@pytest.mark.makemap
def test_check_and_match_name_the_frame(site: Site) -> None:
    site.configure(log_settings='timezone = "UTC"')
    site.write(now_in("aix", "192.0.2.1"))
    assert "; frame aix" in site.sapd("check").stdout
    assert "\nframe aix\n" in site.sapd("match", str(site.log)).stdout
    site.write("a program's own words\n" * 9, now_in("aix", "192.0.2.2"))
    said = site.sapd("check").stdout
    assert "more than 1 in 100 have no known frame, so none is believed; set frame" in said
    said = site.sapd("match", str(site.log)).stdout
    assert "\nframe unknown: a run believes no line" in said
    assert "login 192.0.2.2 bob" in said
    site.sapd("run")
    assert site.open_addresses() == set()
    site.state.unlink()
    site.configure(log_settings='timezone = "UTC"\nframe = "aix"')
    site.run()
    assert site.open_addresses() == {"192.0.2.1", "192.0.2.2"}


def test_a_scan_of_busyboxs_defers_no_line_that_may_be_cut() -> None:
    """The later of two equal logins is as long as what busybox cuts, the earlier is not."""
    login = LOGIN.format("192.0.2.1").replace("h.example.net", "h" * 130)
    head = HEADS["busybox"][0].format("popper") + login
    for size in range(40):
        lines = [
            head.replace("h)", "h" * size + ")").replace("4242", "7"),
            head.replace("h)", "h" * size + ")").replace("41:05", "41:06"),
        ]
        block = "".join(line + "\n" for line in lines).encode()
        scan = Deduplicator(recogniser("qpopper", "busybox"), NOW + AHEAD)
        found = [*scan.events(block), *scan.flush()]
        assert latest(found) == latest(list(recogniser("qpopper", "busybox").events(block)))
