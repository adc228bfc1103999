"""A real courierlogger cuts a long name: whom that casts doubt on, and until when.

Every line is one that it wrote, through a real rsyslogd. The later minutes are its own honest
sessions, stamped anew.
"""

import re
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from sapd.events.recogniser import Event, Recogniser
from sapd.timestamps import Clock
from tests.servers.courier import Courier
from tests.servers.machine import Machine
from tests.servers.pop import login_pop3
from tests.site import Site

pytestmark = pytest.mark.servers

HONEST, STRANGER = "198.51.100.7", "203.0.113.8"
NAMES = {
    "484 bytes": "A" * 484,
    "a rest that looks like a login": "A" * 486 + "LOGIN, user=bob",
}
_STAMP = re.compile(rb"\S+")


class Attack(NamedTuple):
    """What courierlogger wrote: the two parts of a failed login, and an honest session's lines."""

    head: bytes
    rest: bytes
    session: list[bytes]


@pytest.fixture(scope="module")
def attacks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Attack]]:
    machine = Machine(
        tmp_path_factory.mktemp("machine"), [HONEST, STRANGER], packages=Courier.PACKAGES
    )
    with machine, Courier(machine, tmp_path_factory.mktemp("courier")) as server:
        yield {key: attack(machine, server, name) for key, name in NAMES.items()}


def attack(machine: Machine, server: Courier, name: str) -> Attack:
    """Fail to log in by a name, then log in by another; courierlogger holds back till then."""
    before = len(machine.log.read_bytes())
    assert not login_pop3(machine, STRANGER, server.pop3, name, "wrong")
    assert login_pop3(machine, HONEST, server.pop3, "bob", server.users["bob"])
    last = f"all is logged {before}"
    machine.run(["logger", "-t", "test", last])
    machine.wait_for(last.encode())
    lines = machine.log.read_bytes()[before:].splitlines(keepends=True)
    lines = [line for line in lines if b" pop3d: " in line]
    (head,) = (n for n, line in enumerate(lines) if b"LOGIN FAILED, user=AAA" in line)
    rest, *session = lines[head + 1 :]
    return Attack(lines[head], rest, session)


def at(minute: int, lines: list[bytes]) -> list[bytes]:
    """The lines, stamped so many minutes later than half an hour ago."""
    start = datetime.now().astimezone() - timedelta(minutes=30 - minute)
    return [_STAMP.sub(start.isoformat().encode(), line, count=1) for line in lines]


def logins(lines: list[bytes]) -> list[Event]:
    found = Recogniser(["courier"], Clock(time.time())).events(b"".join(lines))
    return [event for event in found if event.event == "login"]


@pytest.mark.parametrize("name", NAMES)
def test_courierlogger_cuts_at_511_bytes(attacks: dict[str, Attack], name: str) -> None:
    """If it did not any more, or elsewhere, what follows would prove nothing."""
    head, rest, session = attacks[name]
    written = head.partition(b" pop3d: ")[2].rstrip(b"\n")
    assert len(b"INFO: ") + len(written) in (510, 511)  # a blank at the end may be gone
    assert STRANGER.encode() in rest
    assert STRANGER.encode() not in head
    assert bool(logins([rest])) == (name != "484 bytes")
    assert [event.address for event in logins(session)] == [HONEST]


@pytest.mark.parametrize("name", NAMES)
def test_a_long_name_casts_doubt_on_what_follows(
    attacks: dict[str, Attack], name: str, tmp_path: Path
) -> None:
    head, rest, session = attacks[name]
    assert logins([head, rest, *session]) == []
    half_an_hour_later = at(0, [head, rest]) + at(30, session)
    assert logins(half_an_hour_later) == []
    assert opened(tmp_path, half_an_hour_later) == set()


@pytest.mark.parametrize("name", NAMES)
def test_the_doubt_ends_within_half_an_hour(
    attacks: dict[str, Attack], name: str, tmp_path: Path
) -> None:
    """On a site with one session a minute."""
    head, rest, session = attacks[name]
    lines = at(0, [head, rest])
    for minute in range(1, 31):
        lines += at(minute, session)
    found = logins(lines)
    assert {event.address for event in found} == {HONEST}
    assert time.time() - found[-1].time < 60
    assert opened(tmp_path, lines) == {HONEST}


@pytest.mark.parametrize("name", NAMES)
def test_a_rest_that_comes_minutes_later_opens_nothing(
    attacks: dict[str, Attack], name: str, tmp_path: Path
) -> None:
    """As when syslogd stood still, and courierlogger with it."""
    head, rest, session = attacks[name]
    for minutes in (0, 1, 9):
        lines = at(0, [head])
        for minute in range(1, minutes + 1):
            lines += at(minute, session)
        assert logins([*lines, *at(minutes, [rest])]) == []
        assert opened(tmp_path, lines + at(minutes, [rest])) == set()


def opened(folder: Path, lines: list[bytes]) -> set[str]:
    """Whom a first run opens."""
    site = Site(folder, log_settings='formats = ["courier"]\n')
    site.log.write_bytes(b"".join(lines))
    site.state.unlink(missing_ok=True)
    site.run()
    return site.open_addresses()
