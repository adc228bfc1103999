"""What examples/tcpserver and the README say of tcpserver, measured on a real one."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers.mailserver import LOCAL, running
from tests.servers.namespace import FOREIGN
from tests.servers.tcpserver import Tcpserver

pytestmark = pytest.mark.servers

CLIENT, STRANGER = "192.0.2.10", "192.0.2.11"
CLIENTS = [CLIENT, STRANGER]

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
