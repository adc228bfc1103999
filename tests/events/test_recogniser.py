"""What a line means, and what no text that a stranger chooses can make it mean."""

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapd.events import formats, frames
from sapd.events.context import DAY, Context
from sapd.events.recogniser import WAIT, Event, Recogniser, Rejection, Unusable
from sapd.timestamps import Clock, moment
from tests import samples
from tests.samples import Row, event_of

NOW = moment("2026-11-22T20:00:00Z", None)
EVERYONE = [*formats.names(), formats.AUTO]


def recogniser(*names: str, context: Context | None = None) -> Recogniser:
    return Recogniser(names or ("qpopper",), Clock(NOW), None, context)


def recognise(line: str | bytes, *names: str) -> Event | None:
    data = line if isinstance(line, bytes) else line.encode("utf-8", "surrogateescape")
    return event_of(recogniser(*names), data + b"\n")


def differs(row: Row, event: Event | None) -> bool:
    """Whether a sample means something else than it should."""
    if row["event"] in ("login", "logout") and row.get("variant") not in samples.LEFT_OUT:
        wanted = (row["event"], row["ip"], row["user"])
        found = event and (event.event, event.address, event.account)
        return bool(found != wanted)
    if event is None:
        return False
    if event.event == "connect":
        return bool(event.address != row["ip"])
    if event.event == "logout":
        return "unauthenticated_session" not in row
    return event.address is not None  # a left-out variant


AS_AUTO = [
    name
    for name in samples.folders()
    if name != "qpopper-stats" and formats.load(name).auto  # where both fit, qpopper is first
]


@pytest.mark.parametrize(
    ("wanted", "name"),
    [(name, name) for name in samples.folders()] + [(formats.AUTO, name) for name in AS_AUTO],
)
def test_samples(wanted: str, name: str) -> None:
    wrong = []
    for log in samples.logs(name):
        found = recogniser(wanted)
        for row in log:
            event = event_of(found, samples.data(row))
            patched = event is not None and event.format == "qpopper-patched"
            late = event is not None and "time" in row and event.time != moment(row["time"], None)
            if late or differs({**row, "variant": None} if patched else row, event):
                wrong.append((row["event"], row["user"], row["ip"], event, row["line"]))
    assert wrong == []


@pytest.mark.parametrize("name", formats.names())
def test_no_format_takes_other_servers_lines_for_a_login_from_elsewhere(name: str) -> None:
    rows = [row for folder in samples.folders() for row in samples.rows(folder)]
    found = recogniser(name)
    wrong = []
    for row in rows + samples.strangers():
        event = event_of(found, samples.data(row))
        if event is not None and event.event == "login":
            by_stats = name == "qpopper-stats" and row.get("variant") == "session-summary"
            if (row["event"] != "login" and not by_stats) or event.address not in (None, row["ip"]):
                wrong.append((event, row["line"]))
    assert wrong == []


@pytest.mark.parametrize("name", EVERYONE)
def test_what_sendmail_logs_of_a_strangers_text_is_no_login(name: str) -> None:
    log = (samples.STRANGERS / "sendmail_injection.log").read_bytes()
    assert log.count(b"\n") > 200
    assert list(recogniser(name).events(log)) == []
    found = recogniser(name)
    assert [event_of(found, line + b"\n") for line in log.split(b"\n")] == [None] * 254


@pytest.mark.parametrize("name", samples.folders())
def test_a_block_gives_the_events_of_its_lines(name: str) -> None:
    for log in samples.logs(name):
        by_line, by_block = recogniser(name), recogniser(name)
        lines = [samples.data(row) for row in log]
        found = [event_of(by_line, line) for line in lines]
        assert list(by_block.events(b"".join(lines))) == [event for event in found if event]
        assert by_block.context == by_line.context


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
        for wrapper in ("{}", "message repeated 3 times: [ {}]", "[ID 210418 mail.info] {}"):
            event = recognise(head.format(program) + wrapper.format(LOGIN + suffix))
            assert event is not None
            assert event[:4] == ("login", "qpopper", "192.0.2.10", "bob")
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
        "Nov 22 10:41:05 mx1 x popper[1]: " + LOGIN,
        "Nov 22 10:41:05 mx1 popper[1]: message repeated 3 times: [ " + LOGIN,
        "Nov 22 10:41:05 mx1 popper[1]: message repeated 3 times: [" + LOGIN + "]",
        "Nov 22 10:41:05 mx1 popper[1]: [ID 7 x] " + LOGIN,
        'Nov 22 10:41:05 mx1 popper[1]: (v4) POP login by user "b b" at (h) 192.0.2.10',
        'Nov 22 10:41:05 mx1 popper[1]: (v4) POP login by user "b" at (h h) 192.0.2.10',
        'Nov 22 10:41:05 mx1 popper[1]: (v4) POP login by user "b at (h) 192.0.2.10',
        "<149>1 Nov 22 10:41:05 mx1 popper 4242 - -  " + LOGIN,
        "<149>1 2026-11-22T10:41:05Z mx1 popper - - -  " + LOGIN,
        "<149>1 2026-11-22T10:41:05Z mx1 sm-mta 7 - -  x popper 4242 - -  " + LOGIN,
        "<149>1 2026-11-22T10:41:05Z mx1 sm-mta x popper 4242 - -  " + LOGIN,
        "Nov 22 10:41:05 mx1 popper 4242 - -  " + LOGIN,
        # Lines without a host: what stands in its place is not one.
        "Nov 22 10:41:05 sm-mta[123]: popper[4711]: " + LOGIN,
        "Nov 22 10:41:05 sm-mta: popper[4711]: " + LOGIN,
        "Nov 22 10:41:05 [sm-mta] popper[4711]: " + LOGIN,
        "<149>1 2026-11-22T10:41:05Z sm-mta: popper 4242 - -  " + LOGIN,
    ],
)
def test_almost_is_not_enough(line: str) -> None:
    assert recognise(line) is None
    assert recognise(line, formats.AUTO) is None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("2001:DB8::7", "2001:db8::7"),
        ("::ffff:192.0.2.10", "192.0.2.10"),
        ("::FFFF:C000:20A", "192.0.2.10"),
        ("fe80::1%eth0", None),
        ("999.999.999.999", None),
        ("192.0.2.010", None),
        ("192.0.2", None),
        ("192.0.2.10/32", None),
        ("3232235777", None),
        (":::", None),
        ("", None),
        ("client.example.net", None),
        ("١٩٢.0.2.1", None),
    ],
)
def test_addresses_are_those_that_ipaddress_takes(text: str, address: str | None) -> None:
    lines = {
        "qpopper": HEADS[0].format("popper") + LOGIN[:-10] + text,
        "courier": f"Nov 22 10:41:05 mx1 pop3d: LOGIN, user=bob, ip=[{text}], port=[7]",
        "dovecot": f"Nov 22 10:41:05 mx1 dovecot: pop3-login: Login: user=<bob>, rip={text}",
        "solid-pop3d": HEADS[0].format("spop3d") + f"user bob authenticated - h ({text})",
        "cyrus": HEADS[0].format("pop3") + f"login: h [{text}] bob plaintext User logged in",
    }
    for name, line in lines.items():
        found = recogniser(name)
        said = found.recognise(line.encode() + b"\n")
        assert found.unusable.address == (address is None)
        if isinstance(said, Event):
            assert said.address == address
        else:
            assert said == Rejection(f'"{text}" is not an address')
            assert address is None


@pytest.mark.parametrize("stamp", ["Feb 30 10:00:00", "Nov 22 29:00:00", "Nov 39 10:00:00"])
def test_stamps_that_are_none_are_counted(stamp: str) -> None:
    found = recogniser()
    said = found.recognise(f"{stamp} mx1 popper[1]: {LOGIN}\n".encode())
    assert said == Rejection(f'"{stamp}" is not a time')
    assert found.unusable.stamp == 1


def test_a_cut_message_is_no_evidence() -> None:
    head, tail = HEADS[0].format("popper"), '" at (h) 192.0.2.10'
    for length, expected in ((999, True), (1000, False), (5000, False), (1 << 20, False)):
        line = head + '(v4.0.5) POP login by user "'
        line += "b" * (length - len(line) - len(tail)) + tail
        assert len(line) == length
        assert (recognise(line) is not None) == expected


@pytest.mark.parametrize("name", EVERYONE)
def test_strange_bytes_are_nothing(name: str) -> None:
    found = recogniser(name)
    for line in (b"", b"\0", b"\xff\xfe", b"\0" * (1 << 20), bytes(range(256)), b"x" * (1 << 20)):
        assert event_of(found, line + b"\n") is None
        assert event_of(found, line) is None
        assert event_of(found, b"Nov 22 10:41:05 mx1 popper[1]: " + line + b"\n") is None
    assert list(found.events(b"\n" * 10)) == []
    assert list(found.events(b"")) == []


def test_half_a_line_is_no_evidence() -> None:
    line = (HEADS[0].format("popper") + LOGIN).encode()
    assert event_of(recogniser(), line) is None
    assert event_of(recogniser(), line + b" [pop_log.c:244]") is None
    assert event_of(recogniser(), line + b"\n") is not None
    head = HEADS[0].format("vm-pop3d").encode()
    half = b"User 'x' logged in from 203.0.113.55, nmsgs=0"  # a name: "' - failed auth" follows
    assert event_of(recogniser("vm-pop3d"), head + half) is None
    found = recogniser("popa3d")
    connect = HEADS[0].format("popa3d").encode() + b"Session from 192.0.2.1"
    assert event_of(found, connect) is None
    assert found.context.connects == {}
    login = HEADS[0].format("popa3d").encode() + b"Authentication passed for bo"
    assert event_of(found, connect + b"\n") is not None
    assert event_of(found, login) is None


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


def popa3d(text: str, pid: int = 7, at: str = "10:41:05", host: str = "mx1") -> bytes:
    return f"Nov 22 {at} {host} popa3d[{pid}]: {text}\n".encode()


def test_a_login_takes_the_address_of_its_own_process() -> None:
    found = recogniser("popa3d")
    lines = [
        popa3d("Session from 192.0.2.1", 1),
        popa3d("Session from 192.0.2.2", 2),
        popa3d("Session from 192.0.2.3", 1, host="mx2"),
        popa3d("Authentication passed for b", 2),
        popa3d("Authentication passed for a", 1),
        popa3d("Authentication passed for c", 1, host="mx2"),
        popa3d("Authentication passed for d", 3),
    ]
    logins = [event for line in lines if (event := event_of(found, line)) and event.account]
    assert [(event.account, event.address) for event in logins] == [
        ("b", "192.0.2.2"), ("a", "192.0.2.1"), ("c", "192.0.2.3"), ("d", None),
    ]  # fmt: skip
    assert found.unusable.no_address == 1
    assert found.context == Context()


def address_of(*lines: bytes) -> str | None:
    found = recogniser("popa3d")
    event = None
    for line in lines:
        event = event_of(found, line)
    assert event is not None
    assert event.event == "login"
    return event.address


def test_a_connect_serves_for_one_login_of_its_day() -> None:
    connect, login = popa3d("Session from 192.0.2.1"), popa3d("Authentication passed for a")
    assert address_of(connect, login) == "192.0.2.1"
    assert address_of(connect, login, login) is None
    assert address_of(connect, popa3d("Session from 192.0.2.2"), login) == "192.0.2.2"
    assert address_of(connect, popa3d("Session from bad"), login) == "192.0.2.1"
    early = popa3d("Authentication passed for a", at="10:41:00")
    assert address_of(connect, early) is None
    for seconds, address in ((WAIT, "192.0.2.1"), (WAIT + 1, None)):
        at = time.strftime("%H:%M:%S", time.gmtime(10 * 3600 + 41 * 60 + 5 + seconds))
        assert address_of(connect, popa3d("Authentication passed for a", at=at)) == address
    slightly_early = popa3d("Authentication passed for a", at="10:41:03")
    assert address_of(connect, slightly_early) == "192.0.2.1"


def test_half_seen_sessions_go_from_run_to_run_for_a_day() -> None:
    first = recogniser("popa3d")
    event_of(first, popa3d("Session from 192.0.2.1"))
    second = recogniser("popa3d", context=first.context)
    event = event_of(second, popa3d("Authentication passed for a"))
    assert event is not None
    assert event.address == "192.0.2.1"
    event_of(first, popa3d("Session from 192.0.2.1"))
    at = moment("2026-11-22T10:41:05", Clock(NOW).zone)
    for seconds in (-DAY, DAY):
        first.context.expire(at + seconds)
        assert first.context.connects
    ahead = Context(dict(first.context.connects))
    ahead.expire(at - DAY - 1)
    assert not ahead.connects
    first.context.expire(at + DAY + 1)
    assert not first.context.connects


def test_strangers_cannot_fill_the_memory_with_connects() -> None:
    found = recogniser("popa3d")
    for pid in range(20_100):
        event_of(found, popa3d("Session from 203.0.113.9", pid))
    assert len(found.context.connects) == 20_000
    assert "mx1 popa3d[99]" not in found.context.connects
    assert "mx1 popa3d[20099]" in found.context.connects


def courier(text: str, tag: str = "pop3d", host: str = "mx1") -> bytes:
    return f"Nov 22 10:41:05 {host} {tag}: {text}\n".encode()


BEHIND = formats.load("courier").cut_behind
FORGED = courier("LOGIN, user=bob, ip=[::ffff:203.0.113.55], port=[44471]")
HEAD = courier("LOGIN FAILED, user=" + "A" * 486)


@pytest.mark.parametrize(
    ("lines", "counts"),
    [
        ([FORGED], True),
        ([HEAD, FORGED], False),
        ([HEAD, b"noise\n", courier("x", "imapd"), FORGED], False),
        ([HEAD, HEAD.replace(b"mx1", b"mx2"), courier("x", host="mx2"), FORGED], False),
        ([HEAD, courier("x"), FORGED], False),
        ([HEAD, FORGED, FORGED], False),
        ([HEAD, *[courier("x" * 256)] * (BEHIND // 256 - 1), FORGED], False),
        ([HEAD, *[courier("x" * 256)] * (BEHIND // 256), FORGED], True),
        ([HEAD, *[courier("x" * 256)] * 280, HEAD, *[courier("x" * 256)] * 280, FORGED], False),
        ([courier("LOGIN FAILED, user=A"), FORGED], False),  # its blanks were taken off
        ([courier("LOGIN FAILED, user=A"), courier("x"), courier("x"), FORGED], False),
        ([courier("LOGIN FAILED, user=A, ip=[::ffff:203.0.113.5], port=[7]"), FORGED], True),
        ([courier("x" * 399), FORGED], True),
        ([courier("x" * 400), FORGED], False),
        ([HEAD.replace(b"pop3d", b"imapd"), FORGED], True),
        ([HEAD.replace(b"mx1", b"mx2"), FORGED], True),
    ],
)
def test_the_rest_of_a_message_that_was_cut_is_no_evidence(
    lines: list[bytes], counts: bool
) -> None:
    for name in ("courier", formats.AUTO):
        by_line = recogniser(name)
        assert [event_of(by_line, line) for line in lines][-1] == (
            recognise(FORGED.removesuffix(b"\n"), name) if counts else None
        )
        assert bool(list(recogniser(name).events(b"".join(lines)))) == counts
        context = Context()  # a run after each line
        found = [list(recogniser(name, context=context).events(line)) for line in lines]
        assert bool(found[-1]) == counts


def test_what_a_real_courierlogger_was_made_to_write_is_no_login() -> None:
    """Captured while strangers flooded it with names of that length; nobody logged in."""
    log = (samples.LOGS / "courier" / "splices.log").read_bytes()
    assert log.count(b": LOGIN, user=bob, ip=[") > 100
    assert list(recogniser("courier").events(log)) == []
    by_line = recogniser(formats.AUTO)
    assert [line for line in log.splitlines(keepends=True) if event_of(by_line, line)] == []


def test_courier_names_one_address() -> None:
    login = "LOGIN, user=bob, ip=[6.6.6.6], port=[1]"
    assert event_of(recogniser("courier"), courier(login)) is not None
    for more in (", ip=[::ffff:203.0.113.5], port=[4]", ", ip=[6.6.6.6], port=[1]", ", x"):
        assert event_of(recogniser("courier"), courier(login + more)) is None


def cut_by_courierlogger(text: str) -> list[bytes]:
    """How courierlogger 1.0 logs one line of pop3d's standard error."""
    return [
        courier(text[start : start + 511].removeprefix("INFO: "))
        for start in range(0, len(text), 511)
    ]


@given(length=st.integers(0, 1600), extra=st.sampled_from(["", "x", " ", "LOGIN, user=b"]))
def test_no_length_of_a_name_makes_couriers_failure_a_login(length: int, extra: str) -> None:
    text = "INFO: LOGIN FAILED, user=" + "A" * length + "LOGIN, user=bob" + extra
    text += ", ip=[::ffff:203.0.113.55], port=[44471]"
    assert list(recogniser("courier").events(b"".join(cut_by_courierlogger(text)))) == []


SOCKET = "203.0.113.9"
TEMPLATES: dict[str, dict[str, list[str]]] = json.loads(
    (samples.LOGS / "templates.json").read_text()
)
"""What each server writes of a login, and of a failure: {account} and {name} (the reverse name) are
a stranger's words, {socket} is not."""


@pytest.mark.parametrize("name", formats.names())
def test_templates_are_lines_of_the_format(name: str) -> None:
    format = formats.load(name)
    for text in TEMPLATES[name]["success"]:
        line = text.format(account="bob", name="h.example.net", socket=SOCKET).encode()
        assert any(kind.pattern.fullmatch(line) for kind in format.lines), line
    for text in TEMPLATES[name]["failure"]:
        assert "{account}" in text or "{name}" in text


OWN_HEADS = {
    "apple-mailserver": "Nov 22 2026 10:41:05 ",
    "stalwart": "2026-11-22T10:41:05Z ",
    "zimbra": "2026-11-22 10:41:05,123 ",
}


def filled_in(template: str, account: str, client: str) -> str:
    """A message with these words in it, escaped where the server does that."""
    if template.startswith(("event=", "INFO Authentication ")):
        account, client = (re.sub(r'(["\\])', r"\\\1", text) for text in (account, client))
    return template.format(account=account, name=client, socket=SOCKET)


def heads(name: str) -> list[str]:
    """What stands before a message in a line of this format."""
    format = formats.load(name)
    if not format.program_names:
        return [OWN_HEADS[name]]
    program = format.program_names[0].replace("*", "")
    pid = (
        (lambda head: head.replace("[4242]", "").replace(" 4242 ", " - "))
        if (format.pid == "never")
        else str
    )
    return [pid(head.format(program)) for head in HEADS]


def check(name: str, found: Recogniser, heads: list[str], account: str, client: str) -> None:
    """No line with these words gives an address other than the socket's, or a false login."""
    for kind, texts in TEMPLATES[name].items():
        if name == "cyrus" and kind == "success" and "[" in account:
            continue  # `[A] [B] bob`: a client named [A], or an account "[B] bob", which exists
        for text in texts:
            message = filled_in(text, account, client)
            for head in heads:
                event = event_of(found, f"{head}{message}\n".encode("utf-8", "replace"))
                if event is not None:
                    assert event.address in (None, SOCKET), message
                    assert kind == "success" or event.event != "login", message


def parts(name: str) -> set[str]:
    """All pieces of what this server writes of a login from elsewhere, cut between words."""
    found = set()
    for text in TEMPLATES[name]["success"]:
        for address in ("6.6.6.6", "2001:db8::6", "2001_db8__6"):
            whole = text.format(account="bob", name="h.example.net", socket=address)
            ends = [0, *(word.end() for word in re.finditer(r"\w+|\W", whole))]
            found |= {whole[i:j] for i in ends for j in ends if i < j}
    return found


@pytest.mark.parametrize("name", formats.names())
def test_no_piece_of_a_login_in_a_strangers_words_yields_another_address(name: str) -> None:
    found, where = recogniser(name), heads(name)[:1]
    for part in parts(name):
        check(name, found, where, part, "h.example.net")
        check(name, found, where, f"bob{part} ", "h.example.net")
        if not re.search(r"\s", part):  # DNS has no blanks
            check(name, found, where, "bob", part)


PIECES = {name: sorted(parts(name)) for name in formats.names()}
WORDS = st.one_of(
    st.sampled_from(sorted(PIECES)).flatmap(lambda name: st.sampled_from(PIECES[name])),
    st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=80),
    st.sampled_from(["6.6.6.6", "[6.6.6.6]", "(6.6.6.6)", " ", "'", '"', ">", "<", ":", "bob"]),
    st.sampled_from(HEADS).map(lambda head: head.format("popper") + LOGIN),
)


@pytest.mark.parametrize("name", formats.names())
@given(account=st.lists(WORDS, max_size=4), client=st.lists(WORDS, max_size=3))
def test_no_text_of_a_stranger_yields_another_address(
    name: str, account: list[str], client: list[str]
) -> None:
    for wanted in (name, formats.AUTO):
        nameless = "".join("".join(client).split())[:255]
        check(name, recogniser(wanted), heads(name), "".join(account), nameless)


IMAPD, IPOP3D, VPOPMAIL = (HEADS[0].format(name) for name in ("imapd", "ipop3d", "vpopmail"))
DOVECOT = "Nov 22 10:41:05 mx1 dovecot: pop3-login: "
TAIL = "user=<bob>, method=PLAIN, rip=192.0.2.10, lip=192.0.2.1"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("dovecot", DOVECOT + "Login: " + TAIL.replace("PLAIN", "ANONYMOUS")),
        (
            "dovecot",
            f"{DOVECOT}proxy(bob,192.0.2.2:110): Started proxying to <192.0.2.2> (0.019 secs): "
            + TAIL.replace("PLAIN", "ANONYMOUS"),
        ),
        ("dovecot", f"{DOVECOT}Login: {TAIL}, session=<8LtSMOFg35/LAHEJ>"),  # the rest of a failure
        ("cyrus", HEADS[0].format("imap") + "login: h [6.6.6.6] bob ANONYMOUS User logged in"),
        ("cyrus", HEADS[0].format("imap") + "login: h [6.6.6.6] bob nopassword+TLS User logged in"),
        ("cyrus", HEADS[0].format("imap") + "login: [6.6.6.6] anonymous plaintext User logged in"),
        ("cyrus", HEADS[0].format("imap") + "login: [6.6.6.6] anonymous plaintext"),
        ("cyrus", HEADS[0].format("imap") + "login: [6.6.6.6] anonymous x CRAM-MD5"),
        (
            "uw-imap",
            IMAPD + "Authenticated user=x host=[6.6.6.6] mech=ANONYMOUS",
        ),
        ("uw-imap", IPOP3D + f"Login user=x host={'x' * 70} [6.6.6.6]"),
        (
            "uw-imap",
            IPOP3D + f"Login user=x host={'x' * 70} [6.6.6.6] nmsgs=1/1",
        ),
        ("vpopmail", VPOPMAIL + "vchkpw-25: (PLAIN) login success b:192.0.2.1"),
        (
            "vpopmail",
            VPOPMAIL + "vchkpw-smtp: (PLAIN) login success b:192.0.2.1",
        ),
        ("courier", "Nov 22 10:41:05 mx1 pop3d[7]: LOGIN, user=bob, ip=[192.0.2.1], port=[7]"),
    ],
)
def test_what_proves_no_password_is_no_login(name: str, line: str) -> None:
    assert recognise(line, name) is None
    assert recognise(line, formats.AUTO) is None


@pytest.mark.parametrize(
    "line",
    [
        f"{DOVECOT}Login: {TAIL}, mpid=42, TLS, session=<8LtSMOFg35/LAHEJ>",
        f"{DOVECOT}Login: {TAIL}, mpid=42, TLS, TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 "
        "(256/256 bits), session=<abc>",
        f"{DOVECOT}Login: {TAIL.replace(', lip', ', rport=4711, lip')}, lport=110, TLS",
        "2026-11-22T10:41:05+00:00 pop3-login: Info: Login: " + TAIL,
        "2026-11-22T10:41:05+0000 mx1 dovecot: pop3-login: Login: " + TAIL,
        "imap-login: 2026-11-22 10:41:05 Info: Login: " + TAIL + ", TLS",
        "<22>1 2026-11-22T10:41:05Z mx1 dovecot - - -  \ufeffpop3-login: Login: " + TAIL,
        "Nov 22 10:41:05 mx1 cyrus/imapd[88]: login: client.example.net[192.0.2.10] bob plaintext ",
        "Nov 22 10:41:05 mx1 imapd[88]: login: client.example.net[192.0.2.10] bob plaintext+TLS",
        "Nov 22 10:41:05 mx1 courier-pop3d: LOGIN, user=bob, ip=[::ffff:192.0.2.10], port=[7]",
        'Nov 22 10:41:05 mx1 perdition[4]: Auth: 192.0.2.10:35747->192.0.2.1:110 user="bob" '
        'server="h" port="110" status="ok"',
    ],
)
def test_less_common_lines_of_a_login(line: str) -> None:
    event = recognise(line, formats.AUTO)
    assert event is not None
    assert (event.event, event.address, event.account) == ("login", "192.0.2.10", "bob")


def test_a_session_without_a_process_counts_behind_its_head_alone() -> None:
    """In Dovecot's own file the head of a message that was cut stands right before the rest."""
    stamp = "2026-11-22 10:41:05 imap-login: Info: "
    rest = f"{stamp}Login: {TAIL}, session=<8LtSMOFg35/LAHEJ>\n".encode()
    head = f"{stamp}ID sent: {'x' * 4000}\n".encode()
    assert isinstance(recogniser("dovecot").recognise(rest), Event)
    found = recogniser("dovecot")
    assert [found.recognise(line) for line in (head, rest)][1:] == [
        Rejection("it may be the rest of a message whose head a stranger wrote")
    ]
    by_syslog = f"{DOVECOT}Login: {TAIL}, session=<8LtSMOFg35/LAHEJ>\n".encode()
    rejected = recogniser("dovecot").recognise(by_syslog)
    assert isinstance(rejected, Rejection)
    assert "add the format dovecot-no-mpid" in rejected.reason
    both = recogniser("dovecot", "dovecot-no-mpid")
    assert isinstance(both.recognise(by_syslog), Event)


@pytest.mark.parametrize(
    ("name", "line", "reason"),
    [
        ("dovecot", f"{DOVECOT}Login: user=<bob>, method=PLAIN, TLS", "it has no rip="),
        ("dovecot", f"{DOVECOT}Login: {TAIL}, x=1", "login_log_format_elements are not"),
        ("dovecot", f"{DOVECOT}Login: rip=192.0.2.1, user=<b>b>", "its user name has a < or >"),
        ("dovecot", f"{DOVECOT}Login: {TAIL.replace('PLAIN', 'ANONYMOUS')}", "anonymous"),
        ("cyrus", HEADS[0].format("imap") + "login: h [6.6.6.6] b nopassword User logged in", "-N"),
        (
            "nginx-mail",
            "2026/11/22 10:41:05 [info] 1#1: *1 client logged in, client: 192.0.2.10, "
            'server: 0.0.0.0:110, login: "bob"',
            "own file is no evidence",
        ),
    ],
)
def test_why_it_is_no_login(name: str, line: str, reason: str) -> None:
    for wanted in (name, formats.AUTO):
        found = recogniser(wanted).recognise(line.encode() + b"\n")
        assert isinstance(found, Rejection)
        assert reason in found.reason


def test_a_log_may_name_the_programs_of_its_formats() -> None:
    """Dovecot's instance_name is its tag."""
    line = f"{DOVECOT}Login: {TAIL}, mpid=4\n".replace("dovecot", "dovecot-backend").encode()
    other = f"{DOVECOT}Login: {TAIL}, mpid=4\n".encode()
    found = Recogniser(["dovecot"], Clock(NOW), programs=["dovecot-back*"])
    assert found.recognise(other) is None
    assert found.recognise(line) == recogniser("dovecot").recognise(other)
    assert recogniser("dovecot").recognise(line) is None


def test_a_cut_message_of_one_server_is_no_matter_to_others() -> None:
    qpopper = (HEADS[0].format("popper") + LOGIN + "\n").encode()
    for long in (b"x" * 5000 + b"\n", b"Nov 22 10:41:05 mx1 sm-mta[7]: " + b"x" * 5000 + b"\n"):
        assert len(list(recogniser(formats.AUTO).events(long + qpopper))) == 1
    dovecot = f"{DOVECOT}Login: {TAIL}\n".encode()
    cut = b"Nov 22 10:41:05 mx1 dovecot: imap-login: ID sent: " + b"x" * 4000 + b"\n"
    assert list(recogniser(formats.AUTO).events(cut + dovecot)) == []
    assert len(list(recogniser(formats.AUTO).events(cut + qpopper))) == 1


def test_what_was_cut_is_counted() -> None:
    found = recogniser("courier")
    assert event_of(found, HEAD) is None
    reason = "it may be the rest of a message whose head a stranger wrote"
    assert found.recognise(FORGED) == Rejection(reason)
    assert found.unusable.cut == 1


def test_of_two_formats_the_first_wins() -> None:
    line = (HEADS[0].format("popper") + "Stats: bob 0 0 0 0 h 192.0.2.1\n").encode()
    for names, event in (
        (["qpopper", "qpopper-stats"], "logout"),
        (["qpopper-stats", "qpopper"], "login"),
    ):
        found = event_of(recogniser(*names), line)
        assert found is not None
        assert (found.event, found.format) == (event, names[0])


def of_all_shapes(name: str) -> list[bytes]:
    """Sample lines of a format, one of each kind, without their newlines."""
    found: dict[object, bytes] = {}
    for row in samples.rows(name):
        kind = re.sub(r"[A-Za-z]+", "a", re.sub(r"\d+", "0", row["line"]))
        found.setdefault((row["event"], kind), samples.data(row).removesuffix(b"\n"))
    return list(found.values())


@pytest.mark.parametrize("between", [b"", b"\0\0\0\0"], ids=["full disk", "power cut"])
@pytest.mark.parametrize("name", formats.names())
def test_half_a_line_and_the_next_one_are_no_evidence(name: str, between: bytes) -> None:
    lines = of_all_shapes(name)
    events = [line for line in lines if event_of(recogniser(name), line + b"\n")]
    shown = [events[0], events[-1], lines[-1]]
    for first in events[:20]:
        frame = frames.name_of(first)
        for end in range(1, len(first) + 1):
            for second in shown:
                torn = first[:end] + between + second
                if re.fullmatch(rb"<\d{1,3}>", first[:end] + between):
                    continue  # a whole line, behind a priority as templates write it
                for wanted in (name, formats.AUTO) if end % 16 == 0 else (name,):
                    found = recogniser(wanted, context=Context(frame=frame))
                    said = event_of(found, torn + b"\n")
                    if frames.name_of(torn) == frame:
                        assert said is None, torn
                    else:  # half of a head before a whole line of another daemon's
                        assert said in (None, event_of(recogniser(name), second + b"\n")), torn


TORN = [
    ("courier", "pop3d: LOGIN, user=bo", "pop3d: LOGIN FAILED, user=x, ip=[::ffff:203.0.113.1]"),
    (
        "teapop",
        "teapop[5]: Successful login for bo",
        "teapop[6]: Failed login for x [192.0.2.1] from evil [203.0.113.3]",
    ),
    (
        "uw-imap",
        "ipop3d[5]: Login user=bo",
        "ipop3d[6]: Login failed user=x auth=x host=evil [203.0.113.4]",
    ),
    (
        "solid-pop3d",
        "solid-pop3d[5]: user bo",
        "solid-pop3d[6]: authentication failed: no such user: x authenticated - h (203.0.113.5)",
    ),
]
STAMP_FORMS = [
    "Nov 22 10:41:06 mx1 ",
    "Nov 2 10:41:06 mx1 ",
    "2026-11-22T10:41:06.123456+00:00 mx1 ",
    "<22>1 2026-11-22T10:41:06Z mx1 ",
    "Nov 22 10:41:06.123 2026 ",
    "Sun Nov 22 10:41:06 2026 ",
    "2026-11-22 10:41:06 ",
    "2026-11-22 10:41:06,123 ",
    "Nov 22 2026 10:41:06 ",
    "@400000004c91b044077a9e94 ",
    " ",  # ` program[pid]: ` alone is a head, too
]


@pytest.mark.parametrize("stamp", STAMP_FORMS)
@pytest.mark.parametrize(("name", "first", "second"), TORN)
def test_no_field_holds_another_lines_head(name: str, first: str, second: str, stamp: str) -> None:
    second = second.replace("pop3d:", "imapd[7]:") if stamp == " " else second
    line = f"Nov 22 10:41:05 mx1 {first}{stamp}{second}\n".encode()
    for wanted in (name, formats.AUTO):
        found = recogniser(wanted)
        reason = "it holds the head of another line, as after a full disk"
        assert found.recognise(line) == Rejection(reason)
        assert found.unusable.torn == 1


@pytest.mark.parametrize("stamp", STAMP_FORMS)
@pytest.mark.parametrize(("name", "first", "second"), TORN)
def test_no_field_of_a_journals_message_holds_one(
    name: str, first: str, second: str, stamp: str
) -> None:
    """Its own stamp, which comes apart from it, is none that stands there."""
    second = second.replace("pop3d:", "imapd[7]:") if stamp == " " else second
    frame = frames.split(f"Nov 22 10:41:04 mx1 {first}{stamp}{second}".encode())
    assert frame is not None
    for wanted in (name, formats.AUTO):
        found = recogniser(wanted)
        reason = "it holds the head of another line, as after a full disk"
        assert found.recognise_frame(frame) == Rejection(reason)
        assert found.unusable.torn == 1


@pytest.mark.parametrize("byte", [*range(0x0A), *range(0x0B, 0x20), 0x7F])
def test_no_field_holds_a_control_byte(byte: int) -> None:
    control = bytes([byte])
    for name, line in (
        ("courier", courier("LOGIN, user=b%b, ip=[192.0.2.1]").replace(b"%b", control)),
        ("teapop", b"Nov 22 10:41:05 mx1 teapop[5]: Successful login for b%b [192.0.2.1]\n"),
        (
            "vpopmail",
            b"Nov 22 10:41:05 mx1 vpopmail[5]: vchkpw-pop3: login success b%b:192.0.2.1\n",
        ),
    ):
        assert event_of(recogniser(name), line.replace(b"%b", b"u")) or b"%b" not in line
        assert event_of(recogniser(name), line.replace(b"%b", control)) is None
    rejected = recogniser("courier").recognise(courier(f"LOGIN, user=b{chr(byte)}, ip=[192.0.2.1]"))
    assert rejected == Rejection("it holds a control byte, as after a power cut")


@pytest.mark.parametrize(
    "account",
    ["1795348030", "2026112210", "20261122T104105Z", "m\u00fcller", "b\u0080b", "\u2028",
     "10:41:05", "Nov 22", "2026-11-22", "popper[7]", "mx1 popper:", "a[1]:b", "@40000000", "@bob"],
)  # fmt: skip
def test_names_that_are_no_heads(account: str) -> None:
    event = recognise(
        courier(f"LOGIN, user={account}, ip=[192.0.2.1]").decode().rstrip("\n"), "courier"
    )
    assert event is not None
    assert event.account == account


TORN_HEAD = courier("LOGIN FAILED, user=" + "A" * 100).removesuffix(b"\n")


@pytest.mark.parametrize(
    "torn",
    [
        TORN_HEAD + courier("Connection, ip=[::ffff:192.0.2.1]"),
        TORN_HEAD + courier("LOGIN FAILED, user=x, ip=[::ffff:203.0.113.5], port=[7]"),
        courier("LOGIN, user=bo", "imapd").removesuffix(b"\n") + HEAD,
        courier("LOGIN, us", "imapd").removesuffix(b"\n") + courier("LOGIN FAILED, user=A"),
        b"Nov 22 10:41:05 mx1 sm-mta[7]: x" + HEAD,
        b"Nov 22 10:4" + HEAD,
    ],
)
def test_a_torn_line_may_hide_a_cut_message(torn: bytes) -> None:
    for name in ("courier", formats.AUTO):
        assert event_of(recogniser(name), FORGED) is not None
        assert list(recogniser(name).events(torn + FORGED)) == []
        by_line = recogniser(name)
        assert [event_of(by_line, line) for line in (torn, FORGED)] == [None, None]


def at(minute: int, text: str, tag: str = "pop3d") -> bytes:
    return courier(text, tag).replace(b"10:41:05", b"%02d:%02d:05" % divmod(600 + minute, 60))


def test_the_doubt_ends_with_time() -> None:
    """After 30 minutes with one session each, though 72 KB of messages would take hours."""
    quiet = [at(minute, "Connection, ip=[::ffff:192.0.2.1]") for minute in range(42, 72)]
    login = at(72, "LOGIN, user=bob, ip=[::ffff:192.0.2.1], port=[7]")
    assert event_of(recogniser("courier"), login) is not None
    head = at(41, "LOGIN FAILED, user=" + "A" * 486)
    for name in ("courier", formats.AUTO):
        assert [event.address for event in recogniser(name).events(b"".join([head, *quiet, login]))]
        found: list[Event] = []
        context = Context()  # a run after each line
        for line in [head, *quiet, login]:
            found += recogniser(name, context=context).events(line)
        assert len(found) == 1


@pytest.mark.parametrize(
    ("between", "counts"),
    [
        ([at(minute, "x") for minute in range(42, 51)], False),
        ([at(minute, "x") for minute in range(42, 52)], True),
        ([at(minute, "x", "imapd") for minute in range(42, 72)], False),
        ([at(42, "x")] * 100, False),
        ([at(41, "x")] * 100, False),
        ([at(minute, "x") for minute in range(41, 11, -1)], False),
        ([at(42 + number % 2, "x") for number in range(100)], False),
        ([at(minute, "x" * 450) for minute in range(42, 72)], False),
        ([courier("x").replace(b"Nov 22", b"Nov 39")] * 100, False),
    ],
)
def test_only_later_minutes_of_the_writer_end_the_doubt(between: list[bytes], counts: bool) -> None:
    lines = [at(41, "LOGIN FAILED, user=" + "A" * 486), *between, at(80, "LOGIN, user=b, ip=[::1]")]
    assert bool(list(recogniser("courier").events(b"".join(lines)))) == counts


@pytest.mark.parametrize(
    ("beginning", "counts"),
    [
        (b"", True),
        (b"\0" * 5000, True),
        (b"Nov 22 10:41:05 mx1 sapd[7]: log cut, 12 lines removed       \n", True),
        (b"AAAAAA, ip=[::ffff:203.0.113.9], port=[7]\n", False),
        (b"\0\0AAAAAA, ip=[::ffff:203.0.113.9], port=[7]\n", False),
        (b"0:41:05 mx1 pop3d: LOGIN FAILED, user=x, ip=[::1]\n", False),
        (b"\n", True),
    ],
)
def test_a_file_that_begins_with_half_a_line_is_distrusted(beginning: bytes, counts: bool) -> None:
    for login in (FORGED, f"{DOVECOT}Login: {TAIL}, mpid=42, session=<abc>\n".encode()):
        found = recogniser(formats.AUTO)
        found.begin(beginning + login)
        assert bool(list(found.events(beginning + login))) == counts
        assert bool(list(found.events(courier("x" * 300) * (BEHIND // 300 + 1) + login)))


def test_who_cuts_nothing_is_never_distrusted() -> None:
    found = recogniser("qpopper")
    found.begin(b"half\n")
    assert found.context == Context()


def test_what_was_learnt_of_a_head_counts_and_nothing_else() -> None:
    found = recogniser("courier")
    found.learn(FORGED + courier("LOGIN, user=bob, ip=[x]") + HEAD + FORGED)
    assert vars(found.unusable) == vars(Unusable())
    assert event_of(found, FORGED) is None
