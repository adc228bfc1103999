"""Every way in which a log may be rotated, in every order with sapd's runs.

A *way* is a generator that does one step after the other and yields between them. At each yield
the POP server's lines go to whatever file it has open, and sapd runs or not: every combination is
played. After each run the open addresses are exactly those whose logins stood in the log, or in a
rotated file of it, at this run or an earlier one. So no login that survives anywhere is lost, what
is gone for good is all that is missing, and nothing else opens.
"""

import bz2
import gzip
import itertools
import lzma
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Self

import pytest

from sapd import config, errors, run, who
from sapd.events.scan import Deduplicator
from sapd.reading.logfile import BLOCK, Packed
from sapd.timestamps import rfc3339
from tests.folders import ROOT
from tests.servers.filesystems import mounted
from tests.servers.logrotate import debians, rotate
from tests.servers.rsyslog import Rsyslog, read, wait_until
from tests.site import Site, login, noise

pytestmark = pytest.mark.makemap

STRANGER = "203.0.113.66"
OWN = "198.51.100.9"  # the administrator's, in Site's map
_LOGIN = re.compile(
    rb"^\0*\d{4}-[-0-9T:+]{20} mx1 popper\[\d+\]: \(v4\.0\.5\) POP login by user \"bob\" "
    rb"at \(client\.example\.net\) (\S+) \[pop_log\.c:244\]$",
    re.MULTILINE,
)


def hostile() -> str:
    """What a mail server logs of a stranger's words: a whole login line behind its own head."""
    return noise(66).rstrip("\n") + " " + login(STRANGER)


def address(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def addresses_in(path: Path) -> set[str]:
    """The addresses whose whole login lines stand in a file, compressed or not."""
    unpack = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
    data = path.read_bytes()
    with suppress(EOFError, ValueError, OSError, lzma.LZMAError):  # half a compressed file
        return {found.decode() for found in _LOGIN.findall(unpack.get(path.suffix, bytes)(data))}
    return set()


SIGHT = re.compile("are nowhere to be found|which looks like its rotated file")


class Scene:
    """A log, the POP server that writes it, and sapd, which runs in this process."""

    def __init__(self, folder: Path, **settings: str) -> None:
        folder.mkdir(exist_ok=True)
        self.site = Site(folder)
        self.site.configure(**settings)
        self.log = self.site.log
        self.config = config.load(str(self.site.config))
        self.numbers = itertools.count(1)
        self.writers = [self.open()]
        self.seen: set[str] = set()
        self.loses_sight = False
        self.warned: list[str] = []

    def open(self) -> int:
        return os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)

    def close(self) -> None:
        while self.writers:
            os.close(self.writers.pop())

    def reopen(self) -> None:
        """As a syslog daemon does at a HUP."""
        self.close()
        self.writers = [self.open()]

    def write(self, count: int) -> None:
        """So many logins of new addresses from each writer, and a stranger's line."""
        for writer in self.writers:
            for _ in range(count):
                os.write(writer, login(address(next(self.numbers))).encode())
            os.write(writer, hostile().encode() * (count > 1))

    def next_to(self, suffix: str) -> Path:
        return Path(f"{self.log}{suffix}")

    def shift(self) -> None:
        """Make room for `LOG.1`."""
        for number in range(5, 0, -1):
            for extension in ("", ".gz"):
                old = self.next_to(f".{number}{extension}")
                if old.exists():
                    old.rename(self.next_to(f".{number + 1}{extension}"))

    def files(self) -> list[Path]:
        """The log and its rotated files, as far as they are files."""
        return [path for path in self.log.parent.glob("qpopper*") if path.is_file()]

    def in_files(self, files: list[Path]) -> set[str]:
        """Whose logins stand in the files."""
        return set().union(*map(addresses_in, files))

    def look(self) -> None:
        """Run sapd; hold what is open against what stands in the files."""
        blocked = self.log.exists() and not self.log.is_file()
        there = [] if blocked else self.files()
        self.seen |= self.in_files(there)
        report = run.once(self.config)
        assert report.status == (0 if there else errors.LOG_UNREADABLE), report
        self.warned += [why for _, why in report.warnings]
        assert not self.warned or (self.loses_sight and all(map(SIGHT.search, self.warned)))
        assert self.open_addresses() == self.seen

    def open_addresses(self) -> set[str]:
        grants, stuck = who.grants(self.config, time.time())
        assert stuck is None
        return {grant.address for grant in grants}

    def end(self) -> None:
        self.close()
        assert self.site.relaying() == {OWN, *self.seen}


class Sessions(Scene):
    """The same for popa3d, which logs an address in one line and the login in a later one.

    At each step each writer ends its sessions of the last step and begins others. A stranger
    connects, too, and his words are another's.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, log_settings='formats = ["popa3d"]')
        self.begun: dict[int, list[tuple[int, str]]] = {}
        self.ended: set[str] = set()
        self.write(1)

    def write(self, count: int) -> None:
        for writer in self.writers:
            for pid, client in self.begun.pop(writer, []):
                self.say(writer, pid, "Authentication passed for bob")
                self.ended.add(client)
            clients = [(pid, address(pid)) for pid in itertools.islice(self.numbers, count)]
            for pid, client in clients:
                self.say(writer, pid, f"Session from {client}")
            self.begun[writer] = clients
            other = next(self.numbers)  # no two lines are alike
            self.say(writer, other, f"Session from {STRANGER}")
            self.say(writer, other, f"popa3d[{other}]: Authentication passed for bob")
            self.say(writer, other, "Authentication failed for bob")

    def say(self, writer: int, pid: int, text: str) -> None:
        os.write(writer, f"{rfc3339(time.time())} mx1 popa3d[{pid}]: {text}\n".encode())

    def in_files(self, files: list[Path]) -> set[str]:
        return set(self.ended) if files else set()


Way = Callable[[Scene], Iterator[None]]


def rename(scene: Scene) -> Iterator[None]:
    scene.shift()
    scene.log.rename(scene.next_to(".1"))
    yield
    scene.reopen()
    yield


def rename_and_create(scene: Scene) -> Iterator[None]:
    """As logrotate does, and so that the writer is told late."""
    scene.shift()
    scene.log.rename(scene.next_to(".1"))
    scene.log.touch()
    yield
    scene.reopen()
    yield


def two_renames(scene: Scene) -> Iterator[None]:
    yield from rename(scene)
    yield from rename_and_create(scene)


def rename_and_compress(program: str, extension: str) -> Way:
    def way(scene: Scene) -> Iterator[None]:
        scene.log.rename(scene.next_to(".1"))
        scene.reopen()
        yield
        plain, packed = scene.next_to(".1"), scene.next_to(f".1{extension}")
        subprocess.run([program, "--keep", plain], check=True)
        whole = packed.read_bytes()
        packed.write_bytes(whole[: len(whole) // 2])
        yield
        packed.write_bytes(whole)
        shutil.copystat(plain, packed)
        plain.unlink()
        yield

    return way


def dated(*suffixes: str) -> Way:
    def way(scene: Scene) -> Iterator[None]:
        for later, suffix in enumerate(suffixes, int(time.time())):
            os.utime(scene.log, (later, later))
            scene.log.rename(scene.next_to(suffix))
            scene.reopen()
            yield

    return way


def copytruncate(scene: Scene) -> Iterator[None]:
    """What is written between the copy and the truncation is gone for good, unless it was read."""
    for _ in range(2):
        scene.shift()
        shutil.copyfile(scene.log, scene.next_to(".1"))
        yield
        os.truncate(scene.log, 0)
        yield


def delayed_compression(scene: Scene) -> Iterator[None]:
    """A writer that was not told appends to the first rotated file, beside one that was."""
    scene.log.rename(scene.next_to(".1"))
    scene.writers.append(scene.open())
    yield
    yield
    scene.shift()
    scene.log.rename(scene.next_to(".1"))
    scene.writers.append(scene.open())
    later = time.time() + 1
    os.utime(scene.next_to(".2"), (later, later))
    yield
    os.close(scene.writers.pop(0))
    subprocess.run(["gzip", scene.next_to(".2")], check=True)
    yield


def compressed_behind_a_late_writer(scene: Scene) -> Iterator[None]:
    """The late writer's last lines are found in the compressed file."""
    scene.log.rename(scene.next_to(".1"))
    scene.writers.append(scene.open())
    yield
    scene.write(2)
    os.close(scene.writers.pop(0))
    subprocess.run(["gzip", scene.next_to(".1")], check=True)
    yield
    yield


def copytruncate_under_a_writer_that_does_not_append(scene: Scene) -> Iterator[None]:
    """It writes on at its own offset, so that the log begins with as many zeros."""
    scene.close()
    scene.writers = [os.open(scene.log, os.O_WRONLY)]
    os.lseek(scene.writers[0], 0, os.SEEK_END)
    yield from copytruncate(scene)


def zeros_after_a_power_cut(scene: Scene) -> Iterator[None]:
    """The file system knew the new size, but had not written the last blocks."""
    os.truncate(scene.log, scene.log.stat().st_size + 3 * 1024 * 1024)
    yield
    yield


def tail_and_cp(scene: Scene) -> Iterator[None]:
    """What is written between the two is gone for good, unless it was read."""
    tail(scene)
    yield
    kept = scene.log.with_name("t").read_bytes()
    os.truncate(scene.log, 0)  # cp's own first step
    yield
    with scene.log.open("r+b") as file:
        file.write(kept)
    yield


def tail_and_mv(scene: Scene) -> Iterator[None]:
    """What goes to the file that was replaced is gone for good, unless it was read."""
    tail(scene)
    yield
    scene.log.with_name("t").rename(scene.log)
    yield
    scene.reopen()
    yield


def tail(scene: Scene) -> None:
    scene.write(20)
    with scene.log.with_name("t").open("wb") as file:
        subprocess.run(["tail", "-n", "18", scene.log], stdout=file, check=True)


def truncated_and_regrown(scene: Scene) -> Iterator[None]:
    size = scene.log.stat().st_size
    os.truncate(scene.log, 0)
    scene.write(1)
    yield
    while scene.log.stat().st_size <= size:
        scene.write(1)
    yield


def away_and_back(scene: Scene) -> Iterator[None]:
    away = scene.log.with_name("away")
    scene.log.rename(away)
    yield
    yield
    away.rename(scene.log)
    yield


def replaced_by(put: Callable[[Path], object], remove: Callable[[Path], object]) -> Way:
    def way(scene: Scene) -> Iterator[None]:
        scene.log.rename(scene.next_to(".1"))
        put(scene.log)
        yield
        yield
        remove(scene.log)
        scene.reopen()
        yield

    return way


def socket_at(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's name is short
        try:
            bound.bind(path.name)
        finally:
            os.chdir(here)


def replaced_by_a_link(scene: Scene) -> Iterator[None]:
    """To a folder where the log is rotated from now on; the old files stay where they are."""
    real = scene.log.with_name("elsewhere") / "log"
    real.parent.mkdir()
    real.touch()
    scene.log.rename(scene.next_to(".1"))
    scene.log.symlink_to(real)
    yield
    scene.reopen()
    yield


def half_a_line(scene: Scene) -> Iterator[None]:
    """Its rest comes to the file that was rotated away; 10.1.1.1 is not 10.1.1.101."""
    line = login("10.1.1.101").encode()
    half = line.index(b"10.1.1.101") + len(b"10.1.1.1")
    os.write(scene.writers[0], line[:half])
    [writer], scene.writers = scene.writers, []
    scene.log.rename(scene.next_to(".1"))
    yield
    os.write(writer, line[half:])
    scene.writers = [writer]
    yield
    scene.reopen()
    yield


def torn_line(scene: Scene) -> Iterator[None]:
    """Its rest comes to the new log: neither half is a login."""
    line = login(STRANGER).encode()
    half = line.index(STRANGER.encode()) + 9
    os.write(scene.writers[0], line[:half])
    scene.log.rename(scene.next_to(".1"))
    scene.reopen()
    os.write(scene.writers[0], line[half:])
    yield
    yield


WAYS: dict[str, Way] = {
    "rename": rename,
    "rename and create": rename_and_create,
    "two renames": two_renames,
    "rename and gzip": rename_and_compress("gzip", ".gz"),
    "rename and bzip2": rename_and_compress("bzip2", ".bz2"),
    "rename and xz": rename_and_compress("xz", ".xz"),
    "names with dates": dated("-20261121", "-20261122"),
    "names with seconds": dated("-20261122-1795300000", "-20261122-1795303600"),
    "names with dashes": dated(".2026-11-21", ".2026-11-22"),
    "names that lie": dated("-30112026", "-01122026", ".1"),
    "copytruncate": copytruncate,
    "copytruncate, not appending": copytruncate_under_a_writer_that_does_not_append,
    "zeros after a power cut": zeros_after_a_power_cut,
    "delayed compression": delayed_compression,
    "compressed behind a late writer": compressed_behind_a_late_writer,
    "tail and cp": tail_and_cp,
    "tail and mv": tail_and_mv,
    "truncated and regrown": truncated_and_regrown,
    "away and back": away_and_back,
    "a folder in its place": replaced_by(Path.mkdir, Path.rmdir),
    "a FIFO in its place": replaced_by(os.mkfifo, Path.unlink),
    "a socket in its place": replaced_by(socket_at, Path.unlink),
    "a link in its place": replaced_by_a_link,
    "half a line": half_a_line,
    "a torn line": torn_line,
}


OUT_OF_SIGHT = {
    "copytruncate",
    "copytruncate, not appending",
    "tail and cp",
    "tail and mv",
    "truncated and regrown",
}
"""Those that may overwrite what was read, and unread lines behind it; that is said."""


# Those in which no line is lost, and each in its own way.
LOSSLESS = [
    "rename and create",
    "two renames",
    "rename and gzip",
    "names with dates",
    "delayed compression",
    "compressed behind a late writer",
    "a folder in its place",
]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.servers] * name.endswith(("bzip2", "xz")))
        for name in WAYS
    ],
)
def test_no_login_that_survives_is_lost(name: str, tmp_path: Path) -> None:
    play_every_order(WAYS[name], tmp_path, Scene, name in OUT_OF_SIGHT)


@pytest.mark.parametrize("name", LOSSLESS)
def test_both_lines_of_a_session_are_joined_across_rotation(name: str, tmp_path: Path) -> None:
    play_every_order(WAYS[name], tmp_path, Sessions)


def test_a_compressed_file_is_unpacked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in every minute until the window is over."""
    scene = Scene(tmp_path / "scene")
    scene.write(6)
    scene.look()
    for _ in compressed_behind_a_late_writer(scene):
        scene.write(1)
        scene.look()
    unpacked: list[object] = []
    monkeypatch.setattr(Packed, "seek", lambda *of: unpacked.append(of))
    scene.write(1)
    scene.look()
    assert not unpacked
    scene.end()


@pytest.mark.servers
def test_a_log_that_is_made_again_with_its_inode(tmp_path: Path) -> None:
    """What was not read of the old one is gone for good, and nothing else."""

    def remade(scene: Scene) -> Iterator[None]:
        inode = scene.log.stat().st_ino
        yield
        scene.log.unlink()
        scene.reopen()
        assert scene.log.stat().st_ino == inode
        yield
        yield

    with mounted(tmp_path, "ext4", 64) as folder:
        play_every_order(remade, folder, Scene, loses_sight=True)


def play_every_order(way: Way, folder: Path, kind: type[Scene], loses_sight: bool = False) -> None:
    """Once for each choice of the steps behind which sapd runs; the lines differ in number."""
    for choice in itertools.count():
        scene = kind(folder / str(choice))
        scene.loses_sight = loses_sight
        random = Random(choice)
        scene.write(random.choice([0, 1, 6]))
        scene.look()
        scene.write(random.choice([0, 1, 3]))
        step = 0
        for step, _ in enumerate(way(scene), start=1):
            scene.write(random.choice([0, 1, 3]))
            if choice >> step - 1 & 1:
                scene.look()
        scene.write(1)
        scene.look()
        scene.look()
        scene.end()
        if choice + 1 == 1 << step:
            return


# What another program does while the log is being read, and whether every line is still somewhere.
MEANWHILE = {
    "mv qpopper qpopper.1": True,
    "mv qpopper qpopper.1; gzip qpopper.1": True,
    "mv qpopper qpopper.2; touch -d '1 second' qpopper.2; touch qpopper.1": True,
    "cp qpopper qpopper.1; : > qpopper": True,
    "truncate -s 1000 qpopper": False,
    ": > qpopper": False,
    "rm qpopper": False,
    "tail -n 3000 qpopper > t; cp t qpopper": False,
    "tail -n 3000 qpopper > t; mv t qpopper": False,
}
HALF = "10.1.1.10"


def blocks_of_lines(scene: Scene) -> bytes:
    """Some blocks, with a login here and there; the first block ends in the midst of `HALF`."""
    lines = []
    for number in range(BLOCK // len(noise(0)) - 20):
        lines.append(login(address(next(scene.numbers))) if number % 500 == 0 else noise(number))
    body, split = "".join(lines), login(HALF)
    half = split.index(HALF) + len(HALF) - 1
    padding = "x" * (BLOCK - half - len(body) - 1) + "\n"
    return (body + padding + split + noise(1) * 10_000).encode()


def read_while(scene: Scene, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Run sapd; `act` once the first block was read."""
    events, acts = Deduplicator.events, [act]

    def events_and_act(self: Deduplicator, block: bytes) -> Iterator[object]:
        yield from events(self, block)
        while acts:
            acts.pop()()

    with monkeypatch.context() as patch:
        patch.setattr(Deduplicator, "events", events_and_act)
        assert run.once(scene.config).status == 0
    assert not acts


@pytest.mark.parametrize("command", MEANWHILE)
def test_what_is_done_to_a_log_while_it_is_read(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path / "scene")
    scene.write(6)
    scene.look()
    os.write(scene.writers[0], blocks_of_lines(scene))
    written = addresses_in(scene.log)
    first_block = written - {HALF}

    def act() -> None:
        subprocess.run(["sh", "-c", command], cwd=scene.log.parent, check=True)
        scene.reopen()
        scene.write(3)

    read_while(scene, monkeypatch, act)
    opened = scene.open_addresses()
    assert first_block <= opened
    scene.write(1)
    surviving = scene.in_files(scene.files())
    scene.seen = opened
    scene.loses_sight = not MEANWHILE[command]
    scene.look()
    assert scene.seen <= written | surviving
    assert written <= scene.seen or not MEANWHILE[command]
    scene.end()


def test_a_log_truncated_and_regrown_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head of an old line and the tail of a new one are no login; no new line is missed."""
    scene = Scene(tmp_path / "scene")
    scene.write(6)
    scene.look()
    start = scene.log.stat().st_size
    os.write(scene.writers[0], blocks_of_lines(scene))

    def act() -> None:
        os.truncate(scene.log, 0)
        scene.write(3)
        padding = start + BLOCK - scene.log.stat().st_size
        os.write(scene.writers[0], b"x" * padding + b"9 [pop_log.c:244]\n")
        scene.write(3)

    scene.seen = addresses_in(scene.log) - {HALF}
    read_while(scene, monkeypatch, act)
    assert scene.open_addresses() == scene.seen
    scene.loses_sight = True
    scene.look()
    scene.end()


@pytest.mark.parametrize("minutes", [10, 60])
def test_a_log_that_is_away_keeps_nobody_open(minutes: int, tmp_path: Path) -> None:
    """Of what was not read before, that opens whose window is not over."""
    now = time.time()
    scene = Scene(tmp_path / "scene")
    scene.write(3)
    scene.look()
    scene.write(2)
    away = scene.log.rename(scene.log.with_name("away"))
    for minute in range(1, minutes, 5):
        assert run.once(scene.config, now + 60 * minute).status == errors.LOG_UNREADABLE
        assert scene.site.relaying() == {OWN, *(scene.seen if minute <= 30 else ())}
    away.rename(scene.log)
    scene.site.write(login("10.9.9.9", at=now + 60 * minutes))
    assert run.once(scene.config, now + 60 * minutes).status == 0
    old = {address(number) for number in range(1, 6)} if minutes < 30 else set()
    assert scene.site.relaying() == {OWN, "10.9.9.9", *old}
    scene.close()


@pytest.mark.servers
def test_a_log_rotated_into_another_folder(tmp_path: Path) -> None:
    """logrotate's olddir, which the README names: what was not read is out of sight."""
    scene = Scene(tmp_path / "scene")
    scene.write(3)
    scene.look()
    scene.write(2)
    unread = scene.in_files([scene.log]) - scene.seen
    scene.log.with_name("old").mkdir()
    rotate(scene.log.parent, debians(scene.log, "true", add="olddir old"))
    scene.reopen()
    scene.write(1)
    scene.loses_sight = True
    scene.look()
    scene.write(1)
    scene.look()
    old = scene.log.parent / "old/qpopper.1"
    count = 2 * len(login(address(1))) + len(hostile())
    assert [why.partition(",")[0] for why in scene.warned] == [
        f"{count} bytes were not read in {old}"
    ]
    assert len(unread) == 2
    assert not unread & scene.open_addresses()
    assert "olddir" in (ROOT / "README.md").read_text()
    scene.end()


Rotate = Callable[[Site, Rsyslog], None]


def sapd(site: Site) -> None:
    """A run in this process, which is quick."""
    report = run.once(config.load(str(site.config)))
    assert not report.problems + report.warnings


class Stream(Thread):
    """Logins of ever new addresses through a syslog daemon, and a stranger's words, in a `with`."""

    def __init__(self, rsyslog: Rsyslog) -> None:
        super().__init__()
        self.rsyslog = rsyslog
        self.sent: list[str] = []
        self._end = Event()

    def run(self) -> None:
        while not self._end.wait(0.002):
            client = address(len(self.sent) + 1)
            text = '(v4.1.0) POP login by user "bob" at (h) '
            self.rsyslog.local("popper[4242]", f"{text}{client}")
            self.sent.append(client)
            self.rsyslog.local("popper[4242]", f"{text}{STRANGER} is what the client said")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self.join()

    def more(self) -> None:
        """Wait until some more have come."""
        enough = len(self.sent) + 20
        wait_until(lambda: len(self.sent) >= enough)


def logged(folder: Path) -> set[str]:
    """The addresses in the log and its rotated files, as rsyslogd writes them."""
    found: set[str] = set()
    for path in folder.glob("qpopper*"):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        found.update(one.decode() for one in re.findall(rb" at \(h\) (\S+)$", data, re.MULTILINE))
    return found


WHILE_IT_GREW = (
    "error: Compressing program wrote following message to stderr when compressing log .*:\n"
    "gzip: stdin: file size changed while zipping\n"
)
"""What logrotate says of a file that is compressed before the writer has let go of it."""


def by_logrotate(add: str = "", drop: str = "", may_say: str = "") -> Rotate:
    """With Debian's configuration, as far as it is not changed."""

    def rotation(site: Site, rsyslog: Rsyslog) -> None:
        hang_up = f"kill -HUP {rsyslog.process.pid}"
        # The names bear seconds, by a clock (time(2)'s) that lags some milliseconds behind ours.
        wait_until(lambda: not list(site.folder.glob(f"qpopper-*-{int(time.time() - 0.1)}*")))
        rotate(site.folder, debians(site.log, hang_up, add, drop), may_say)

    return rotation


def by_hand(site: Site, rsyslog: Rsyslog) -> None:
    """With a run behind each step."""
    for number in range(9, 0, -1):
        if (old := Path(f"{site.log}.{number}")).exists():
            old.rename(f"{site.log}.{number + 1}")
    site.log.rename(f"{site.log}.1")
    sapd(site)
    site.log.touch()
    sapd(site)
    rsyslog.hang_up()
    sapd(site)


ROTATIONS: dict[str, tuple[Rotate, bool]] = {
    "Debian's": (by_logrotate(), True),
    "daily, with dates": (by_logrotate("daily\n\tdateext\n\tdateformat -%Y%m%d-%s"), True),
    "by hand": (by_hand, True),
    "compressed at once": (by_logrotate("daily", "delaycompress", WHILE_IT_GREW), False),
    "copytruncate": (by_logrotate("copytruncate", r"postrotate\n.*\n\s*endscript"), False),
}
"""Rotations, and whether they keep every line: those that don't may lose some for good."""


@pytest.mark.servers
@pytest.mark.parametrize("name", ROTATIONS)
def test_a_stream_of_logins_through_rsyslogd(name: str, folder: Path) -> None:
    """Five rotations in its midst, with runs before and behind them, but not always."""
    rotation, keeps_all = ROTATIONS[name]
    site = Site(folder)
    with Rsyslog(folder) as rsyslog:
        with Stream(rsyslog) as stream:
            for turn in range(5):
                stream.more()
                if turn != 3:
                    sapd(site)
                    stream.more()
                rotation(site, rsyslog)
                stream.more()
                if turn % 2:
                    sapd(site)

        def all_is_written() -> bool:
            rsyslog.local("popper[4242]", "the last line")
            return b"the last line" in read(site.log)

        wait_until(all_is_written)
    assert len(list(folder.glob("qpopper[.-]*"))) >= 4
    surviving, sent = logged(folder) - {STRANGER}, set(stream.sent)
    site.run()
    opened = site.relaying() - {OWN}
    assert surviving <= opened <= sent
    if keeps_all:
        assert opened == sent
