"""What a line means, and what no text that a stranger chooses can make it mean."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapd import formats
from sapd.formats import Event, Recogniser
from sapd.timestamps import Clock, moment

NOW = moment("2026-11-22T12:00:00Z", None)
LOGS = Path(__file__).with_name("logs")
LEFT_OUT = {"patched"}  # a third party's patch, which logs without a pid


def recogniser(*names: str) -> Recogniser:
    return Recogniser(names or ("qpopper",), Clock(NOW))


def recognise(line: str | bytes, *names: str) -> Event | None:
    data = line if isinstance(line, bytes) else line.encode("utf-8", "surrogateescape")
    return recogniser(*names).recognise(data + b"\n")


def samples() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (LOGS / "qpopper.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("row", samples(), ids=lambda row: str(row["line"])[:60])
def test_samples(row: dict[str, Any]) -> None:
    event = recognise(row["line"])
    if row["event"] in ("login", "logout") and row.get("variant") not in LEFT_OUT:
        assert event is not None
        assert (event.event, event.address, event.account, event.format) == (
            row["event"], row["ip"], row["user"], "qpopper",
        )  # fmt: skip
    else:
        assert event is None
    by_stats = recognise(row["line"], "qpopper-stats")
    if row.get("variant") == "session-summary" and row["ip"]:
        assert by_stats is not None
        assert (by_stats.event, by_stats.address, by_stats.account) == (
            "login", row["ip"], row["user"],
        )  # fmt: skip
    else:
        assert by_stats is None


def test_every_pattern_has_a_sample() -> None:
    lines = [row["line"].encode("utf-8", "surrogateescape") for row in samples()]
    for name in formats.names():
        patterns = formats._load(name)
        used = {
            pattern.needle
            for pattern in patterns
            if any(pattern.line.fullmatch(line) for line in lines)
        }
        assert used == {pattern.needle for pattern in patterns}


def test_both_formats_read_stats_lines_alike() -> None:
    stats = [
        {pattern.line.pattern for pattern in formats._load(name) if pattern.needle == b"Stats: "}
        for name in ("qpopper", "qpopper-stats")
    ]
    assert stats[0] == stats[1]


@pytest.mark.parametrize("name", formats.names())
def test_what_sendmail_logs_of_a_strangers_text_is_no_login(name: str) -> None:
    log = (LOGS / "sendmail_injection.log").read_bytes()
    assert log.count(b"\n") > 200
    assert list(recogniser(name).events(log)) == []


HEADS = [
    "Nov 22 10:41:05 mx1 {}[4242]: ",
    "2026-11-22T10:41:05.123456+00:00 mx1 {}[4242]: ",
    "<149>1 2026-11-22T10:41:05.123456+00:00 mx1 {} 4242 - -  ",
    '<149>1 2026-11-22T10:41:05Z mx1 {} 4242 ID7 [a@1 x="y"][b@1] ',
]
LOGIN = '(v4.0.5) POP login by user "bob" at (h.example) 192.0.2.10'


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    "program",
    ["popper", "qpopper", "in.qpopper", "popper-s", "qpopper -s", "in.qpopper-s"],
)
def test_every_tag_and_frame(head: str, program: str) -> None:
    for suffix in ("", " [pop_log.c:244]", " [pop_log.c:7]"):
        event = recognise(head.format(program) + LOGIN + suffix)
        assert event is not None
        assert (event.event, event.address, event.account) == ("login", "192.0.2.10", "bob")
        assert int(event.time) == moment("2026-11-22T10:41:05Z", None)


@pytest.mark.parametrize(
    "line",
    [
        "Nov 22 10:41:05 mx1 popper: " + LOGIN,  # no pid
        "Nov 22 10:41:05 mx1 xpopper[1]: " + LOGIN,
        "Nov 22 10:41:05 mx1 popper[1]:  " + LOGIN,
        "Nov 22 10:41:05 mx1 popper[1]: " + LOGIN + " ",
        "Nov 22 10:41:05 mx1 popper[1]: " + LOGIN + "\r",
        "Nov 22 10:41:05 mx1 popper[1]: x" + LOGIN,
        "Nov 22 10:41:05 mx1 popper[1]: " + LOGIN + " [pop_pass.c:244]",
        " Nov 22 10:41:05 mx1 popper[1]: " + LOGIN,
        "Nov 22 10:41:05 mx1 sm-mta[1]: popper[1]: " + LOGIN,
        "Nov 22 10:41:05 mx1 sm-mta[1]: Nov 22 10:41:05 mx1 popper[1]: " + LOGIN,
        'Nov 22 10:41:05 mx1 popper[1]: (v4) POP login by user "b b" at (h) 192.0.2.10',
        'Nov 22 10:41:05 mx1 popper[1]: (v4) POP login by user "b" at (h h) 192.0.2.10',
        'Nov 22 10:41:05 mx1 popper[1]: (v4) POP login by user "b at (h) 192.0.2.10',
        "<149>1 Nov 22 10:41:05 mx1 popper 4242 - -  " + LOGIN,
        "<149>1 2026-11-22T10:41:05Z mx1 popper - - -  " + LOGIN,
        "Nov 22 10:41:05 mx1 popper 4242 - -  " + LOGIN,
    ],
)
def test_almost_is_not_enough(line: str) -> None:
    assert recognise(line) is None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("2001:DB8::7", "2001:db8::7"),
        ("::ffff:192.0.2.10", "192.0.2.10"),
        ("999.999.999.999", None),
        ("192.0.2.010", None),
        ("192.0.2", None),
        ("3232235777", None),
        (":::", None),
    ],
)
def test_addresses_are_those_that_ipaddress_takes(text: str, address: str | None) -> None:
    found = recogniser()
    event = found.recognise(
        HEADS[0].format("popper").encode() + LOGIN[:-10].encode() + text.encode() + b"\n"
    )
    assert (event.address if event else None) == address
    assert found.unusable == (address is None)


def test_a_cut_message_is_no_evidence() -> None:
    head, tail = HEADS[0].format("popper"), '" at (h) 192.0.2.10'
    for length, expected in ((999, True), (1000, False), (5000, False)):
        line = head + '(v4) POP login by user "'
        line += "b" * (length - len(line) - len(tail)) + tail
        assert len(line) == length
        assert (recognise(line) is not None) == expected


def test_half_a_line_counts_only_if_the_address_is_whole() -> None:
    line = (HEADS[0].format("popper") + LOGIN).encode()
    assert recogniser().recognise(line) is None
    assert recogniser().recognise(line + b" [pop_log.c:244]") is not None
    assert recogniser().recognise(line + b"\n") is not None


def test_a_block_gives_its_events_in_order() -> None:
    head = HEADS[0].format("popper")
    lines = [
        head + "Stats: bob 0 0 0 0 h 192.0.2.1",
        head + LOGIN,
        "noise",
        head + '(v4) POP login by user "POP" at (h) 192.0.2.3',
        "Stats: POP login by user Stats: ",
        head + "Stats: eve 0 0 0 0 h 192.0.2.2",
    ]
    events = list(recogniser().events("\n".join(lines).encode() + b"\n"))
    assert [event.address for event in events] == [
        "192.0.2.1", "192.0.2.10", "192.0.2.3", "192.0.2.2",
    ]  # fmt: skip
    assert list(recogniser().events(b"")) == []


STRANGE = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=80),
    st.sampled_from(
        [
            LOGIN,
            'x" at (h) 6.6.6.6',
            'bob" at (h) 6.6.6.6 [pop_log.c:244]',
            "Stats: bob 0 0 0 0 h 6.6.6.6",
            "6.6.6.6) 6.6.6.6",
            HEADS[0].format("popper") + LOGIN.replace("192.0.2.10", "6.6.6.6"),
        ]
    ),
)


@given(account=STRANGE, name=STRANGE)
def test_no_text_of_a_stranger_yields_another_address(account: str, name: str) -> None:
    socket = "203.0.113.9"
    failures = [
        f'{account} at {name} ({socket}): -ERR [AUTH] Password supplied for "{account}" is '
        "incorrect. [pop_pass.c:1290]",
        f"[AUTH] Failed attempted login to {account} from host ({name}) {socket}",
        f"Possible probe of account {account} from host {name} ({socket}) [pop_quit.c:36]",
        f'(v4.0.5) Servicing request from "{name}" at {socket} [pop_init.c:1109]',
        f"(v4.0.5) Timeout (120 secs) during nw read from {account} at {name} ({socket})",
        f"Excessive user name length (400); truncated to 64: {account}",
    ]
    successes = [
        f'(v4.0.5) POP login by user "{account}" at ({name}) {socket} [pop_log.c:244]',
        f"Stats: {account} 0 0 0 0 {name} {socket}",
        f"[drac]: login by {account} from host {name} ({socket}) [drac.c:55]",
    ]
    for head in HEADS:
        for name_ in ("qpopper", "qpopper-stats"):
            for text in failures:
                event = recognise(head.format("popper") + text, name_)
                assert event is None or event.address == socket
                assert event is None or event.event != "login" or account == LOGIN
            for text in successes:
                event = recognise(head.format("popper") + text, name_)
                assert event is None or event.address == socket
