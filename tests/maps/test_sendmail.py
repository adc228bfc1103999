"""sendmail's map: the keys that it looks up, and what makemap makes of them."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from sapd import errors
from sapd.maps.live import Published
from sapd.maps.sendmail import Sendmail
from tests.servers.filesystems import fill, mounted
from tests.site import MAKEMAP

LIMITS = {"client_rate": 30, "client_connections": 5, "greet_pause": 2000}
UNTIL = 1_000_000.0


def server(folder: Path, text: str | None = "10.1 RELAY\n", tag: str = "Connect:") -> Sendmail:
    """A map in the folder; its source has this text, or there is none."""
    source = folder / "access"
    if text is not None:
        source.write_text(text)
    named = None if text is None else str(source)
    return Sendmail(str(folder / "access.db"), named, MAKEMAP, tag)


def wanted(map: Sendmail, *addresses: str) -> bytes:
    return map.wanted(dict.fromkeys(addresses, UNTIL))


def publish(map: Sendmail, *addresses: str) -> Published:
    return map.publish(wanted(map, *addresses))


def is_published(map: Sendmail, published: Published, *addresses: str) -> bool:
    return map.is_published(wanted(map, *addresses), published)


def dump(map: Sendmail) -> set[str]:
    """The keys of the database, by makemap's own reading."""
    command = [MAKEMAP, "-u", "hash", map.path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {line.split("\t")[0] for line in done.stdout.splitlines()}


# The text.


def test_entries_are_what_sendmail_looks_up(tmp_path: Path) -> None:
    none = server(tmp_path, None)
    assert wanted(none, "192.0.2.10", "2001:db8::7", "2001:db8:1:2:3:4:5:6") == (
        b"Connect:192.0.2.10\tRELAY\n"
        b"Connect:IPv6:2001:db8:1:2:3:4:5:6\tRELAY\n"
        b"Connect:IPv6:2001:db8:0:0:0:0:0:7\tRELAY\n"
        b"Connect:IPv6:2001:db8::7\tRELAY\n"
    )
    assert wanted(none) == b""
    assert wanted(server(tmp_path, None, tag=""), "192.0.2.10") == b"192.0.2.10\tRELAY\n"


def test_the_order_in_which_addresses_were_opened_and_their_ends_change_nothing(
    tmp_path: Path,
) -> None:
    map = server(tmp_path)
    one = map.wanted({"192.0.2.1": UNTIL, "192.0.2.2": UNTIL})
    assert map.wanted({"192.0.2.2": UNTIL + 60, "192.0.2.1": UNTIL + 90}) == one


def test_limits_stand_beside_the_address(tmp_path: Path) -> None:
    (tmp_path / "access").write_text("ClientRate:192.0.2 5\nClientConn:192.0.2.10\t7\n")
    source = str(tmp_path / "access")
    map = Sendmail(str(tmp_path / "access.db"), source, MAKEMAP, limits=LIMITS)
    assert wanted(map, "192.0.2.10", "198.51.100.7") == (
        b"Connect:192.0.2.10\tRELAY\nGreetPause:192.0.2.10\t2000\n"
        b"Connect:198.51.100.7\tRELAY\nClientRate:198.51.100.7\t30\n"
        b"ClientConn:198.51.100.7\t5\nGreetPause:198.51.100.7\t2000\n"
    )


def test_a_key_that_the_administrator_wrote_is_not_written_twice(tmp_path: Path) -> None:
    map = server(tmp_path, "connect:ipv6:2001:db8::7 RELAY")
    assert map.objection_to("2001:db8::7") is None  # it is looked up only if so configured
    assert wanted(map, "2001:db8::7") == b"Connect:IPv6:2001:db8:0:0:0:0:0:7\tRELAY\n"


# The database.


@pytest.mark.makemap
def test_larger_and_smaller(tmp_path: Path) -> None:
    map = server(tmp_path)
    many = [f"192.0.{i // 250}.{i % 250}" for i in range(5000)]
    publish(map, *many)
    inode, large = os.stat(map.path).st_ino, os.path.getsize(map.path)
    publish(map, "192.0.2.1")
    assert os.path.getsize(map.path) < large
    assert dump(map) == {"10.1", "connect:192.0.2.1"}
    publish(map, *many)
    assert len(dump(map)) == 5001
    assert os.stat(map.path).st_ino == inode
    assert sorted(os.listdir(tmp_path)) == ["access", "access.db"]


@pytest.mark.makemap
def test_what_is_published_is_told_by_source_entries_and_file(tmp_path: Path) -> None:
    map = server(tmp_path)
    published = publish(map, "192.0.2.1")
    assert is_published(map, published, "192.0.2.1")
    assert not is_published(map, published, "192.0.2.2")
    assert not map.is_published(wanted(map, "192.0.2.1"), None)
    assert not is_published(server(tmp_path, "10.2 RELAY\n"), published, "192.0.2.1")
    assert is_published(server(tmp_path), published, "192.0.2.1")
    subprocess.run([MAKEMAP, "hash", map.path], input=b"a b\n", check=True)
    assert not is_published(map, published, "192.0.2.1")
    published = publish(map, "192.0.2.1")
    assert dump(map) == {"10.1", "connect:192.0.2.1"}
    assert is_published(map, published, "192.0.2.1")


@pytest.mark.makemap
def test_whom_the_database_lets_in_by_sapds_entries(tmp_path: Path) -> None:
    map = server(tmp_path, "Connect:192.0.2.9 RELAY\n192.0.2.8 RELAY\nConnect:192.0.2.7 REJECT\n")
    assert set(map.published_now(UNTIL, ())) == set()
    publish(map, "192.0.2.1", "2001:db8::7")
    assert set(map.published_now(UNTIL, ())) == {"192.0.2.1", "2001:db8::7"}
    Path(map.path).write_bytes(b"garbage" * 999)
    with pytest.raises(errors.SapdError, match="can't be read") as raised:
        map.published_now(UNTIL, ())
    assert raised.value.status == errors.MAKEMAP_FAILED


@pytest.mark.makemap
def test_modes_of_a_new_database(tmp_path: Path) -> None:
    """Whoever may read a map may hold its lock: a separate one is sendmail's own, if root runs."""
    map, separate = server(tmp_path), Sendmail(str(tmp_path / "relay.db"), makemap=MAKEMAP)
    before = os.umask(0o077)
    try:
        publish(map, "192.0.2.1")
        publish(separate, "192.0.2.1")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(map.path).st_mode) == 0o640
    is_sendmails = os.stat(separate.path).st_uid not in (0, os.geteuid())
    assert stat.S_IMODE(os.stat(separate.path).st_mode) == (0o640 if is_sendmails else 0o644)


@pytest.mark.makemap
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10.1 RELAY\nfoo\n", "access: line 2: no RHS for LHS foo"),
        ("10.1 RELAY\n 10.2 RELAY\n", "access: line 2: syntax error"),
        ("10.1 RELAY\n10.1 REJECT\n", "access: line 2: key 10.1: duplicate key"),
        ("x" * 1200 + " y\n", "access: line 1: line too long"),
    ],
)
def test_a_bad_source_leaves_the_old_database(tmp_path: Path, text: str, reason: str) -> None:
    publish(server(tmp_path), "192.0.2.1")
    before = (tmp_path / "access.db").stat()
    with pytest.raises(errors.SapdError, match=reason) as raised:
        publish(server(tmp_path, text), "192.0.2.2")
    assert raised.value.status == errors.MAKEMAP_FAILED
    assert (tmp_path / "access.db").stat() == before
    assert sorted(os.listdir(tmp_path)) == ["access", "access.db"]


@pytest.mark.makemap
def test_a_makemap_that_makes_too_little_is_not_believed(tmp_path: Path) -> None:
    map = server(tmp_path)
    publish(map, "192.0.2.1")
    before = os.stat(map.path)
    false = tmp_path / "makemap"
    false.write_text(
        f'#!/bin/sh\n[ "$1" = -u ] || {{ head -n 1 | {MAKEMAP} "$@"; exit 0; }}\n'
        f'exec {MAKEMAP} "$@"\n'
    )
    false.chmod(0o755)
    believing = Sendmail(map.path, map.source_path, str(false))
    with pytest.raises(errors.SapdError, match="made 1 entries of 2") as raised:
        publish(believing, "192.0.2.1")
    assert raised.value.status == errors.MAKEMAP_FAILED
    assert os.stat(map.path) == before


@pytest.mark.makemap
def test_links_are_not_written_through(tmp_path: Path) -> None:
    map = server(tmp_path)
    publish(map, "192.0.2.1")
    real = tmp_path / "real.db"
    Path(map.path).rename(real)
    before = real.read_bytes()
    Path(map.path).symlink_to(real)
    with pytest.raises(errors.SapdError, match="symbolic link"):
        publish(map, "192.0.2.2")
    assert real.read_bytes() == before


@pytest.mark.servers
def test_a_full_disk_leaves_the_old_database(tmp_path: Path) -> None:
    with mounted(tmp_path, "tmpfs", megabytes=1) as folder:
        map = server(folder)
        published = publish(map, "192.0.2.1")
        before = Path(map.path).read_bytes()
        filler = folder / "filler"
        fill(filler)
        many = [f"192.0.{i // 250}.{i % 250}" for i in range(20_000)]
        with pytest.raises(errors.SapdError, match="No space left") as raised:
            publish(map, *many)
        assert raised.value.status in (errors.CANT_CREATE, errors.IO_ERROR)
        assert Path(map.path).read_bytes() == before
        assert sorted(os.listdir(folder)) == ["access", "access.db", "filler"]
        assert is_published(map, published, "192.0.2.1") or publish(map, "192.0.2.1")
        assert dump(map) == {"10.1", "connect:192.0.2.1"}
        # Room for one of them, none for the new one beside a live one of its size.
        filler.unlink()
        large = [f"192.0.{i // 250}.{i % 250}" for i in range(10_000)]
        publish(map, *large)
        assert len(dump(map)) == 10_001
        assert sorted(os.listdir(folder)) == ["access", "access.db"]
