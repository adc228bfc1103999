"""Cutting under load and in odd places: no line is lost, and nothing else is touched.

Where whole blocks can't be taken out (tmpfs), what the copying loses is measured and printed.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from sapd import config, cut, files, run
from sapd.cut import MARKER
from sapd.reading.logfile import BLOCK
from sapd.reading.place import Position
from tests.cutting import read, shorten
from tests.faults.writer import RATE, Writer, addresses, message, numbers, row
from tests.impossible import impossible
from tests.servers.filesystems import fill, mounted, overlaid
from tests.servers.rsyslog import Rsyslog, wait_until
from tests.servers.rsyslog import read as contents
from tests.site import MAKEMAP, Site, login, noise

pytestmark = pytest.mark.servers

KEEP = 1000
ATOMIC = ["ext4", "xfs", "overlay"]  # an overlay passes the call on to the ext4 below

Place = Callable[[str], Path]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Gives new folders on a file system of a kind, or, "here", wherever the tests' folders are."""
    with ExitStack() as mounts:
        base = tmp_path_factory.mktemp("places")

        @cache
        def mount(kind: str) -> Path:
            if kind == "here":
                return base
            if kind == "overlay":
                (base / "lower").mkdir()
                return mounts.enter_context(overlaid(base, base / "lower", mount("ext4")))
            return mounts.enter_context(mounted(base, kind, 320 if kind == "xfs" else 64))

        yield lambda kind: Path(tempfile.mkdtemp(dir=mount(kind)))


def note_collapses(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each cut from now on, whether its blocks were taken out in one step."""
    found: list[bool] = []
    collapse = cut._collapse

    def noting(fd: int, length: int) -> bool:
        found.append(collapse(fd, length))
        return found[-1]

    monkeypatch.setattr(cut, "_collapse", noting)
    return found


def assert_last_lines(log: Path, expected: list[int]) -> None:
    marker, *rest = log.read_bytes().splitlines(keepends=True)
    assert MARKER.fullmatch(marker)
    assert numbers(b"".join(rest)) == expected
    assert len(rest) == len(expected)


def assert_all_read_once(site: Site, said: list[str], stop: int) -> None:
    """By these runs, which cut the log to its last lines."""
    told = "".join(said)
    assert sum(map(int, re.findall(r" bytes, (\d+) lines, ", told))) == stop
    assert sum(map(int, re.findall(r" lines, (\d+) different logins, ", told))) == len(
        addresses(stop)
    )
    assert site.open_addresses() == addresses(stop)
    assert_last_lines(site.log, list(range(stop - KEEP, stop)))
    cuts = re.findall(r"cut .*: (\d+) lines removed, \d+ kept", told)
    assert len(cuts) > len(said) // 2
    assert sum(map(int, cuts)) == stop - KEEP


@pytest.mark.parametrize("cuts", [60, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", [*ATOMIC, "tmpfs", "here"])
def test_hundreds_of_cuts_under_a_writer(
    kind: str,
    cuts: int,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each as soon as a block's worth of lines came; every line is read exactly once."""
    collapses = note_collapses(monkeypatch)
    seen: list[int] = []
    shifts: list[int] = []
    folder = place(kind)
    log = folder / "qpopper"
    log.write_bytes(b"".join(row(number) for number in range(2 * KEEP)))
    position = Position(lines=0)
    with Writer(log, 2 * KEEP) as writer:
        while len(shifts) < cuts:
            text, position = read(log, position)
            seen += numbers(text)
            planned = shorten(log, position, KEEP, KEEP + 80)
            if planned is not None:
                shifts.append(planned.shift)
                position = planned.after
        stop, rate = writer.end()
    text, position = read(log, position)
    seen += numbers(text)
    block = os.statvfs(folder).f_frsize
    assert shorten(log, position, KEEP // 2) is not None
    assert_last_lines(log, seen[-KEEP // 2 :])
    lost = sorted(set(range(stop)) - set(seen))
    with capsys.disabled():
        print(
            f"\n{kind}: {stop} lines written, {rate:.0f} a second; {cuts} cuts of "
            f"{sum(shifts) // cuts // block} blocks, {sum(collapses)} in one step; "
            f"{len(lost)} lines lost, by {len(gaps(lost))} cuts",
            end=" ",
        )
    assert seen == sorted(set(seen))
    assert min(shifts) > 0
    assert len(collapses) in (cuts, cuts + 1)
    if kind != "here":
        assert set(collapses) == {kind in ATOMIC}
    if all(collapses):
        assert lost == []
    else:
        assert len(gaps(lost)) < cuts // 10  # by far most cuts lose nothing,
        assert max(gaps(lost), default=0) < RATE  # and none a second's lines


def gaps(lost: list[int]) -> list[int]:
    """How many lines in a row are missing, each time that some are."""
    found: list[int] = []
    for before, number in zip([-2, *lost], lost, strict=False):
        if number == before + 1:
            found[-1] += 1
        else:
            found.append(1)
    return found


def test_thirty_whole_runs_under_a_writer(place: Place) -> None:
    site = Site(place("ext4"), log_settings=f"keep_lines = {KEEP}")
    with Writer(site.log, 0) as writer:
        said = [site.run("-vv").stdout for _ in range(30)]
        stop, _ = writer.end()
    said.append(site.run("-vv").stdout)
    assert_all_read_once(site, said, stop)


def talk(to: Path, enough: threading.Event) -> int:
    """Say lines as qpopper does, as fast as rsyslogd takes them; how many they were."""
    number = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(str(to))
        while not enough.is_set():
            sender.send(f"<133>Nov 22 10:41:05 popper[4242]: {message(number)}".encode())
            number += 1
    return number


def test_whole_runs_under_a_real_rsyslogd(folder: Path) -> None:
    with mounted(folder, "ext4", 256) as place:
        site = Site(place, log_settings=f"keep_lines = {KEEP}")
        enough = threading.Event()
        with Rsyslog(place) as rsyslog, ThreadPoolExecutor() as pool:
            assert rsyslog.log == site.log
            talking = pool.submit(talk, place / "dev-log", enough)
            try:
                said = [site.run("-vv").stdout for _ in range(10)]
            finally:
                enough.set()
            stop = talking.result()
            last = message(stop - 1).encode() + b"\n"
            wait_until(lambda: contents(site.log).endswith(last))
        said.append(site.run("-vv").stdout)
        assert_all_read_once(site, said, stop)


def site_on(folder: Path, log: Path, settings: str) -> Site:
    """A site whose log lies somewhere else."""
    site = Site(folder, log_settings=settings)
    site.config.write_text(site.config.read_text().replace('"qpopper"', f'"{log}"'))
    site.log = log
    return site


@pytest.mark.parametrize("kind", [*ATOMIC, "tmpfs"])
def test_inode_owner_group_mode_acl_and_attributes_stay(kind: str, place: Place) -> None:
    site = Site(place(kind), log_settings="keep_lines = 10")
    site.write(*(noise(number) for number in range(100)))
    os.chown(site.log, 65534, 4)
    site.log.chmod(0o640)
    try:
        subprocess.run(["setfacl", "-m", "user:daemon:rw", site.log], check=True)
        os.setxattr(site.log, "user.origin", b"qpopper")
    except (OSError, subprocess.CalledProcessError) as error:
        impossible(f"attributes on {kind}", str(error))
    before = about(site.log)
    assert before[-1].keys() >= {"system.posix_acl_access", "user.origin"}
    site.run()
    assert about(site.log) == before
    assert len(site.log.read_bytes().splitlines()) == 11


def about(path: Path) -> tuple[int, int, int, int, dict[str, bytes]]:
    stat = path.lstat()
    attributes = {name: os.getxattr(path, name) for name in sorted(os.listxattr(path))}
    return stat.st_ino, stat.st_uid, stat.st_gid, stat.st_mode, attributes


@pytest.mark.parametrize("kind", [*ATOMIC, "tmpfs"])
def test_a_full_disk_can_be_cut(kind: str, tmp_path: Path, place: Place) -> None:
    """Where there is room for the state."""
    folder = place(kind)
    site = site_on(tmp_path, folder / "qpopper", "keep_lines = 100")
    site.log.write_bytes(b"".join(row(number) for number in range(1000)))
    try:
        fill(folder / "filler")
        site.run()
    finally:
        (folder / "filler").unlink()
    assert_last_lines(site.log, list(range(900, 1000)))


@pytest.mark.parametrize("flag", "ai")
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_log_that_may_only_grow_or_not_change_is_left_alone(
    kind: str, flag: str, place: Place
) -> None:
    site = Site(place(kind), log_settings="keep_lines = 1")
    site.write(*(noise(number) for number in range(100)), login("192.0.2.10"))
    before = site.log.read_bytes()
    subprocess.run(["chattr", f"+{flag}", site.log], check=True)
    try:
        for _ in range(2):
            done = site.run(status=77)
            assert done.stderr == (
                f"sapd: error: {site.log}: can't be written: Operation not permitted\n"
            )
        assert site.log.read_bytes() == before
    finally:
        subprocess.run(["chattr", f"-{flag}", site.log], check=True)
    assert site.open_addresses() == {"192.0.2.10"}
    site.run()
    assert MARKER.match(site.log.read_bytes())


@pytest.mark.parametrize(
    ("swap", "reason"),
    [
        ("mv LOG REAL; ln -s REAL LOG", "is a symbolic link and is not written through; "),
        ("ln LOG REAL", "has hard links, whose contents would change too; "),
        ("mv LOG REAL; mkfifo LOG", "is not a regular file; move it away"),
        ("mv LOG REAL; mkdir LOG", "can't be written: Is a directory"),
    ],
)
def test_what_takes_the_logs_place_during_a_run_is_not_cut(
    site: Site, swap: str, reason: str
) -> None:
    """While makemap runs, thus between reading and cutting."""
    real = site.folder / "real"
    makemap = site.folder / "makemap"
    swap = swap.replace("LOG", str(site.log)).replace("REAL", str(real))
    makemap.write_text(f'#!/bin/sh\n[ -e {real} ] || {{ {swap}; }}\nexec {MAKEMAP} "$@"\n')
    makemap.chmod(0o755)
    site.configure(log_settings="keep_lines = 1", access_settings=f'makemap = "{makemap}"')
    site.write(*(noise(number) for number in range(100)), login("192.0.2.10"))
    before = site.log.read_bytes()
    done = site.run(status=73)
    assert done.stderr.startswith(f"sapd: error: {site.log}: {reason}")
    assert done.stderr.count("\n") == 1
    assert real.read_bytes() == before
    assert site.open_addresses() == {"192.0.2.10"}


def test_a_log_with_a_hard_link_is_read_but_not_cut(site: Site) -> None:
    site.configure(log_settings="keep_lines = 1")
    (site.folder / "second").hardlink_to(site.log)
    site.write(login("192.0.2.10"), login("192.0.2.11"))
    before = site.log.read_bytes()
    assert "has hard links" in site.run(status=73).stderr
    assert site.log.read_bytes() == before
    assert site.open_addresses() == {"192.0.2.10", "192.0.2.11"}


def test_symbolic_links_among_the_logs_folders_are_followed(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "link").symlink_to("var")
    (tmp_path / "var/qpopper").write_bytes(b"".join(row(number) for number in range(100)))
    inode = (tmp_path / "var/qpopper").stat().st_ino
    site = site_on(tmp_path, tmp_path / "link/qpopper", "keep_lines = 10")
    site.run()
    assert_last_lines(tmp_path / "var/qpopper", list(range(90, 100)))
    assert (tmp_path / "var/qpopper").stat().st_ino == inode


def test_a_writer_that_keeps_its_own_place_leaves_a_hole_behind_each_cut(site: Site) -> None:
    """As `program > LOG` in a shell does."""
    site.configure(log_settings="keep_lines = 10")
    with site.log.open("wb", buffering=0) as log:
        log.write(b"".join(row(number) for number in range(1, 100)))
        site.run()
        short = site.log.read_bytes()
        log.write(login("192.0.2.1").encode())
        log.write(login("192.0.2.2").encode())
    hole = site.log.read_bytes().removeprefix(short)
    assert hole.lstrip(b"\0").startswith(login("192.0.2.1").encode()[:20])
    assert hole.startswith(b"\0")
    site.run()
    assert site.open_addresses() == {"192.0.2.1", "192.0.2.2"}
    site.write(*(noise(number) for number in range(10)))
    site.run()
    assert b"\0" not in site.log.read_bytes()


def test_a_line_without_its_newline_outlives_a_cut(site: Site) -> None:
    site.configure(log_settings="keep_lines = 10")
    whole = login("192.0.2.10")
    site.write(*(noise(number) for number in range(100)), whole[:-1])
    site.run()
    assert site.open_addresses() == set()
    assert len(site.log.read_text().splitlines()) == 12
    site.write(whole[-1])
    site.run()
    assert site.open_addresses() == {"192.0.2.10"}
    assert site.log.read_text().endswith("\n" + whole)


def test_a_log_of_just_the_last_lines_is_not_touched(site: Site) -> None:
    site.configure(log_settings="keep_lines = 100")
    site.write(*(noise(number) for number in range(100)))
    before = site.log.stat(), site.log.read_bytes()
    site.run()
    site.run()
    after = site.log.stat(), site.log.read_bytes()
    assert (after[0].st_mtime_ns, after[1]) == (before[0].st_mtime_ns, before[1])


ODD = {
    "longer than a block": b"x" * 5000,
    "longer than what is read at once": b"x" * (BLOCK + 1),
    "longer than what is kept of a line": b"x" * (3 * BLOCK),
    "a hole": bytes(3 * BLOCK),
}


@pytest.mark.parametrize("kind", ["ext4", "xfs", "tmpfs"])
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_odd_lines_go_or_stay_like_others(kind: str, odd: bytes, place: Place) -> None:
    log = place(kind) / "qpopper"
    rows = [row(number) for number in range(200)]
    rows[100:100] = [odd + b"\n"]
    with log.open("wb") as file:
        for text in rows:
            if text.startswith(b"\0"):
                file.truncate(file.seek(len(odd), os.SEEK_CUR))
                text = b"\n"
            file.write(text)
    assert log.read_bytes() == b"".join(rows)
    _, position = read(log)
    for keep in (150, 101, 100, 50):
        planned = shorten(log, position, keep)
        assert planned is not None
        position = planned.after
        marker, rest = log.read_bytes().split(b"\n", 1)
        assert MARKER.fullmatch(marker + b"\n")
        assert rest == b"".join(rows[-keep:])
        assert read(log, position) == (b"", position)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before_the_cut(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(cut, "perform", lambda fd, planned: die())


def before_the_marker(patch: pytest.MonkeyPatch) -> None:
    write = files.write_all

    def write_all(fd: int, data: bytes, offset: int) -> None:
        if MARKER.fullmatch(data):
            die()
        write(fd, data, offset)

    patch.setattr(files, "write_all", write_all)


def before_it_is_saved(patch: pytest.MonkeyPatch) -> None:
    perform = cut.perform

    def perform_and_die(fd: int, planned: cut.Cut) -> None:
        perform(fd, planned)
        die()

    patch.setattr(cut, "perform", perform_and_die)


def killed(site: Site, moment: Callable[[pytest.MonkeyPatch], None]) -> None:
    """One pass of a child, which does not live to its end."""
    child = os.fork()
    if child == 0:
        try:
            moment(pytest.MonkeyPatch())
            run.once(config.load(str(site.config)))
        finally:
            os._exit(1)
    assert os.waitpid(child, 0) == (child, signal.SIGKILL)


def nothing(site: Site) -> None:
    """Nobody writes."""


def lines_come(site: Site) -> None:
    site.write(login("192.0.2.20"), noise(1), login("192.0.2.21"))


def rename(site: Site) -> None:
    lines_come(site)
    site.log.rename(f"{site.log}.1")
    site.write(login("192.0.2.22"))


def copytruncate(site: Site) -> None:
    lines_come(site)
    shutil.copy(site.log, f"{site.log}.1")
    os.truncate(site.log, 0)
    site.write(login("192.0.2.22"))


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
@pytest.mark.parametrize("moment", [before_the_cut, before_the_marker, before_it_is_saved])
@pytest.mark.parametrize(
    ("event", "lines", "opened"),
    [
        (nothing, 0, set()),
        (lines_come, 3, {"192.0.2.20", "192.0.2.21"}),
        (rename, None, {"192.0.2.20", "192.0.2.21", "192.0.2.22"}),
        (copytruncate, None, {"192.0.2.20", "192.0.2.21", "192.0.2.22"}),
    ],
)
@pytest.mark.parametrize("going", [3, 300], ids=["less than a block", "more than a block"])
def test_a_cut_whose_run_was_killed_hides_no_line(
    kind: str,
    moment: Callable[[pytest.MonkeyPatch], None],
    event: Callable[[Site], None],
    lines: int | None,
    opened: set[str],
    going: int,
    place: Place,
) -> None:
    """What comes until the next run is read: `lines` lines, or more behind a rotation."""
    site = Site(place(kind), log_settings="keep_lines = 50")
    site.write(login("192.0.2.10"), *(noise(number) for number in range(29 + going)))
    site.write(noise(0, at=0) * 20)  # whose bytes stand in more than one place
    killed(site, moment)
    event(site)
    rows = site.log.read_text().splitlines()[-50:]
    report = run.once(config.load(str(site.config)))
    assert report.problems == []
    assert site.open_addresses() == {"192.0.2.10", *opened}
    if lines is not None:
        (what,) = [what for verb, what in report.actions if verb == "read"]
        assert f" bytes, {lines} lines, {len(opened)} different logins" in what
        marker, *rest = site.log.read_text().splitlines()
        assert MARKER.fullmatch(marker.encode() + b"\n")
        assert rest == rows


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
@pytest.mark.parametrize("going", [3, 300], ids=["less than a block", "more than a block"])
def test_a_log_truncated_while_its_cut_is_prepared_is_not_cut(
    kind: str, going: int, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(place(kind), log_settings="keep_lines = 50")
    site.write(*(noise(number) for number in range(50 + going)))
    perform = cut.perform

    def too_late(fd: int, planned: cut.Cut) -> bool:
        copytruncate(site)
        return perform(fd, planned)

    with monkeypatch.context() as patch:
        patch.setattr(cut, "perform", too_late)
        assert run.once(config.load(str(site.config))).problems == []
    assert site.log.read_text() == login("192.0.2.22")
    site.run()
    assert site.open_addresses() == {"192.0.2.20", "192.0.2.21", "192.0.2.22"}
