"""Whole passes, from a log to a map of real makemap's."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sapd import config, errors, run
from sapd.cut import MARKER
from sapd.events import formats
from sapd.reading.maillog import Reading
from tests.folders import snapshot
from tests.servers.filesystems import fill, mounted, remount
from tests.servers.mounts import another_zone
from tests.servers.unprivileged import (
    NOBODY,
    PREFIX,
    PYTHON,
    installed_for_everybody,
    let_everybody_in,
)
from tests.site import Site, login, noise, utc, when

pytestmark = pytest.mark.makemap

OWN = "198.51.100.9"
NOW = time.time()


def test_a_login_opens_and_its_window_ends(site: Site) -> None:
    site.run()
    assert site.relaying() == {OWN}
    site.write(noise(1), login("192.0.2.10", at=NOW), noise(2))
    site.run()
    assert site.relaying() == {OWN, "192.0.2.10"}
    assert site.open_addresses() == {"192.0.2.10"}
    site.run("--at", when(NOW + 1700))
    assert site.relaying() == {OWN, "192.0.2.10"}
    site.run("--at", when(NOW + 1801))
    assert site.relaying() == {OWN}


def test_an_idle_pass_starts_nothing_and_writes_nothing_but_its_note(site: Site) -> None:
    site.write(*(noise(number) for number in range(10)), login("192.0.2.10"))
    site.run()
    before = snapshot(site.folder)
    site.configure(access_settings='makemap = "/nonexistent"')
    site.run()
    after = snapshot(site.folder)
    for name in ("sapd.toml", "state", "state/idle", "state/lock"):
        before.pop(name, None)
        after.pop(name, None)
    assert after == before


def test_a_dry_run_says_it_all_and_touches_nothing(site: Site) -> None:
    site.configure(log_settings="keep_lines = 5")
    site.write(login("192.0.2.1", "old", at=NOW - 1000), login("192.0.2.2", at=NOW - 1000))
    site.run("--at", when(NOW - 900))
    site.write(
        *(noise(number, NOW) for number in range(20)),
        login("192.0.2.2", at=NOW - 10),
        login("192.0.2.10", "eve", at=NOW - 5),
    )
    before = snapshot(site.folder)
    later = when(NOW + 900)
    done = site.run("--dry-run", "--at", later)
    assert snapshot(site.folder) == before
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"would open 192.0.2.10 eve until {when(NOW - 5 + 1800)}",
        f"would renew 192.0.2.2 bob until {when(NOW - 10 + 1800)}",
        "would close 192.0.2.1 old",
        f"would rewrite {site.database}: 1 own entries, 2 open addresses",
        f"would cut {site.log}: 19 lines removed, 5 kept",
    ]
    real = site.run("-v", "--at", later)
    assert [f"would {line}" for line in real.stdout.splitlines()] == done.stdout.splitlines()
    assert site.run("-n", "--at", later).stdout == ""


def test_a_dry_run_before_the_first_run(site: Site) -> None:
    site.write(login("192.0.2.10"))
    before = snapshot(site.folder)
    done = site.run("-n")
    assert done.stdout.startswith("would open 192.0.2.10 bob until ")
    assert snapshot(site.folder) == before


@pytest.mark.root
def test_a_dry_run_needs_no_more_than_reading(
    site: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    site.write(login("192.0.2.10"))
    site.run()
    site.write(login("192.0.2.11"))
    os.chown(site.state, NOBODY, NOBODY)
    site.database.chmod(0o644)
    let_everybody_in(site.folder)
    env = installed_for_everybody(tmp_path_factory.mktemp("everybody"))
    let_everybody_in(Path(env["PYTHONPATH"]))
    before = snapshot(site.folder)
    with (site.state.parent / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # it takes no lock, so this does not stop it
        done = site.sapd("run", "-n", prefix=PREFIX, env=env, python=PYTHON)
    assert (done.returncode, done.stderr) == (0, "")
    assert "would open 192.0.2.11 bob" in done.stdout
    assert snapshot(site.folder) == before


@pytest.mark.servers
def test_a_dry_run_opens_nothing_for_writing(site: Site, tmp_path: Path) -> None:
    site.configure(log_settings="keep_lines = 1")
    site.write(login("192.0.2.10"), login("192.0.2.11"))
    trace = tmp_path.parent / f"{tmp_path.name}.trace"
    strace = ("strace", "-f", "-qq", "-o", str(trace), "-e", "trace=%file,%desc,flock,fallocate")
    done = site.sapd("run", "-n", prefix=strace, env={"PYTHONDONTWRITEBYTECODE": "1"})
    assert "would cut" in done.stdout
    calls = trace.read_text().splitlines()
    assert len(calls) > 100
    for call in calls:
        assert not any(word in call for word in ("O_WRONLY", "O_RDWR", "O_CREAT")), call
        for name in ("flock(", "rename", "unlink", "mkdir", "ftruncate", "fallocate", "utimens"):
            assert name not in call, call


def test_the_administrators_word_is_said_once_and_holds(site: Site) -> None:
    site.source.write_text(site.source.read_text() + "203.0.113\tREJECT\n192.0.2.20\tRELAY\n")
    source = site.source.read_bytes()
    site.write(login("203.0.113.7", "eve"), login("192.0.2.20"), login("192.0.2.10"))
    done = site.sapd("run")
    assert done.returncode == 0
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "sapd: warning: 203.0.113.7: not opened: logged in as eve, but "
        'access.source says "203.0.113 REJECT"'
    ]
    site.run()
    assert site.entries() == {
        f"connect:{OWN}": "RELAY",
        "203.0.113": "REJECT",
        "192.0.2.20": "RELAY",
        "connect:192.0.2.10": "RELAY",
    }
    assert site.open_addresses() == {"192.0.2.10"}
    site.source.write_text(f"Connect:{OWN} RELAY\n192.0.2.10 REJECT\n")
    done = site.sapd("run", "-v")
    assert "close 192.0.2.10 bob\n" in done.stdout
    assert "open 203.0.113.7 eve until" in done.stdout
    assert "192.0.2.10: not opened" in done.stderr
    assert site.relaying() == {OWN, "203.0.113.7", "192.0.2.20"}
    assert source != site.source.read_bytes()


def test_source_is_never_written(site: Site) -> None:
    site.source.write_bytes(b"10.1 RELAY\r\n# no newline at the end: 192.0.2.1 REJECT")
    before = site.source.read_bytes(), site.source.stat().st_mtime_ns
    site.write(login("192.0.2.10"))
    site.run()
    site.run("--at", when(NOW + 4000))
    assert (site.source.read_bytes(), site.source.stat().st_mtime_ns) == before
    assert site.relaying() == {"10.1"}


@pytest.mark.parametrize("log", ["missing", "folder", "quiet"])
def test_stale_addresses_close_whatever_became_of_the_log(site: Site, log: str) -> None:
    site.write(login("192.0.2.10", at=NOW))
    site.run()
    assert "192.0.2.10" in site.relaying()
    if log != "quiet":
        site.log.unlink()
    if log == "folder":
        site.log.mkdir()
    done = site.run("--at", when(NOW + 1801), status=0 if log == "quiet" else 66)
    assert site.relaying() == {OWN}
    if log == "quiet":
        assert done.stderr == ""
    else:
        assert done.stderr.startswith(f"sapd: error: {site.log}: can't be read: ")
        assert done.stderr.count("\n") == 1


def test_a_stamp_in_the_future_is_no_evidence_and_is_said_once(site: Site) -> None:
    site.write(login("192.0.2.10", at=NOW + 3600))
    done = site.sapd("run")
    assert done.returncode == 0
    assert done.stderr == (
        f"sapd: warning: {site.log}: logins stamped more than 120 s ahead of now, which open "
        "nothing: 1; check the clock, or set timezone for this log\n"
    )
    site.run()
    site.write(*(login("192.0.2.10", at=NOW + 3600) for _ in range(9)))
    site.run()
    site.write(login("192.0.2.11"))
    site.run()
    assert site.relaying() == {OWN, "192.0.2.11"}
    site.write(login("192.0.2.10", at=NOW + 3600))
    assert "open nothing: 1;" in site.sapd("run").stderr


def test_a_clock_set_back_denies_nobody_and_opens_for_no_longer(site: Site) -> None:
    site.write(*(noise(number, NOW) for number in range(10)), login("192.0.2.10", at=NOW))
    site.run("--at", when(NOW + 5))
    site.run("--at", when(NOW + 86400))
    assert site.relaying() == {OWN}
    site.run("--at", when(NOW + 60))
    assert site.relaying() == {OWN, "192.0.2.10"}
    site.run("--at", when(NOW - 600))
    (row,) = json.loads(site.sapd("list", "--json", "--at", when(NOW - 600)).stdout)
    assert row["until"] == utc(NOW + 1200)
    assert json.loads(site.state.read_text())["time"] == int(NOW) - 600
    site.run("--at", when(NOW + 1801))
    assert site.relaying() == {OWN}


def test_what_was_read_by_a_clock_that_was_fast_opens_once(site: Site) -> None:
    """What came after the clock was set back counts, also when it was ahead of the clock."""
    site.write(*(noise(number, NOW) for number in range(10)), login("192.0.2.10", at=NOW))
    site.run("--at", when(NOW + 60))
    assert site.relaying() == {OWN, "192.0.2.10"}
    site.sapd("run", "--at", when(NOW - 7200))
    site.write(login("192.0.2.11", at=NOW + 30))
    site.sapd("run", "--at", when(NOW - 7100))
    assert "192.0.2.11" not in site.relaying()
    site.run("--at", when(NOW + 120))
    assert site.relaying() == {OWN, "192.0.2.11"}
    site.run("--at", when(NOW + 1831))
    assert site.relaying() == {OWN}


def test_a_line_that_was_read_opens_nothing_when_it_looks_fresh_again(site: Site) -> None:
    """In the hour that is repeated, and a year later."""
    site.configure(log_settings='timezone = "Europe/Berlin"')
    site.write('Oct 25 02:30:00 mx1 popper[1]: (v4) POP login by user "bob" at (h) 192.0.2.10\n')
    for moment, expected in (
        ("2026-10-25T00:31:00Z", {OWN, "192.0.2.10"}),
        ("2026-10-25T01:05:00Z", {OWN}),
        ("2026-10-25T01:31:00Z", {OWN}),
        ("2027-10-25T00:35:00Z", {OWN}),
    ):
        site.run("--at", moment)
        assert site.relaying() == expected, moment


@pytest.mark.servers
def test_new_year(site: Site) -> None:
    text = 'popper[1]: (v4.0.5) POP login by user "bob" at (h) 192.0.2.10\n'
    site.write("Dec 31 23:50:00 mx1 " + text, "Jan  1 00:20:00 mx1 " + text.replace("10", "11"))
    rotated = site.log.with_name("qpopper.1")  # its time of change is today's, not that day's
    rotated.write_text("Dec 31 23:40:00 mx1 " + text.replace("10", "12"))
    done = site.sapd("run", "-v", "--at", "2027-01-01 00:05", prefix=another_zone("Europe/Berlin"))
    assert done.returncode == 0
    assert "open 192.0.2.10 bob until 2027-01-01T00:20:00+01:00" in done.stdout
    assert site.relaying() == {OWN, "192.0.2.10", "192.0.2.12"}


def test_nov_23_on_nov_22_is_a_year_old(site: Site) -> None:
    site.write('Nov 23 12:20:00 mx1 popper[1]: (v4) POP login by user "bob" at (h) 192.0.2.10\n')
    site.run("--at", "2026-11-22 12:10")
    assert site.relaying() == {OWN}
    assert "1: login 192.0.2.10" in site.sapd("match", str(site.log)).stdout


@pytest.mark.parametrize("way", ["rename", "copytruncate"])
def test_rotated_with_unread_lines(site: Site, way: str) -> None:
    site.write(*(noise(number) for number in range(100)), login("192.0.2.1"))
    site.run()
    site.write(login("192.0.2.2"))
    if way == "rename":
        site.log.rename(f"{site.log}.1")
    else:
        shutil.copy(site.log, f"{site.log}.1")
        os.truncate(site.log, 0)
    site.write(login("192.0.2.3"))
    site.run()
    assert site.relaying() == {OWN, "192.0.2.1", "192.0.2.2", "192.0.2.3"}


def test_cutting(site: Site) -> None:
    site.configure(log_settings="keep_lines = 10_000")
    site.write(*(noise(number) for number in range(49_999)), login("192.0.2.10"))
    rows = site.log.read_text().splitlines(keepends=True)
    inode = site.log.stat().st_ino
    site.run()
    marker, *kept = site.log.read_text().splitlines(keepends=True)
    assert MARKER.fullmatch(marker.encode())
    assert " log cut, 40000 lines removed" in marker
    assert kept == rows[-10_000:]
    assert site.log.stat().st_ino == inode
    done = site.run("-vv")
    assert f"read {site.log}: 0 bytes" in done.stdout
    site.write(login("192.0.2.11"))
    done = site.run("-vv")
    assert (
        f"read {site.log}: {len(login('192.0.2.11'))} bytes, 1 lines, 1 different logins"
        in done.stdout
    )
    assert f"cut {site.log}: 1 lines removed, 10000 kept" in done.stdout
    assert site.relaying() == {OWN, "192.0.2.10", "192.0.2.11"}


def test_a_log_behind_a_link_is_read_but_not_cut(site: Site) -> None:
    site.configure(log_settings="keep_lines = 1")
    real = site.folder / "real"
    site.log.rename(real)
    site.log.symlink_to(real)
    site.write(login("192.0.2.10"), login("192.0.2.11"))
    before = real.read_bytes()
    done = site.run(status=73)
    assert done.stderr == (
        f"sapd: error: {site.log}: is a symbolic link and is not written through; "
        "name the file itself\n"
    )
    assert real.read_bytes() == before
    assert site.relaying() == {OWN, "192.0.2.10", "192.0.2.11"}


def test_a_first_run_on_five_million_lines_begins_at_the_windows_edge(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    row = login("192.0.2.77", at=NOW - 30 * 86400)
    with site.log.open("w") as file:
        for _ in range(500):
            file.write(row * 10_000)
        file.write(login("192.0.2.10"))
    size = site.log.stat().st_size
    done = site.run("-vv")
    read = int(done.stdout.split(": ", 1)[1].split(" bytes")[0])
    with capsys.disabled():
        print(f"\n5,000,001 lines, {size} bytes: {read} bytes read", end=" ")
    assert read < 17 * 1024 * 1024
    assert site.relaying() == {OWN, "192.0.2.10"}


def test_two_at_once(site: Site) -> None:
    site.run()
    with (site.state.parent / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = site.run(status=75)
        assert (done.stdout, done.stderr) == ("", "")
        assert site.sapd("list").returncode == 0
    site.run()


def test_a_damaged_state_is_set_aside_and_rebuilt(site: Site) -> None:
    site.write(login("192.0.2.10"))
    site.run()
    site.state.write_text('{"version": 1, "claims": {"192.0.2.66": {"eve": 99999999999}}}')
    damaged = site.state.read_bytes()
    assert "a run would set it aside" in site.run("-n", status=65).stderr
    assert site.state.read_bytes() == damaged
    assert site.sapd("list").returncode == 65
    done = site.run(status=65)
    assert done.stderr.startswith(f"sapd: error: {site.state}: can't be used (")
    assert done.stderr.count("\n") == 1
    (aside,) = site.state.parent.glob("state.json.damaged-*")
    assert aside.name in done.stderr
    assert aside.read_bytes() == damaged
    assert site.relaying() == {OWN, "192.0.2.10"}
    site.run()


@pytest.mark.servers
def test_the_disk_of_the_state_is_full(site: Site) -> None:
    with mounted(site.folder, "tmpfs", megabytes=1) as folder:
        site.configure(log_settings="keep_lines = 2")
        text = site.config.read_text().replace('"state"', f'"{folder}"')
        site.config.write_text(text)
        site.write(login("192.0.2.10"))
        site.run()
        before = (folder / "state.json").read_bytes()
        fill(folder / "filler")
        site.write(noise(1), noise(2), login("192.0.2.11"))
        log = site.log.read_bytes()
        done = site.run(status=74)
        assert done.stderr == (
            f"sapd: error: {folder}/state.json: can't be written: No space left on device\n"
        )
        assert (folder / "state.json").read_bytes() == before
        assert site.log.read_bytes() == log  # what is not in the state is not cut
        assert site.relaying() == {OWN, "192.0.2.10", "192.0.2.11"}  # done is done
        (folder / "filler").unlink()
        site.run()
        assert site.relaying() == {OWN, "192.0.2.10", "192.0.2.11"}


def test_state_folder_that_cannot_be(site: Site) -> None:
    site.state.parent.write_text("a file")
    done = site.run(status=73)
    assert done.stderr.count("\n") == 1
    assert str(site.state.parent) in done.stderr


@pytest.mark.root
def test_without_permission(site: Site) -> None:
    site.run()
    let_everybody_in(site.folder)
    env = installed_for_everybody(site.folder)
    for command in ("run", "list"):
        done = site.sapd(command, prefix=PREFIX, env=env, python=PYTHON)
        assert done.returncode == 77
        assert done.stderr.startswith(f"sapd: error: {site.state.parent}/")
        assert done.stderr.count("\n") == 1
    site.config.chmod(0)
    assert site.sapd("list", prefix=PREFIX, env=env, python=PYTHON).returncode == 77


@pytest.mark.servers
def test_without_its_state_a_run_still_closes_what_is_stale(site: Site) -> None:
    """On a file system that has become read-only, and with a state that can't be moved away."""
    with mounted(site.folder, "tmpfs", megabytes=1) as folder:
        site.config.write_text(site.config.read_text().replace('"state"', f'"{folder}"'))
        site.write(login("192.0.2.10", at=NOW))
        site.run()
        assert "192.0.2.10" in site.relaying()
        remount(folder, "ro")
        done = site.run("--at", when(NOW + 1801), status=73)
        assert done.stderr == (
            f"sapd: error: {folder}/state.json: can't be written: Read-only file system\n"
        )
        assert site.relaying() == {OWN}
        remount(folder, "rw")
        (folder / "state.json").write_text("damaged")
        remount(folder, "ro")
        site.write(login("192.0.2.11", at=NOW + 1800))
        done = site.run("--at", when(NOW + 1802), status=65)
        assert "nor be set aside" in done.stderr
        assert done.stderr.count("\n") == 1
        assert site.relaying() == {OWN, "192.0.2.11"}
        remount(folder, "rw")
        assert (folder / "state.json").read_text() == "damaged"


def test_list_says_that_the_map_is_not_what_it_lists(site: Site) -> None:
    site.write(login("192.0.2.10", at=NOW))
    site.run()
    site.source.write_text("foo\n")
    site.run("--at", when(NOW + 1801), status=69)
    done = site.sapd("list", "--at", when(NOW + 1900))
    assert done.stdout == "no address is open\n"
    assert done.stderr.startswith(
        f"sapd: warning: {site.database}: could not be brought up to date since {when(NOW + 1801)}"
    )
    site.write(login("192.0.2.11", at=NOW + 1850))
    site.run("--at", when(NOW + 1900), status=69)
    site.source.write_text("")
    assert site.relaying() == {OWN}  # as the live map has it: nobody stays open meanwhile
    done = site.run("-v", "--at", when(NOW + 2000))
    assert done.stdout.splitlines() == [
        f"open 192.0.2.11 bob until {when(NOW + 3650)}",
        f"rewrite {site.database}: 0 own entries, 1 open address",
    ]
    assert site.sapd("list", "--at", when(NOW + 2000)).stderr == ""


def test_a_database_that_is_no_longer_kept_is_named(site: Site) -> None:
    site.write(login("192.0.2.10"))
    site.run()
    site.configure()
    site.config.write_text(site.config.read_text().replace("access.db", "other.db"))
    done = site.sapd("run")
    assert done.returncode == 0
    assert done.stderr == (
        f"sapd: warning: {site.database}: is no longer kept, and lets in whoever was open last; "
        "rebuild or remove it\n"
    )
    site.run()


def test_a_bug_at_one_log_leaves_the_others_and_expiry(site: Site) -> None:
    site.write(login("192.0.2.10", at=NOW - 1000), login("192.0.2.11", at=NOW - 1900))
    (site.folder / "second").write_text(login("192.0.2.12"))
    site.configure(top='[[log]]\npath = "second"\n')
    code = (
        "import sys; from sapd import __main__, intake\n"
        "class Recogniser(intake.Recogniser):\n"
        "    def recognise(self, line):\n"
        "        if b'192.0.2.12' in line: raise RuntimeError('boom')\n"
        "        return super().recognise(line)\n"
        "intake.Recogniser = Recogniser\n"
        f"sys.argv = ['sapd', 'run', '-c', {str(site.config)!r}]\n"
        "__main__.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 70
    assert "RuntimeError: boom" in done.stderr
    assert done.stderr.count("\n") == 1
    assert site.relaying() == {OWN, "192.0.2.10"}


@pytest.mark.root
def test_a_run_by_root_does_not_lock_the_separate_maps_owner_out(site: Site) -> None:
    site.state.parent.mkdir()
    os.chown(site.state.parent, NOBODY, NOBODY)
    let_everybody_in(site.folder)
    env = installed_for_everybody(site.folder)
    site.config.write_text(
        site.config.read_text()
        .replace('source = "access"', "")
        .replace("access.db", "state/relay.db")
    )
    site.database = site.state.parent / "relay.db"
    for number, prefix in enumerate([(), PREFIX, (), PREFIX], start=1):
        site.write(login(f"192.0.2.{number}", at=NOW))
        done = site.sapd("run", prefix=prefix, env=env, python=PYTHON)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert len(site.relaying()) == number
    assert {path.stat().st_uid for path in site.state.parent.iterdir()} == {NOBODY}
    assert site.database.stat().st_mode & 0o777 == 0o644


def test_a_separate_map(site: Site) -> None:
    site.config.write_text(
        site.config.read_text().replace('source = "access"', "").replace("access.db", "relay.db")
    )
    site.write(login("192.0.2.10"))
    site.run()
    site.database = site.folder / "relay.db"
    assert site.relaying() == {"192.0.2.10"}


def test_networks_and_never(site: Site) -> None:
    site.configure(
        top='[[network]]\nnetworks = ["192.0.2.0/28"]\nwindow = "2m"\n'
        '[policy]\nnever = ["192.0.2.66/32"]\n'
    )
    site.write(*(login(f"192.0.2.{n}", at=NOW - 300) for n in (1, 65, 66)))
    site.run()
    assert site.relaying() == {OWN, "192.0.2.65"}


def stamped(line: str) -> str:
    """A line of another server, stamped now."""
    return f"{datetime.now(UTC).isoformat()} mx1 {line}\n"


def test_a_session_seen_half_by_one_run_is_seen_whole_by_the_next(site: Site) -> None:
    site.configure(log_settings='formats = ["popa3d"]')
    site.write(stamped("popa3d[7]: Session from 192.0.2.7"))
    site.run()
    assert site.open_addresses() == set()
    site.write(stamped("popa3d[8]: Session from 192.0.2.8"))
    site.run()
    site.write(
        stamped("popa3d[7]: Authentication passed for bob"),
        stamped("popa3d[9]: Authentication passed for eve"),
    )
    site.run()
    assert site.open_addresses() == {"192.0.2.7"}
    assert list(json.loads(site.state.read_text())["contexts"][str(site.log)]["connects"]) == [
        "mx1 popa3d[8]"
    ]
    said = site.run("-n", "-vv", "--at", when(time.time() + 90_000)).stdout
    assert "would close 192.0.2.7 bob" in said


def test_a_session_seen_half_is_not_joined_across_a_gap(site: Site) -> None:
    """Its process may have been another's since."""
    site.configure(log_settings='formats = ["popa3d"]')
    site.write(*(noise(number) for number in range(10)))
    site.write(stamped("popa3d[7]: Session from 203.0.113.66"))
    site.run()
    site.log.unlink()
    site.write(stamped("popa3d[7]: Authentication passed for bob"))
    done = site.sapd("run")
    assert (done.returncode, "nowhere to be found" in done.stderr) == (0, True)
    assert site.open_addresses() == set()


def test_a_message_cut_before_one_run_spoils_the_rest_in_the_next(site: Site) -> None:
    site.configure(log_settings='formats = ["courier"]')
    site.write(stamped("pop3d: LOGIN FAILED, user=" + "A" * 486))
    site.run()
    site.write(stamped("pop3d: LOGIN, user=bob, ip=[::ffff:203.0.113.55], port=[44471]"))
    site.run()
    assert site.open_addresses() == set()
    site.write(stamped("imapd: LOGIN, user=bob, ip=[::ffff:192.0.2.1], port=[4], protocol=IMAP"))
    site.run()
    assert site.open_addresses() == {"192.0.2.1"}


def test_lines_that_could_not_all_be_read_mean_the_same_when_read_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.configure(log_settings='formats = ["courier"]')
    site.write(stamped("pop3d: LOGIN FAILED, user=" + "A" * 486))
    site.run()
    half = formats.load("courier").cut_behind // 2  # so that two readings would use it up
    site.write(stamped("pop3d: " + "x" * 399) * (half // 399))
    site.write(stamped("pop3d: LOGIN, user=bob, ip=[::ffff:203.0.113.55], port=[44471]"))

    def broken(reading: Reading) -> Iterator[bytes]:
        yield from whole(reading)
        raise errors.SapdError(errors.LOG_UNREADABLE, reading._terms.path, "breaks off")

    whole = Reading.blocks
    with monkeypatch.context() as patch:
        patch.setattr(Reading, "blocks", broken)
        for _ in range(3):
            assert run.once(config.load(str(site.config))).status == 66
    site.run()
    assert site.open_addresses() == set()


def test_logs_of_all_servers_at_once(site: Site) -> None:
    site.configure(log_settings='formats = ["auto"]')
    site.write(
        stamped("dovecot: pop3-login: Login: user=<bob>, rip=192.0.2.1, lip=192.0.2.9"),
        "\0" * (1 << 20) + "\n",
        stamped("pop3d: LOGIN, user=bob, ip=[::ffff:192.0.2.2], port=[7]"),
        stamped("teapop[7]: Successful login for bob [192.0.2.9] from 6.6.6.6 [192.0.2.3]"),
        stamped("dovecot: pop3-login: Login: user=<bob>, rip=999.0.2.1, lip=192.0.2.9"),
    )
    with site.log.open("ab") as log:
        log.write(b"\xff\xfe\n" + b"x" * (3 << 20) + b"\n")
    site.write(login("192.0.2.4"))
    said = site.run("-vv").stdout
    assert (
        "4 different logins, 0 ahead of now, 0 without an address; unusable: 1 addresses, 0 stamps"
        in said
    )
    assert site.open_addresses() == {f"192.0.2.{n}" for n in range(1, 5)}


def test_lines_that_are_no_evidence_are_counted(site: Site) -> None:
    site.configure(log_settings='formats = ["courier"]')
    site.write(
        stamped("pop3d: LOGIN, user=bob, ip=[::ffff:192.0.2.1], port=[7]"),
        stamped("pop3d: LOGIN, user=bob, ip=[::ffff:999.0.2.1], port=[7]"),
        stamped("pop3d: LOGIN, user=b").rstrip("\n")
        + stamped("pop3d: LOGIN FAILED, user=x, ip=[::ffff:203.0.113.1], port=[7]"),
        stamped("pop3d: LOGIN, user=b\0b, ip=[::ffff:203.0.113.1], port=[7]"),
        stamped("pop3d: LOGIN FAILED, user=" + "A" * 486),
        stamped("pop3d: LOGIN, user=bob, ip=[::ffff:203.0.113.1], port=[7]"),
    )
    said = site.run("-vv").stdout
    assert "unusable: 1 addresses, 0 stamps, 1 cut, 2 torn" in said
    assert site.open_addresses() == {"192.0.2.1"}


def test_a_log_names_the_programs_that_write_it(site: Site) -> None:
    site.configure(log_settings='programs = ["popper-backend"]')
    ours = login("192.0.2.10").replace(" popper[", " popper-backend[")
    site.write(ours, login("192.0.2.11"))
    site.run()
    assert site.open_addresses() == {"192.0.2.10"}
