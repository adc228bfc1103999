"""Whatever type of map sendmail asks: hash, btree and cdb, with its entries closing by themselves.

hash and btree are those of Debian's sendmail. cdb is that of one built with it (sendmail_cdb.py),
so those tests are slow ones.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.servers.sendmail import MAKEMAP
from tests.servers.sendmail_site import (
    CLIENT,
    CLIENT6,
    DAMAGES,
    DELAYED,
    OWN,
    OWN6,
    REFUSALS,
    SOURCE,
    STRANGER,
    STRANGER6,
    Site,
    running_site,
)
from tests.site import when

pytestmark = pytest.mark.servers

KINDS = ["hash", "btree", pytest.param("cdb", marks=pytest.mark.slow)]
SELF_CLOSING = "self_closing = true\n"
WINDOW, LATER = 1800, 1900  # seconds
OTHERS = "".join(f"Connect:10.0.{n >> 8}.{n & 255}\tREJECT\n" for n in range(1000))
DISCARDS = [
    pytest.param(entry, "203.0.113.7", id=entry)
    for entry in ("Connect:203.0.113.7 DISCARD", "203.0.113 DISCARD")
]


def later(seconds: float) -> tuple[str, str]:
    """The options that make a run act as of some seconds from now."""
    return "--at", when(time.time() + seconds)


@pytest.fixture(params=KINDS, scope="module")
def shared(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A host with self-closing.mc, for all tests of a type; each begins with a map of its own."""
    with TemporaryDirectory(prefix="sapd-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with running_site(folder, "self-closing.mc", kind=request.param) as site:
            yield site


@pytest.fixture(params=["", SELF_CLOSING], ids=["relays", "self-closing"])
def site(shared: Site, request: pytest.FixtureRequest) -> Site:
    """Before any login; sapd has no state yet."""
    shared.log.write_bytes(b"")
    shutil.rmtree(shared.folder / "state", ignore_errors=True)
    shared.database.unlink(missing_ok=True)
    shared.rebuild(SOURCE)
    shared.configure(shared.access(request.param))
    return shared


@pytest.mark.parametrize(
    ("client", "stranger"), [(CLIENT, STRANGER), (CLIENT6, STRANGER6)], ids=["IPv4", "IPv6"]
)
def test_a_login_opens_the_relay_and_the_window_closes_it(
    site: Site, client: str, stranger: str
) -> None:
    clients = (client, stranger, OWN, OWN6)
    assert site.codes(*clients) == [550, 550, 250, 250]
    site.login(client)
    site.run()
    assert site.codes(*clients) == [250, 550, 250, 250]
    before = site.database.stat()
    site.run(*later(60))
    assert site.database.stat() == before
    site.run(*later(LATER))
    assert site.codes(*clients) == [550, 550, 250, 250]
    after = site.database.stat()
    assert (after.st_ino, after.st_uid, after.st_gid, after.st_mode) == (
        (before.st_ino, before.st_uid, before.st_gid, before.st_mode)
    )


@pytest.mark.parametrize(("entry", "client"), [*REFUSALS, *DISCARDS])
def test_what_the_administrator_refuses_stays_refused(site: Site, entry: str, client: str) -> None:
    site.rebuild(f"{SOURCE}{entry}\n")
    before = site.namespace.probe(client)
    site.login(client, CLIENT)
    result = site.start()
    assert (result.returncode, result.stderr.count("\n")) == (0, 1)
    assert client in result.stderr
    assert site.namespace.probe(client) == before
    queued = len(list((site.folder / "queue").rglob("qf*")))
    site.namespace.send(client)
    assert len(list((site.folder / "queue").rglob("qf*"))) == queued
    assert site.codes(CLIENT, OWN, OWN6) == [250, 250, 250]


def test_a_refused_sender_stays_refused(site: Site) -> None:
    site.rebuild(SOURCE + "From:client.example.net REJECT\n")
    site.login(CLIENT)
    site.run()
    assert site.code(CLIENT) == 550


def test_a_network_that_relays_relays_after_the_window_too(site: Site) -> None:
    """An OK for one of its addresses would hide the network's RELAY."""
    site.rebuild(SOURCE + "Connect:203.0.113 RELAY\n")
    site.login("203.0.113.7")
    site.run()
    assert site.code("203.0.113.7") == 250
    if SELF_CLOSING in (site.folder / "sapd.toml").read_text():
        assert not any("203.0.113.7" in key for key in site.sendmail.dump(site.database))
    site.run(*later(LATER))
    assert site.code("203.0.113.7") == 250


def test_a_session_that_is_open_sees_every_change(site: Site) -> None:
    assert site.namespace.open_session(CLIENT).code == 250
    assert site.namespace.session_rcpt().code == 550
    site.login(CLIENT)
    site.run()
    assert site.namespace.session_rcpt().code == 250
    site.run(*later(LATER))
    assert site.namespace.session_rcpt().code == 550
    site.namespace.close_session()


def test_a_revocation_in_the_second_of_an_update(site: Site) -> None:
    """The change must be seen although the map's mtime may have the same second."""
    assert site.namespace.open_session(CLIENT).code == 250
    site.login(CLIENT)
    time.sleep(1 - time.time() % 1)
    site.run()
    assert site.namespace.session_rcpt().code == 250
    command = [*site.sapd, "close", "-c", str(site.folder / "sapd.toml"), CLIENT]
    subprocess.run(command, check=True, capture_output=True)
    assert site.namespace.session_rcpt().code == 550
    assert site.code(CLIENT) == 550
    site.namespace.close_session()


@pytest.mark.parametrize(
    ("least", "answers"), [(12, 400), pytest.param(60, 3_000, marks=pytest.mark.slow)]
)
def test_no_wrong_answer_while_the_map_changes(
    site: Site, capsys: pytest.CaptureFixture[str], least: int, answers: int
) -> None:
    site.rebuild(SOURCE + OTHERS)
    site.login(CLIENT)
    site.run()
    site.namespace.start_loop(CLIENT)
    changes = 0
    while changes < least or sum(site.namespace.count_loop().values()) < answers:
        changes += 1
        site.login(f"100.64.{changes >> 8}.{changes & 255}")
        before = site.database.stat().st_mtime_ns
        site.run()
        assert site.database.stat().st_mtime_ns != before
    counts = site.namespace.stop_loop()
    with capsys.disabled():
        print(f"\n{site.sendmail.kind}, {changes} changes, answers: {counts}", end=" ")
    assert sum(counts.values()) >= answers
    assert counts == {"rcpt 250": sum(counts.values())}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_map_is_repaired(site: Site, damage: Callable[[Path], None]) -> None:
    site.rebuild(SOURCE + OTHERS)
    site.login(CLIENT)
    site.run()
    damage(site.database)
    site.run()
    assert site.codes(CLIENT, STRANGER, OWN) == [250, 550, 250]


@pytest.mark.parametrize("other", ["hash", "btree", "cdb"])
def test_a_database_of_another_type_is_never_written_over(site: Site, other: str) -> None:
    if other == site.sendmail.kind:
        return
    site.login(CLIENT)
    beside = site.folder / f"other{'.cdb' if other == 'cdb' else '.db'}"
    beside.unlink(missing_ok=True)
    command = ["cdb", "-c", "-m"] if other == "cdb" else [MAKEMAP, "-C", "/dev/null", other]
    subprocess.run([*command, str(beside)], input=SOURCE.encode(), check=True)
    site.database.write_bytes(beside.read_bytes())
    content = site.database.read_bytes()
    result = site.start()
    assert result.returncode == 78
    assert result.stderr == (
        f"sapd: error: {site.database}: is a {other} database and is not replaced by a "
        f'{site.sendmail.kind} one; set access.type = "{other}", or move it away\n'
    )
    assert site.database.read_bytes() == content
    site.database.unlink()
    site.run()
    assert site.codes(CLIENT, STRANGER, OWN) == [250, 550, 250]


MAKEMAPS = {
    "missing": "",
    "killed at once": "kill -KILL $$",
    "fails": "exit 1",
    "does nothing": "exit 0",
    "killed half-way": 'head -n 3 | REAL "$@" && kill -KILL $$',
    "killed behind its work": 'REAL "$@" && kill -KILL $$',
    "killed when it counts": 'case "$*" in *-u*) kill -KILL $$ ;; *) exec REAL "$@" ;; esac',
}


@pytest.mark.parametrize("script", MAKEMAPS.values(), ids=MAKEMAPS.keys())
def test_a_makemap_that_does_not_work_leaves_the_map_alone(site: Site, script: str) -> None:
    site.login(CLIENT)
    site.run()
    configuration = site.folder / "sapd.toml"
    text = configuration.read_text()
    makemap = site.folder / "makemap"
    makemap.unlink(missing_ok=True)
    if script:
        real = script.replace("REAL", site.sendmail.builder)
        makemap.write_text(f"#!/bin/sh\n{real}\n")
        makemap.chmod(0o755)
    lines = [line for line in text.splitlines(True) if not line.startswith("makemap")]
    configuration.write_text("".join(lines).replace("[access]", '[access]\nmakemap = "makemap"'))
    site.login(CLIENT6)
    site.run(exits=(69, 73, 74))
    assert site.codes(CLIENT, CLIENT6, STRANGER, OWN) == [250, 550, 550, 250]
    configuration.write_text(text)
    site.run()
    assert site.codes(CLIENT, CLIENT6, STRANGER, OWN) == [250, 250, 550, 250]


def test_a_duplicate_of_the_administrators_leaves_the_map_alone(site: Site) -> None:
    site.login(CLIENT)
    site.run()
    site.source.write_text(SOURCE + f"Connect:{OWN} REJECT\n")
    site.login(CLIENT6)
    site.run(exits=(69,))
    assert site.codes(CLIENT, CLIENT6, OWN) == [250, 550, 250]


def test_a_makemap_behind_links_of_alternatives(site: Site) -> None:
    first, second = site.folder / "mta-makemap", site.folder / "alternatives-makemap"
    second.symlink_to(site.sendmail.builder)
    first.symlink_to(second)
    text = (site.folder / "sapd.toml").read_text()
    lines = [line for line in text.splitlines(True) if not line.startswith("makemap")]
    site.configure("".join(lines[lines.index("[access]\n") : lines.index("[state]\n")]))
    configuration = site.folder / "sapd.toml"
    configuration.write_text(
        configuration.read_text().replace("[access]", f'[access]\nmakemap = "{first}"')
    )
    site.login(CLIENT)
    site.run()
    assert site.codes(CLIENT, STRANGER) == [250, 550]
    first.unlink()
    second.unlink()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", ["", DELAYED], ids=["plain", "delayed"])
def test_sendmail_closes_what_sapd_wrote(folder: Path, kind: str, more: str) -> None:
    """Nobody runs anything: cron has stopped."""
    with running_site(folder, "self-closing.mc", more, kind=kind) as site:
        site.configure(site.access(SELF_CLOSING), window="8s")
        site.login(CLIENT, CLIENT6)
        site.run()
        entries = site.sendmail.dump(site.database)
        end = int(entries[f"sapd:{CLIENT}"])
        assert time.time() + 5 < end < time.time() + 8 + 8 / 4
        assert entries[f"connect:{CLIENT}"] == "OK"
        assert site.codes(CLIENT, CLIENT6, STRANGER) == [250, 250, 550]
        while 250 in site.codes(CLIENT, CLIENT6):
            assert time.time() < end + 2
        assert time.time() >= end
        assert site.codes(CLIENT, CLIENT6, STRANGER, OWN) == [550, 550, 550, 250]
        site.run()
        assert f"sapd:{CLIENT}" not in site.sendmail.dump(site.database)


@pytest.mark.slow
def test_a_new_cdb_map_looks_like_the_administrators_text(folder: Path) -> None:
    """Makemap makes it root's, whatever TrustedUser says."""
    with running_site(folder, kind="cdb") as site:
        site.database.unlink()
        shutil.chown(site.source, "smmta", "smmsp")
        site.source.chmod(0o644)
        site.login(CLIENT)
        site.run()
        about = site.database.stat()
        assert (site.database.owner(), site.database.group()) == ("smmta", "smmsp")
        assert about.st_mode & 0o777 == 0o644
        os.chown(site.database, 0, 0)
        site.database.chmod(0o640)
        site.login(CLIENT6)
        site.run()
        about = site.database.stat()
        assert (about.st_uid, about.st_gid, about.st_mode & 0o777) == (0, 0, 0o640)
        assert site.codes(CLIENT, CLIENT6, STRANGER) == [250, 250, 550]
