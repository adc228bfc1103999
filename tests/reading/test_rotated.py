"""The names of rotated files, and what a rotation takes out of sight."""

import gzip
import os
import shutil
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from sapd import errors
from sapd.reading import logfile, rotated, zstd
from sapd.reading.maillog import Reading
from sapd.reading.place import Position
from sapd.reading.plan import Missed
from sapd.timestamps import Clock, rfc3339

NOW = time.time()
WINDOW = 1800.0
NO_ZSTD = "is compressed by zstd, which is not installed"


def lines(*numbers: int) -> bytes:
    stamp = rfc3339(NOW - 60)
    return b"".join(f"{stamp} mx1 popper[42]: line {n:06d} {'x' * 40}\n".encode() for n in numbers)


class Follower:
    """Reads a log again and again, and gives the numbers of its new lines, and what was missed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position: Position | None = None

    def look(self) -> tuple[list[int], list[Missed]]:
        times = NOW - WINDOW, NOW - WINDOW
        reading = Reading(str(self.path), self.position, *times, Clock(NOW))
        data = b"".join(reading.blocks())
        self.position = reading.position
        return [int(row.split()[4]) for row in data.splitlines()], list(reading.missed)


def begun(path: Path) -> Follower:
    """A log with some lines that were read, and one that was not."""
    path.write_bytes(lines(*range(20)))
    follower = Follower(path)
    assert follower.look() == ([*range(20)], [])
    with path.open("ab") as file:
        file.write(lines(20))
    return follower


TAI = "@400000006768a2f1{:08x}"

NAMES = [
    ("mail.log", "mail-20261127.log"),
    ("mail.log", "mail.1.log"),
    ("mail.log", "mail-20261127.log.gz"),
    ("mail.log", "mail.log-20261127.zst"),
    ("mail.log", "mail.log.1.zst"),
    ("pop.mail.log", "pop.mail-2026112713.log"),
    ("pop.mail.log", "pop-20261127.mail.log"),
    ("current", TAI.format(1) + ".s"),
    ("current", TAI.format(1) + ".u"),
    ("current", TAI.format(1) + ".s.gz"),
    ("current", "previous"),
]


def pack(path: Path) -> None:
    """Compress a file as its name says."""
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(path.read_bytes()))
    if path.suffix == ".zst":
        done = subprocess.run(["zstd", "-qc", path], stdout=subprocess.PIPE, check=True)
        path.write_bytes(done.stdout)


@pytest.mark.parametrize(
    ("name", "renamed"),
    [pytest.param(*pair, marks=[pytest.mark.servers] * pair[1].endswith("zst")) for pair in NAMES],
)
def test_a_log_that_was_renamed_is_read_to_its_end(name: str, renamed: str, tmp_path: Path) -> None:
    follower = begun(tmp_path / name)
    follower.path.rename(tmp_path / renamed)
    pack(tmp_path / renamed)
    follower.path.write_bytes(lines(21))
    assert follower.look() == ([20, 21], [])
    assert follower.look() == ([], [])


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("mail.log", "mail-2.log"),  # of a second server
        ("mail.log", "mail.err"),
        ("mail.log", "mail20261127.log"),
        ("mail.log", "mail-20261127.log.new"),
        ("mail.log", "email-20261127.log"),
        ("other", TAI.format(1) + ".s"),
        ("current", "@4000.s"),
        ("current", TAI.format(1) + ".t"),
        ("current", "processed"),
        ("mail-20261128.log", "mail-20261127.log"),  # no link leads there
    ],
)
def test_other_names_are_no_rotated_files(name: str, other: str, tmp_path: Path) -> None:
    log = tmp_path / name
    log.write_bytes(b"")
    (tmp_path / other).write_bytes(b"")
    assert rotated.neighbours(str(log), [], []) == []


def test_two_rotations_by_multilog_are_read_in_their_order(tmp_path: Path) -> None:
    follower = begun(tmp_path / "current")
    for turn in (1, 2, 3):
        follower.path.rename(tmp_path / (TAI.format(turn) + ".s"))
        follower.path.write_bytes(lines(20 + turn))
    assert follower.look() == ([20, 21, 22, 23], [])


def test_a_file_that_multilogs_processor_packed(tmp_path: Path) -> None:
    """Its name says nothing of that."""
    follower = begun(tmp_path / "current")
    packed = tmp_path / (TAI.format(1) + ".s")
    packed.write_bytes(gzip.compress(follower.path.read_bytes()))
    follower.path.write_bytes(lines(21))
    assert follower.look() == ([20, 21], [])


@pytest.mark.parametrize("kind", ["{}.log", "2026/{}", "pop-{}-mx1.log"])
def test_a_link_that_moves_on_to_the_next_date(kind: str, tmp_path: Path) -> None:
    days = [tmp_path / kind.format(f"202611{day}") for day in range(25, 29)]
    days[0].parent.mkdir(exist_ok=True)
    link = tmp_path / "mail.log"
    link.symlink_to(days[1])
    days[0].write_bytes(b"of another time\n")
    days[3].write_bytes(b"of a clock that is fast\n")
    os.utime(days[0], (1, 1))
    follower = begun(link)
    link.unlink()
    link.symlink_to(days[2])
    days[2].write_bytes(lines(21))
    assert follower.look() == ([20, 21], [])
    with days[1].open("ab") as file:
        file.write(lines(22))
    assert follower.look() == ([22], [])


# Out of sight.


@pytest.mark.parametrize("name", ["mail.log.saved", "old/mail.log-1", "2026.txt"])
def test_unread_lines_in_a_file_with_an_unknown_name_are_counted(name: str, tmp_path: Path) -> None:
    follower = begun(tmp_path / "mail.log")
    (tmp_path / "old").mkdir()
    (tmp_path / "unrelated").write_bytes(lines(*range(30, 60)))
    away = tmp_path / name
    follower.path.rename(away)
    follower.path.write_bytes(lines(21))
    assert follower.look() == ([21], [Missed(str(away), len(lines(20)), "")])
    assert follower.look() == ([], [])


def test_a_log_that_is_gone_is_told(tmp_path: Path) -> None:
    follower = begun(tmp_path / "mail.log")
    follower.path.write_bytes(lines(21))
    assert follower.look() == ([21], [Missed("", len(lines(*range(20))), "")])
    assert follower.look() == ([], [])


@pytest.mark.parametrize("renamed", ["mail.log.saved", "mail.log.1", "mail.log.1.gz"])
def test_what_was_read_or_is_too_old_is_not_missed(renamed: str, tmp_path: Path) -> None:
    follower = begun(tmp_path / "mail.log")
    old = NOW - 10 * WINDOW
    if "saved" in renamed:
        follower.look()
    os.utime(follower.path, (old, old))
    follower.path.rename(tmp_path / renamed)
    pack(tmp_path / renamed)
    os.utime(tmp_path / renamed, (old, old))
    follower.path.write_bytes(lines(21))
    assert follower.look() == ([21], [])


def test_without_zstd_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zstd, "opened", lambda packed: None)
    follower = begun(tmp_path / "mail.log")
    away = Path(f"{follower.path}.1.zst")
    follower.path.rename(away)
    follower.path.write_bytes(lines(21))
    numbers, missed = follower.look()
    assert numbers == [21]
    assert missed[0] == Missed(str(away), None, f"can't be read: it {NO_ZSTD}")
    assert follower.look() == ([], [])


@pytest.mark.servers
def test_a_damaged_zst_ends_where_it_is_damaged(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    log.write_bytes(b"")
    text = os.urandom(3_000_000).hex().encode()
    away = Path(f"{log}.1.zst")
    away.write_bytes(text)
    pack(away)
    whole = away.read_bytes()
    for data, wanted in ((whole, len(text)), (whole[: len(whole) // 2], len(text) // 3)):
        away.write_bytes(data)
        file = Path(shutil.copy(away, tmp_path / "copy.zst"))
        with ExitStack() as opened:
            packed = opened.enter_context(file.open("rb", buffering=0))
            unpacked = logfile.Packed(".zst", packed, NOW * 2, opened)
            for _ in range(2):
                assert wanted <= unpacked.size() <= len(text)
                assert unpacked.bytes_at(1000, 5000) == text[1000:6000]


def test_a_file_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    follower = begun(tmp_path / "mail.log")
    (tmp_path / "mail.log.2").write_bytes(follower.path.read_bytes())
    follower.path.unlink()
    loop = tmp_path / "mail.log.1"
    loop.write_bytes(lines(21))
    follower.path.write_bytes(lines(22))
    real = logfile.open_regular

    def refused(path: str) -> int:
        if path == str(loop):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rotated, "open_regular", refused)
        found = follower.look()
    assert found == ([20, 22], [Missed(str(loop), None, "can't be read: Permission denied")])


STRANGER = 65534


def open_to_all(path: Path, *files: str, mode: int = 0o1777) -> Path:
    """A folder where anybody may make files, with these of a stranger's."""
    path.mkdir()
    for name in files:
        (path / name).write_bytes(lines(99))
        os.chown(path / name, STRANGER, STRANGER)
    path.chmod(mode)
    return path


@pytest.mark.root
@pytest.mark.parametrize("mode", [0o1777, 0o777, 0o775])
def test_a_strangers_file_is_no_rotated_one(tmp_path: Path, mode: int) -> None:
    log = open_to_all(tmp_path / "logs", "pop-99999999999.log", mode=mode) / "pop.log"
    follower = begun(log)
    log.rename(f"{log}.1")
    log.write_bytes(lines(21))
    assert follower.look() == ([20, 21], [])
    os.chown(f"{log}.1", STRANGER, STRANGER)
    os.chown(log, STRANGER, STRANGER)  # whose log this is may make its rotated files
    assert [one.path for one in rotated.neighbours(str(log), [], [])] == [
        f"{log.parent}/pop-99999999999.log",
        f"{log}.1",
    ]


@pytest.mark.root
def test_where_only_the_owner_makes_files_they_may_be_anybodys(tmp_path: Path) -> None:
    log = open_to_all(tmp_path / "logs", "pop.log.1", mode=0o755) / "pop.log"
    log.write_bytes(lines(21))
    assert len(rotated.neighbours(str(log), [], [])) == 1


@pytest.mark.root
def test_a_strangers_file_is_not_todays(tmp_path: Path) -> None:
    log = open_to_all(tmp_path / "logs", "pop-20261128.log") / "pop-20261128.log"
    earlier = [f"{log.parent}/pop-20261127.log"]
    times = NOW - WINDOW, NOW - WINDOW
    reading = Reading(str(log), None, *times, Clock(NOW), [], earlier)
    with pytest.raises(errors.SapdError, match="another user's"):
        list(reading.blocks())
    os.chown(log, 0, 0)
    assert list(Reading(str(log), None, *times, Clock(NOW), [], earlier).blocks()) == [lines(99)]
