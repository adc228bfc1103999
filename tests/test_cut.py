"""Cutting: exactly the last lines, the same inode, and never a line that was not read."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sapd import cut
from sapd.cut import MARKER
from sapd.maillog import Cursor, Position, Reading
from sapd.timestamps import Clock, rfc3339
from tests.servers.filesystems import mounted

NOW = time.time()
STAMP = rfc3339(NOW).encode()


def line(number: int) -> bytes:
    return f"{rfc3339(NOW)} mx1 popper[42]: line {number:06d} {'x' * (number % 50)}\n".encode()


def read(log: Path, position: Position | None = None) -> Position:
    reading = Reading(str(log), position, NOW - 1800, NOW - 1800, Clock(NOW))
    for _ in reading.blocks():
        pass
    assert reading.position is not None
    return reading.position


def shorten(log: Path, position: Position, keep: int, above: int | None = None) -> cut.Cut | None:
    fd = os.open(log, os.O_RDWR)
    try:
        position = cut.counted(fd, position)
        planned = cut.due(fd, position, keep, keep if above is None else above, lambda _: STAMP)
        if planned is not None:
            cut.perform(fd, planned)
        return planned
    finally:
        os.close(fd)


def assert_cut(log: Path, expected: list[bytes], removed: int) -> None:
    marker, *rest = log.read_bytes().splitlines(keepends=True)
    assert MARKER.fullmatch(marker)
    assert marker.startswith(STAMP)
    assert f"sapd[{os.getpid()}]: log cut, {removed} lines removed".encode() in marker
    assert rest == expected


@pytest.fixture(params=["collapse", "copy"])
def log(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log that is cut by either way; the first falls back on the second where it must."""
    if request.param == "copy":
        monkeypatch.setattr(cut, "_collapse", lambda fd, length: False)
    path = tmp_path / "qpopper"
    path.write_bytes(b"".join(line(number) for number in range(50_000)))
    return path


def test_the_last_lines_behind_one_marker(log: Path) -> None:
    inode, mode = log.stat().st_ino, log.stat().st_mode
    planned = shorten(log, read(log), 10_000)
    assert planned is not None
    assert (planned.removed, planned.kept) == (40_000, 10_000)
    assert_cut(log, [line(number) for number in range(40_000, 50_000)], 40_000)
    assert (log.stat().st_ino, log.stat().st_mode) == (inode, mode)


def test_reads_on_behind_the_cut_without_repeating(log: Path) -> None:
    planned = shorten(log, read(log), 10_000)
    assert planned is not None
    assert planned.after.lines == 10_001
    with log.open("ab") as file:
        file.write(line(50_000))
    reading = Reading(str(log), planned.after, NOW - 1800, NOW - 1800, Clock(NOW))
    assert b"".join(reading.blocks()) == line(50_000)
    assert reading.position is not None
    assert reading.position.lines == 10_002


def test_the_old_marker_goes_and_does_not_count(log: Path) -> None:
    planned = shorten(log, read(log), 10_000)
    assert planned is not None
    position = planned.after
    assert shorten(log, position, 10_000) is None
    for more in (1, 7, 400):
        first = int(log.read_bytes().splitlines()[-1].split()[4]) + 1
        with log.open("ab") as file:
            file.write(b"".join(line(number) for number in range(first, first + more)))
        position = read(log, position)
        planned = shorten(log, position, 10_000)
        assert planned is not None
        position = planned.after
        last = first + more
        assert_cut(log, [line(number) for number in range(last - 10_000, last)], more)
        assert position == read(log, position)


def test_not_before_it_is_due(log: Path) -> None:
    position = read(log)
    assert shorten(log, position, 10_000, 50_000) is None
    assert shorten(log, position, 50_000) is None
    assert shorten(log, position, 10_000, 49_999) is not None


def test_unread_lines_are_never_cut(log: Path) -> None:
    position = read(log)
    with log.open("ab") as file:
        file.write(b"".join(line(number) for number in range(50_000, 50_500)) + b"half a li")
    planned = shorten(log, position, 100)
    assert planned is not None
    unread = [*(line(number) for number in range(50_000, 50_500)), b"half a li"]
    assert_cut(log, unread, 50_000)
    reading = Reading(str(log), planned.after, NOW - 1800, NOW - 1800, Clock(NOW))
    assert b"".join(reading.blocks()) == b"".join(unread[:-1])


def test_a_log_that_is_not_the_one_that_was_read_is_left_alone(log: Path) -> None:
    position = read(log)
    before = log.read_bytes()[5:]
    log.write_bytes(before)
    assert shorten(log, position, 100) is None
    assert log.read_bytes() == before


@pytest.mark.parametrize("keep", [10_000, 1])
def test_a_cut_is_recognised_if_nobody_lived_to_save_it(log: Path, keep: int) -> None:
    """Even if the cut took away the bytes of the old anchor."""
    position = read(log)
    planned = shorten(log, position, keep)
    assert planned is not None
    intent = Position(position.here, None, position.lines, planned.after.here)
    with log.open("ab") as file:
        file.write(line(50_000))
    reading = Reading(str(log), intent, NOW - 1800, NOW - 1800, Clock(NOW))
    assert b"".join(reading.blocks()) == line(50_000)


def test_an_intent_without_the_cut_is_recognised(log: Path) -> None:
    position = read(log)
    intent = Position(position.here, None, position.lines, Cursor(500, b"x" * 256))
    with log.open("ab") as file:
        file.write(line(50_000))
    reading = Reading(str(log), intent, NOW - 1800, NOW - 1800, Clock(NOW))
    assert b"".join(reading.blocks()) == line(50_000)
    assert reading.position is not None
    assert reading.position.lines is None  # counted anew


def test_a_few_lines_that_leave_no_room_for_a_marker_stay(tmp_path: Path) -> None:
    log = tmp_path / "qpopper"
    log.write_bytes(b"a\nb\nc\n" + line(1))
    before = log.read_bytes()
    assert shorten(log, read(log), 1) is None
    assert log.read_bytes() == before


WRITER = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
number, start = int(sys.argv[2]), time.monotonic()
print("ready", flush=True)
while not os.path.exists(sys.argv[1] + ".stop"):
    due = int(2000 * (time.monotonic() - start))
    while number - int(sys.argv[2]) < due:
        os.write(fd, b"2026-11-22T10:41:05Z mx1 popper[42]: line %06d %s\\n" % (number, b"x" * 40))
        number += 1
    time.sleep(0.0005)
print(number)
"""


@pytest.mark.servers
@pytest.mark.parametrize(("kind", "megabytes"), [("ext4", 64), ("xfs", 320)])
def test_no_line_is_lost_under_a_writer(tmp_path: Path, kind: str, megabytes: int) -> None:
    """2,000 lines a second, appended while 20 cuts are made."""
    with mounted(tmp_path, kind, megabytes) as folder:
        log = folder / "qpopper"
        log.write_bytes(b"".join(line(number) for number in range(20_000)))
        seen: list[int] = []
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(log), "20000"], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            position: Position | None = Position(lines=0)
            cuts = 0
            while cuts < 20:
                time.sleep(0.1)
                position, rows = _read_rows(log, position)
                seen += rows
                planned = shorten(log, position, 5000)
                if planned is not None:
                    cuts += 1
                    assert planned.shift > 0
                    position = planned.after
            Path(f"{log}.stop").touch()
            last = int(writer.stdout.readline())
        position, rows = _read_rows(log, position)
        seen += rows
        assert last - 20_000 > 20 * 100
        assert seen == list(range(last))
        left = re.findall(rb"line (\d{6})", log.read_bytes())
        assert [int(number) for number in left] == list(range(last - len(left), last))


def _read_rows(log: Path, position: Position | None) -> tuple[Position, list[int]]:
    reading = Reading(str(log), position, NOW - 1800, NOW - 1800, Clock(NOW))
    rows = [
        int(number) for block in reading.blocks() for number in re.findall(rb"line (\d{6})", block)
    ]
    assert reading.position is not None
    return reading.position, rows
