"""What examples/exim and the README say of Exim, measured on a real one."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.exim import Exim
from tests.servers.mailserver import LOCAL, MailServer, running
from tests.servers.namespace import FOREIGN

pytestmark = pytest.mark.servers

CLIENT, CLIENT6 = "192.0.2.10", "2001:db8::10"
STRANGER, UNWANTED = "192.0.2.11", "203.0.113.7"
CLIENTS = [CLIENT, CLIENT6, STRANGER, UNWANTED]
BLOCKLIST = "  deny dnslists = zen.example.net\n"
LAYOUTS = [
    pytest.param({"refused": "203.0.113.0/24\n"}, id="Debian's"),
    pytest.param({"plain": "\n  deny hosts = 203.0.113.0/24\n"}, id="Exim's own"),
]


@pytest.fixture(params=LAYOUTS)
def exim(folder: Path, request: pytest.FixtureRequest) -> Iterator[MailServer]:
    with running(Exim, folder, CLIENTS, **request.param) as server:
        yield server


def replace_by_a_folder(table: Path) -> None:
    table.unlink()
    table.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda table: table.unlink(),
    "empty": lambda table: table.write_text(""),
    "garbage": lambda table: table.write_bytes(b"\xa5" * 12288),
    "a value that is no number": lambda table: table.write_text(f"{CLIENT}: soon\n"),
    "cut": lambda table: table.write_text(f"{CLIENT}: 17"),
    "unreadable": lambda table: table.chmod(0o600),
    "in an unreadable folder": lambda table: table.parent.chmod(0o700),
    "a folder": replace_by_a_folder,
}


def test_no_damage_opens_or_stops_local_mail(exim: MailServer) -> None:
    table = exim.path(exim.TABLE)
    for name, damage in DAMAGES.items():
        exim.put(CLIENT)
        assert exim.codes(CLIENT, STRANGER) == [250, 550], name
        damage(table)
        assert exim.codes(CLIENT, STRANGER) == [550, 550], name
        assert [exim.ask(client, LOCAL).code for client in (CLIENT, STRANGER)] == [250, 250], name
        table.parent.chmod(0o755)
        if table.is_dir():
            table.rmdir()
    exim.put(CLIENT)
    assert exim.codes(CLIENT, STRANGER) == [250, 550]


def test_an_entry_closes_by_itself(exim: MailServer) -> None:
    end = int(time.time()) + 3
    exim.put(CLIENT, CLIENT6, end=end)
    assert exim.codes(CLIENT, CLIENT6) == [250, 250]
    time.sleep(end - time.time() + 0.1)
    assert exim.codes(CLIENT, CLIENT6) == [550, 550]


def test_it_closes_in_an_open_session_too(exim: MailServer) -> None:
    end = int(time.time()) + 3
    exim.put(CLIENT, end=end)
    exim.machine.open_session(CLIENT)
    assert exim.machine.session_rcpt().code == 250
    time.sleep(end - time.time() + 0.1)
    assert exim.machine.session_rcpt().code == 550
    exim.machine.close_session()


def test_what_the_administrator_refuses_stays_refused(exim: MailServer) -> None:
    exim.put(CLIENT, UNWANTED)
    assert exim.codes(CLIENT, UNWANTED) == [250, 550]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_open_address_passes_the_blocklist(folder: Path, layout: dict[str, str]) -> None:
    with running(Exim, folder, CLIENTS, listed=[CLIENT, STRANGER], acl=BLOCKLIST, **layout) as exim:
        assert exim.ask(CLIENT, LOCAL).code == 550
        exim.put(CLIENT)
        assert [exim.ask(CLIENT, rcpt).code for rcpt in (FOREIGN, LOCAL)] == [250, 250]
        assert [exim.ask(STRANGER, rcpt).code for rcpt in (FOREIGN, LOCAL)] == [550, 550]


def test_the_refusal_tells_the_user_what_to_do(folder: Path) -> None:
    with running(Exim, folder, CLIENTS) as exim:
        assert "fetch your mail (POP3) first" in exim.ask(STRANGER).text


def test_check_compares_with_the_configuration_that_exim_runs_with(folder: Path) -> None:
    with running(Exim, folder, CLIENTS) as exim:
        exim.configure()
        exim.update()
        assert "ok: Exim asks /var/lib/sapd/relay\n" in exim.sapd("check").stdout
        exim.path("/var/lib/sapd").chmod(0o700)
        assert "Debian-exim can't pass /var/lib/sapd" in exim.sapd("check").stdout
        exim.path("/var/lib/sapd").chmod(0o755)
        exim.configure(access='database = "/var/lib/sapd/other"\n')
        assert (
            "never looks up /var/lib/sapd/other, so nobody is let in" in exim.sapd("check").stdout
        )
        exim.configure()
        main = "/etc/exim4/conf.d/main/000_sapd"
        exim.write(main, "MAIN_RELAY_NETS = <; 127.0.0.1 ; net-iplsearch;;/var/lib/sapd/relay\n")
        exim.path("/etc/exim4/conf.d/acl/31_sapd").unlink()
        exim.run("update-exim4.conf")
        said = exim.sapd("check").stdout
        assert "without comparing the end with $tod_epoch" in said
        assert "421 or 451 to all mail while /var/lib/sapd/relay is missing" in said


def test_check_knows_a_table_that_is_searched_for_long(folder: Path) -> None:
    with running(Exim, folder, CLIENTS) as exim:
        exim.configure()
        exim.put(*(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(10_001)))
        assert "has 10001 addresses" in exim.sapd("check").stdout
