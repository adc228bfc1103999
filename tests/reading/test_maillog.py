"""Reading on: every way in which a log may change between two looks, line by line."""

import bz2
import gzip
import lzma
import os
import shutil
import time
import tracemalloc
from pathlib import Path
from random import Random

import pytest

from sapd import errors
from sapd.reading.logfile import BLOCK
from sapd.reading.maillog import LATE, Reading
from sapd.reading.place import Position
from sapd.timestamps import Clock, rfc3339

NOW = time.time()
WINDOW = 1800.0


def line(number: int, age: float = 60.0) -> bytes:
    return f"{rfc3339(NOW - age)} mx1 popper[42]: line {number:06d} {'x' * 40}\n".encode()


class Follower:
    """Reads a log again and again, as runs do, and notes the numbers of the lines it was given."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position: Position | None = None
        self.bytes_read = 0

    def look(self) -> list[int]:
        edge, clock = NOW - WINDOW, Clock(NOW)
        reading = Reading(str(self.path), self.position, edge, edge, clock, counting=True)
        data = b"".join(reading.blocks())
        self.position, self.bytes_read = reading.position, reading.bytes_read
        return [int(row.split()[4]) for row in data.split(b"\n") if row.count(b" ") > 4]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "qpopper"
    path.touch()
    return path


@pytest.fixture
def follower(log: Path) -> Follower:
    return Follower(log)


def append(path: Path, *numbers: int) -> None:
    with path.open("ab") as file:
        file.write(b"".join(line(number) for number in numbers))


def numbers(first: int, last: int) -> tuple[int, ...]:
    return tuple(range(first, last + 1))


def test_reads_on(log: Path, follower: Follower) -> None:
    append(log, *numbers(1, 10))
    assert follower.look() == [*numbers(1, 10)]
    assert follower.look() == []
    assert follower.bytes_read == 0
    append(log, 11, 12)
    assert follower.look() == [11, 12]
    assert follower.position is not None
    assert follower.position.lines == 12


def test_half_a_line_waits(log: Path, follower: Follower) -> None:
    append(log, *numbers(1, 10))
    follower.look()
    with log.open("ab") as file:
        file.write(line(11)[:30])
    assert follower.look() == []
    with log.open("ab") as file:
        file.write(line(11)[30:] + line(12)[:50])
    assert follower.look() == [11]
    assert follower.position is not None
    assert follower.position.here.offset == 11 * len(line(1))
    with log.open("ab") as file:
        file.write(line(12)[50:])
    assert follower.look() == [12]


def test_half_a_line_waits_in_a_new_log(log: Path, follower: Follower) -> None:
    log.write_bytes(line(1)[:30])
    assert follower.look() == []
    log.write_bytes(line(1))
    assert follower.look() == [1]


@pytest.mark.parametrize("before", [0, 1, 10])
@pytest.mark.parametrize("unread", [0, 50])
@pytest.mark.parametrize("after", [0, 1, 60])
class TestRotation:
    """Unread lines, and lines in the new log: none may be lost."""

    def expect(self, follower: Follower, before: int, unread: int, after: int) -> None:
        found = follower.look()
        wanted = [*numbers(101, 100 + unread), *numbers(201, 200 + after)]
        assert [number for number in found if number > 100] == wanted
        if before >= 10:
            assert found == wanted  # with a whole anchor nothing is read twice

    def start(self, log: Path, follower: Follower, before: int, unread: int) -> None:
        append(log, *numbers(1, before))
        assert follower.look() == [*numbers(1, before)]
        append(log, *numbers(101, 100 + unread))

    def test_rename(
        self, log: Path, follower: Follower, before: int, unread: int, after: int
    ) -> None:
        self.start(log, follower, before, unread)
        log.rename(f"{log}.1")
        append(log, *numbers(201, 200 + after))
        self.expect(follower, before, unread, after)

    @pytest.mark.parametrize(
        ("suffix", "pack"),
        [(".1.gz", gzip.compress), ("-20261122.bz2", bz2.compress), (".0.xz", lzma.compress)],
    )
    def test_rename_and_compress(
        self, log: Path, follower: Follower, before: int, unread: int, after: int,
        suffix: str, pack: object,
    ) -> None:  # fmt: skip
        self.start(log, follower, before, unread)
        Path(f"{log}{suffix}").write_bytes(pack(log.read_bytes()))  # type: ignore[operator]
        log.unlink()
        append(log, *numbers(201, 200 + after))
        self.expect(follower, before, unread, after)

    def test_two_renames(
        self, log: Path, follower: Follower, before: int, unread: int, after: int
    ) -> None:
        self.start(log, follower, before, unread // 2)
        log.rename(f"{log}.2")
        append(log, *numbers(101 + unread // 2, 100 + unread))
        later = time.time() + 0.01
        os.utime(log, (later, later))
        log.rename(f"{log}.1")
        append(log, *numbers(201, 200 + after))
        self.expect(follower, before, unread, after)

    def test_copytruncate(
        self, log: Path, follower: Follower, before: int, unread: int, after: int
    ) -> None:
        self.start(log, follower, before, unread)
        shutil.copy(log, f"{log}.1")
        os.truncate(log, 0)
        append(log, *numbers(201, 200 + after))
        self.expect(follower, before, unread, after)

    def test_rename_seen_before_the_new_log_is_there(
        self, log: Path, follower: Follower, before: int, unread: int, after: int
    ) -> None:
        self.start(log, follower, before, unread)
        log.rename(f"{log}.1")
        if before + unread == 0:
            return
        first = follower.look()
        assert [number for number in first if number > 100] == [*numbers(101, 100 + unread)]
        append(log, *numbers(201, 200 + after))
        assert follower.look() == [*numbers(201, 200 + after)]

    def test_head_cut_by_another_program(
        self, log: Path, follower: Follower, before: int, unread: int, after: int
    ) -> None:
        self.start(log, follower, before, unread)
        rows = log.read_bytes().splitlines(keepends=True)
        log.write_bytes(b"".join(rows[before // 2 :]))
        append(log, *numbers(201, 200 + after))
        self.expect(follower, before, unread, after)

    def test_truncated_and_regrown_past_the_offset(
        self, log: Path, follower: Follower, before: int, unread: int, after: int
    ) -> None:
        self.start(log, follower, before, 0)
        log.write_bytes(b"")
        append(log, *numbers(101, 100 + unread), *numbers(201, 200 + after))
        self.expect(follower, before, unread, after)

    def test_deleted_and_made_again_with_the_inode(
        self, log: Path, follower: Follower, before: int, unread: int, after: int
    ) -> None:
        self.start(log, follower, before, 0)
        log.unlink()
        append(log, *numbers(101, 100 + unread), *numbers(201, 200 + after))
        log.touch()
        self.expect(follower, before, unread, after)


def test_late_lines_in_the_rotated_file_are_read(log: Path, follower: Follower) -> None:
    append(log, *numbers(1, 10))
    follower.look()
    log.rename(f"{log}.1")
    append(log, *numbers(201, 220))
    assert follower.look() == [*numbers(201, 220)]
    append(Path(f"{log}.1"), 11, 12)
    append(log, 221)
    assert follower.look() == [11, 12, 221]
    assert follower.look() == []


def test_a_log_being_compressed_is_read_from_the_plain_file(log: Path, follower: Follower) -> None:
    append(log, *numbers(1, 10))
    follower.look()
    append(log, *numbers(11, 300))
    log.rename(f"{log}.1")
    whole = gzip.compress(Path(f"{log}.1").read_bytes())
    Path(f"{log}.1.gz").write_bytes(whole[: len(whole) // 2])
    append(log, 301)
    assert follower.look() == [*numbers(11, 301)]


@pytest.mark.parametrize("garbage", [b"", b"no gzip", gzip.compress(b"x" * 9999, mtime=0)[:-12]])
def test_damaged_neighbours_do_no_harm(log: Path, follower: Follower, garbage: bytes) -> None:
    append(log, *numbers(1, 10))
    follower.look()
    Path(f"{log}.1.gz").write_bytes(garbage)
    Path(f"{log}.2.xz").write_bytes(garbage)
    Path(f"{log}.d").mkdir()
    os.mkfifo(f"{log}.fifo")
    log.write_bytes(b"")
    append(log, 11)
    assert follower.look() == [11]


def test_the_log_away_for_a_while(log: Path, follower: Follower) -> None:
    append(log, *numbers(1, 10))
    follower.look()
    away = log.with_name("away")
    log.rename(away)
    with pytest.raises(errors.SapdError, match="no such file") as raised:
        follower.look()
    assert raised.value.status == errors.LOG_UNREADABLE
    append(away, 11)
    away.rename(log)
    assert follower.look() == [11]


@pytest.mark.parametrize("kind", ["folder", "fifo", "device"])
def test_what_is_no_file_is_refused_without_waiting(
    log: Path, follower: Follower, kind: str
) -> None:
    log.unlink()
    if kind == "folder":
        log.mkdir()
    elif kind == "fifo":
        os.mkfifo(log)
    else:
        log.symlink_to("/dev/null")
    with pytest.raises(errors.SapdError, match=str(log)) as raised:
        follower.look()
    assert raised.value.status == errors.LOG_UNREADABLE


def test_old_lines_of_a_first_run_are_left_alone(log: Path, follower: Follower) -> None:
    with log.open("wb") as file:
        for number in range(200_000):
            file.write(line(number, age=10 * WINDOW + LATE))
        file.write(b"".join(line(number, 60.0) for number in (900_001, 900_002)))
    found = follower.look()
    assert found[-2:] == [900_001, 900_002]
    assert 16 * 1024 * 1024 <= follower.bytes_read < 17 * 1024 * 1024
    assert follower.position is not None
    assert follower.position.lines is None


def test_late_lines_and_clock_steps_do_not_end_the_walk(log: Path, follower: Follower) -> None:
    with log.open("wb") as file:
        file.write(b"".join(line(number, 300.0) for number in range(1, 1001)))
        file.write(b"".join(line(number, 50 * 86400.0) for number in range(1001, 50_001)))
        file.write(b"".join(line(number, 60.0) for number in range(50_001, 50_101)))
    assert follower.look()[:1000] == [*numbers(1, 1000)]


def test_lines_of_last_year_are_not_taken_for_fresh_ones(log: Path) -> None:
    """A small log that was never cut: its stamps have no year, and one looks like today's."""
    now = time.mktime((2026, 11, 22, 12, 0, 0, 0, 0, -1))

    def old(days: int, number: int) -> bytes:
        stamp = time.strftime("%b %e %H:%M:%S", time.localtime(now - 86400 * days - 60))
        return f"{stamp} mx1 popper[42]: line {number}\n".encode()

    log.write_bytes(b"".join(old(365 - week * 7, week) for week in range(53)))
    reading = Reading(str(log), None, now - WINDOW, now - WINDOW, Clock(now))
    read = b"".join(reading.blocks())
    assert b"line 52\n" in read
    assert b"line 0\n" not in read


def test_neighbours_count_if_the_log_begins_inside_the_window(
    log: Path, follower: Follower
) -> None:
    append(Path(f"{log}.1"), *numbers(1, 5))
    Path(f"{log}.2.gz").write_bytes(gzip.compress(b"".join(line(n) for n in (91, 92))))
    os.utime(f"{log}.2.gz", (NOW - 100, NOW - 100))
    append(log, 6)
    assert follower.look() == [91, 92, *numbers(1, 6)]
    append(log, *numbers(7, 12))
    assert follower.look() == [*numbers(7, 12)]
    assert follower.look() == []


def test_neighbours_last_changed_before_the_window_are_not_opened(
    log: Path, follower: Follower
) -> None:
    old = Path(f"{log}.1")
    append(old, 1)
    os.utime(old, (NOW - 86400, NOW - 86400))
    append(log, 2)
    assert follower.look() == [2]


@pytest.mark.parametrize("junk", [b"\0" * 5000, b"y" * (3 * 1024 * 1024), b"\xff\xfe\r"])
def test_strange_bytes_between_the_lines(log: Path, follower: Follower, junk: bytes) -> None:
    append(log, *numbers(1, 10))
    follower.look()
    with log.open("ab") as file:
        file.write(junk)
    assert follower.look() == []
    with log.open("ab") as file:
        file.write(b"\n")
    append(log, 11)
    assert follower.look() == [11]
    append(log, 12)
    assert follower.look() == [12]
    assert follower.position is not None
    assert follower.position.lines == 13


def test_memory_is_bounded_by_the_block(log: Path) -> None:
    """However long a line is, and of zeros that stand on the disk, unlike a hole's."""
    with log.open("wb") as file:
        for byte in (b"\0", b"x"):
            for _ in range(100):
                file.write(byte * (1 << 20))
        file.write(b"\n")
        file.write(line(1) * 100_000)
    tracemalloc.start()
    reading = Reading(str(log), Position(lines=0), 0.0, 0.0, Clock(NOW))
    total = sum(len(block) for block in reading.blocks())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reading.bytes_read > 200 * 1024 * 1024
    assert total >= 100_000
    assert peak < 8 * 1024 * 1024


def test_each_pass_gets_further_however_slow_the_machine_is(log: Path) -> None:
    append(log, *numbers(1, 9000))
    position, found, is_unfinished = None, list[bytes](), True
    while is_unfinished:
        reading = Reading(str(log), position, 0.0, 0.0, Clock(NOW), deadline=0.0)
        found.append(b"".join(reading.blocks()))
        position, is_unfinished = reading.position, reading.unfinished
        assert len(found) <= log.stat().st_size / BLOCK + 2
    assert len(found) > 2
    assert b"".join(found) == log.read_bytes()


@pytest.mark.parametrize("is_hole", [False, True], ids=["written", "a hole"])
@pytest.mark.parametrize("size", [BLOCK // 2, BLOCK, 3 * BLOCK, 3 * BLOCK + 77])
def test_zeros_end_no_reading(log: Path, size: int, is_hole: bool) -> None:
    """A power cut leaves them on the disk, copytruncate as a hole; neither hides a line."""
    append(log, 1)
    follower = Follower(log)
    assert follower.look() == [1]
    with log.open("ab") as file:
        if is_hole:
            file.truncate(file.tell() + size)
        else:
            file.write(bytes(size))
    append(log, *numbers(2, 8999))
    assert follower.look() == [*numbers(2, 8999)]
    append(log, 9000)
    assert follower.look() == [9000]
    with log.open("r+b") as file:  # the place is looked for behind the zeros, too
        rest = file.read()
        file.seek(0)
        file.write(b"x\n" * 5000 + rest)
    append(log, 9001)
    assert follower.look() == [9001]


def test_a_file_that_shrinks_while_it_is_read(log: Path) -> None:
    append(log, *numbers(1, 20_000))
    reading = Reading(str(log), None, NOW - WINDOW, NOW - WINDOW, Clock(NOW))
    blocks = reading.blocks()
    next(blocks)
    os.truncate(log, 1000)
    list(blocks)
    assert reading.position is not None
    follower = Follower(log)
    follower.position = reading.position
    append(log, 20_001)
    assert 20_001 in follower.look()


def test_an_empty_log_that_is_rotated_hides_nothing(log: Path, follower: Follower) -> None:
    def rotate() -> None:
        for number in (2, 1):
            if Path(f"{log}.{number}").exists():
                Path(f"{log}.{number}").rename(f"{log}.{number + 1}")
        log.rename(f"{log}.1")
        time.sleep(0.01)
        log.touch()

    append(log, *numbers(1, 3))
    assert follower.look() == [1, 2, 3]
    for _ in range(2):
        rotate()
        assert follower.look() == []
    append(log, 4)
    rotate()
    append(log, 5)
    rotate()
    assert follower.look() == [4, 5]


def test_a_short_log_is_not_read_twice(log: Path, follower: Follower) -> None:
    """Reading twice is harmless but for stamps without a year, or in the hour that is repeated."""
    append(log, 1)
    assert follower.look() == [1]
    assert follower.look() == []
    append(log, 2)
    assert follower.look() == [2]


def test_a_log_last_changed_before_the_window_holds_nothing(log: Path, follower: Follower) -> None:
    append(log, 1)
    os.utime(log, (NOW - 365 * 86400, NOW - 365 * 86400))
    assert follower.look() == []
    append(log, 2)
    assert follower.look() == [2]


@pytest.mark.parametrize(
    "name",
    ["qpopper-eu", "qpopper.conf", "qpopper.gone", "qpopper-2", "qpopper.1x", "xqpopper.1"],
)
def test_other_logs_are_not_taken_for_rotated_ones(log: Path, name: str) -> None:
    append(log.with_name(name), 1)
    append(log, 2)
    link = log.parent.with_name(f"{log.parent.name}-link")
    link.symlink_to(log.parent)
    others = [str(link / log.name), str(link / "qpopper-2")]
    edge = NOW - WINDOW
    reading = Reading(str(log), None, edge, edge, Clock(NOW), others)
    assert b"".join(reading.blocks()) == line(2)


@pytest.mark.parametrize(
    "suffix", [".1", ".0", ".old", "-20261122", ".20261122", "-2026-11-22", "-20261122-1795300000"]
)
def test_names_of_rotated_logs(log: Path, follower: Follower, suffix: str) -> None:
    append(log, 1)
    follower.look()
    append(log, 2)
    log.rename(f"{log}{suffix}")
    append(log, 3)
    assert follower.look() == [2, 3]


def test_a_log_behind_a_link_is_followed_where_it_lies(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to("real/log")
    append(real / "log", *numbers(1, 10))
    follower = Follower(tmp_path / "link")
    assert follower.look() == [*numbers(1, 10)]
    append(real / "log", 11)
    (real / "log").rename(real / "log.1")
    append(real / "log", 12)
    assert follower.look() == [11, 12]


def yearless(now: float, days: float, number: int) -> bytes:
    stamp = time.strftime("%b %e %H:%M:%S", time.localtime(now - 86400 * days))
    return f"{stamp} mx1 popper[42]: line {number}\n".encode()


def test_last_years_lines_in_a_compressed_neighbour(log: Path) -> None:
    now = time.mktime((2026, 11, 22, 12, 0, 0, 0, 0, -1))
    year = b"".join(yearless(now - 60, 365 - week * 7, week) for week in range(53))
    Path(f"{log}.1.gz").write_bytes(gzip.compress(year + yearless(now, 0.001, 99)))
    reading = Reading(str(log), None, now - WINDOW, now - WINDOW, Clock(now))
    read = b"".join(reading.blocks())
    assert b"line 99\n" in read
    assert b"line 0\n" not in read


def test_a_dead_clock_does_not_end_the_walk(log: Path) -> None:
    """A device that was switched on stamps some lines with the first of January."""
    now = time.mktime((2026, 11, 22, 12, 0, 0, 0, 0, -1))
    log.write_bytes(
        yearless(now, 0.003, 1)
        + b"".join(yearless(now, 325 - n / 2, 2) for n in range(4))
        + yearless(now, 0.001, 3)
    )
    reading = Reading(str(log), None, now - WINDOW, now - WINDOW, Clock(now))
    assert b"line 1\n" in b"".join(reading.blocks())


class Rotations:
    """A log that is written to and rotated in every way, as a seed has it."""

    def __init__(self, log: Path, seed: int) -> None:
        self.log = log
        self.random = Random(seed)
        self.written = 0
        self.clock = NOW - 1000
        self.short = self.random.random() < 0.6

    def write(self) -> list[int]:
        count = self.random.choice([0, 0, 1, 1, 2, 5] if self.short else [0, 1, 3, 8])
        new = [*numbers(self.written + 1, self.written + count)]
        self.written += count
        append(self.log, *new)
        self.touch(self.log)
        return new

    def touch(self, path: Path) -> None:
        self.clock += 1
        os.utime(path, (self.clock, self.clock))

    def rotate(self) -> None:
        way = self.random.choice(["rename", "compress", "copytruncate", "away", "later"])
        first = Path(f"{self.log}.1")
        if way == "later":
            if first.exists():
                self.compress(first)
            return
        for number in range(9, 0, -1):
            for extension in ("", ".gz"):
                old = Path(f"{self.log}.{number}{extension}")
                if old.exists():
                    old.rename(f"{self.log}.{number + 1}{extension}")
        if way == "copytruncate":
            shutil.copyfile(self.log, first)
            self.touch(first)
            os.truncate(self.log, 0)
        else:
            self.log.rename(first)
            if way == "compress":
                self.compress(first)
        if way != "away":
            self.log.touch()
            self.touch(self.log)

    def compress(self, path: Path) -> None:
        packed = Path(f"{path}.gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        about = path.stat()
        os.utime(packed, ns=(about.st_atime_ns, about.st_mtime_ns))
        path.unlink()


@pytest.mark.parametrize("seed", range(150))
def test_any_order_of_writing_rotating_and_looking(
    log: Path, follower: Follower, seed: int
) -> None:
    rotations = Rotations(log, seed)
    unread: set[int] = set()
    for _ in range(60):
        unread |= set(rotations.write())
        if rotations.random.random() < 0.4 and log.exists():
            rotations.rotate()
        if rotations.random.random() < 0.5:
            try:
                found = follower.look()
            except errors.SapdError:
                assert not log.exists()
                continue
            assert unread <= set(found)
            unread = set()


def begun(log: Path, window: float = WINDOW) -> Reading:
    """A first reading."""
    reading = Reading(str(log), None, NOW - window, NOW - window, Clock(NOW))
    list(reading.blocks())
    return reading


@pytest.mark.parametrize("pack", ["", ".gz"])
@pytest.mark.parametrize("age", [0, 100 * 86400])
def test_before_a_logs_head_the_end_of_the_rotated_file_is_seen(
    log: Path, pack: str, age: float
) -> None:
    append(log, 7, 8)
    assert begun(log).lead == b""
    before = b"".join(line(number, age=10 * WINDOW + LATE) for number in range(30_000))
    rotated = Path(f"{log}.1{pack}")
    rotated.write_bytes(gzip.compress(before) if pack else before)
    os.utime(rotated, (NOW - age, NOW - age))
    Path(f"{log}.2").write_bytes(b"older\n")
    os.utime(f"{log}.2", (NOW - 200 * 86400, NOW - 200 * 86400))
    lead = begun(log).lead
    if age:
        assert before.endswith(lead)
        assert before.endswith(b"\n" + lead)
        assert 1_000_000 < len(lead) <= 1024 * 1024
    elif pack:  # all of it is read, and what lies before it is seen
        assert lead == b"older\n"
    assert b"line 000007" not in lead


def test_before_the_windows_edge_the_lines_are_seen(log: Path) -> None:
    log.write_bytes(b"".join(line(number, age=10 * WINDOW + LATE) for number in range(250_000)))
    reading = Reading(str(log), None, NOW - WINDOW, NOW - WINDOW, Clock(NOW))
    first = next(reading.blocks())
    assert log.read_bytes().find(reading.lead + first) > 0
    os.utime(log, (NOW - 30 * 86400, NOW - 30 * 86400))
    assert log.read_bytes().endswith(begun(log).lead)
    assert begun(log).lead.endswith(b"249999 " + b"x" * 40 + b"\n")


def test_what_is_read_on_needs_no_lead(log: Path, follower: Follower) -> None:
    append(Path(f"{log}.1"), 1)
    append(log, *numbers(2, 20))
    follower.look()
    append(log, 21)
    reading = Reading(str(log), follower.position, NOW, NOW, Clock(NOW))
    assert b"".join(reading.blocks()) == line(21)
    assert reading.lead == b""


def test_it_is_known_where_a_file_begins(log: Path) -> None:
    append(Path(f"{log}.1"), *numbers(1, 5000))
    append(log, *numbers(5001, 10_000))
    reading = Reading(str(log), None, NOW - WINDOW, NOW - WINDOW, Clock(NOW))
    heads = [block[:200] for block in reading.blocks() if reading.at_head]
    assert [b"000001 " in heads[0], b"005001 " in heads[1], len(heads)] == [True, True, 2]
    again = Reading(str(log), reading.position, NOW, NOW, Clock(NOW))
    append(log, 10_001)
    assert [again.at_head for _ in again.blocks()] == [False]


YEAR = 365 + 10 / 1440  # days: the stamp is that of ten minutes ago


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "behind",
    [
        [200, 2],
        [190, 100, 2],
        [300, 200, 100, 2],
        [330, 182.7, 90, 45, 30, 1, 0.5],
        [182.7, 2],
    ],
)
@pytest.mark.parametrize("before", [[], [380, 370], [600, 500, 400, 366]])
def test_a_line_of_a_year_ago_is_not_read_as_todays(
    log: Path, before: list[float], behind: list[float], packed: bool
) -> None:
    now = time.mktime((2026, 11, 22, 12, 0, 0, 0, 0, -1))
    days = [*before, YEAR, *behind, 0.001]
    text = b"".join(yearless(now, age, number) for number, age in enumerate(days))
    if packed:
        Path(f"{log}.1.gz").write_bytes(gzip.compress(text))
        os.utime(f"{log}.1.gz", (now, now))
    else:
        log.write_bytes(text)
    reading = Reading(str(log), None, now - WINDOW, now - WINDOW, Clock(now))
    read = b"".join(reading.blocks())
    assert b"line %d\n" % (len(days) - 1) in read
    assert b"line %d\n" % len(before) not in read


@pytest.mark.parametrize(
    "ages",
    [
        [0.005, 2, 0.001],  # a relay's lines come late
        [0.005, 60, 30, 0.001],
        [0.005, 325, 325, 325, 324.99, 0.001],  # dead clocks
        [0.005, 190, 189, 0.003, 325, 324, 323, 0.001],
        [0.1, 0.07, 325, 324.9, 0.005, 325, 0.001],
        [0.005, 300.08, 300.05, 300.08, 300.05, 0.001],
        [0.2, 0.1, 0.05, 0.005, 0.001],
    ],
)
def test_clocks_that_were_wrong_hide_no_login(log: Path, ages: list[float]) -> None:
    now = time.mktime((2026, 11, 22, 12, 0, 0, 0, 0, -1))
    log.write_bytes(b"".join(yearless(now, age, number) for number, age in enumerate(ages)))
    reading = Reading(str(log), None, now - WINDOW, now - WINDOW, Clock(now))
    read = b"".join(reading.blocks())
    for number, age in enumerate(ages):
        if age < 0.01:
            assert b"line %d\n" % number in read


@pytest.mark.parametrize("old", [1, 2, 3, 10])
def test_three_old_stamps_in_a_row_end_the_walk(
    log: Path, old: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer are late lines."""
    monkeypatch.setattr("sapd.reading.edge._LEAST", 0)
    late = [line(number, 10 * WINDOW + LATE) for number in range(old)]
    log.write_bytes(b"".join([line(77_777), *late, line(999), *late[:2], line(999)]))
    reading = Reading(str(log), None, NOW - WINDOW, NOW - WINDOW, Clock(NOW))
    assert (b"line 077777 " in b"".join(reading.blocks())) == (old < 3)


@pytest.mark.parametrize("ages", [[1e6], [1e6, 60], [60, 1e6], [1e6, 1e6, 60], [60, 1e6, 1e6]])
def test_older_files_count_unless_two_of_the_first_stamps_are_old(
    log: Path, ages: list[float]
) -> None:
    append(Path(f"{log}.1"), 77_777)
    log.write_bytes(b"x\n" + b"".join(line(number, age) for number, age in enumerate(ages)))
    reading = Reading(str(log), None, NOW - WINDOW, NOW - WINDOW, Clock(NOW))
    read = b"".join(reading.blocks())
    assert (b"line 077777 " in read) == (ages.count(1e6) < 2)


def test_an_older_file_is_one_whose_name_and_time_say_so(log: Path, follower: Follower) -> None:
    """Of two rotated files that hold the place or not, only what may be newer is read."""
    append(log, *numbers(1, 20))
    follower.look()
    os.utime(log, (NOW - 50, NOW - 50))
    log.rename(f"{log}.2")
    append(Path(f"{log}.3"), 31)
    os.utime(f"{log}.3", (NOW - 60, NOW - 60))  # older by both
    append(Path(f"{log}.4"), 41)
    os.utime(f"{log}.4", (NOW - 40, NOW - 40))  # a late writer: newer by time
    append(Path(f"{log}.1"), 51)
    os.utime(f"{log}.1", (NOW - 70, NOW - 70))  # set back by hand: newer by name
    append(log, 61)
    assert follower.look() == [41, 51, 61]
