"""A scan gives what the recogniser says of each line, whatever stands beside it in the block."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapd.events.recogniser import Event, Recogniser, Rejection
from sapd.events.scan import Deduplicator, safe_start
from sapd.timestamps import AHEAD, Clock
from tests import samples
from tests.samples import event_of

NOW = datetime(2026, 11, 22, 10, 45, tzinfo=UTC).timestamp()
WRITERS = ["mx1 popper[7]: ", "mx1 popper[4242]: ", "mx2 popper[7]: ", "mx1 qpopper[7]: "]
WRITERS += ["mx1 popper: ", "mx1 popper -s[7]: ", "mx1 sm-mta[7]: ", "mx1 popper[x]: ", ""]
STAMPS = [
    "Nov 22 10:41:05",
    "Nov 22 10:41:06",
    "Nov 22 10:40:59",
    "Nov 21 10:41:05",
    "Nov  9 1:2:3",
]
STAMPS += ["Nov 22 10:59:00", "Nov 99 10:41:05", "Nov 22 99:41:05", "Dec 31 23:59:59"]
STAMPS += ["2026-11-22T10:41:05+00:00", "2026-11-22T11:41:05+01:00", "2026-11-22T10:41:05.123456Z"]
LOGINS = [
    f'(v4.0.5) POP login by user "{account}" at ({host}) {address}'
    for account in ("bob", "eve", "login", "a[1]")
    for host in ("h", "login by ")
    for address in ("192.0.2.1", "192.0.2.2", "999.0.2.1", "2001:db8::1")
]
OTHERS = [
    "Stats: bob 0 0 3 4310 h 192.0.2.10",
    "login by ",
    "login by Nov 22 10:41:05 mx1 popper[7]: ",
]
OTHERS += ["x" * 980 + LOGINS[0], LOGINS[0] + " login by " + LOGINS[1], "", "login by \0\xff"]
OTHERS += [OTHERS[2] + LOGINS[0], "[drac]: login by bob from host h (192.0.2.9)", "A" * 1200]
OTHERS += ["LOGIN, user=bob, ip=[::ffff:192.0.2.3], port=[7]", "Session from 192.0.2.4"]
OTHERS += ["Authentication passed for bob", "connect from 192.0.2.5", "user bob authenticated"]
OTHERS += ["pop3-login: Login: user=<bob>, method=PLAIN, rip=192.0.2.6, lip=192.0.2.9, mpid=7"]

lines = st.lists(
    st.builds(
        lambda stamp, writer, message: f"{stamp} {writer}{message}\n".encode("latin-1"),
        st.sampled_from(STAMPS[:3]) | st.sampled_from(STAMPS),
        st.sampled_from(WRITERS[:2])
        | st.sampled_from([*WRITERS, "mx1 pop3d: ", "mx1 popa3d[7]: "]),
        st.sampled_from(LOGINS[:8]) | st.sampled_from([*LOGINS, *OTHERS]),
    ),
    max_size=12,
)
blocks = st.lists(lines.map(b"".join), max_size=5)


def latest(events: Iterable[Event]) -> dict[tuple[object, ...], float]:
    """Of what can be told apart, the latest time; of those ahead of now, all."""
    found: dict[tuple[object, ...], float] = {}
    for event in events:
        key: tuple[object, ...] = tuple(event[:4])
        if event.time > NOW + AHEAD:
            key = event
        found[key] = max(event.time, found.get(key, 0))
    return found


@pytest.mark.parametrize("formats", [["qpopper"], ["auto"], ["qpopper-stats", "courier", "popa3d"]])
@given(blocks=blocks)
def test_a_scan_says_what_the_recogniser_says(formats: list[str], blocks: list[bytes]) -> None:
    one_by_one = Recogniser(formats, Clock(NOW, UTC))
    expected = [
        event
        for block in blocks
        for line in block.splitlines(keepends=True)
        if (event := event_of(one_by_one, line)) and event.event == "login"
    ]
    recogniser = Recogniser(formats, Clock(NOW, UTC), wanted=["login"])
    scan = Deduplicator(recogniser, NOW + AHEAD)
    found = [event for block in blocks for event in scan.events(block)]
    found += scan.flush()
    assert latest(event for event in found if event.event == "login") == latest(expected)
    assert recogniser.context == one_by_one.context


def test_the_same_login_a_thousand_times_is_recognised_once() -> None:
    calls = []

    class Counting(Recogniser):
        def recognise(self, line: bytes) -> Event | Rejection | None:
            calls.append(line)
            return super().recognise(line)

    scan = Deduplicator(Counting(["qpopper"], Clock(NOW, UTC)), NOW)
    for minute in range(10, 40):
        block = b"".join(
            b"Nov 22 10:%d:%02d mx1 popper[%d]: %s\n" % (minute, n % 60, n, LOGINS[n % 2].encode())
            for n in range(1000)
        )
        assert list(scan.events(block)) == []
    assert calls == []
    last = datetime(2026, 11, 22, 10, 39, 59, tzinfo=UTC).timestamp()
    assert sorted((event.address, event.time) for event in scan.flush()) == [
        ("192.0.2.1", last - 1),
        ("192.0.2.2", last),
    ]
    assert len(calls) == 2


def courier(text: str, minute: int = 41, tag: str = "pop3d") -> bytes:
    return f"Nov 22 10:{minute}:05 mx1 {tag}: {text}\n".encode()


LONG = "LOGIN FAILED, user=" + "A" * 486
SHORT = courier("Connection, ip=[::ffff:192.0.2.1]")
HEAD, OTHER = courier(LONG), courier(LONG, tag="imapd")


def safe(*lines: bytes, size: int = 1, formats: tuple[str, ...] = ("courier",)) -> int:
    """The number of lines before the last safe start; `size` lines a block."""
    blocks = [b"".join(lines[at : at + size]) for at in range(0, len(lines), size)]
    found = safe_start(Recogniser(formats, Clock(NOW, UTC), wanted=[]), blocks)
    return [sum(map(len, lines[:number])) for number in range(len(lines) + 1)].index(found)


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], 0),
        ([SHORT] * 5, 5),
        ([SHORT, SHORT, HEAD], 2),
        ([SHORT, SHORT, HEAD, SHORT, SHORT], 2),
        ([SHORT, HEAD, SHORT, HEAD, SHORT], 3),
        ([SHORT, HEAD, OTHER, SHORT, HEAD, SHORT], 1),
        ([SHORT, HEAD, courier("LOGIN FAILED, user=A"), SHORT], 2),
        ([HEAD, *[courier("x", minute) for minute in range(42, 52)], SHORT], 12),
        ([HEAD, *[courier("x", minute) for minute in range(42, 51)], SHORT], 0),
        ([b"half a line\n", SHORT, SHORT], 0),
        ([HEAD.removesuffix(b"\n") + SHORT, SHORT], 0),
    ],
)
def test_a_log_may_not_begin_behind_a_cut_message(
    lines: list[bytes], expected: int, size: int
) -> None:
    assert safe(*lines, size=size) == expected


@given(lines=st.lists(st.sampled_from([SHORT, HEAD, OTHER, courier("y", 50), b"x\n"]), max_size=9))
def test_whoever_begins_at_a_safe_start_doubts_all_that_should_be(lines: list[bytes]) -> None:
    start = safe(*lines)
    forged = [courier("LOGIN, user=b, ip=[::1]", tag=tag) for tag in ("pop3d", "imapd")]
    for end in range(min(start + 1, len(lines)), len(lines) + 1):
        whole, part = (Recogniser(["courier"], Clock(NOW, UTC)) for _ in range(2))
        list(whole.events(b"".join(lines[:end])))
        list(part.events(b"".join(lines[start:end])))
        for line in forged:
            assert bool(list(whole.events(line))) >= bool(list(part.events(line)))


def rows() -> list[bytes]:
    """Every sample of every format, what strangers wrote, and what Courier was made to write."""
    found = [samples.data(row) for name in samples.folders() for row in samples.rows(name)]
    found += [samples.data(row) for row in samples.strangers()]
    found += (samples.STRANGERS / "sendmail_injection.log").read_bytes().splitlines(keepends=True)
    found += (samples.LOGS / "courier" / "splices.log").read_bytes().splitlines(keepends=True)
    login = next(line for line in found if b"LOGIN, user=" in line)
    torn = [line[: len(line) // 2] + other for line, other in pairwise(found[::7])]
    zeros = [line[: len(line) // 2] + b"\0\0" + other for line, other in pairwise(found[::11])]
    return [*found, *torn, *zeros, HEAD, login, OTHER, login * 3, b"half\n", login]


def by_line(formats: list[str], lines: list[bytes], wanted: list[str]) -> list[Event]:
    recogniser = Recogniser(formats, Clock(NOW, UTC))
    found = (event_of(recogniser, line) for block in lines for line in split(block))
    return [event for event in found if event and event.event in wanted]


def split(block: bytes) -> list[bytes]:
    return [line + b"\n" for line in block.split(b"\n")[:-1]]


@pytest.mark.parametrize("wanted", [["login"], ["login", "logout"]], ids=["logins", "logouts"])
@pytest.mark.parametrize("size", [1, 7, 400, 100_000])
@pytest.mark.parametrize("formats", [["auto"], ["courier"], ["dovecot", "qpopper"], ["popa3d"]])
def test_the_short_way_says_of_every_sample_what_the_long_way_does(
    formats: list[str], size: int, wanted: list[str]
) -> None:
    lines = rows()
    Random(size).shuffle(lines)
    scan = Deduplicator(Recogniser(formats, Clock(NOW, UTC), wanted=wanted), NOW + AHEAD)
    found: list[Event] = []
    for at in range(0, len(lines), size):
        found += scan.events(b"".join(lines[at : at + size]))
    found += scan.flush()
    of_interest = [event for event in found if event.event in wanted]
    assert latest(of_interest) == latest(by_line(formats, lines, wanted))


def popper(text: str, stamp: str = "Nov 22 10:41:05", pid: int = 7, host: str = "mx1") -> bytes:
    return f"{stamp} {host} popper[{pid}]: {text}\n".encode()


ONE = '(v4.0.5) POP login by user "bob" at (h) 192.0.2.1'
LONGEST_LOGIN = ONE.replace("(h)", "(" + "h" * (999 - len(popper(ONE)) + 2) + ")")
DOVECOT = b"Nov 22 10:41:05 mx1 dovecot[7]: imap-login: Login: user=<b>, rip=192.0.2.6, mpid=7\n"
GUARDS = {
    "a message was cut": (
        ["courier", "qpopper"],
        [HEAD + popper(ONE), courier("LOGIN, user=b, ip=[192.0.2.3]", tag="pop3d")],
    ),
    "a needle's order matters": (
        ["popa3d"],
        [
            popper("Session from 192.0.2.1").replace(b"popper", b"popa3d"),
            popper("Authentication passed for b").replace(b"popper", b"popa3d"),
            popper("Session from 192.0.2.2").replace(b"popper", b"popa3d"),
            popper("Authentication passed for b").replace(b"popper", b"popa3d"),
        ],
    ),
    "several needles": (
        ["qpopper", "dovecot"],
        [popper(ONE) + DOVECOT],
    ),
    "no end": (["qpopper"], [popper(ONE + "0").removesuffix(b"\n")]),
    "another head": (["qpopper"], [popper(ONE) + popper(ONE, host="mx2").replace(b"popper", b"x")]),
    "one of two is too long": (
        ["qpopper"],
        [popper(LONGEST_LOGIN) + popper(LONGEST_LOGIN, pid=4242)],
    ),
    "no time": (["qpopper"], [popper(ONE), popper(ONE, "Nov 22 29:41:05")]),
    "ahead": (["qpopper"], [popper(ONE), popper(ONE, "Nov 22 10:59:05"), popper(ONE)]),
    "an earlier time in a block": (
        ["qpopper"],
        [popper(ONE, "Nov 22 10:41:06") + popper(ONE, "Nov 22 10:41:05")],
    ),
    "an earlier time in a later block": (
        ["qpopper"],
        [popper(ONE, "Nov 22 10:41:06"), popper(ONE, "Nov 22 10:41:05")],
    ),
    "a digit more of the stamp": (
        ["qpopper"],
        [popper(ONE, "Nov 22 10:41:05") + popper(ONE, "Nov  9 10:41:05")],
    ),
    "stamps in order, and times not": (
        ["qpopper"],
        [
            popper(ONE, "2026-11-22T10:41:05+00:00") + popper(ONE, "2026-11-22T10:41:05+01:00"),
        ],
    ),
    "a message is cut later": (
        ["dovecot"],
        [DOVECOT, DOVECOT.replace(b"Login", b"x" * 900)],
    ),
    "two months": (
        ["qpopper"],
        [popper(ONE, "Nov 22 10:41:05") + popper(ONE, "Dec 22 10:41:05")],
    ),
    "texts in turn": (
        ["qpopper"],
        [popper(ONE) + popper(ONE.replace("bob", "eve")), popper(ONE, "Nov 22 10:42:05")],
    ),
}


@pytest.mark.parametrize("guard", GUARDS)
def test_each_guard_of_the_short_way(guard: str) -> None:
    formats, blocks = GUARDS[guard]
    scan = Deduplicator(Recogniser(formats, Clock(NOW, UTC), wanted=["login"]), NOW + AHEAD)
    found = [event for block in blocks for event in scan.events(block)]
    found += scan.flush()
    one_by_one = Recogniser(formats, Clock(NOW, UTC))
    expected = [
        event
        for block in blocks
        for line in re.findall(rb"[^\n]*\n|[^\n]+", block)
        if (event := event_of(one_by_one, line)) and event.event == "login"
    ]
    assert latest(event for event in found if event.event == "login") == latest(expected)


def test_lines_without_anything_of_interest_leave_what_is_deferred() -> None:
    scan = Deduplicator(Recogniser(["qpopper"], Clock(NOW, UTC)), NOW)
    assert [*scan.events(popper(ONE)), *scan.events(popper("noise")), *scan.events(b"")] == []
    assert [event.address for event in scan.flush()] == ["192.0.2.1"]
    assert list(scan.flush()) == []
