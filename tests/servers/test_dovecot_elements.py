"""Real Dovecots with an administrator's own settings of what they log."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sapd.events import formats
from sapd.events.recogniser import Event, Recogniser
from sapd.timestamps import Clock
from tests.servers.dovecot import Dovecot, Dovecot24, version
from tests.servers.machine import Machine
from tests.servers.packages import RELEASE
from tests.servers.pop import Session, login_imap, login_pop3
from tests.servers.rsyslog import read

pytestmark = pytest.mark.servers

IPV4, IPV6, PROXY, STRANGER = "198.51.100.7", "2001:db8:0:1::7", "198.51.100.8", "203.0.113.9"
BEHIND = "198.51.100.99"
WORDS_2_3, WORDS_2_4 = (
    {
        "user": "%u", "method": "%m", "rip": "%r", "lip": "%l", "mpid": "%e", "secured": "%c",
        "rport": "%b", "lport": "%a", "service": "%s", "session": "%{session}", "security": "%k",
    },
    {
        "user": "%{user}", "method": "%{mechanism}", "rip": "%{remote_ip}",
        "lip": "%{local_ip}", "mpid": "%{mail_pid}", "secured": "%{secured}",
        "rport": "%{remote_port}", "lport": "%{local_port}", "service": "%{protocol}",
        "session": "%{session}", "security": "%{ssl_security}",
    },
)  # fmt: skip
READ = [
    "rip={rip} user=<{user}> session=<{session}> mpid={mpid} {secured} service={service}",
    "user=<{user}> PID={mpid} {secured} rip={rip} lip={lip} rport={rport} lport={lport}",
    "method={method} {secured} {security} session=<{session}> user=<{user}> mpid={mpid} rip={rip}",
]
WITHOUT_MPID = "method={method} user=<{user}> rip={rip} session=<{session}>"
NO_ADDRESS = [
    "user=<{user}> method={method} session=<{session}>",
    "user=<{user}> method={method} mpid={mpid} {secured}",
    "session=<{session}> user=<{user}> mpid={mpid}",
]


KINDS = [Dovecot] if RELEASE == "trixie" else [Dovecot, Dovecot24]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[Dovecot]:
    found: type[Dovecot] = request.param
    return found


@pytest.fixture(scope="module")
def machine(kind: type[Dovecot], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    clients = [IPV4, IPV6, PROXY, STRANGER]
    with Machine(tmp_path_factory.mktemp("machine"), clients, {}, kind.PACKAGES) as machine:
        yield machine


def log_in(server: Dovecot, users: Sequence[str] = Dovecot.USERS) -> None:
    for user in users:
        assert login_pop3(server.machine, IPV4, server.pop3, user, server.users[user])
        assert login_imap(server.machine, IPV6, server.imap, user, server.users[user])


def logins(log: bytes, *names: str, programs: Sequence[str] = ()) -> list[tuple[str | None, str]]:
    recogniser = Recogniser(names, Clock(time.time()), programs=programs)
    return [
        (event.address, event.account)
        for event in recogniser.events(log)
        if isinstance(event, Event) and event.event == "login"
    ]


@contextmanager
def running(
    kind: type[Dovecot], machine: Machine, folder: Path, settings: str
) -> Iterator[tuple[Dovecot, list[bytes]]]:
    """A Dovecot with these settings; behind `with`, what was logged is in the list."""
    mark, last = (f"here it {verb} {time.monotonic_ns()}" for verb in ("begins", "ends"))
    machine.run(["logger", "-t", "test", mark])
    log: list[bytes] = []
    with kind(machine, folder, settings) as server:
        yield server, log
    machine.run(["logger", "-t", "test", last])
    machine.wait_for(last.encode())
    log.append(read(machine.log).partition(mark.encode() + b"\n")[2])


def logged(
    kind: type[Dovecot], machine: Machine, folder: Path, settings: str, users: Sequence[str]
) -> bytes:
    """What a Dovecot with these settings logs when these users log in by POP3 and IMAP."""
    with running(kind, machine, folder, settings) as (server, log):
        log_in(server, users)
    return log[0]


def elements(machine: Machine, text: str) -> str:
    words = WORDS_2_4 if version(machine) >= (2, 4) else WORDS_2_3
    return f"login_log_format_elements = {text.format(**words)}\n"


ORDINARY = [name for name in Dovecot.USERS if ">" not in name]


@pytest.mark.parametrize("text", READ)
def test_elements_in_any_order(
    kind: type[Dovecot], machine: Machine, tmp_path: Path, text: str
) -> None:
    log = logged(kind, machine, tmp_path, elements(machine, text), ORDINARY)
    wanted = [(client, user) for user in ORDINARY for client in (IPV4, IPV6)]
    assert logins(log, "dovecot") == logins(log, formats.AUTO) == wanted


def test_elements_without_a_process_by_syslog_and_in_a_file(
    kind: type[Dovecot], machine: Machine, tmp_path: Path
) -> None:
    wanted = [(client, user) for user in ORDINARY for client in (IPV4, IPV6)]
    settings = elements(machine, WITHOUT_MPID)
    log = logged(kind, machine, tmp_path, settings, ORDINARY)
    assert logins(log, "dovecot") == logins(log, formats.AUTO) == []
    assert logins(log, "dovecot", "dovecot-no-mpid") == wanted
    own = tmp_path / "dovecot.log"
    logged(kind, machine, tmp_path, f"{settings}log_path = {own}\n", ORDINARY)
    assert logins(own.read_bytes(), "dovecot") == wanted


@pytest.mark.parametrize("text", NO_ADDRESS)
def test_where_no_address_is_logged_no_name_brings_one(
    kind: type[Dovecot], machine: Machine, tmp_path: Path, text: str
) -> None:
    log = logged(kind, machine, tmp_path, elements(machine, text), Dovecot.USERS)
    assert b"rip=6.6.6.6" in log
    for names in (["dovecot"], ["dovecot", "dovecot-no-mpid"], [formats.AUTO]):
        assert logins(log, *names) == []


def test_an_instance_by_its_name(kind: type[Dovecot], machine: Machine, tmp_path: Path) -> None:
    log = logged(kind, machine, tmp_path, "instance_name = dovecot-backend\n", ["bob"])
    assert b" dovecot-backend: " in log
    assert logins(log, "dovecot") == []
    assert logins(log, "dovecot", programs=["dovecot-backend"]) == [(IPV4, "bob"), (IPV6, "bob")]


def test_behind_haproxy(kind: type[Dovecot], machine: Machine, tmp_path: Path) -> None:
    """The address is what a trusted proxy says; from others its words are none."""
    settings = f"""
haproxy_trusted_networks = {PROXY}/32
service imap-login {{
  inet_listener imap_proxied {{
    port = 1443
    haproxy = yes
  }}
}}
"""
    header = f"PROXY TCP4 {BEHIND} 192.0.2.25 40797 143\r\n".encode()
    with running(kind, machine, tmp_path, settings) as (server, log):
        for client in (PROXY, STRANGER):
            with suppress(OSError), machine.connect(client, 1443) as connection:
                connection.sendall(header + b"a LOGIN bob sesame\r\nb LOGOUT\r\n")
                while connection.recv(4096):
                    pass
        with Session(machine, STRANGER, server.imap, imap=True) as session:
            session.say(header.strip())
            session.hang_up(b"b LOGOUT")
    assert logins(log[0], "dovecot") == [(BEHIND, "bob")]
