"""A full disk: nothing is lost or spoilt, what is safe is done, and all is well once there is room.

Whatever can be full is filled in turn: the disk of the state, of the map, of the log.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sapd import errors
from sapd.cut import MARKER
from sapd.maps.sendmail import Sendmail
from tests.faults.database import relaying
from tests.servers.filesystems import fill, mounted, remount
from tests.site import MAKEMAP, Site, login, noise, when

pytestmark = pytest.mark.servers

OWN = "198.51.100.9"
STALE, STAYS, NEW, LATE = (f"192.0.2.{number}" for number in range(1, 5))
NOW = time.time()
ALL = ("state", "map", "log")
NO_ROOM = "No space left on device"


def move(site: Site, disk: Path, parts: tuple[str, ...]) -> None:
    """Have some of a site's parts on another disk."""
    text = site.config.read_text()
    if "state" in parts:
        text = text.replace('"state"', f'"{disk}/state"')
        site.state = disk / "state" / "state.json"
    if "map" in parts:
        text = text.replace('"access.db"', f'"{disk}/access.db"')
        site.database = disk / "access.db"
    if "log" in parts:
        text = text.replace('"qpopper"', f'"{disk}/qpopper"')
        site.log.unlink()
        site.log = disk / "qpopper"
        site.log.touch()
    site.config.write_text(text)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Have no room on a disk meanwhile."""
    filler = disk / "filler"
    fill(filler)
    try:
        yield
    finally:
        filler.unlink()
        os.sync()  # only then ext4 gives the room back


def write_until_full(path: Path) -> None:
    """Log on as a daemon would, until no more than half a line goes in."""
    with path.open("ab", buffering=0) as log, suppress(OSError):
        for number in range(100_000):
            log.write(noise(number).encode())


def prepared(site: Site) -> None:
    """One pass is done; now one address is stale, one is not, and one is to be opened."""
    site.write(login(STALE, at=NOW - 1000), login(STAYS, at=NOW))
    site.run("--at", when(NOW))
    assert relaying(site.database) == {OWN, STALE, STAYS}
    site.write(login(NEW, at=NOW + 900))


LATER = when(NOW + 1000)


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
@pytest.mark.parametrize("parts", [("state",), ("map",), ("log",), ALL], ids="+".join)
def test_a_full_disk(site: Site, kind: str, parts: tuple[str, ...]) -> None:
    with mounted(site.folder, kind, megabytes=4) as disk:
        move(site, disk, parts)
        prepared(site)
        state = site.state.read_bytes()
        told = {"state": site.state, "map": site.database}
        with full(disk):
            if "log" in parts:
                write_until_full(site.log)
            log = site.log.read_bytes()
            # The map is built in memory, with that file system's blocks: on tmpfs it is as large as
            # the live one and fits into it; ext4 of 4 MB has smaller blocks, and it does not.
            stuck = "map" in parts and kind == "ext4"
            failing = {"map": stuck, "state": "state" in parts}
            problems = [told[part] for part in ("map", "state") if failing[part]]
            for _ in range(2):  # and in the next minute
                done = site.run("--at", LATER, status=errors.IO_ERROR if problems else 0)
                said = done.stderr.splitlines()
                assert len(said) == len(problems)
                for line, path in zip(said, problems, strict=True):
                    assert line.startswith(f"sapd: error: {path}: ")
                    assert NO_ROOM in line
                stands = {STALE, STAYS} if stuck else {STAYS, NEW}
                assert relaying(site.database) == {OWN, *stands}
                assert (site.state.read_bytes() == state) == ("state" in parts)
                assert site.log.read_bytes() == log
        site.write("\n", login(LATE, at=NOW + 950))
        done = site.run("--at", LATER)
        assert (done.stdout, done.stderr) == ("", "")
        assert relaying(site.database) == {OWN, STAYS, NEW, LATE}
        assert not list(disk.rglob("*new*"))


def test_list_says_whom_a_map_on_a_full_disk_may_let_in(site: Site) -> None:
    with mounted(site.folder, "ext4", megabytes=4) as disk:
        move(site, disk, ("map",))
        prepared(site)
        with full(disk):
            site.run("--at", LATER, status=errors.IO_ERROR)
        done = site.sapd("list", "--at", LATER)
        assert f"{site.database}: could not be brought up to date since" in done.stderr
        assert STALE not in done.stdout


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_with_however_little_room_the_map_is_the_old_one_or_the_new_one(
    tmp_path: Path, kind: str
) -> None:
    few = dict.fromkeys((f"192.0.2.{number}" for number in range(50)), NOW)
    many = dict.fromkeys((f"192.0.{i // 250}.{i % 250}" for i in range(4000)), NOW)
    with mounted(tmp_path, kind, megabytes=4) as disk:
        database, filler = disk / "access.db", disk / "filler"
        server = Sendmail(str(database), makemap=MAKEMAP)

        server.publish(server.wanted(many))
        size = database.stat().st_size
        opened = []
        for room in range(0, 3 * size, size // 4):
            server.publish(server.wanted(few))
            fill(filler)
            os.truncate(filler, filler.stat().st_size - room)
            os.sync()
            with suppress(errors.SapdError):
                server.publish(server.wanted(many))
            assert relaying(database) in (few.keys(), many.keys())
            opened.append(relaying(database) == many.keys())
            filler.unlink()
            os.sync()
        assert opened == sorted(opened)
        assert (opened[0], opened[-1]) == (False, True)


@pytest.mark.parametrize(("kind", "megabytes"), [("ext4", 8), ("xfs", 320), ("tmpfs", 8)])
def test_a_log_is_cut_on_the_disk_that_it_has_filled(site: Site, kind: str, megabytes: int) -> None:
    with mounted(site.folder, kind, megabytes) as disk:
        move(site, disk, ("log",))
        site.write(*(noise(number) for number in range(20_000)), login(NEW))
        with full(disk):
            write_until_full(site.log)
            rows = site.log.read_bytes().splitlines(keepends=True)
            inode = site.log.stat().st_ino
            site.configure(log_settings="keep_lines = 100")
            site.config.write_text(site.config.read_text().replace('"qpopper"', f'"{site.log}"'))
            site.run()
            marker, *kept = site.log.read_bytes().splitlines(keepends=True)
            assert MARKER.fullmatch(marker)
            assert kept[-1] == rows[-1]
            assert len(kept) - 100 in (0, 1)  # half a line is no line yet
            assert kept == rows[-len(kept) :]
            assert site.log.stat().st_ino == inode
            site.write("\n", login(LATE))  # there is room again
            site.run()
        assert relaying(site.database) == {OWN, NEW, LATE}


def test_a_cut_that_cannot_be_noted_is_not_made_and_said_once(site: Site) -> None:
    with mounted(site.folder, "tmpfs", megabytes=1) as disk:
        site.write(*(noise(number) for number in range(100)), login(NEW))
        move(site, disk, ("state",))
        site.run()
        site.config.write_text(
            site.config.read_text().replace("[access]", "keep_lines = 10\n[access]")
        )
        log = site.log.read_bytes()
        with full(disk):
            done = site.run(status=errors.IO_ERROR)
        assert done.stderr == f"sapd: error: {site.state}: can't be written: {NO_ROOM}\n"
        assert site.log.read_bytes() == log
        site.run()
        assert len(site.log.read_bytes().splitlines()) == 11


@pytest.mark.parametrize("parts", [("map",), ("log",), ALL], ids="+".join)
def test_a_disk_that_has_become_read_only(site: Site, parts: tuple[str, ...]) -> None:
    site.configure(log_settings="keep_lines = 10\ncut_above = 11")
    with mounted(site.folder, "ext4", megabytes=4) as disk:
        move(site, disk, parts)
        prepared(site)
        site.write(*(noise(number) for number in range(20)))
        log = site.log.read_bytes()
        remount(disk, "ro")
        done = site.run("--at", LATER, status=errors.CANT_CREATE)
        told = {"map": site.database, "state": site.state, "log": site.log}
        problems = ["map", "state"] if parts == ALL else parts  # unsaved, it is not to be cut
        assert [line.split(": ")[2] for line in done.stderr.splitlines()] == [
            str(told[part]) for part in problems
        ]
        assert done.stderr.count("Read-only file system") == len(problems)
        if "map" not in parts:
            assert relaying(site.database) == {OWN, STAYS, NEW}
        if "log" in parts:
            assert site.log.read_bytes() == log
        remount(disk, "rw")
        site.run("--at", LATER)
        assert relaying(site.database) == {OWN, STAYS, NEW}
        assert len(site.log.read_bytes().splitlines()) == 11


def test_without_room_for_the_lock_nothing_is_done_until_there_is(site: Site) -> None:
    with mounted(site.folder, "ext4", megabytes=4) as disk:
        move(site, disk, ("state",))
        site.write(login(NEW))
        with full(disk), no_more_files(disk):
            done = site.run(status=errors.IO_ERROR)
            assert done.stderr == (
                f"sapd: error: {site.state.parent}: can't be written: {NO_ROOM}\n"
            )
            assert not site.database.exists()
        site.run()
        assert relaying(site.database) == {OWN, NEW}
        (site.state.parent / "lock").unlink()
        site.write(login(LATE))
        with no_more_files(disk):
            done = site.run(status=errors.IO_ERROR)
            assert done.stderr == (
                f"sapd: error: {site.state.parent}/lock: can't be written: {NO_ROOM}\n"
            )
            assert relaying(site.database) == {OWN, NEW}
        site.run()
        assert relaying(site.database) == {OWN, NEW, LATE}


@contextmanager
def no_more_files(disk: Path) -> Iterator[None]:
    """Have no room for a file on a disk meanwhile."""
    made = [disk / f"file-{number}" for number in range(10_000)]
    with suppress(OSError):
        for path in made:
            path.touch()
    try:
        yield
    finally:
        for path in made:
            path.unlink(missing_ok=True)


def test_a_limit_on_the_size_of_files(site: Site) -> None:
    """EFBIG for sapd, and for makemap."""
    prepared(site)
    state, database = site.state.read_bytes(), site.database.read_bytes()
    done = site.sapd("run", "--at", LATER, prefix=("prlimit", "--fsize=64"))
    too_large = "can't be written: File too large"
    said = [f"sapd: error: {path}: {too_large}" for path in (site.database, site.state)]
    assert (done.returncode, done.stderr.splitlines()) == (errors.IO_ERROR, said)
    assert (site.state.read_bytes(), site.database.read_bytes()) == (state, database)
    done = site.sapd("run", "--at", LATER, prefix=("prlimit", "--fsize=4096"))
    assert done.returncode == errors.IO_ERROR
    assert re.fullmatch(r"sapd: error: .*: File too large; makemap refused it, .*\n", done.stderr)
    assert site.database.read_bytes() == database
    site.run("--at", LATER)
    assert relaying(site.database) == {OWN, STAYS, NEW}
