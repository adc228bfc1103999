"""The main job against a real sendmail: logins open the relay, and time closes it again."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.servers.sendmail import MAP_GROUP, MAP_OWNER
from tests.servers.sendmail_site import (
    CLIENT,
    CLIENT6,
    CLIENTS,
    COMPRESSED,
    DAMAGES,
    DELAYED,
    ONE_MAP,
    OWN,
    OWN6,
    REFUSALS,
    SEPARATE_MAP,
    SOURCE,
    STRANGER,
    STRANGER6,
    UNWANTED,
    Site,
    running_site,
)
from tests.servers.unprivileged import PYTHON, installed_for_everybody

pytestmark = pytest.mark.servers


@pytest.fixture
def site(folder: Path) -> Iterator[Site]:
    with running_site(folder) as site:
        yield site


def later(minutes: float) -> tuple[str, str]:
    """The options that make a run act as of some minutes from now."""
    moment = datetime.now(UTC) + timedelta(minutes=minutes)
    return "--at", moment.strftime("%Y-%m-%dT%H:%M:%SZ")


AFTER_THE_WINDOW = 31.0


@pytest.mark.parametrize("more", ["", COMPRESSED], ids=["full IPv6", "compressed IPv6"])
@pytest.mark.parametrize(("client", "stranger"), [(CLIENT, STRANGER), (CLIENT6, STRANGER6)])
def test_a_login_opens_the_relay_and_the_window_closes_it(
    folder: Path, client: str, stranger: str, more: str
) -> None:
    with running_site(folder, more=more) as site:
        before = site.source.read_bytes()
        clients = (client, stranger, OWN, OWN6)
        assert site.codes(*clients) == [550, 550, 250, 250]
        site.login(client)
        assert site.codes(*clients) == [550, 550, 250, 250]
        site.run()
        assert site.codes(*clients) == [250, 550, 250, 250]
        site.run(*later(29))
        assert site.codes(*clients) == [250, 550, 250, 250]
        site.run(*later(AFTER_THE_WINDOW))
        assert site.codes(*clients) == [550, 550, 250, 250]
        assert site.source.read_bytes() == before


def test_time_itself_closes_the_relay(site: Site) -> None:
    site.configure(ONE_MAP, window="6s")
    site.login(CLIENT)
    site.run()
    assert site.code(CLIENT) == 250
    time.sleep(7)
    site.run()
    assert site.code(CLIENT) == 550


def test_the_refusal_tells_the_user_what_to_do(site: Site) -> None:
    answer = site.namespace.probe(STRANGER)
    assert answer.step == "rcpt"
    assert "fetch your mail (POP3) first" in answer.text


@pytest.mark.parametrize("client", [CLIENT, CLIENT6])
def test_a_session_that_is_already_open_sees_every_change(site: Site, client: str) -> None:
    namespace = site.namespace
    assert namespace.open_session(client).code == 250
    assert namespace.session_rcpt().code == 550
    site.login(client)
    site.run()
    assert namespace.session_rcpt().code == 250
    site.run(*later(AFTER_THE_WINDOW))
    assert namespace.session_rcpt().code == 550
    namespace.close_session()


def test_the_map_keeps_its_inode_owner_and_mode(site: Site) -> None:
    before = site.database.stat()
    site.login(CLIENT)
    site.run()
    after = site.database.stat()
    assert site.database.owner() == MAP_OWNER
    assert site.database.group() == MAP_GROUP
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert after.st_mtime_ns != before.st_mtime_ns


@pytest.mark.parametrize(("entry", "client"), REFUSALS)
def test_what_the_administrator_refuses_stays_refused(
    folder: Path, entry: str, client: str
) -> None:
    with running_site(folder, source=SOURCE + entry + "\n") as site:
        refused = site.namespace.probe(client)
        assert (refused.step, refused.code) == ("mail", 550)
        site.login(client, CLIENT)
        result = site.start()
        assert result.returncode == 0
        assert result.stderr.count("\n") == 1
        assert client in result.stderr
        assert site.namespace.probe(client) == refused
        assert site.codes(CLIENT, OWN, OWN6) == [250, 250, 250]
        site.run()  # said once, not every minute


@pytest.mark.parametrize(
    ("entry", "before", "after", "remarks"),
    [
        ("Connect:203.0.113.7 RELAY", 250, 250, 0),
        ("203.0.113.7 RELAY", 250, 250, 0),
        ("Connect:203.0.113.7 RELAY\n203.0.113 REJECT", 250, 250, 0),
        ("Connect:203.0.113.7 OK", 550, 550, 1),
        ("Connect:203.0.113 OK", 550, 250, 0),
        (f"Connect:client{CLIENTS.index(UNWANTED)}.example.net REJECT", 550, 550, 0),
    ],
)
def test_a_login_changes_nothing_that_the_administrator_decided(
    folder: Path, entry: str, before: int, after: int, remarks: int
) -> None:
    with running_site(folder, source=SOURCE + entry + "\n") as site:
        assert site.codes(UNWANTED, OWN) == [before, 250]
        site.login(UNWANTED)
        result = site.start()
        assert result.returncode == 0
        assert result.stderr.count("\n") == remarks
        assert site.codes(UNWANTED, OWN) == [after, 250]
        site.run(*later(AFTER_THE_WINDOW))
        assert site.codes(UNWANTED, OWN) == [before, 250]


def test_a_refusal_that_comes_after_the_login_closes_the_relay(site: Site) -> None:
    site.login(UNWANTED)
    site.run()
    assert site.code(UNWANTED) == 250
    site.source.write_text(SOURCE + "203.0.113 REJECT\n")
    assert site.start().returncode == 0
    assert site.code(UNWANTED) == 550
    site.source.write_text(SOURCE)
    site.run()
    assert site.code(UNWANTED) == 250


@pytest.mark.parametrize(
    ("least", "answers"), [(12, 400), pytest.param(200, 5_000, marks=pytest.mark.slow)]
)
def test_no_wrong_answer_while_the_map_changes(
    folder: Path, capsys: pytest.CaptureFixture[str], least: int, answers: int
) -> None:
    entries = "".join(
        f"Connect:10.{number >> 8}.{number & 255}.1\tREJECT\n" for number in range(20_000)
    )
    changes = 0
    with running_site(folder, source=SOURCE + entries) as site:
        site.login(CLIENT)
        site.run()
        assert site.code(CLIENT) == 250
        site.namespace.start_loop(CLIENT)
        before = site.database.stat()
        while changes < least or sum(site.namespace.count_loop().values()) < answers:
            changes += 1
            site.login(f"100.64.{changes >> 8}.{changes & 255}")
            site.run()
            after = site.database.stat()
            assert after.st_mtime_ns != before.st_mtime_ns
            before = after
        counts = site.namespace.stop_loop()
        with capsys.disabled():
            print(f"\n{changes} changes to a map of 20,000 entries, answers: {counts}", end=" ")
        assert sum(counts.values()) >= answers
        assert counts == {"rcpt 250": sum(counts.values())}
        own = len(SOURCE.splitlines()) - 1 + 20_000
        assert len(site.sendmail.dump(site.database)) == own + changes + 1


def rebuild_as_debian_does(site: Site) -> None:
    """What `make` in /etc/mail does: remove, build elsewhere, rename."""
    new = site.sendmail.mail / "access.new.db"
    site.database.unlink()
    site.sendmail.makemap(site.source.read_text(), new)
    shutil.chown(new, MAP_OWNER, MAP_GROUP)
    new.chmod(0o640)
    new.rename(site.database)


def rebuild_onto_the_live_map(site: Site) -> None:
    site.sendmail.makemap(site.source.read_text(), site.database)


@pytest.mark.parametrize("rebuild", [rebuild_as_debian_does, rebuild_onto_the_live_map])
def test_a_rebuild_by_somebody_else_is_put_right(
    site: Site, rebuild: Callable[[Site], None]
) -> None:
    site.login(CLIENT, CLIENT6)
    site.run()
    assert site.codes(CLIENT, CLIENT6) == [250, 250]
    rebuild(site)
    assert site.codes(CLIENT, CLIENT6) == [550, 550]
    site.run()
    assert site.codes(CLIENT, CLIENT6, STRANGER, OWN) == [250, 250, 550, 250]


def test_a_change_of_the_source_reaches_sendmail(site: Site) -> None:
    site.login(CLIENT)
    site.run()
    site.source.write_text(SOURCE + f"Connect:{STRANGER} RELAY\n")
    site.run()
    assert site.codes(CLIENT, STRANGER, UNWANTED, OWN) == [250, 250, 550, 250]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_map_is_repaired(folder: Path, damage: Callable[[Path], None]) -> None:
    more = "".join(f"Connect:10.0.{number >> 8}.{number & 255} OK\n" for number in range(2000))
    with running_site(folder, source=SOURCE + more) as site:
        site.login(CLIENT)
        site.run()
        assert site.codes(CLIENT, OWN) == [250, 250]
        damage(site.database)
        site.run()
        assert site.codes(CLIENT, STRANGER, OWN) == [250, 550, 250]
        assert len(site.sendmail.dump(site.database)) == 3 + 2000 + 1
        assert site.database.owner() == MAP_OWNER
        assert site.database.group() == MAP_GROUP


def test_a_missing_map_stops_all_mail_until_the_next_run(site: Site) -> None:
    site.database.unlink()
    assert site.codes(CLIENT, OWN) == [451, 451]
    site.login(CLIENT)
    site.run()
    assert site.codes(CLIENT, OWN) == [250, 250]


@pytest.mark.parametrize(
    "line",
    [
        "nothing-but-a-key",
        f" Connect:{STRANGER} RELAY",
        f"Connect:{STRANGER} " + "x" * 2000 + f"\nConnect:{UNWANTED} RELAY",
        f"# {'x' * 1030}Connect:{UNWANTED} RELAY",
        f"Connect:{OWN} REJECT",
    ],
    ids=["no value", "leading blank", "long value", "long comment", "duplicate"],
)
def test_a_bad_source_line_leaves_the_map_alone(site: Site, line: str) -> None:
    site.login(CLIENT)
    site.run()
    site.login(CLIENT6)
    site.source.write_text(f"{SOURCE}{line}\n")
    site.run(exits=(69,))
    assert site.codes(CLIENT, CLIENT6, OWN, UNWANTED) == [250, 550, 250, 550]
    site.source.write_text(SOURCE)
    site.run()
    assert site.codes(CLIENT, CLIENT6, OWN, UNWANTED) == [250, 250, 250, 550]


@pytest.mark.parametrize("usable", ["missing", "not executable", "crashing"])
def test_a_makemap_that_does_not_work_leaves_the_map_alone(site: Site, usable: str) -> None:
    site.login(CLIENT)
    site.run()
    makemap = site.folder / "makemap"
    if usable != "missing":
        makemap.write_text("#!/bin/sh\nkill -SEGV $$\n")
        makemap.chmod(0o755 if usable == "crashing" else 0o644)
    site.configure(ONE_MAP + 'makemap = "makemap"\n')
    site.login(CLIENT6)
    site.run(exits=(69,))
    assert site.codes(CLIENT, CLIENT6, STRANGER, OWN) == [250, 550, 550, 250]
    site.configure(ONE_MAP)
    site.run()
    assert site.codes(CLIENT, CLIENT6, STRANGER, OWN) == [250, 250, 550, 250]


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


MANY = "".join(f"Connect:10.0.{number >> 8}.{number & 255} OK\n" for number in range(5000))


@pytest.mark.parametrize("room", [8192, 150_000], ids=["to build", "to copy"])
def test_a_full_disk_leaves_the_map_alone(folder: Path, room: int) -> None:
    """There is next to no room, or not enough for the live map to grow to the new one's size."""
    with small_disk(folder / "mail", 2_000_000), running_site(folder) as site:
        site.login(CLIENT)
        site.run()
        before = site.database.read_bytes()
        ballast = leave(room, site)
        site.run(exits=(74,))
        assert site.database.read_bytes() == before
        assert site.codes(CLIENT, CLIENT6, STRANGER, OWN) == [250, 550, 550, 250]
        ballast.unlink()
        site.run()
        assert site.codes(CLIENT, CLIENT6, STRANGER, OWN) == [250, 250, 550, 250]
        assert sorted(os.listdir(site.sendmail.mail)) == ["access", "access.db"]


def test_room_for_the_live_map_alone_is_enough(folder: Path) -> None:
    """There is room for the new map beside the old one, but not for the old one to grow then."""
    with small_disk(folder / "mail", 2_000_000), running_site(folder) as site:
        site.login(CLIENT)
        site.run()
        inode = site.database.stat().st_ino
        ballast = leave(300_000, site)
        site.run()
        found = site.database.stat()
        assert found.st_ino == inode
        assert 150_000 < found.st_size < 300_000 < 2 * found.st_size
        assert site.codes(CLIENT, CLIENT6, STRANGER, OWN) == [250, 250, 550, 250]
        ballast.unlink()
        assert sorted(os.listdir(site.sendmail.mail)) == ["access", "access.db"]


def leave(room: int, site: Site) -> Path:
    """Ask for one client more in a much larger map, and fill the disk but for so many bytes."""
    site.login(CLIENT6)
    site.source.write_text(SOURCE + MANY)
    filesystem = os.statvfs(site.sendmail.mail)
    ballast = site.sendmail.mail / "ballast"
    ballast.write_bytes(bytes(filesystem.f_bavail * filesystem.f_frsize - room))
    return ballast


def replace_by_a_folder(log: Path) -> None:
    log.unlink()
    log.mkdir()


BAD_LOGS: dict[str, tuple[int, Callable[[Path], None]]] = {
    "missing": (66, lambda log: log.unlink()),
    "a folder": (66, replace_by_a_folder),
    "quiet": (0, lambda log: None),
}


@pytest.mark.parametrize(("status", "spoil"), BAD_LOGS.values(), ids=BAD_LOGS.keys())
def test_a_log_that_says_nothing_keeps_no_address_open(
    site: Site, status: int, spoil: Callable[[Path], None]
) -> None:
    site.login(CLIENT, CLIENT6)
    site.run()
    assert site.codes(CLIENT, CLIENT6, OWN) == [250, 250, 250]
    spoil(site.log)
    site.run(exits=(status,))
    assert site.codes(CLIENT, CLIENT6, OWN) == [250, 250, 250]
    site.run(*later(AFTER_THE_WINDOW), exits=(status,))
    assert site.codes(CLIENT, CLIENT6, OWN) == [550, 550, 250]


@contextmanager
def running_separate_site(folder: Path, more: str = "", source: str = SOURCE) -> Iterator[Site]:
    """A site whose sapd has a map of its own, and is run by an ordinary user."""
    with running_site(folder, "separate-map.mc", more, source) as site:
        site.configure(SEPARATE_MAP)
        site.sapd, environment = [PYTHON, "-m", "sapd"], installed_for_everybody(folder)
        site.privileges = {
            "user": "nobody",
            "group": "nogroup",
            "extra_groups": [],
            "env": environment,
        }
        shutil.chown(site.sendmail.state, "nobody", "nogroup")
        yield site


@pytest.mark.parametrize("more", ["", COMPRESSED, DELAYED], ids=["plain", "compressed", "delayed"])
def test_a_separate_map_needs_no_root(folder: Path, more: str) -> None:
    with running_separate_site(folder, more) as site:
        before = site.database.read_bytes()
        clients = (CLIENT, CLIENT6, STRANGER, STRANGER6, OWN, OWN6)
        assert site.codes(*clients) == [550, 550, 550, 550, 250, 250]  # no map yet: harmless
        site.login(CLIENT, CLIENT6)
        site.run()
        assert site.codes(*clients) == [250, 250, 550, 550, 250, 250]
        relay = site.sendmail.state / "relay.db"
        assert (relay.owner(), relay.stat().st_mode & 0o777) == ("nobody", 0o644)
        site.run(*later(AFTER_THE_WINDOW))
        assert site.codes(*clients) == [550, 550, 550, 550, 250, 250]
        assert site.database.read_bytes() == before


@pytest.mark.parametrize("more", ["", DELAYED], ids=["plain", "delayed"])
@pytest.mark.parametrize(("entry", "client"), REFUSALS)
def test_a_separate_map_leaves_the_last_word_to_the_administrator(
    folder: Path, entry: str, client: str, more: str
) -> None:
    with running_separate_site(folder, more, SOURCE + entry + "\n") as site:
        assert site.code(client) == 550
        site.login(client, CLIENT)
        site.run()
        assert site.codes(client, CLIENT) == [550, 250]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_separate_map_is_repaired(folder: Path, damage: Callable[[Path], None]) -> None:
    with running_separate_site(folder) as site:
        site.login(CLIENT)
        site.run()
        damage(site.sendmail.state / "relay.db")
        site.run()
        assert site.codes(CLIENT, STRANGER, OWN) == [250, 550, 250]
