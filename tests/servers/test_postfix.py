"""What examples/postfix and the README say of Postfix, measured on a real one."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers.mailserver import LOCAL, fill_up, running
from tests.servers.namespace import FOREIGN
from tests.servers.postfix import Postfix
from tests.servers.unprivileged import PYTHON, installed_for_everybody

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
    # Each smtpd keeps the table that it opened, so one has to give all the answers.
    with running(Postfix, folder, CLIENTS, processes="1") as postfix:
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
        postfix.wait_for(CLIENT, 250)  # postscreen starts anew when a table changes
        postfix.wait_for(STRANGER, 554)
        log = postfix.machine.log.read_text()
        assert f"ALLOWLISTED [{CLIENT}]" in log
        assert f"ALLOWLISTED [{STRANGER}]" not in log
        postfix.put()
        postfix.wait_for(CLIENT, 554)


def test_a_full_disk_closes_in_a_cdb_table_too(folder: Path) -> None:
    """No other file has room, and smtpd has this one mapped into its memory."""
    with running(Postfix, folder, CLIENTS, type="cdb") as postfix:
        size = "size=1m,mode=755"
        postfix.run("mount", "-t", "tmpfs", "-o", size, "none", "/var/lib/sapd")
        postfix.put()
        postfix.run("postfix", "reload")
        postfix.configure(more='[state]\ndirectory = "/var/lib/state"\n')
        postfix.login(CLIENT, STRANGER)
        postfix.update()
        postfix.wait_for(CLIENT, 250)
        assert postfix.codes(STRANGER) == [250]
        ballast = fill_up(postfix.path("/var/lib/sapd"))
        assert postfix.sapd("close", CLIENT).returncode == 0
        assert postfix.codes(CLIENT, STRANGER) == [554, 250]
        assert postfix.update() == ""
        assert postfix.open_addresses() == {STRANGER}
        time.sleep(1.1)  # a login in the second of its revocation does not open
        postfix.login(CLIENT)
        postfix.update(status=74)
        assert postfix.codes(CLIENT, STRANGER) == [554, 250]
        ballast.unlink()
        assert postfix.update() == ""
        assert postfix.codes(CLIENT, STRANGER) == [250, 250]


def test_submission_has_restrictions_of_its_own(folder: Path) -> None:
    with running(Postfix, folder, CLIENTS, examples="main.cf master.cf") as postfix:
        postfix.put(CLIENT)
        assert postfix.codes(CLIENT, STRANGER) == [250, 554]
        assert "Access denied" in postfix.ask(STRANGER).text  # it is `reject` that says this


# What `sapd check` finds out, by postconf.

ASKED = "check_client_access hash:/var/lib/sapd/relay"
MISTAKES = {
    "sound": (["permit_auth_destination", ASKED, "reject_unauth_destination"], "ok: main.cf: "),
    "behind": (["reject_unauth_destination", ASKED], "stands behind reject_unauth_destination"),
    "behind, deferring": (["defer_unauth_destination", ASKED], "behind defer_unauth_destination"),
    "not asked": (["reject_unauth_destination"], "smtpd_relay_restrictions never asks"),
    "of another type": (
        [ASKED.replace("hash", "cdb"), "reject_unauth_destination"],
        "smtpd_relay_restrictions asks cdb:/var/lib/sapd/relay",
    ),
    "asked for the sender": (
        [ASKED.replace("client", "sender"), "reject_unauth_destination"],
        "is not asked by check_client_access",
    ),
    "no local mail before": ([ASKED, "reject_unauth_destination"], "would stop all mail"),
}


def test_check_knows_where_the_table_must_stand(folder: Path) -> None:
    with running(Postfix, folder, CLIENTS) as postfix:
        postfix.configure()
        for name, (restrictions, words) in MISTAKES.items():
            setting = f"smtpd_relay_restrictions={','.join(restrictions)}"
            postfix.run("postconf", "-e", setting.replace(",", ", "))
            said = postfix.sapd("check").stdout
            assert words in said, name
            assert ("problem: main.cf" in said) == (name not in ("sound", "no local mail before"))
        postfix.run("postconf", "-P", "2525/inet/smtpd_relay_restrictions=reject")
        assert "2525/inet has smtpd_relay_restrictions of its own" in postfix.sapd("check").stdout


def test_check_knows_a_type_that_this_postfix_lacks(folder: Path) -> None:
    with running(Postfix, folder, CLIENTS) as postfix:
        postfix.configure(access='type = "lmdb"\n')
        assert "access.type" not in postfix.sapd("check").stdout
        postfix.path("/etc/postfix/dynamicmaps.cf").write_text("")
        said = postfix.sapd("check").stdout
        assert "access.type: this Postfix has no lmdb tables" in said
        assert "install postfix-lmdb" in said


def test_check_knows_a_table_that_is_missing_or_spoilt(folder: Path) -> None:
    with running(Postfix, folder, CLIENTS) as postfix:
        postfix.configure()
        table = postfix.path(postfix.TABLE)
        table.write_bytes(b"\xa5" * 4096)
        assert f"problem: {postfix.TABLE}: is not a hash table" in postfix.sapd("check").stdout
        table.unlink()
        assert f"problem: {postfix.TABLE}: is missing" in postfix.sapd("check").stdout
        assert "run `postfix reload`" in postfix.update()
        assert f"ok: {postfix.TABLE}: is a hash table" in postfix.sapd("check").stdout
        assert postfix.update() == ""


def test_the_folder_may_be_an_unprivileged_users(folder: Path) -> None:
    """sapd, run by root, goes on as him; so does postmap."""
    environment = installed_for_everybody(folder)
    with running(Postfix, folder, CLIENTS) as postfix:
        variables = [f"{name}={value}" for name, value in environment.items()]
        postfix.SAPD = ("env", *variables, PYTHON, "-m", "sapd")
        postfix.configure()
        postfix.run("chown", "-R", "nobody:nogroup", "/var/lib/sapd")
        postfix.login(CLIENT)
        assert postfix.update() == ""
        assert postfix.codes(CLIENT, STRANGER) == [250, 554]
        assert postfix.path(postfix.TABLE).owner() == "nobody"
