"""Real POP and IMAP servers, attacked by real clients, through a real rsyslogd.

No address but the client's own is ever opened, and that only after a real login.
"""

import json
import re
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import cycle, product
from pathlib import Path

import pytest

from sapd.events import formats
from sapd.events.recogniser import Event, Recogniser
from sapd.timestamps import Clock
from tests import samples
from tests.servers.courier import Courier, Courier13
from tests.servers.cyrus import Cyrus
from tests.servers.dovecot import Dovecot, Dovecot24, version
from tests.servers.machine import Machine
from tests.servers.mailutils import Mailutils
from tests.servers.namespace import SERVER_IPV4
from tests.servers.nginx import Nginx
from tests.servers.packages import RELEASE
from tests.servers.perdition import Perdition
from tests.servers.pop import Session, login_imap, login_pop3
from tests.servers.popa3d import Popa3d
from tests.servers.rsyslog import read, wait_until
from tests.servers.server import Server
from tests.servers.solid import Solid
from tests.site import Site

pytestmark = pytest.mark.servers

KINDS: list[type[Server]] = [
    *(Courier, Cyrus, Dovecot, Mailutils, Nginx, Perdition, Popa3d, Solid),
    *(() if RELEASE == "trixie" else (Courier13, Dovecot24)),
]
PROXIES = ("nginx-mail", "perdition")
IPV4, IPV6 = "198.51.100.7", "2001:db8:0:1::7"
NAMES = {  # what clients are called; who holds an address may choose it
    "203.0.113.66": "[6.6.6.6]",
    "203.0.113.67": "evil[6.6.6.6]",
    "203.0.113.68": "6.6.6.6",
    "203.0.113.69": "user=bob,ip=[6.6.6.6]",
    "203.0.113.70": "a" * 40 + ".b" * 20 + ".6.6.6.6",
}
STRANGERS = ["203.0.113.8", "203.0.113.9", *NAMES]
CLIENTS = [IPV4, IPV6, *STRANGERS, "203.0.113.71"]
LATE = CLIENTS[-1]
UNREADABLE = re.compile(r"[<>\[\]]")
"""What an account can't hold and be told from the text around it: such logins open nothing."""
READ_ALL = ("dovecot", "nginx-mail")
"""Formats that can tell any account."""


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    kind: type[Server] = request.param
    machine = Machine(tmp_path_factory.mktemp("machine"), CLIENTS, NAMES, kind.PACKAGES)
    with machine, kind(machine, tmp_path_factory.mktemp(kind.NAME)) as started:
        yield started


def logins(server: Server, wanted: str, path: Path | None = None) -> list[Event]:
    """The logins that the log tells of so far."""
    recogniser = Recogniser([wanted], Clock(time.time()))
    events = recogniser.events(read(path or server.machine.log))
    return [event for event in events if event.event == "login"]


def opened(server: Server, wanted: str = "") -> set[str | None]:
    """The addresses that logins open; the proxy's own logs in behind it, by Dovecot's lines."""
    addresses = {event.address for event in logins(server, wanted or server.NAME)}
    return addresses - ({SERVER_IPV4} if wanted and server.NAME in PROXIES else set())


def all_is_logged(server: Server) -> None:
    """Wait until it is, in all three forms, and see that they mean the same."""
    machine, last = server.machine, f"all is logged {time.monotonic_ns()}"
    machine.run(["logger", "-t", "test", last])
    machine.wait_for(last.encode())  # which is in the other forms by then
    said = [
        [(event.address, event.account) for event in logins(server, server.NAME, path)]
        for path in (machine.log, machine.traditional, machine.rfc5424)
    ]
    assert said[0] == said[1] == said[2]


def log_in(server: Server, client: str, user: str) -> int:
    """Log in by all protocols that take the name; how often."""
    password, times = server.users[user], 0
    if server.pop3 and (server.blanks or " " not in user):
        assert login_pop3(server.machine, client, server.pop3, user, password), user
        times += 1
    if server.imap:
        assert login_imap(server.machine, client, server.imap, user, password), user
        times += 1
    return times


@pytest.mark.parametrize("client", [IPV4, IPV6])
def test_every_user_who_logs_in_opens_his_address(server: Server, client: str) -> None:
    if client == IPV6 and not server.ipv6:
        with pytest.raises(ConnectionRefusedError):
            server.machine.connect(client, server.pop3 or 0)
        return
    before = len(logins(server, server.NAME))
    times = {user: log_in(server, client, user) for user in server.users}
    any_name = server.NAME in READ_ALL
    readable = {user: n for user, n in times.items() if any_name or not UNREADABLE.search(user)}
    wait_until(lambda: len(logins(server, server.NAME)) >= before + sum(readable.values()))
    expected = None if server.NAME == "gnu-mailutils" else client
    for user, count in readable.items():
        if count == 0:
            continue
        local = user.partition("@")[0] if server.NAME in ("gnu-mailutils", "solid-pop3d") else user
        found = [event for event in logins(server, server.NAME)[before:] if event.account == local]
        assert len(found) >= count, user
        assert {event.address for event in found} == {expected}


def test_a_client_with_an_address_for_a_name_opens_his_own(server: Server) -> None:
    for client in NAMES:
        before = len(logins(server, server.NAME))
        enough = before + log_in(server, client, "bob")
        wait_until(lambda enough=enough: len(logins(server, server.NAME)) >= enough)  # type: ignore[misc]
        addresses = {event.address for event in logins(server, server.NAME)[before:]}
        assert addresses == {None if server.NAME == "gnu-mailutils" else client}


@pytest.mark.parametrize("server", [Courier13], indirect=True)
def test_couriers_logins_with_tls(server: Server) -> None:
    """The lines end in stls=1 and starttls=1."""
    client, password = IPV4, server.users["bob"].encode()
    before = len(logins(server, "courier"))
    assert server.pop3 is not None
    assert server.imap is not None
    with Session(server.machine, client, server.pop3) as session:
        session.start_tls(b"STLS")
        session.say(b"USER bob")
        assert session.say(b"PASS " + password).startswith(b"+OK")
        session.hang_up(b"QUIT")
    with Session(server.machine, client, server.imap, imap=True) as session:
        session.start_tls(b"a STARTTLS")
        assert b"b OK" in session.say(b"b LOGIN bob " + password)
        session.hang_up(b"c LOGOUT")
    all_is_logged(server)
    log = read(server.machine.log)
    for says in (rb" pop3d: LOGIN, .*, stls=1\n", rb" imapd: LOGIN, .*, starttls=1\n"):
        assert re.search(says, log)
    found = logins(server, "courier")[before:]
    assert [(event.address, event.account) for event in found] == [(client, "bob")] * 2


def hostile(name: str) -> list[bytes]:
    """Names of accounts that do not exist: what this server writes of a login, and worse."""
    templates = json.loads((samples.LOGS / "templates.json").read_text())[name]["success"]
    success = [text.format(account="bob", name="h", socket="6.6.6.6") for text in templates]
    head = f"Nov 22 11:00:00 mx1 {formats.load(name).program_names[0]}[77]: "
    words = [
        *success,
        "x " + success[0],
        head + success[0],
        f"x\r\n{head}{success[0]}",
        "\n" + success[0],
        "#012" + success[0],
        'bob"', "bob'", "bob\\", "[203.0.113.66]", "bob [6.6.6.6]", "bob>, rip=6.6.6.6",
        "bob\x1b[2J (6.6.6.6)", "bob\t6.6.6.6", "%s%n", "m\u00fcller\u2028", "",
        "A" * 3000 + success[0],
    ]  # fmt: skip
    latin = [b"m\xe9\xff\xfe " + success[0].encode()]
    # courierlogger cuts at 511 bytes, perdition at 4095: try lengths on both sides.
    padded = [
        fill * (length - len(words)) + words
        for words in (b"LOGIN, user=bob", b'" status="ok"', b"User logged in")
        for fill in (b"A", b" ")
        for length in (486 + len(words), 487 + len(words), 4000)
    ]
    return [word.encode() for word in words] + latin + padded


def attempts(server: Server, name: bytes) -> Iterator[tuple[int, list[bytes], bool]]:
    """All ways to try to log in by this name, with a wrong password: port, lines, IMAP or not."""
    plain = b64encode(b"\0" + name + b"\0wrong")
    line = name.replace(b"\r", b" ").replace(b"\n", b" ").replace(b"\0", b" ")
    quoted = line.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    if server.pop3:
        for lines in (
            [b"USER " + line, b"PASS wrong"],
            [b"APOP " + line + b" 0123456789abcdef0123456789abcdef"],
            [b"AUTH PLAIN", plain],
            [b"AUTH " + line],
            [line],
        ):
            yield server.pop3, lines, False
    if server.imap:
        for lines in (
            [b"a LOGIN {%d}" % len(name), name + b" wrong"],
            [b'a LOGIN "%s" wrong' % quoted],
            [b"a AUTHENTICATE PLAIN", plain],
            [b"a AUTHENTICATE " + line],
            [b'a ID ("name" "%s" "version" "%s")' % (quoted, quoted)],
            [line],
        ):
            yield server.imap, lines, True


def say(server: Server, client: str, port: int, lines: list[bytes], imap: bool) -> None:
    """Say all but the last line, then the last and good-bye, and leave when the server does."""
    with suppress(OSError), Session(server.machine, client, port, imap) as session:
        for line in lines[:-1]:
            session.say(line)
        session.socket.settimeout(8)
        session.hang_up(lines[-1] + (b"\r\nb LOGOUT" if imap else b"\r\nQUIT"))


def test_no_name_that_a_stranger_sends_opens_anything(server: Server) -> None:
    all_is_logged(server)
    before = len(logins(server, server.NAME))
    was = opened(server), opened(server, formats.AUTO)
    names = hostile(server.NAME)
    clients = cycle(STRANGERS)
    with ThreadPoolExecutor(200) as pool:  # most of the time they wait for the answer
        said = [
            pool.submit(say, server, next(clients), port, lines, imap)
            for name in names
            for port, lines, imap in attempts(server, name)
        ]
    for each in said:
        each.result()
    all_is_logged(server)
    if server.NAME != "popa3d":  # which logs no names but those of accounts
        assert b"6.6.6.6" in read(server.machine.log)
    after = logins(server, server.NAME)[before:]
    assert after == []
    assert (opened(server), opened(server, formats.AUTO)) == was


def test_sapd_opens_who_logged_in_and_nobody_else(server: Server, tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.log = server.machine.log
    site.configure(log_settings=f'formats = ["{server.NAME}"]')
    text = site.config.read_text().replace('path = "qpopper"', f'path = "{site.log}"')
    site.config.write_text(text)
    site.run()
    honest = opened(server) - {None}
    assert site.open_addresses() == honest
    log_in(server, LATE, "bob")
    all_is_logged(server)
    site.run()
    doubted = server.NAME in ("courier", "gnu-mailutils")  # for the attack; for want of an address
    assert site.open_addresses() == (honest if doubted else honest | {LATE})
    relaying = {address for address in site.relaying() if not address.startswith("ipv6:")}
    assert relaying == (site.open_addresses() | {"198.51.100.9"}) - {IPV6}


@pytest.mark.parametrize("server", [Courier], indirect=True)
def test_couriers_users_are_believed_again(server: Server) -> None:
    assert LATE not in opened(server)
    machine, port, password = server.machine, server.pop3 or 0, server.users["bob"]
    with ThreadPoolExecutor(8) as pool:
        said = [pool.submit(login_pop3, machine, LATE, port, "bob", password) for _ in range(400)]
    assert all(each.result() for each in said)
    all_is_logged(server)
    assert LATE in opened(server)
    assert opened(server) <= {IPV4, IPV6, LATE, *NAMES}


@pytest.mark.parametrize("server", [Courier], indirect=True)
def test_courierlogger_makes_a_success_line_of_a_long_name(server: Server) -> None:
    """If it did not any more, the distrust would be for nothing."""
    assert server.pop3 is not None
    text = read(server.machine.log)
    cut = rb" pop3d: LOGIN FAILED, user=[A ]{486}\n"
    forged = rb".* pop3d: LOGIN, user=bob, ip=\[::ffff:203\.0\.113\.\d+\], port=\[\d+\]\n"
    assert re.search(cut + forged, text)


@pytest.mark.parametrize("server", [Nginx], indirect=True)
def test_nginxs_own_log_can_be_forged(server: Server) -> None:
    """If it could not any more, its own log might be read, too."""
    line = (
        "2026/11/27 19:10:05 [info] 1#1: *1 client logged in, client: 6.6.6.6, "
        'server: 0.0.0.0:110, login: "bob'
    )
    name = b"x\n" + line.encode()
    assert server.imap is not None
    say(server, LATE, server.imap, [b"a LOGIN {%d}" % len(name), name + b" wrong"], imap=True)
    own = server.folder / "error.log"
    wait_until(lambda: f'\n{line}", upstream: ' in own.read_text(errors="replace"))
    recogniser = Recogniser(["nginx-mail"], Clock(time.time()))
    forged = [line for line in read(own).splitlines(keepends=True) if line.startswith(b"2026/11")]
    assert not any(isinstance(recogniser.recognise(line), Event) for line in forged)


def test_dovecot_makes_a_success_line_of_a_long_id(tmp_path: Path) -> None:
    """It cuts messages over 4,096 bytes, and logs as many fields as a client sends, if asked to."""
    client, names = STRANGERS[0], (b"Login", b"Logged in", b"proxy(a,b:1): Started proxying to h")
    with Machine(tmp_path, [client], packages=Dovecot.PACKAGES) as machine, ExitStack() as stack:
        dovecot = Dovecot(machine, tmp_path, "imap_id_log = *\n")
        if version(dovecot.machine) >= (2, 4):  # it does not write them any more
            with pytest.raises(RuntimeError, match="Unknown setting: imap_id_log"):
                stack.enter_context(dovecot)
            return
        server = stack.enter_context(dovecot)

        def identify(word: bytes, fill: int) -> None:
            fields = [b'"k" "%s"' % (b"A" * 80)] * 48 + [b'"k" "%s%s"' % (b"B" * fill, word)]
            with Session(machine, client, 143, imap=True) as session:
                session.say(b"a AUTHENTICATE PLAIN " + b64encode(b"\0x\0wrong"))
                session.say(b"b ID (" + b" ".join(fields) + b")")
                session.hang_up(b"c LOGOUT")

        with ThreadPoolExecutor(12) as pool:
            list(pool.map(identify, *zip(*product(names, range(40, 52)), strict=True)))
        all_is_logged(server)
        forged = re.findall(rb" imap-login: (?:Login|Logged in): user=<x>, .*\n", read(machine.log))
        assert forged  # if there was none any more, the distrust would be for nothing
        assert opened(server) == opened(server, formats.AUTO) == set()
