"""A power cut: whatever the disk then holds, the next run puts right.

What was written last may be there, or not, or in part, while sizes and times say all is well.
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from sapd import config, errors, run
from sapd.maps import live
from tests.faults.database import relaying
from tests.servers.filesystems import mounted
from tests.servers.mounts import another_boot
from tests.site import Site, login, noise

pytestmark = pytest.mark.servers

OWN = "198.51.100.9"
NOW = time.time()
PAGE = 4096


def run_after_reboot(site: Site, status: int = 0, *, missed: bool = False) -> None:
    """A real run in a machine that was started anew, which says whether it missed lines."""
    done = site.sapd("run", prefix=another_boot(site.folder / "boot-id"))
    assert done.returncode == status, done.stderr
    assert done.stderr.count("\n") == (1 if status or missed else 0)
    assert ("nowhere to be found" in done.stderr) == missed


@pytest.fixture
def reboot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is started anew before every pass that the test itself makes."""
    boots = iter(range(1_000_000))
    monkeypatch.setattr(live, "boot_id", lambda: f"boot {next(boots)}")


def a_pass(site: Site, at: float = NOW) -> int:
    """One pass in this process; its status."""
    return run.once(config.load(str(site.config)), at).status


# The map, torn while it was copied into the live inode.


def older_pages(chosen: Callable[[int], bool]) -> Callable[[bytes, bytes], bytes]:
    """Damage that leaves the chosen pages as they were before."""

    def damage(new: bytes, old: bytes) -> bytes:
        pages = [new[at : at + PAGE] for at in range(0, len(new), PAGE)]
        for number in range(len(pages)):
            if chosen(number):
                older = old[number * PAGE :][:PAGE]
                pages[number] = older.ljust(len(pages[number]), b"\0")
        return b"".join(pages)

    return damage


TORN = {
    "all-pages-old": older_pages(lambda _: True),
    "first-page-old": older_pages(lambda number: number == 0),
    "all-but-the-first-old": older_pages(lambda number: number > 0),
    "every-other-page-old": older_pages(lambda number: number % 2 == 1),
    "some-pages-old": older_pages(lambda number: Random(number).random() < 0.5),
    "tail-of-nuls": lambda new, _: new[: len(new) // 2].ljust(len(new), b"\0"),
    "all-nuls": lambda new, _: b"\0" * len(new),
    "half-of-it": lambda new, _: new[: len(new) // 2],
    "one-page-of-it": lambda new, _: new[:PAGE],
    "empty": lambda *_: b"",
}


@pytest.mark.parametrize("damage", TORN.values(), ids=TORN)
def test_a_torn_map(site: Site, damage: Callable[[bytes, bytes], bytes]) -> None:
    stale = [f"192.0.{n // 250}.{n % 250}" for n in range(2000)]
    site.write(*(login(address, at=NOW - 2700) for address in stale))
    a_pass(site, NOW - 1000)
    old = site.database.read_bytes()
    fresh = [f"203.0.{n // 250}.{n % 250}" for n in range(1500)]
    site.write(*(login(address, at=NOW) for address in fresh))
    a_pass(site)
    published, new = site.database.stat(), site.database.read_bytes()
    assert relaying(site.database) == {OWN, *fresh}

    torn = damage(new, old)
    assert torn != new
    site.database.write_bytes(torn)
    os.utime(site.database, ns=(published.st_atime_ns, published.st_mtime_ns))
    believe_it_is_as_published(site)
    site.run()
    assert site.database.read_bytes() == torn  # nothing but the boot tells

    run_after_reboot(site)
    assert relaying(site.database) == {OWN, *fresh}
    assert site.database.stat().st_ino == published.st_ino


def believe_it_is_as_published(site: Site) -> None:
    """Have the state name the map's present size and times: no test can set the last of them."""
    now = site.database.stat()
    known = json.loads(site.state.read_text())["published"]
    signature = [now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns]
    site.rewrite_state(published={**known, "file": signature})


def test_a_map_that_is_gone(site: Site) -> None:
    site.write(login("192.0.2.1"))
    site.run()
    site.database.unlink()
    run_after_reboot(site)
    assert relaying(site.database) == {OWN, "192.0.2.1"}


# The state: missing, damaged, or one that stood before.


def test_a_state_cut_short_anywhere(site: Site, reboot: None) -> None:
    site.write(*(noise(n, NOW) for n in range(20)), login("192.0.2.1", at=NOW - 100))
    a_pass(site)
    state = site.state.read_bytes()
    opened = {OWN, "192.0.2.1"}
    for number, length in enumerate([*range(0, len(state) - 2, 67), len(state) - 2]):
        for rest in (b"", b"\0" * (len(state) - length)):
            site.state.write_bytes(state[:length] + rest)
            address = f"203.0.113.{number}"
            site.write(login(address, at=NOW))
            opened.add(address)
            assert a_pass(site) == errors.BAD_STATE
            assert a_pass(site) == 0
        assert relaying(site.database) == opened
    assert site.open_addresses() == opened - {OWN}


STALE, STAYS, LOST, LAST, LATE = (f"192.0.2.{number}" for number in range(1, 6))


def three_passes(site: Site) -> list[bytes | None]:
    """Have one address go stale and others come, with a cut in the last pass.

    Returns what the state held before each pass, and after them.
    """
    states: list[bytes | None] = [None]
    site.configure(log_settings="keep_lines = 40")
    for at, *addresses in (
        (NOW - 1850, STALE),
        (NOW - 900, STAYS),
        (NOW - 60, LOST, LAST),
    ):
        site.write(*(login(str(address), at=float(at)) for address in addresses))
        site.write(*(noise(n, float(at)) for n in range(30)))
        a_pass(site, float(at))
        states.append(site.state.read_bytes())
    site.write(login(LATE, at=NOW))
    return states


@pytest.mark.parametrize("which", range(4))
def test_an_older_state(site: Site, which: int) -> None:
    """The last one is not: the run has nothing to mend then.

    The first one knows a place that was cut away since, with a login of which it knows nothing.
    """
    states = three_passes(site)
    state = states[which]
    site.state.unlink()
    if state is not None:
        site.state.write_bytes(state)
    rows = site.log.read_text()
    assert "log cut" in rows
    assert STALE not in rows
    run_after_reboot(site, missed=which == 1)
    known = {STAYS} if STAYS in rows or which >= 2 else set()
    assert relaying(site.database) == {OWN, LOST, LAST, LATE} | known
    site.run()


# The log: its unsynced tail, and what a cut wrote.


@pytest.mark.parametrize("lost", ["gone", "nuls"])
@pytest.mark.parametrize("state", ["last", "older", "none"])
def test_a_log_whose_tail_was_not_on_the_disk(
    site: Site, reboot: None, lost: str, state: str
) -> None:
    """Half a line has no frame: a log of which nothing is known has to have a hundred that do."""
    site.write(*(noise(n, NOW) for n in range(100)), login(STAYS, at=NOW - 100))
    a_pass(site)
    older = site.state.read_bytes()
    rows = [login(f"203.0.113.{n}", at=NOW - 50) for n in range(1, 20)]
    site.write(*rows)
    a_pass(site)
    last, log = site.state.read_bytes(), site.log.read_bytes()
    tail = len("".join(rows))
    for short in [*range(1, tail, 97), tail]:
        site.state.unlink()
        if state != "none":
            site.state.write_bytes(last if state == "last" else older)
        left = log[:-short]
        behind = b"" if left.endswith(b"\n") else b"\n"  # else the first line there is half a line
        left += b"\0" * (short if lost == "nuls" else 0) + behind
        site.log.write_bytes(left)
        site.write(login(LATE, at=NOW), *(noise(n, NOW) for n in range(40)))
        assert a_pass(site) == 0
        survive = {f"203.0.113.{n}" for n, row in enumerate(rows, 1) if row.encode() in left}
        known = {f"203.0.113.{n}" for n in range(1, 20)} if state == "last" else set()
        assert relaying(site.database) == {OWN, STAYS, LATE} | survive | known


@pytest.mark.parametrize("when", ["before-it-was-read", "after-it-was-read"])
def test_the_line_behind_what_never_reached_the_disk_counts(site: Site, when: str) -> None:
    """Where blocks of a log were given but not written, NULs stand before the next line."""
    site.write(login(STAYS))
    site.run()
    with site.log.open("ab") as log:
        log.write(b"\0" * 5000)
    if when == "after-it-was-read":
        run_after_reboot(site)
    site.write(login(LATE), login(LAST))
    run_after_reboot(site)
    assert relaying(site.database) == {OWN, STAYS, LATE, LAST}


def test_nuls_within_a_line_begin_no_new_one(site: Site) -> None:
    """What stands behind them may be a stranger's words."""
    site.write(noise(1).rstrip("\n") + "\0" * 9 + login("203.0.113.66", "eve"), login(LATE))
    site.run()
    assert relaying(site.database) == {OWN, LATE}


@pytest.mark.parametrize("seed", range(12))
def test_a_log_torn_by_a_cut(site: Site, reboot: None, seed: int) -> None:
    """Some pages of the log are those of before, and the state is of before, of amid, or of after.

    As wherever the tail is copied to the front: pages of it are written anew.
    """
    random = Random(seed)
    site.write(*(noise(n, NOW - 900) for n in range(200)), login(STAYS, at=NOW - 900))
    a_pass(site, NOW - 900)
    site.write(*(login(f"203.0.113.{n}", at=NOW - 300) for n in range(1, 100)))
    old = site.log.read_bytes()
    a_pass(site, NOW - 300)
    states = [site.state.read_bytes()]
    site.configure(log_settings=f"keep_lines = {random.choice([1, 10, 90])}")
    a_pass(site, NOW - 300)
    states.append(site.state.read_bytes())
    new = site.log.read_bytes()
    assert b"log cut" in new
    amid = json.loads(states[0])
    (path,) = amid["logs"]
    after = json.loads(states[1])["logs"][path]
    marker = new[: new.index(b"\n") + 1].decode("latin-1")
    amid["logs"][path]["cut"] = {
        **{key: after[key] for key in ("offset", "anchor")},
        "marker": marker,
    }
    states.append(json.dumps(amid).encode())

    long = new.ljust(len(old), b"\0") if random.random() < 0.5 else new + old[len(new) :]
    torn = older_pages(lambda _: random.random() < 0.5)(long, old)
    site.log.write_bytes(torn)
    site.state.write_bytes(random.choice(states))
    site.write("\n", login(LATE, at=NOW))
    assert a_pass(site) == 0
    expected = {OWN, STAYS, LATE, *(f"203.0.113.{n}" for n in range(1, 100))}
    assert relaying(site.database) == expected
    site.write(login(LAST, at=NOW))
    assert a_pass(site) == 0
    assert relaying(site.database) == {*expected, LAST}


# A disk as it is when the power goes.


@pytest.mark.parametrize("keep", ["", "keep_lines = 50"], ids=["uncut", "cut"])
def test_a_disk_as_the_power_cut_left_it(tmp_path: Path, keep: str) -> None:
    """A copy of a mounted disk, without what was still to be written; its journal is replayed."""
    image = tmp_path / "ext4.img"
    with mounted(tmp_path, "ext4", megabytes=8) as disk:
        site = Site(disk)
        site.configure(log_settings=keep)
        # So that the log reaches back before the window, and was not rotated in it.
        site.write(*(noise(n, NOW - 7200) for n in range(60)), login(STAYS))
        site.run()
        os.sync()
        site.write(*(noise(n) for n in range(60)), login(LOST))
        site.run()
        site.write(login(LAST))
        shutil.copyfile(image, tmp_path / "copy.img")
    image.unlink()
    (tmp_path / "copy.img").rename(image)
    with mounted(tmp_path, "ext4", megabytes=8):
        written = {LAST} & set(site.log.read_text().split())
        site.write("\n", login(LATE))
        run_after_reboot(site)
        assert relaying(site.database) == {OWN, STAYS, LOST, LATE} | written
        site.run()
