"""What examples/tcpserver and the README say of tcpserver, measured on a real one."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers.mailserver import LOCAL, running
from tests.servers.namespace import FOREIGN
from tests.servers.tcpserver import Tcpserver
from tests.site import when

pytestmark = pytest.mark.servers

CLIENT, STRANGER = "192.0.2.10", "192.0.2.11"
CLIENTS = [CLIENT, STRANGER]

SOURCE = Tcpserver.SOURCE

DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda table: table.unlink(),
    "empty": lambda table: os.truncate(table, 0),
    "garbage": lambda table: table.write_bytes(b"\xa5" * 12288),
    "cut": lambda table: os.truncate(table, 100),
    "unreadable": lambda table: table.chmod(0o600),
}


def test_any_damage_closes_the_connection(folder: Path) -> None:
    """For everybody: nothing relays, but local mail waits as well."""
    with running(Tcpserver, folder, CLIENTS) as server:
        for name, damage in DAMAGES.items():
            server.put(CLIENT)
            assert server.codes(CLIENT, STRANGER) == [250, 550], name
            damage(server.path(server.TABLE))
            assert server.ask(CLIENT).step == "greeting", name
            assert server.ask(STRANGER, LOCAL)[:2] == ("greeting", 0), name
        server.put(CLIENT)
        assert server.codes(CLIENT, STRANGER) == [250, 550]
        assert server.ask(STRANGER, LOCAL).code == 250


def test_an_open_address_passes_the_blocklist(folder: Path) -> None:
    with running(Tcpserver, folder, CLIENTS, listed=CLIENTS) as server:
        assert server.ask(CLIENT, LOCAL).code == 451
        server.put(CLIENT)
        assert [server.ask(CLIENT, rcpt).code for rcpt in (FOREIGN, LOCAL)] == [250, 250]
        assert server.ask(STRANGER, LOCAL).code == 451


RULES = '203.0.113.:deny\n=bad.example.net:deny\n192.0.2.0/29:deny\n192.0.2.:allow,X="y"\n:allow\n'


def test_what_the_administrator_changes_is_put_in_force(folder: Path) -> None:
    with running(Tcpserver, folder, CLIENTS, rules=":allow\n") as server:
        server.configure()
        server.login(CLIENT)
        server.update()
        assert server.codes(CLIENT, STRANGER) == [250, 550]
        server.write(SOURCE, f"{CLIENT}:deny\n:allow\n")
        said = server.update()
        assert f'{CLIENT}: not opened: logged in as bob, but access.source says "{CLIENT}:' in said
        assert server.ask(CLIENT, LOCAL)[:2] == ("greeting", 0)
        server.write(SOURCE, "192.0.2.9:nonsense\n:allow\n")
        assert "unable to parse this line" in server.update(status=69)
        assert server.ask(STRANGER, LOCAL).code == 250
        server.write(SOURCE, ":allow\n")
        server.update()
        assert server.codes(CLIENT, STRANGER) == [250, 550]


def test_closing_goes_on_while_the_rules_are_spoilt(folder: Path) -> None:
    with running(Tcpserver, folder, CLIENTS, rules="127.:allow\n:allow\n") as server:
        server.configure()
        server.login(CLIENT)
        server.update()
        assert server.codes(CLIENT) == [250]
        server.write(SOURCE, "192.0.2.9:nonsense\n:allow\n")
        server.update("--at", when(time.time() + 1900), status=69)
        assert server.codes(CLIENT) == [550]
        assert server.ask(STRANGER, LOCAL).code == 250


def test_that_there_is_no_ipv6_is_said_once(folder: Path) -> None:
    with running(Tcpserver, folder, CLIENTS) as server:
        server.configure()
        server.login("2001:db8::10", "2001:db8::11")
        said = server.update()
        assert said.count("\n") == 1
        assert "not opened: logged in as bob, but tcpserver has no IPv6" in said
        server.login("2001:db8::12")
        assert server.update() == ""
        assert "tcpserver has no IPv6" in server.sapd("who", "2001:db8::12").stdout
        assert server.open_addresses() == set()


def test_check_knows_rules_without_effect_and_who_reads_them(folder: Path) -> None:
    with running(Tcpserver, folder, CLIENTS, rules=RULES) as server:
        server.configure()
        server.update()
        said = server.sapd("check").stdout
        assert "ok: /etc/tcp.smtp: tcprules makes 5 rules of it" in said
        assert '"=bad.example.net:deny" comes behind the rules for addresses' in said
        assert '"192.0.2.0/29:deny" is never matched by tcpserver' in said
        assert "ok: tcpserver asks /etc/tcp.smtp.cdb" in said
        assert "note: tcpserver has no IPv6" in said
        server.path(server.TABLE).chmod(0o600)
        assert "user 89 can't read /etc/tcp.smtp.cdb" in server.sapd("check").stdout
        server.configure(access='database = "/etc/other.cdb"\n')
        assert "no tcpserver that runs asks /etc/other.cdb" in server.sapd("check").stdout
