"""The edge of the window in large files, of which only a few lines are looked at."""

import gzip
import io
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapd.events import frames
from sapd.reading.edge import _HEAD, Edge, _heads
from sapd.reading.logfile import BLOCK, Packed, open_log
from sapd.timestamps import Clock

NOW = time.mktime((2026, 11, 22, 12, 0, 0, 0, 0, -1))
DAY = 86400
MEBI = 1024 * 1024


def line(age: float, text: str = "x" * 60) -> bytes:
    """A line whose stamp names no year; `age` in seconds."""
    stamp = time.strftime("%b %e %H:%M:%S", time.localtime(NOW - age))
    return f"{stamp} mx1 popper[42]: {text}\n".encode()


def steady(size: int, since: float, until: float) -> Iterator[bytes]:
    """`size` bytes of lines, whose ages in seconds go evenly from one to the other."""
    length = len(line(0))
    for number in range(size // length // 100):
        age = since + (until - since) * number * length * 100 / size
        yield line(age) * 100


class CountingClock(Clock):
    looked_at = 0

    def of_line(self, line: bytes) -> float | None:
        self.looked_at += 1
        return super().of_line(line)


def start_in(path: Path, window: float, clock: Clock) -> int:
    """Where in the file reading begins."""
    with ExitStack() as opened:
        file = open_log(str(path), opened)
        assert file is not None
        return Edge(NOW - window, clock).start_in(file)[0].offset


def test_a_few_lines_of_a_large_log_are_looked_at(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"".join(steady(64 * MEBI, 20 * DAY, 0)))
    clock = CountingClock(NOW)
    assert start_in(log, 30 * DAY, clock) == 0
    assert 500 < clock.looked_at < 2500  # of 750,000


def test_a_large_log_is_begun_shortly_before_the_edge(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"".join(steady(40 * MEBI, 20 * DAY, 0)))
    edge = 20 * MEBI
    clock = CountingClock(NOW)
    assert edge - 4 * BLOCK < start_in(log, 10 * DAY, clock) <= edge
    assert clock.looked_at < 2500


@pytest.mark.parametrize("apart", [2, 15, 40])
@pytest.mark.parametrize("size", [2, 20])
def test_a_quiet_year_before_busy_days_is_seen(tmp_path: Path, apart: int, size: int) -> None:
    """Its few lines all stand between two that would be looked at."""
    log = tmp_path / "log"
    year_ago = b"".join(steady(300_000, 366 * DAY, 364 * DAY))
    quiet = b"".join(line(age * DAY) for age in range(350, 20, -apart))
    busy = b"".join(steady(size * MEBI, 19 * DAY, 0))
    log.write_bytes(year_ago + quiet + busy)
    start = start_in(log, 30 * DAY, Clock(NOW))
    assert len(year_ago) <= start <= len(year_ago + quiet)


@pytest.mark.parametrize("most", [0, 1000])
def test_clocks_in_two_zones_cost_a_bounded_time(
    tmp_path: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time seems to jump everywhere."""
    monkeypatch.setattr("sapd.reading.edge._MOST_BETWEEN", most)
    log = tmp_path / "log"
    log.write_bytes(b"".join(line(age) + line(age + 5 * 3600) for age in range(150_000, 0, -1)))
    clock = CountingClock(NOW)
    assert start_in(log, 30 * DAY, clock) == 0
    few = 2000
    assert clock.looked_at < few + most + 50


def test_lines_without_a_stamp_are_passed_over(tmp_path: Path) -> None:
    log = tmp_path / "log"
    more = b"\tat org.example.Pop3(Pop3.java:1)\n" * 3
    log.write_bytes(b"".join(more + part for part in steady(20 * MEBI, 2 * DAY, 0)))
    start = start_in(log, DAY / 10, CountingClock(NOW))
    assert 0 < start < 4.5 * MEBI  # 16 MB are read in any case


def packed(path: Path, text: bytes, opened: ExitStack) -> Packed:
    path.write_bytes(gzip.compress(text))
    file = opened.enter_context(io.FileIO(path))
    return Packed(".gz", file, time.monotonic() + 60, opened)


@given(
    lines=st.lists(
        st.sampled_from([0, 1, 40, _HEAD - 1, _HEAD, _HEAD + 1, 1000, 5000]), max_size=20
    ),
    block=st.sampled_from([1, 100, _HEAD, 300, 1024, 4096]),
    ends=st.booleans(),
)
@settings(max_examples=300)
def test_lines_of_a_packed_file_begin_where_they_begin(
    lines: list[int], block: int, ends: bool
) -> None:
    rows = [bytes([65 + number % 26]) * length for number, length in enumerate(lines)]
    text = b"\n".join(rows) + b"\n" * ends
    expected, offset = [], 0
    for row in rows:
        if row:
            expected.append((offset, row[:_HEAD]))
        offset += len(row) + 1
    if not ends and lines and 0 < lines[-1] < _HEAD:
        expected.pop()  # not whole, and perhaps not even its head
    with TemporaryDirectory() as folder, ExitStack() as opened, pytest.MonkeyPatch.context() as to:
        to.setattr("sapd.reading.edge.BLOCK", block)
        assert list(_heads(packed(Path(folder, "log.gz"), text, opened))) == expected


def test_no_stamp_is_out_of_reach() -> None:
    """Of a line whose stamp is not seen nobody could tell that it is a year old."""
    stamped = b"2026-11-22T10:41:05.123456+00:00 mx1 popper[1]: x"
    longest = b"a" * 128 + b" " * 64 + b"| " + stamped
    assert frames.name_of(longest) is not None
    assert Clock(NOW).of_line(longest[:_HEAD]) is not None
    assert frames.name_of(b"a" + longest) is None
    assert frames.name_of(longest.replace(b"|", b" |")) is None
