"""Closed is reached whatever fails: what hangs, is missing, damaged or wrong keeps nobody open."""

import fcntl
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sapd.reading import maillog
from sapd.timestamps import Clock
from tests.servers.filesystems import fill, mounted
from tests.site import MAKEMAP, Site, login, noise, when

pytestmark = pytest.mark.servers

OWN = "198.51.100.9"
CLIENT = "192.0.2.10"
LATER = 1860  # seconds; behind the window's end
NOBODY = 65534


def opened(site: Site) -> None:
    """A site where one client relays."""
    site.write(login(CLIENT))
    site.run()
    assert site.relaying() == {OWN, CLIENT}


def separate(site: Site, window: str = "30m") -> None:
    """Let the site have a separate map, of sapd's entries alone."""
    site.configure(window)
    text = site.config.read_text().replace('source = "access"\n', "")
    site.config.write_text(text.replace("access.db", "relay.db"))
    site.database = site.folder / "relay.db"


# list and who tell of the live map.


def said(site: Site, *command: str) -> list[str]:
    done = site.sapd(*command)
    assert done.returncode == 0
    return done.stderr.splitlines()


def test_without_a_pass_list_and_who_tell_who_is_still_let_in(site: Site) -> None:
    site.configure("12s")
    opened(site)
    assert said(site, "list") == said(site, "who", CLIENT) == []
    time.sleep(12.1)
    for command in (["list"], ["who", CLIENT]):
        (line,) = said(site, *command)
        assert line.startswith(f"sapd: warning: {site.database}: still lets in {CLIENT};")
    assert said(site, "list", "--at", when(time.time() + 60)) == []
    site.run()
    assert said(site, "list") == []


def test_after_a_foreign_rebuild_list_tells_who_is_not_let_in(site: Site) -> None:
    opened(site)
    subprocess.run([MAKEMAP, "hash", site.database], input=b"", check=True)
    (line,) = said(site, "list")
    assert f"does not let in yet {CLIENT};" in line


def test_a_foreign_lock_does_not_hang_list(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(site)
    with site.database.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        start = time.monotonic()
        (line,) = said(site, "list")
        assert time.monotonic() - start < 20
    assert "can't be compared with what should be" in line


def test_an_idle_minute_leaves_a_trace_once_a_minute(site: Site) -> None:
    opened(site)
    trace = site.state.parent / "last-pass"
    time.sleep(0.3)
    site.run()  # notes that nothing is to do
    for age, touched in ((30, False), (61, True)):
        os.utime(trace, (time.time() - age,) * 2)
        before = trace.stat().st_mtime
        site.run()
        assert (trace.stat().st_mtime > before) == touched


def test_a_schedule_that_stopped_is_told(site: Site) -> None:
    opened(site)
    for path in site.state.parent.iterdir():
        os.utime(path, (time.time() - 400,) * 2)
    (line,) = said(site, "list")
    assert "the last pass was at" in line
    assert "the last pass was at" in site.sapd("check").stdout
    site.run()
    assert said(site, "list") == []


# What hangs.


@contextmanager
def hung_syslog(folder: Path) -> Iterator[Path]:
    """A socket whose queue is full and that nobody reads."""
    path = folder / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(path))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            other.connect(str(path))
            try:
                while True:
                    other.send(b"<22>x")
            except BlockingIOError:
                yield path


def test_a_hung_syslog_is_not_waited_for(site: Site) -> None:
    site.config.write_text(site.config.read_text() + "[audit]\nsyslog = true\n")
    site.write(login(CLIENT))
    with hung_syslog(site.folder) as path:
        code = (
            "import sys; from sapd import audit, cli\n"
            f"audit._SYSLOGS = ({str(path)!r},)\nsys.exit(cli.main())"
        )
        command = [sys.executable, "-c", code, "run", "-c", str(site.config)]
        for at in ([], ["--at", when(time.time() + LATER)]):
            done = subprocess.run(
                [*command, *at], capture_output=True, text=True, check=False, timeout=10
            )
            assert (done.returncode, done.stderr.count("\n")) == (74, 1)
            assert "takes no messages" in done.stderr
    assert site.relaying() == {OWN}


def test_a_lock_that_is_held_for_long_is_told_once_an_hour(site: Site) -> None:
    opened(site)
    lock = site.state.parent / "lock"
    with lock.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        assert site.run(status=75).stderr == ""
        os.utime(lock, (time.time() - 130,) * 2)
        told = site.run(status=75).stderr
        assert f"look at process {os.getpid()}\n" in told
        assert told.count("\n") == 1
        assert site.run(status=75).stderr == ""
        os.utime(site.state.parent / "lock-held", (time.time() - 3601,) * 2)
        assert site.run(status=75).stderr == told
    site.write(noise(1))
    site.run()
    assert time.time() - lock.stat().st_mtime < 60


def test_a_lock_of_nobodys_keeps_nobody_open(folder: Path) -> None:
    """Whoever may read a map may hold its lock for ever."""
    site = Site(folder)
    separate(site)
    site.run()
    site.database.chmod(0o644)
    site.write(login(CLIENT))
    site.run()
    command = f"exec 9<{site.database}; flock -s 9; echo; sleep 60"
    nobody = subprocess.Popen(
        [
            "setpriv",
            f"--reuid={NOBODY}",
            f"--regid={NOBODY}",
            "--clear-groups",
            "sh",
            "-c",
            command,
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert nobody.stdout is not None
        nobody.stdout.readline()
        start = time.monotonic()
        site.sapd("run", "--at", when(time.time() + LATER))
        assert 9 < time.monotonic() - start < 20
        assert site.relaying() == set()
    finally:
        nobody.send_signal(signal.SIGKILL)
        nobody.communicate()


def test_a_new_separate_map_can_be_read_by_the_mail_server_alone(site: Site) -> None:
    separate(site)
    site.run()
    assert site.database.stat().st_mode & 0o007 == 0


# What is full.


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_full_disk_keeps_nobody_open(tmp_path: Path, kind: str) -> None:
    if kind == "ext4":
        ext4(tmp_path, "-b", "4096")  # as large disks have it; on smaller ones a map is larger
    with mounted(tmp_path, kind, megabytes=8) as folder:
        site = Site(folder)
        addresses = [f"192.0.2.{n}" for n in range(1, 200)]
        now = time.time()
        site.write(*(login(address, at=now - 900) for address in addresses))
        site.write(login("203.0.113.1", at=now))
        site.run()
        site.write(login("203.0.113.2"))
        fill(folder / "filler")
        done = site.sapd("run", "--at", when(now + 1000))
        assert done.returncode == 74
        assert site.relaying() - {"203.0.113.2"} == {OWN, "203.0.113.1"}
        (folder / "filler").unlink()
        site.run("--at", when(now + 1000))
        assert site.relaying() == {OWN, "203.0.113.1", "203.0.113.2"}


def test_close_on_a_full_disk_closes_and_says_what_it_could_not_remember(tmp_path: Path) -> None:
    with mounted(tmp_path, "tmpfs", megabytes=4) as folder:
        site = Site(folder)
        opened(site)
        fill(folder / "filler")
        done = site.sapd("close", CLIENT)
        assert done.returncode == 74
        assert "not remembered: a login that is read again opens it" in done.stderr
        assert site.relaying() == {OWN}


def test_the_live_map_has_no_holes(site: Site) -> None:
    opened(site)
    site.database.unlink()
    site.run()
    about = site.database.stat()
    assert about.st_blocks * 512 >= about.st_size


# What is wrong with the configuration.


def spoil_format(site: Site) -> None:
    (site.folder / "formats.d").mkdir()
    (site.folder / "formats.d" / "own.toml").write_text("oops = 1")
    text = site.config.read_text()
    site.config.write_text(
        'formats_directory = "formats.d"\n'
        + text.replace("[access]", 'formats = ["qpopper", "own"]\n[access]')
    )


def replaced(old: str, new: str) -> Callable[[Site], object]:
    return lambda site: site.config.write_text(site.config.read_text().replace(old, new))


SPOILT: dict[str, Callable[[Site], object]] = {
    "a format": spoil_format,
    "a zone": replaced("[access]", 'timezone = "Europe/Berlon"\n[access]'),
    "TOML": lambda site: site.config.write_text("[[log]\n[state]\ndirectory = 'state'\n"),
    "a misspelt never": lambda site: site.config.write_text(
        site.config.read_text() + '[policy]\nnevr = ["192.0.2.0/24"]\n'
    ),
    "no window": replaced('window = "30m"', 'window = "soon"'),
    "access": replaced('database = "access.db"', 'database = "access"'),
    "a mode": lambda site: site.config.chmod(0o666),
    "a folder of formats": replaced("[[log]]", 'formats_directory = "sapd.toml"\n[[log]]'),
}


@pytest.mark.parametrize("what", SPOILT)
def test_with_a_mistake_a_run_only_closes(site: Site, what: str) -> None:
    site.write(login(CLIENT, at=time.time() - 1795), login("203.0.113.1", at=time.time() - 60))
    site.run()
    assert site.relaying() == {OWN, CLIENT, "203.0.113.1"}
    before = json.loads(site.state.read_text())["logs"]
    SPOILT[what](site)
    site.write(login("192.0.2.11"), login("203.0.113.1"))
    time.sleep(5.1)
    done = site.sapd("run")
    assert done.returncode == 78
    assert all(line.startswith("sapd: error: ") for line in done.stderr.splitlines())
    assert site.relaying() == {OWN, "203.0.113.1"}
    assert json.loads(site.state.read_text())["logs"] == before
    assert site.sapd("run").returncode == 78


def test_what_can_still_be_read_closes_earlier(site: Site) -> None:
    opened(site)
    text = site.config.read_text()
    site.config.write_text(f'{text}[policy]\nnever = ["192.0.2.0/24"]\nnevr = []\n')
    assert site.sapd("run").returncode == 78
    assert site.relaying() == {OWN}


def test_a_source_that_is_gone_keeps_nobody_open(site: Site) -> None:
    opened(site)
    site.source.unlink()
    site.run("--at", when(time.time() + LATER), status=78)
    assert site.relaying() == {OWN}


# What is read without end.


def test_a_log_that_is_a_folder_costs_no_descriptors(site: Site) -> None:
    site.log.unlink()
    site.log.mkdir()
    reading = maillog.Reading(str(site.log), None, 0, 0, Clock(time.time()))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(Exception, match="Is a directory"):
            list(reading.blocks())
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_fifo_in_a_neighbours_place_is_not_waited_for(site: Site) -> None:
    os.mkfifo(f"{site.log}.1.gz")
    opened(site)


def read_within(site: Site, seconds: float) -> subprocess.CompletedProcess[str]:
    """A run whose budget of reading is that small."""
    code = "import sys; from sapd import cli; from sapd.reading import maillog\n"
    code += f"maillog.BUDGET = {seconds}\nsys.exit(cli.main())"
    command = [sys.executable, "-c", code, "run", "-c", str(site.config)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_neighbour_that_takes_too_long_to_unpack_is_given_up_and_named(site: Site) -> None:
    lines = b"".join(noise(n).encode() for n in range(1000)) * 400
    Path(f"{site.log}.1.gz").write_bytes(gzip.compress(lines, 1))
    site.write(login(CLIENT))
    warnings = [read_within(site, 0.05).stderr for _ in range(5)]
    named = [n for n, text in enumerate(warnings) if f"{site.log}.1.gz takes too long" in text]
    assert named == [3]
    assert site.relaying() == {OWN, CLIENT}


def test_what_is_not_read_in_time_is_read_by_the_next_passes(site: Site) -> None:
    old, new = Path(f"{site.log}.1"), site.log
    now = time.time()
    rows = [
        login(f"10.{n // 65536}.{n // 256 % 256}.{n % 256}", f"u{n}", now - 60)
        for n in range(20_000)
    ]
    old.write_text("".join(rows))
    new.write_text(login(CLIENT))
    passes = 0
    while CLIENT not in site.open_addresses():
        assert read_within(site, 0.02).returncode == 0
        passes += 1
        assert passes < 60
    assert passes > 1
    assert len(site.open_addresses()) == 20_001


def test_a_hole_is_skipped(site: Site) -> None:
    with site.log.open("r+b") as file:
        file.write(login("192.0.2.1").encode())
        file.seek(10 << 30)
        file.write(login(CLIENT).encode())
    start = time.monotonic()
    site.run()
    assert time.monotonic() - start < 20
    assert CLIENT in site.relaying()


def test_more_neighbours_than_descriptors(site: Site) -> None:
    now = time.time()
    for number in range(300):
        path = site.log if number == 0 else Path(f"{site.log}.{number}")
        path.write_text(login(f"192.0.{number // 250}.{number % 250 + 1}", at=now - number))
        os.utime(path, (now - number,) * 2)
    command = f"ulimit -n 160; exec {sys.executable} -m sapd run -c {site.config}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(site.open_addresses()) == 300
    assert len(maillog.looked_at(str(site.log))) < 20  # in the note of an idle minute


# Whole seconds.


def ext4(folder: Path, *options: str) -> None:
    """Make the image that `mounted` takes."""
    image = folder / "ext4.img"
    with image.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", *options, image], check=True, capture_output=True)


@contextmanager
def whole_seconds(folder: Path) -> Iterator[Path]:
    """An ext4 file system whose inodes have no room for fractions of a second."""
    ext4(folder, "-I", "128")
    with mounted(folder, "ext4", megabytes=32) as point:
        yield point


def on_a_new_second() -> None:
    time.sleep(1.02 - time.time() % 1)


def test_two_edits_in_one_second_are_both_heeded(tmp_path: Path) -> None:
    with whole_seconds(tmp_path) as folder:
        site = Site(folder)
        opened(site)
        time.sleep(2.2)
        on_a_new_second()
        site.source.write_text(f"Connect:{OWN}\tRELAY\nfoo.example\tOK\n")
        site.run()
        site.source.write_text(f"Connect:{OWN}\tRELAY\n192.0.2\tREJECT\n")
        site.sapd("run")
        assert site.relaying() == {OWN}


def test_a_foreign_map_of_the_second_of_the_publishing_is_noticed(tmp_path: Path) -> None:
    with whole_seconds(tmp_path) as folder:
        site = Site(folder)
        on_a_new_second()
        opened(site)
        about = site.database.stat()
        text = f"Connect:{OWN} RELAY\nConnect:192.0.2.66 RELAY\n"
        subprocess.run([MAKEMAP, "hash", site.database], input=text.encode(), check=True)
        os.utime(site.database, ns=(about.st_atime_ns, about.st_mtime_ns))
        site.run()
        assert site.relaying() == {OWN, CLIENT}


# Whose files are believed.


@pytest.mark.parametrize("name", ["sapd.toml", "."])
def test_a_configuration_that_others_may_write_is_refused(site: Site, name: str) -> None:
    opened(site)
    place = site.folder / name
    place.chmod(0o777)
    done = site.sapd("run", "--at", when(time.time()))
    assert done.returncode == 78
    assert f"can be changed by others; chmod go-w {site.folder}" in done.stderr
    place.chmod(0o755)
    os.chown(place, NOBODY, NOBODY)
    done = site.sapd("run")
    assert done.returncode == 78
    assert "belongs to another user, who can change it; chown 0 " in done.stderr


def test_a_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f"cd {gone}; rmdir {gone}; exec {sys.executable} -m sapd run -c ../sapd.toml"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 78
    assert "the current folder is gone" in done.stderr


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("[policy]\nclient_rate = 0x" + "f" * 4200, "policy.client_rate"),
        ('timezone = "../x"', "log.timezone"),
        ('timezone = "' + "x" * 5000 + '"', "log.timezone"),
    ],
)
def test_values_beyond_all_bounds(site: Site, setting: str, key: str) -> None:
    if setting.startswith("["):
        site.config.write_text(site.config.read_text() + setting)
    else:
        site.configure(log_settings=setting)
    done = site.sapd("run")
    assert done.returncode == 78
    assert f": {key} " in done.stderr
    assert len(done.stderr) < 500


def test_whom_a_failed_publishing_closed_at_least_stays_closed_behind_a_mistake(site: Site) -> None:
    opened(site)
    site.config.write_text(site.config.read_text() + '[policy]\ndeny_accounts = ["bob"]\n')
    site.source.rename(site.folder / "away")
    assert site.sapd("run").returncode == 78
    assert site.relaying() == {OWN}
    (site.folder / "away").rename(site.source)
    site.config.write_text('[[log]\n[state]\ndirectory = "state"\n')
    assert site.sapd("run").returncode == 78
    assert site.relaying() == {OWN}


def test_a_mistake_and_a_source_that_is_gone_keep_nobody_open(site: Site) -> None:
    site.write(login(CLIENT, at=time.time() - 1795), login("203.0.113.1", at=time.time() - 60))
    site.run()
    site.source.unlink()
    site.config.write_text(site.config.read_text() + "[policy]\nnevr = []\n")
    time.sleep(5.1)
    done = site.sapd("run")
    assert done.returncode == 78
    assert "nevr" in done.stderr
    assert f"{site.source}: can't be read" in done.stderr
    assert site.relaying() == {OWN, "203.0.113.1"}
    site.source.write_text(f"Connect:{OWN}\tRELAY\n")
    site.configure()
    site.run()
    assert site.relaying() == {OWN, "203.0.113.1"}


def test_a_mistake_without_access_closes_in_the_map_that_was_published(site: Site) -> None:
    """Not in the default one, which a mail server of another kind may not even have."""
    site.write(login(CLIENT, at=time.time() - 1795), login("203.0.113.1", at=time.time() - 60))
    site.run()
    head, _, rest = site.config.read_text().partition("[access]")
    state = rest.partition("[state]")[2]
    site.config.write_text(f"{head}nevr = []\n[state]{state}")
    time.sleep(5.1)
    assert site.sapd("run").returncode == 78
    assert site.relaying() == {OWN, "203.0.113.1"}
