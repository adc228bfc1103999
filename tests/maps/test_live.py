"""How a new file becomes the live map, and how one tells that it still is what was published."""

import fcntl
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sapd import errors
from sapd.maps import live
from sapd.maps.live import Published
from tests.servers.filesystems import fill, mounted


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A live map."""
    path = tmp_path / "map"
    path.write_bytes(b"old")
    return path


def put(path: Path, data: bytes, before: Published | None = None) -> Published:
    """Make a new map in the same folder and put it in place of the live one."""
    new_path = path.with_name("map.new")
    new_path.write_bytes(data)
    fd = os.open(new_path, os.O_RDWR)
    try:
        new = live.New(fd, str(new_path))
        return live.put_in_place(new, str(path), live.digest(data), 0o640, None, before)
    except OSError as error:
        raise errors.cannot_write(str(path), error) from None
    finally:
        os.close(fd)
        new_path.unlink(missing_ok=True)


def is_untouched(path: Path, published: Published) -> bool:
    return live.is_untouched(str(path), published)


@pytest.mark.root
def test_into_the_live_inode_a_second_later(path: Path) -> None:
    os.chmod(path, 0o604)
    os.chown(path, 1, 2)
    before = path.stat()
    published = put(path, b"new, and longer")
    after = path.stat()
    assert path.read_bytes() == b"new, and longer"
    assert (after.st_ino, after.st_mode, after.st_uid, after.st_gid) == (
        before.st_ino, before.st_mode, 1, 2,
    )  # fmt: skip
    assert int(after.st_mtime) > int(before.st_mtime)
    assert is_untouched(path, published)
    put(path, b"short")
    assert path.read_bytes() == b"short"
    assert os.listdir(path.parent) == ["map"]


def test_a_missing_map_is_made_with_its_mode_whatever_the_umask(path: Path) -> None:
    path.unlink()
    before = os.umask(0o077)
    try:
        published = put(path, b"new")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert is_untouched(path, published)


def changed_behind_the_clock(path: Path) -> None:
    """Change some bytes, and put size and mtime back."""
    before = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "removed": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "written": lambda path: path.write_bytes(b"new"),
    "cut short": lambda path: os.truncate(path, 1),
    "touched": os.utime,
    "changed behind the clock": changed_behind_the_clock,
    "replaced": lambda path: (path.rename(f"{path}.x"), path.write_bytes(b"new")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_whatever_else_was_done_to_it_is_noticed(
    path: Path, damage: Callable[[Path], object]
) -> None:
    published = put(path, b"new")
    assert is_untouched(path, published)
    damage(path)
    assert not is_untouched(path, published)


def test_another_boot_and_another_path_are_reasons_to_doubt(path: Path) -> None:
    published = put(path, b"new")
    assert not is_untouched(path, published._replace(boot="another boot"))
    assert not is_untouched(path, published._replace(path="/elsewhere"))


def test_texts_that_join_to_the_same_have_different_digests() -> None:
    assert len({live.digest(b"ab", b"c"), live.digest(b"a", b"bc"), live.digest(b"abc")}) == 3


def test_the_map_of_before_is_left_behind_if_it_still_lets_people_in(path: Path) -> None:
    published = put(path, b"new")
    assert live.left_behind(published, "/elsewhere") == str(path)
    assert live.left_behind(published, str(path)) is None
    assert live.left_behind(None, "/elsewhere") is None
    path.unlink()
    assert live.left_behind(published, "/elsewhere") is None


def test_links_are_not_written_through(path: Path) -> None:
    real = path.with_name("real")
    path.rename(real)
    path.symlink_to(real)
    with pytest.raises(errors.SapdError, match="symbolic link") as raised:
        put(path, b"new")
    assert raised.value.status == errors.CANT_CREATE
    path.unlink()
    os.link(real, path)
    with pytest.raises(errors.SapdError, match="hard links"):
        put(path, b"new")
    assert real.read_bytes() == b"old"


def test_a_lock_that_is_held_is_waited_for_but_not_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LOCK_WAIT", 0.1)
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        inode = path.stat().st_ino
        start = time.monotonic()
        published = put(path, b"new")
        assert time.monotonic() - start >= 0.1
        assert (other.read(), path.read_bytes()) == (b"old", b"new")  # renamed into place
    assert published.lock_was_held
    assert path.stat().st_ino != inode
    assert is_untouched(path, published)
    assert not put(path, b"newer", published).lock_was_held
    assert path.read_bytes() == b"newer"


def test_a_lock_that_was_held_the_last_time_is_waited_for_only_a_little(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LOCK_WAIT", 30.0)
    monkeypatch.setattr(live, "LOCK_WAIT_AGAIN", 0.1)
    published = put(path, b"new")._replace(lock_was_held=True)
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        start = time.monotonic()
        assert put(path, b"newer", published).lock_was_held
    assert time.monotonic() - start < 10
    assert path.read_bytes() == b"newer"


def test_a_map_that_was_renamed_while_its_lock_was_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, renamed = fcntl.flock, path.with_name("renamed")

    def rename_first(fd: int, operation: int) -> None:
        if not renamed.exists():
            path.rename(renamed)
            path.write_bytes(b"another")
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", rename_first)
    put(path, b"new")
    assert (path.read_bytes(), renamed.read_bytes()) == (b"new", b"old")


def test_room_that_was_half_given_is_given_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(fd: int, offset: int, length: int) -> None:
        os.ftruncate(fd, length + 4096)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", half)
    with pytest.raises(errors.SapdError, match="No space left"):
        put(path, b"new")
    assert path.read_bytes() == b"old"


@pytest.mark.servers
def test_where_there_is_no_room_to_grow_the_live_map_it_stays(tmp_path: Path) -> None:
    with mounted(tmp_path, "tmpfs", megabytes=1) as folder:
        path = folder / "map"
        path.write_bytes(b"old")
        new = folder / "new"
        new.write_bytes(b"x" * 500_000)
        fill(folder / "filler")
        fd = os.open(new, os.O_RDWR)
        try:
            with pytest.raises(OSError, match="No space left"):
                live.put_in_place(live.New(fd, str(new)), str(path), "", 0o640, None, None)
        finally:
            os.close(fd)
        assert path.read_bytes() == b"old"


@pytest.mark.root
def test_a_copy_that_breaks_off_is_made_good_by_a_rename(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chmod(path, 0o604)
    os.chown(path, 1, 2)
    before = path.stat()

    def breaks(fd: int, data: bytes, offset: int) -> None:
        os.pwrite(fd, data[:2], offset)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("sapd.files.write_all", breaks)
    published = put(path, b"new")
    assert path.read_bytes() == b"new"
    assert is_untouched(path, published)
    after = path.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, 1, 2)
