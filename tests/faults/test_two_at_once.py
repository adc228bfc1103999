"""Two at once: one run works, the others leave, and nobody who reads or is killed holds it up."""

import fcntl
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import copy
from pathlib import Path

import pytest

from sapd import errors
from tests.faults.database import relaying
from tests.servers.rsyslog import wait_until
from tests.site import MAKEMAP, Site, login

pytestmark = pytest.mark.servers

OWN = "198.51.100.9"


def started(site: Site, config: Path | None = None) -> "subprocess.Popen[str]":
    """A run that goes on beside the test."""
    return subprocess.Popen(
        [sys.executable, "-m", "sapd", "run", "-c", str(config or site.config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class SlowMakemap:
    """A makemap that begins when it is let go: a machine with a big map, or too much to do."""

    def __init__(self, site: Site) -> None:
        """Have the site use it."""
        self.folder = site.folder / "makemap"
        self.folder.mkdir()
        program = self.folder / "program"
        program.write_text(
            "#!/bin/sh\n"
            f"cd {self.folder}; touch started\n"
            "until [ -e go ]; do sleep 0.02; done\n"
            f'{MAKEMAP} "$@" 2>warnings; status=$?\n'  # of /tmp; if nobody read them, it would die
            "touch done; exit $status\n"
        )
        program.chmod(0o755)
        site.configure(access_settings=f'makemap = "{program}"')

    def go(self) -> None:
        (self.folder / "go").touch()

    def wait_until(self, what: str) -> None:
        """Wait until it has "started", or is "done"."""
        wait_until((self.folder / what).exists)


def test_of_twenty_runs_one_works_and_the_others_leave_silently(site: Site) -> None:
    site.write(login("192.0.2.1"))
    site.run()
    lock = (site.state.parent / "lock").stat()
    makemap = SlowMakemap(site)
    site.write(login("192.0.2.2"))
    runs = [started(site) for _ in range(20)]
    wait_until(lambda: sum(run.poll() is not None for run in runs) == 19, patience=120)
    assert [run.returncode for run in runs if run.returncode is not None] == [errors.LOCKED] * 19

    # Beside it, a person may look.
    dry = site.sapd("run", "-n")
    assert (dry.returncode, dry.stderr) == (0, "")
    assert "would open 192.0.2.2 bob" in dry.stdout
    assert site.open_addresses() == {"192.0.2.1"}
    assert relaying(site.database) == {OWN, "192.0.2.1"}

    makemap.go()
    assert [run.communicate() for run in runs] == [("", "")] * 20
    assert sorted(run.returncode for run in runs) == [0] + [errors.LOCKED] * 19
    assert relaying(site.database) == {OWN, "192.0.2.1", "192.0.2.2"}
    after = (site.state.parent / "lock").stat()
    assert (after.st_ino, after.st_mode) == (lock.st_ino, lock.st_mode)


def test_two_configurations_with_one_state_take_turns_and_say_so(site: Site) -> None:
    """They share who is open, and each says at its turn that the other's map is not kept."""
    other = copy(site)
    other.config, other.log = site.folder / "other.toml", site.folder / "other"
    other.database = site.folder / "other.db"
    text = site.config.read_text()
    text = text.replace('"qpopper"', '"other"').replace('"access.db"', '"other.db"')
    other.config.write_text(text)
    site.write(login("192.0.2.1"))
    other.write(login("192.0.2.2"))
    makemap = SlowMakemap(site)
    run = started(site)
    makemap.wait_until("started")
    other.run(status=errors.LOCKED)
    makemap.go()
    assert run.communicate() == ("", "")
    assert relaying(site.database) == {OWN, "192.0.2.1"}
    for turn, kept in ((other, site), (site, other), (other, site)):
        done = turn.sapd("run")
        assert done.returncode == 0
        assert done.stderr.startswith(f"sapd: warning: {kept.database}: is no longer kept")
        assert done.stderr.count("\n") == 1
        assert relaying(turn.database) == {OWN, "192.0.2.1", "192.0.2.2"}


def test_a_run_killed_while_makemap_works_blocks_nobody(site: Site) -> None:
    """Nor does its makemap, which outlives it and has half of the text, spoil the next one's."""
    site.write(login("192.0.2.1"))
    site.run()
    lock = (site.state.parent / "lock").stat().st_ino
    slow = SlowMakemap(site)
    site.write(login("192.0.2.2"))
    run = started(site)
    slow.wait_until("started")
    run.kill()
    run.communicate()
    assert run.returncode == -signal.SIGKILL
    site.configure()
    site.run()
    assert relaying(site.database) == {OWN, "192.0.2.1", "192.0.2.2"}
    slow.go()
    slow.wait_until("done")
    assert relaying(site.database) == {OWN, "192.0.2.1", "192.0.2.2"}
    site.write(login("192.0.2.3"))
    site.run()
    assert relaying(site.database) == {OWN, "192.0.2.1", "192.0.2.2", "192.0.2.3"}
    assert (site.state.parent / "lock").stat().st_ino == lock
    assert not list(site.folder.glob("*new*"))


def test_the_makemap_of_a_killed_run_does_not_get_into_the_next_ones_map(site: Site) -> None:
    """Even if it wakes between that one's makemap and the copying, with half of the text."""
    site.source.write_text("".join(f"h{number}.x\tRELAY\n" for number in range(10_000)))
    site.write(login("192.0.2.1"))
    site.run()
    before = relaying(site.database)
    new = site.folder / "access.sapd-new.db"
    slow = SlowMakemap(site)
    site.write(login("192.0.2.2"))
    first = started(site)
    slow.wait_until("started")
    first.kill()
    first.communicate()
    site.configure()
    with site.database.open("rb") as live:
        fcntl.flock(live, fcntl.LOCK_SH)  # as sendmail does while it looks something up
        second = started(site)
        wait_until(lambda: waits_for_the_map(site, second.pid))
        slow.go()
        wait_until(lambda: (slow.folder / "done").exists() or somebody_waits_for(new))
    assert second.communicate() == ("", "")
    slow.wait_until("done")
    assert relaying(site.database) == {*before, "192.0.2.2"}


def waits_for_the_map(site: Site, pid: int) -> bool:
    """Whether a run has opened the live map, to put the new one in place."""
    with suppress(OSError):
        return any(fd.readlink() == site.database for fd in Path(f"/proc/{pid}/fd").iterdir())
    return False


def somebody_waits_for(path: Path) -> bool:
    """Whether somebody waits for a file's lock."""
    inode = f":{path.stat().st_ino} "
    return any("->" in row and inode in row for row in Path("/proc/locks").read_text().splitlines())


@contextmanager
def administrators_makemap(site: Site) -> Iterator["subprocess.Popen[bytes]"]:
    """The administrator's own rebuild, at work on the live database until it is left."""
    with subprocess.Popen([MAKEMAP, "hash", str(site.database)], stdin=subprocess.PIPE) as makemap:
        assert makemap.stdin is not None
        makemap.stdin.write(site.source.read_bytes())
        makemap.stdin.flush()
        wait_until(lambda: is_locked(site.database))
        yield makemap
        makemap.stdin.close()
    assert makemap.returncode == 0


def is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_run_waits_for_the_administrators_makemap(site: Site) -> None:
    site.write(login("192.0.2.1"))
    site.run()
    site.write(login("192.0.2.2"))
    with administrators_makemap(site):
        run = started(site)
        wait_until(lambda: waits_for_the_map(site, run.pid))
    assert run.communicate() == ("", "")
    assert run.returncode == 0
    assert relaying(site.database) == {OWN, "192.0.2.1", "192.0.2.2"}


def test_a_run_killed_while_it_waits_for_the_map_blocks_nobody(site: Site) -> None:
    site.write(login("192.0.2.1"))
    site.run()
    site.write(login("192.0.2.2"))
    with administrators_makemap(site):
        run = started(site)
        wait_until(lambda: waits_for_the_map(site, run.pid))
        run.kill()
        run.communicate()
    assert relaying(site.database) == {OWN}
    site.run()
    assert relaying(site.database) == {OWN, "192.0.2.1", "192.0.2.2"}
    assert not list(site.folder.glob("*new*"))


def test_with_runs_and_makemaps_at_random_no_reader_sees_half_a_map(site: Site) -> None:
    site.source.write_text("".join(f"Connect:198.51.{n}\tRELAY\n" for n in range(256)))
    site.run()
    admins = relaying(site.database)
    seen = site.folder / "seen.db"
    makemap = f"while [ ! -e stop ]; do {MAKEMAP} hash access.db < access || exit 1; done"
    with subprocess.Popen(["sh", "-c", makemap], cwd=site.folder) as loop:
        opened: set[str] = set()
        for number in range(1, 6):
            before = set(opened)
            opened.add(f"192.0.2.{number}")
            site.write(login(f"192.0.2.{number}"))
            run = started(site)
            while run.poll() is None:
                with site.database.open("rb") as live:
                    fcntl.flock(live, fcntl.LOCK_SH)
                    seen.write_bytes(live.read())
                assert relaying(seen) in (admins, admins | before, admins | opened)
            assert run.communicate() == ("", "")
        (site.folder / "stop").touch()
    assert loop.returncode == 0
    site.run()
    assert relaying(site.database) == admins | opened
