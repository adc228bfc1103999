"""Cutting: exactly the last lines, the same inode, and never a line that was not read."""

import errno
import os
from pathlib import Path

import pytest

from sapd import cut, files
from sapd.cut import MARKER, PendingCut
from sapd.reading.place import Cursor, Position
from tests.cutting import STAMP, line, read, shorten


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
    planned = shorten(log, read(log)[1], 10_000)
    assert planned is not None
    assert (planned.removed, planned.kept) == (40_000, 10_000)
    assert_cut(log, [line(number) for number in range(40_000, 50_000)], 40_000)
    assert (log.stat().st_ino, log.stat().st_mode) == (inode, mode)


def test_reads_on_behind_the_cut_without_repeating(log: Path) -> None:
    planned = shorten(log, read(log)[1], 10_000)
    assert planned is not None
    assert planned.after.lines == 10_001
    with log.open("ab") as file:
        file.write(line(50_000))
    text, position = read(log, planned.after)
    assert text == line(50_000)
    assert position.lines == 10_002


def test_the_old_marker_goes_and_does_not_count(log: Path) -> None:
    planned = shorten(log, read(log)[1], 10_000)
    assert planned is not None
    position = planned.after
    assert shorten(log, position, 10_000) is None
    for more in (1, 7, 400):
        first = int(log.read_bytes().splitlines()[-1].split()[4]) + 1
        with log.open("ab") as file:
            file.write(b"".join(line(number) for number in range(first, first + more)))
        _, position = read(log, position)
        planned = shorten(log, position, 10_000)
        assert planned is not None
        position = planned.after
        last = first + more
        assert_cut(log, [line(number) for number in range(last - 10_000, last)], more)
        assert read(log, position) == (b"", position)


def test_not_before_it_is_due(log: Path) -> None:
    _, position = read(log)
    assert shorten(log, position, 10_000, 50_000) is None
    assert shorten(log, position, 50_000) is None
    assert shorten(log, position, 10_000, 49_999) is not None


def test_unread_lines_are_never_cut(log: Path) -> None:
    _, position = read(log)
    with log.open("ab") as file:
        file.write(b"".join(line(number) for number in range(50_000, 50_500)) + b"half a li")
    planned = shorten(log, position, 100)
    assert planned is not None
    unread = [*(line(number) for number in range(50_000, 50_500)), b"half a li"]
    assert_cut(log, unread, 50_000)
    assert read(log, planned.after)[0] == b"".join(unread[:-1])


def test_a_log_that_is_not_the_one_that_was_read_is_left_alone(log: Path) -> None:
    _, position = read(log)
    before = log.read_bytes()[5:]
    log.write_bytes(before)
    assert shorten(log, position, 100) is None
    assert log.read_bytes() == before


@pytest.mark.parametrize("keep", [10_000, 1])
def test_a_cut_is_recognised_if_nobody_lived_to_save_it(log: Path, keep: int) -> None:
    """Even if the cut took away the bytes of the old anchor."""
    _, position = read(log)
    planned = shorten(log, position, keep)
    assert planned is not None
    with log.open("ab") as file:
        file.write(line(50_000))
    for dry in (True, False):
        resumed = cut.resume(str(log), position, planned.pending, dry=dry)
        assert resumed == Position(planned.after.here)
        assert read(log, resumed)[0] == line(50_000)


def planned_for(log: Path, keep: int) -> cut.Cut:
    fd = os.open(log, os.O_RDWR)
    try:
        planned = cut.plan(fd, cut.counted(fd, read(log)[1]), keep, keep, lambda _: STAMP)
        assert planned is not None
        return planned
    finally:
        os.close(fd)


def finish(log: Path, begun: cut.Cut) -> bool:
    """Resume the cut; whether the log is cut now."""
    position = Position(begun.before, lines=12)
    resumed = cut.resume(str(log), position, begun.pending)
    assert resumed in (Position(begun.after.here), Position(begun.before))
    return resumed.here == begun.after.here


def broken_off(log: Path, begun: cut.Cut, after: int, half: bool) -> bool:
    """Cut, but after some changes of the file, or half of the next; whether that broke it off."""
    write_all, ftruncate = files.write_all, os.ftruncate
    changes = 0

    def change(fd: int, data: bytes, offset: int) -> None:
        nonlocal changes
        if changes == after:
            write_all(fd, data[: len(data) // 2 * half], offset)
            raise OSError(errno.EIO, "broken off")
        changes += 1
        write_all(fd, data, offset)

    def truncate(fd: int, size: int) -> None:
        change(fd, b"", 0)
        ftruncate(fd, size)

    fd = os.open(log, os.O_RDWR)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "write_all", change)
            patch.setattr(os, "ftruncate", truncate)
            cut.perform(fd, begun)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("keep", [800, 300])
@pytest.mark.parametrize("more", [0, 900])
def test_a_cut_that_broke_off_anywhere_is_gone_on_with(
    log: Path, keep: int, half: bool, more: int
) -> None:
    """Also if the log, already truncated, has meanwhile grown beyond its old length."""
    rows = [line(number) for number in range(1000 + more)]
    after = 0
    while True:
        log.write_bytes(b"".join(rows[:1000]))
        begun = planned_for(log, keep)
        broke = broken_off(log, begun, after, half)
        with log.open("ab") as file:
            file.write(b"".join(rows[1000:]))
        if not broke:
            break
        if finish(log, begun):
            assert_cut(log, rows[1000 - keep :], 1000 - keep)
            assert finish(log, begun)
        else:
            assert after == 0  # the marker was not written, or not all of it
        assert log.read_bytes().endswith(b"".join(rows[1000 - keep :]))
        after += 1
    assert_cut(log, rows[1000 - keep :], 1000 - keep)
    assert after > 0


def test_another_log_is_not_gone_on_with(log: Path) -> None:
    begun = planned_for(log, 10_000)
    log.write_bytes(other := b"".join(line(number) for number in range(60_000)))
    assert not finish(log, begun)
    assert log.read_bytes() == other


@pytest.mark.parametrize("there", [True, False], ids=["", "nothing there"])
@pytest.mark.parametrize("dry", [False, True], ids=["", "dry"])
def test_a_cut_that_was_planned_but_never_begun_is_recognised(
    log: Path, there: bool, dry: bool
) -> None:
    _, position = read(log)
    pending = PendingCut(Cursor(500, b"x" * 256), b"\n")
    if not there:
        log.unlink()
    resumed = cut.resume(str(log), position, pending, dry=dry)
    assert resumed == position._replace(lines=None)  # they are counted anew


def test_half_a_marker_over_some_lines_has_the_rest_counted_anew(log: Path) -> None:
    """Else so many lines too few would be kept as newlines stood below it."""
    rows = [b"%d\n" % number for number in range(20_000)]
    log.write_bytes(b"".join(rows))
    begun, (_, position) = planned_for(log, 10_000), read(log)
    with log.open("r+b") as file:
        file.seek(begun.shift)
        file.write(begun.marker[: len(begun.marker) // 2])
    planned = shorten(log, cut.resume(str(log), position, begun.pending), 10_000)
    assert planned is not None
    assert log.read_bytes().splitlines(keepends=True)[1:] == rows[-10_000:]


def test_a_log_that_is_half_copied_is_not_to_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "qpopper"
    log.write_bytes(b"".join(line(number) for number in range(2000)))
    monkeypatch.setattr(cut, "_collapse", lambda fd, length: False)
    begun, position = planned_for(log, 1000), read(log)[1]
    assert broken_off(log, begun, 2, half=False)
    assert cut.half_copied(str(log), begun.marker)
    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", fails)
        with pytest.raises(OSError, match="broken off"):
            cut.resume(str(log), position, begun.pending)
    assert cut.half_copied(str(log), begun.marker)
    assert cut.resume(str(log), position, begun.pending) == Position(begun.after.here)
    assert_cut(log, [line(number) for number in range(1000, 2000)], 1000)


def fails(*_: object) -> None:
    raise OSError(errno.EIO, "broken off")


def test_a_few_lines_that_leave_no_room_for_a_marker_stay(tmp_path: Path) -> None:
    log = tmp_path / "qpopper"
    log.write_bytes(b"a\nb\nc\n" + line(1))
    before = log.read_bytes()
    assert shorten(log, read(log)[1], 1) is None
    assert log.read_bytes() == before


@pytest.mark.parametrize("known", [50_001, 10**9])
def test_a_number_of_lines_that_is_too_large_is_counted_anew(log: Path, known: int) -> None:
    """A cut never takes what was not read, and never more than it should."""
    _, position = read(log)
    unread = [line(number) for number in range(50_000, 60_000)]
    with log.open("ab") as file:
        file.write(b"".join(unread))
    planned = shorten(log, position._replace(lines=known), 10_000)
    assert planned is not None
    assert planned.after.lines == 1
    assert_cut(log, unread, 50_000)
