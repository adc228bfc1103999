"""What examples/opensmtpd and the README say of OpenSMTPD, measured on a real one."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.mailserver import LOCAL, MailServer, running
from tests.servers.opensmtpd import OpenSMTPD

pytestmark = pytest.mark.servers

CLIENT, CLIENT6 = "192.0.2.10", "2001:db8::10"
STRANGER, UNWANTED = "192.0.2.11", "203.0.113.7"
CLIENTS = [CLIENT, CLIENT6, STRANGER, UNWANTED]
UPDATE = ("smtpctl", "update", "table", "relays")


@pytest.fixture
def smtpd(folder: Path) -> Iterator[MailServer]:
    with running(OpenSMTPD, folder, CLIENTS, refused="{ 203.0.113.0/24 }") as server:
        yield server


def test_an_update_opens_and_closes_also_in_an_open_session(smtpd: MailServer) -> None:
    assert smtpd.codes(CLIENT, CLIENT6, STRANGER) == [550, 550, 550]
    smtpd.put(CLIENT, CLIENT6, UNWANTED)
    assert smtpd.codes(CLIENT, CLIENT6, STRANGER, UNWANTED) == [250, 250, 550, 550]
    smtpd.machine.open_session(CLIENT)
    assert smtpd.machine.session_rcpt().code == 250
    smtpd.put(CLIENT6)
    assert smtpd.machine.session_rcpt().code == 550
    smtpd.machine.close_session()
    assert smtpd.codes(CLIENT, CLIENT6) == [550, 250]


# What smtpctl makes of a table in this state: its status, and what holds then.
DAMAGES: dict[str, tuple[int, int, Callable[[Path], object]]] = {
    "missing": (1, 250, lambda table: table.unlink()),
    "empty": (0, 550, lambda table: os.truncate(table, 0)),
    "garbage": (0, 550, lambda table: table.write_bytes(b"\xa5" * 12288)),
    "unreadable": (1, 250, lambda table: table.chmod(0o600)),
}


def test_no_damage_opens_or_stops_local_mail(smtpd: MailServer) -> None:
    for name, (status, code, damage) in DAMAGES.items():
        smtpd.put(CLIENT)
        assert smtpd.codes(CLIENT, STRANGER) == [250, 550], name
        damage(smtpd.path(smtpd.TABLE))
        assert smtpd.codes(CLIENT, STRANGER) == [250, 550], name  # not yet told
        assert smtpd.run(*UPDATE, check=False).returncode == status, name
        assert smtpd.codes(CLIENT, STRANGER) == [code, 550], name
        assert smtpd.ask(STRANGER, LOCAL).code == 250, name
    smtpd.put(CLIENT)
    assert smtpd.codes(CLIENT, STRANGER) == [250, 550]


@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_it_does_not_start_without_a_table(smtpd: MailServer, damage: str) -> None:
    smtpd.stop()
    smtpd.path(smtpd.TABLE).unlink()
    if damage == "empty":
        smtpd.write(smtpd.TABLE, "")
    assert 'table "relays" may not be used' in smtpd.run("smtpd", "-n", check=False).stderr
    smtpd.write(smtpd.TABLE, "127.0.0.1\n")
    smtpd.start()
    assert smtpd.codes(CLIENT) == [550]


def test_check_compares_with_smtpd_conf(smtpd: MailServer) -> None:
    smtpd.configure()
    smtpd.update()
    said = smtpd.sapd("check").stdout
    assert "ok: /etc/smtpd.conf: match from src <relays> for any" in said
    smtpd.configure(access='table = "others"\n')
    assert "has no table others" in smtpd.sapd("check").stdout
    smtpd.configure(access='database = "/var/lib/sapd/other"\n')
    assert "sapd writes /var/lib/sapd/other" in smtpd.sapd("check").stdout
    smtpd.configure()
    smtpd.write(smtpd.TABLE, "")
    said = smtpd.sapd("check").stdout
    assert "is empty, and so smtpd does not start" in said
    assert "smtpd does not take its configuration" in said
    conf = smtpd.path("/etc/smtpd.conf")
    conf.write_text(conf.read_text().replace("match from src <relays>", "# match"))
    assert "nobody is let in, for no `match from src <relays>'" in smtpd.sapd("check").stdout


def test_a_smtpd_that_does_not_run_reads_the_table_when_it_starts(smtpd: MailServer) -> None:
    smtpd.configure()
    smtpd.login(CLIENT)
    smtpd.update()
    assert smtpd.codes(CLIENT) == [250]
    smtpd.stop()
    done = smtpd.sapd("close", CLIENT)
    assert done.returncode == 69
    assert "smtpd doesn't seem to be running" in done.stderr
    smtpd.start()
    assert smtpd.codes(CLIENT) == [550]
    assert smtpd.update() == ""
