"""What examples/postfix and the README say of Postfix, measured on a real one."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers.mailserver import LOCAL, running
from tests.servers.namespace import FOREIGN
from tests.servers.postfix import Postfix

pytestmark = pytest.mark.servers

CLIENT, STRANGER, UNWANTED = "192.0.2.10", "192.0.2.11", "203.0.113.7"
CLIENTS = [CLIENT, STRANGER, UNWANTED]

# What Postfix does with a table in this state: the answer to whoever wants to relay.
DAMAGES: dict[str, tuple[int, int, Callable[[Path], object]]] = {
    "missing": (451, 451, lambda table: table.unlink()),
    "empty": (451, 451, lambda table: os.truncate(table, 0)),
    "garbage": (451, 451, lambda table: table.write_bytes(b"\xa5" * 12288)),
    "cut": (554, 554, lambda table: os.truncate(table, 4096)),
    # smtpd opens its tables while it is still root.
    "unreadable": (250, 554, lambda table: table.chmod(0)),
}


@pytest.mark.parametrize(("open_", "stranger", "damage"), DAMAGES.values(), ids=DAMAGES.keys())
def test_no_damage_opens_or_stops_local_mail(
    folder: Path, open_: int, stranger: int, damage: Callable[[Path], object]
) -> None:
    with running(Postfix, folder, CLIENTS) as postfix:
        postfix.put(CLIENT)
        assert postfix.codes(CLIENT, STRANGER) == [250, 554]
        table = postfix.path(postfix.TABLE)
        damage(table)
        if table.exists():  # a change of the same inode in the same second is not seen
            os.utime(table, (later := time.time() + 2, later))
        assert postfix.codes(CLIENT, STRANGER) == [open_, stranger]
        assert postfix.ask(STRANGER, LOCAL).code == 250
        postfix.put(CLIENT)
        if open_ == 451:  # a smtpd that met such a table does not look for a new one
            assert postfix.codes(CLIENT, STRANGER) == [451, 451]
            postfix.run("postfix", "reload")
            postfix.wait_for(CLIENT, 250)
        assert postfix.codes(CLIENT, STRANGER) == [250, 554]


def test_a_table_that_was_never_there(folder: Path) -> None:
    """It opens nothing and stops no local mail, but smtpd wants a reload once it is there."""
    with running(Postfix, folder, CLIENTS, table="missing") as postfix:
        assert postfix.codes(CLIENT) == [451]
        assert postfix.ask(STRANGER, LOCAL).code == 250
        postfix.put(CLIENT)
        postfix.run("postfix", "reload")
        postfix.wait_for(CLIENT, 250)
        assert postfix.codes(STRANGER) == [554]


def test_the_refusal_tells_the_user_what_to_do(folder: Path) -> None:
    with running(Postfix, folder, CLIENTS, examples="refusal.cf") as postfix:
        postfix.put(CLIENT)
        answer = postfix.ask(STRANGER)
        assert answer.code == 554
        assert "Relaying denied - fetch your mail (POP3) first" in answer.text
        assert postfix.codes(CLIENT) == [250]
        assert postfix.ask(STRANGER, LOCAL).code == 250


def test_an_open_address_passes_blocklist_and_policy_service(folder: Path) -> None:
    """No policy service runs, so whoever is handed to it gets a 451."""
    with running(
        Postfix, folder, CLIENTS, listed=[CLIENT, STRANGER], examples="main.cf blocklist.cf"
    ) as postfix:
        assert "blocked using zen.example.net" in postfix.ask(CLIENT, LOCAL).text
        assert postfix.ask(UNWANTED, LOCAL).code == 451
        postfix.put(CLIENT)
        assert [postfix.ask(CLIENT, rcpt).code for rcpt in (FOREIGN, LOCAL)] == [250, 250]
        assert [postfix.ask(STRANGER, rcpt).code for rcpt in (FOREIGN, LOCAL)] == [554, 554]


def test_an_open_address_passes_postscreen(folder: Path) -> None:
    with running(Postfix, folder, CLIENTS, examples="main.cf postscreen.cf") as postfix:
        postfix.put(CLIENT)
        assert postfix.codes(CLIENT, STRANGER) == [250, 554]
        log = postfix.machine.log.read_text()
        assert f"ALLOWLISTED [{CLIENT}]" in log
        assert f"ALLOWLISTED [{STRANGER}]" not in log
        postfix.put()
        assert postfix.codes(CLIENT) == [554]


def test_submission_has_restrictions_of_its_own(folder: Path) -> None:
    with running(Postfix, folder, CLIENTS, examples="main.cf master.cf") as postfix:
        postfix.put(CLIENT)
        assert postfix.codes(CLIENT, STRANGER) == [250, 554]
        assert "Access denied" in postfix.ask(STRANGER).text  # it is `reject` that says this
