"""The map: the administrator's word, the keys sendmail looks for, and how a new one gets in."""

import fcntl
import os
import stat
import subprocess
from pathlib import Path

import pytest

from sapd import access, errors
from sapd.access import Published, Sendmail, Source
from tests.servers.filesystems import fill, mounted
from tests.site import MAKEMAP


def source(tmp_path: Path, text: str | bytes, tag: str = "Connect:") -> Source:
    path = tmp_path / "access"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Source(str(path), tag)


@pytest.mark.parametrize(
    ("entry", "address", "word"),
    [
        # The very address, in any tag and case: never overridden; a RELAY needs no mention.
        ("192.0.2.1 REJECT", "192.0.2.1", "refused"),
        ("Connect:192.0.2.1 REJECT", "192.0.2.1", "refused"),
        ("CONNECT:192.0.2.1\treject\r", "192.0.2.1", "refused"),
        ('192.0.2.1 ERROR:"550 go away"', "192.0.2.1", "refused"),
        ("192.0.2.1 550 go away", "192.0.2.1", "refused"),
        ("192.0.2.1 DISCARD", "192.0.2.1", "refused"),
        ("192.0.2.1 OK", "192.0.2.1", "refused"),
        ("192.0.2.1 RELAY # note", "192.0.2.1", "refused"),
        ("192.0.2.1 RELAY", "192.0.2.1", "relays"),
        ("Connect:192.0.2.1  relay \r", "192.0.2.1", "relays"),
        # A network that holds it.
        ("192.0.2 REJECT", "192.0.2.1", "refused"),
        ("Connect:192.0 REJECT", "192.0.2.1", "refused"),
        ("192 DISCARD", "192.0.2.1", "refused"),
        ("192.0.2.0/24 REJECT", "192.0.2.1", "refused"),
        ("[192.0.2.1] REJECT", "192.0.2.1", "refused"),
        ("192.0.2 QUARANTINE:why", "192.0.2.1", "refused"),
        ("192.0.2 RELAY", "192.0.2.1", None),
        # What sendmail never matches refuses, but never permits.
        ("192.0.2.0/24 RELAY\n192 REJECT", "192.0.2.1", "refused"),
        ("[192.0.2.1] RELAY\n192.0.2 REJECT", "192.0.2.1", "refused"),
        ("192.0.002 OK\n192 REJECT", "192.0.2.1", "refused"),
        ("192.0.2. OK\n192 REJECT", "192.0.2.1", "refused"),
        ("2001:db8::/32 RELAY\nIPv6:2001 REJECT", "2001:db8::7", "refused"),
        ("IPv6:2001:0db8 RELAY\nIPv6:2001 REJECT", "2001:db8::7", "refused"),
        ("[192.0.2.1] RELAY", "192.0.2.1", None),
        ("192.0.2\vREJECT", "192.0.2.1", "refused"),
        ("192.0.2 OK", "192.0.2.1", None),
        ("192.0.20 REJECT", "192.0.2.1", None),
        ("192.0.2.10 REJECT", "192.0.2.1", None),
        ("From:192.0.2.1 REJECT", "192.0.2.1", None),
        ("spammer.example REJECT", "192.0.2.1", None),
        ("# 192.0.2.1 REJECT", "192.0.2.1", None),
        # The longest prefix is the administrator's last word.
        ("192.0 REJECT\n192.0.2 OK", "192.0.2.1", None),
        ("192.0.2 REJECT\n192.0 OK", "192.0.2.1", "refused"),
        ("192.0.2 OK\nConnect:192.0.2 REJECT", "192.0.2.1", "refused"),
        # IPv6.
        ("IPv6:2001:db8::7 REJECT", "2001:db8::7", "refused"),
        ("Connect:IPv6:2001:DB8:0:0:0:0:0:7 REJECT", "2001:db8::7", "refused"),
        ("IPv6:2001:db8 REJECT", "2001:db8::7", "refused"),
        ("IPv6:2001:db8:0: REJECT", "2001:db8::7", "refused"),
        ("2001:db8::/32 REJECT", "2001:db8::7", "refused"),
        ("IPv6:2001:db9 REJECT", "2001:db8::7", None),
        ("IPv6:2001:db8:0:0:0:0:0:7 RELAY", "2001:db8::7", "relays"),
        ("IPv6:2001:db8::7 OK", "2001:db8::7", "refused"),
        ("IPv6:::ffff:192.0.2.1 REJECT", "192.0.2.1", "refused"),
        ("192.0.2 REJECT", "2001:db8::7", None),
        ("IPv6:2001:db8::7 REJECT", "192.0.2.1", None),
        ("", "192.0.2.1", None),
    ],
)
def test_the_administrators_word_wins(
    tmp_path: Path, entry: str, address: str, word: str | None
) -> None:
    said = source(tmp_path, entry).says(address)
    if word == "refused":
        assert said
        assert f"{tmp_path}/access line " in said
    else:
        assert said == ("" if word == "relays" else None)


def test_a_tag_of_ones_own_counts_like_connect(tmp_path: Path) -> None:
    own = source(tmp_path, "Pop:192.0.2.1 REJECT\nConnect:192.0.2.2 REJECT", "Pop:")
    assert own.says("192.0.2.1")
    assert own.says("192.0.2.2")


def test_source_that_cannot_be_read(tmp_path: Path) -> None:
    for path, status in ((tmp_path / "none", errors.BAD_CONFIG), (tmp_path, errors.BAD_CONFIG)):
        with pytest.raises(errors.SapdError, match="can't be read") as raised:
            Source(str(path), "")
        assert raised.value.status == status
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(errors.SapdError, match="not a regular file"):
        Source(str(tmp_path / "fifo"), "")


def test_entries_are_what_sendmail_looks_up() -> None:
    none = Source(None, "Connect:")
    assert none.entries(["192.0.2.10", "2001:db8::7", "2001:db8:1:2:3:4:5:6"]) == (
        b"Connect:192.0.2.10\tRELAY\n"
        b"Connect:IPv6:2001:db8:1:2:3:4:5:6\tRELAY\n"
        b"Connect:IPv6:2001:db8:0:0:0:0:0:7\tRELAY\n"
        b"Connect:IPv6:2001:db8::7\tRELAY\n"
    )
    assert none.entries([]) == b""
    assert Source(None, "").entries(["192.0.2.10"]) == b"192.0.2.10\tRELAY\n"


def test_a_key_that_the_administrator_wrote_is_not_written_twice(tmp_path: Path) -> None:
    own = source(tmp_path, "connect:ipv6:2001:db8::7 RELAY")
    assert own.says("2001:db8::7") is None  # sendmail looks that up only if so configured
    assert own.entries(["2001:db8::7"]) == b"Connect:IPv6:2001:db8:0:0:0:0:0:7\tRELAY\n"


def changed_behind_the_clock(path: Path) -> None:
    """Change some bytes, and put size and mtime back."""
    before = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


class Map:
    """A database of real makemap's, and the program that keeps it."""

    def __init__(self, folder: Path, text: str = "10.1 RELAY\n") -> None:
        self.path = folder / "access.db"
        self.source = source(folder, text)
        self.server = Sendmail(str(self.path), MAKEMAP, self.source)

    def publish(self, *addresses: str) -> Published:
        return self.server.publish(self.source.entries(addresses))

    def holds(self, published: Published, *addresses: str) -> bool:
        return self.server.holds(self.source.entries(addresses), published)

    def dump(self) -> set[str]:
        done = subprocess.run(
            [MAKEMAP, "-u", "hash", str(self.path)], capture_output=True, text=True, check=True
        )
        return {line.split("\t")[0] for line in done.stdout.splitlines()}


@pytest.fixture
def live(tmp_path: Path) -> Map:
    return Map(tmp_path)


@pytest.mark.servers
class TestPublishing:
    def test_into_the_live_inode_a_second_on(self, live: Map) -> None:
        live.publish("192.0.2.1")
        os.chmod(live.path, 0o604)
        os.chown(live.path, 1, 2)
        before = live.path.stat()
        published = live.publish("192.0.2.2")
        after = live.path.stat()
        assert live.dump() == {"10.1", "connect:192.0.2.2"}
        assert (after.st_ino, after.st_mode, after.st_uid, after.st_gid) == (
            before.st_ino, before.st_mode, 1, 2,
        )  # fmt: skip
        assert int(after.st_mtime) > int(before.st_mtime)
        assert live.holds(published, "192.0.2.2")
        assert [path.name for path in live.path.parent.glob("*.db")] == ["access.db"]

    def test_smaller_and_larger(self, live: Map) -> None:
        many = [f"192.0.{i // 250}.{i % 250}" for i in range(5000)]
        live.publish(*many)
        large = live.path.stat().st_size
        live.publish("192.0.2.1")
        assert live.path.stat().st_size < large
        assert live.dump() == {"10.1", "connect:192.0.2.1"}
        live.publish(*many)
        assert len(live.dump()) == 5001

    @pytest.mark.parametrize(
        "damage",
        [
            lambda path: path.unlink(),
            lambda path: path.write_bytes(b""),
            lambda path: path.write_bytes(b"garbage" * 999),
            lambda path: os.truncate(path, 4096),
            lambda path: os.utime(path),
            lambda path: changed_behind_the_clock(path),
            lambda path: subprocess.run([MAKEMAP, "hash", path], input=b"a b\n", check=True),
            lambda path: (path.rename(f"{path}.x"), path.write_bytes(b"x"))[1],
        ],
    )
    def test_whatever_else_was_done_to_it_is_noticed_and_put_right(
        self, live: Map, damage: object
    ) -> None:
        published = live.publish("192.0.2.1")
        assert live.holds(published, "192.0.2.1")
        assert not live.holds(published, "192.0.2.2")
        damage(live.path)  # type: ignore[operator]
        assert not live.holds(published, "192.0.2.1")
        published = live.publish("192.0.2.1")
        assert live.dump() == {"10.1", "connect:192.0.2.1"}
        assert live.holds(published, "192.0.2.1")

    def test_a_new_boot_is_reason_to_doubt(self, live: Map) -> None:
        published = live.publish("192.0.2.1")
        other = published._replace(boot="another boot")
        assert not live.holds(other, "192.0.2.1")

    def test_modes_of_a_new_database(self, tmp_path: Path) -> None:
        before = os.umask(0o077)
        try:
            Map(tmp_path).publish("192.0.2.1")
            separate = tmp_path / "relay.db"
            Sendmail(str(separate), MAKEMAP, Source(None, "")).publish(b"Connect:192.0.2.1 RELAY\n")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "access.db").stat().st_mode) == 0o640
        assert stat.S_IMODE(separate.stat().st_mode) == 0o644

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("10.1 RELAY\nfoo\n", "access: line 2: no RHS for LHS foo"),
            ("10.1 RELAY\n 10.2 RELAY\n", "access: line 2: syntax error"),
            ("10.1 RELAY\n10.1 REJECT\n", "access: line 2: key 10.1: duplicate key"),
            ("x" * 1200 + " y\n", "access: line 1: line too long"),
        ],
    )
    def test_a_bad_source_leaves_the_old_database(
        self, tmp_path: Path, text: str, reason: str
    ) -> None:
        Map(tmp_path).publish("192.0.2.1")
        before = (tmp_path / "access.db").stat()
        with pytest.raises(errors.SapdError, match=reason) as raised:
            Map(tmp_path, text).publish("192.0.2.2")
        assert raised.value.status == errors.MAKEMAP_FAILED
        assert (tmp_path / "access.db").stat() == before
        assert sorted(os.listdir(tmp_path)) == ["access", "access.db"]

    def test_a_makemap_that_makes_too_little_is_not_believed(
        self, tmp_path: Path, live: Map
    ) -> None:
        live.publish("192.0.2.1")
        before = live.path.stat()
        false = tmp_path / "makemap"
        false.write_text(
            f'#!/bin/sh\n[ "$1" = -u ] || {{ head -n 1 | {MAKEMAP} "$@"; exit 0; }}\n'
            f'exec {MAKEMAP} "$@"\n'
        )
        false.chmod(0o755)
        server = Sendmail(str(live.path), str(false), source(tmp_path, "10.1 RELAY\n"))
        with pytest.raises(errors.SapdError, match="made 1 entries of 2") as raised:
            server.publish(b"Connect:192.0.2.1\tRELAY\n")
        assert raised.value.status == errors.MAKEMAP_FAILED
        assert live.path.stat() == before

    def test_links_are_not_written_through(self, tmp_path: Path, live: Map) -> None:
        live.publish("192.0.2.1")
        real = tmp_path / "real.db"
        live.path.rename(real)
        before = real.read_bytes()
        live.path.symlink_to(real)
        with pytest.raises(errors.SapdError, match="symbolic link") as raised:
            live.publish("192.0.2.2")
        assert raised.value.status == errors.CANT_CREATE
        live.path.unlink()
        os.link(real, live.path)
        with pytest.raises(errors.SapdError, match="hard links"):
            live.publish("192.0.2.2")
        assert real.read_bytes() == before

    def test_a_lock_that_is_held_is_waited_for_but_not_for_ever(
        self, live: Map, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        live.publish("192.0.2.1")
        monkeypatch.setattr(access, "LOCK_WAIT", 0.1)
        with live.path.open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_SH)
            with pytest.raises(errors.SapdError, match="has held its lock") as raised:
                live.publish("192.0.2.2")
        assert raised.value.status == errors.CANT_CREATE
        assert live.dump() == {"10.1", "connect:192.0.2.1"}
        live.publish("192.0.2.2")

    def test_a_database_renamed_while_its_lock_was_waited_for(
        self, live: Map, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        live.publish("192.0.2.1")
        flock, renamed = fcntl.flock, live.path.with_name("renamed")

        def rename_first(fd: int, operation: int) -> None:
            if not renamed.exists():
                live.path.rename(renamed)
                subprocess.run([MAKEMAP, "hash", live.path], input=b"a b\n", check=True)
            flock(fd, operation)

        monkeypatch.setattr(fcntl, "flock", rename_first)
        live.publish("192.0.2.2")
        assert live.dump() == {"10.1", "connect:192.0.2.2"}

    def test_room_that_was_half_given_is_given_back(
        self, live: Map, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        live.publish("192.0.2.1")
        before = live.path.read_bytes()

        def half(fd: int, offset: int, length: int) -> None:
            os.ftruncate(fd, length + 4096)
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", half)
        with pytest.raises(errors.SapdError, match="No space left"):
            live.publish("192.0.2.2")
        assert live.path.read_bytes() == before

    def test_a_full_disk_leaves_the_old_database(self, tmp_path: Path) -> None:
        with mounted(tmp_path, "tmpfs", megabytes=1) as folder:
            live = Map(folder)
            published = live.publish("192.0.2.1")
            before = live.path.read_bytes()
            filler = folder / "filler"
            fill(filler)
            many = [f"192.0.{i // 250}.{i % 250}" for i in range(20_000)]
            with pytest.raises(errors.SapdError, match="No space left") as raised:
                live.publish(*many)
            assert raised.value.status in (errors.CANT_CREATE, errors.IO_ERROR)
            assert live.path.read_bytes() == before
            # Room for the new file, none to grow the live one.
            filler.unlink()
            large = [f"192.0.{i // 250}.{i % 250}" for i in range(10_000)]
            with pytest.raises(errors.SapdError, match="can't be written: No space") as raised:
                live.publish(*large)
            assert raised.value.status == errors.IO_ERROR
            assert live.path.read_bytes() == before
            assert sorted(os.listdir(folder)) == ["access", "access.db"]
            assert live.holds(published, "192.0.2.1") or live.publish("192.0.2.1")
            assert live.dump() == {"10.1", "connect:192.0.2.1"}

    def test_a_copy_that_breaks_off_is_made_good_by_a_rename(
        self, live: Map, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        live.publish("192.0.2.1")
        os.chmod(live.path, 0o604)
        before = live.path.stat()

        def breaks(fd: int, data: bytes, offset: int) -> None:
            os.pwrite(fd, data[:100], offset)
            raise OSError(5, "Input/output error")

        monkeypatch.setattr("sapd.files.write_all", breaks)
        published = live.publish("192.0.2.2")
        assert live.dump() == {"10.1", "connect:192.0.2.2"}
        assert live.holds(published, "192.0.2.2")
        after = live.path.stat()
        assert after.st_ino != before.st_ino
        assert (after.st_mode, after.st_uid) == (before.st_mode, before.st_uid)


@pytest.mark.servers
@pytest.mark.parametrize(
    "text",
    [
        b"", b"\n\n#x\n", b"a b", b"a\tb\nc d", b"Connect:192.0.2.1 RELAY\r\n",
        b"a b\n#c d\n\ne f\n",
        b"a  \t b c\n", "ümläut.example REJECT\n".encode(), b"\xff\xfe x\n", b"a b\x00c\n",
        b"1.2.3.4:5 x\n", b"a b\\\nc d\n", b"\x00#\na b\n",
    ],
)  # fmt: skip
def test_entries_are_counted_as_makemap_counts_them(tmp_path: Path, text: bytes) -> None:
    """Only of what makemap takes: it refuses the rest with a status."""
    own = source(tmp_path, text)
    done = subprocess.run(
        [MAKEMAP, "hash", tmp_path / "x.db"], input=own.text, capture_output=True, check=False
    )
    if done.returncode == 0:
        command = [MAKEMAP, "-u", "hash", str(tmp_path / "x")]
        dump = subprocess.run(command, capture_output=True, check=True)
        assert dump.stdout.count(b"\n") == own.count
    else:
        assert b"line " in done.stderr
