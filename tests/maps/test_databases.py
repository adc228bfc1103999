"""Which kind of database a file is: makemap's own, whole, cut, and anything else.

Debian's makemap has no cdb: those are tinycdb's, and for tests/slow.sh those of one built with it.
"""

import os
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapd.maps.databases import kind_of
from tests.servers.sendmail_cdb import built
from tests.site import MAKEMAP

ENTRIES = [0, 1, 7, 300, 5000]


def kind(path: Path) -> str | None:
    fd = os.open(path, os.O_RDONLY)
    try:
        return kind_of(fd)
    finally:
        os.close(fd)


def make(command: Sequence[str], path: Path, entries: int) -> None:
    text = "".join(f"Connect:10.{n >> 16}.{n >> 8 & 255}.{n & 255} RELAY\n" for n in range(entries))
    subprocess.run([*command, str(path)], input=text.encode(), check=True)


def can_be_read(makemap: str, name: str, path: Path) -> bool:
    command = [makemap, "-C", "/dev/null", "-u", name, str(path)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.makemap
@pytest.mark.parametrize("entries", ENTRIES)
@pytest.mark.parametrize("name", ["hash", "btree"])
def test_berkeley_db(tmp_path: Path, name: str, entries: int) -> None:
    path = tmp_path / "map.db"
    make([MAKEMAP, "-C", "/dev/null", name], path, entries)
    assert kind(path) == name
    assert can_be_read(MAKEMAP, name, path)
    assert not can_be_read(MAKEMAP, {"hash": "btree", "btree": "hash"}[name], path)


def is_known_for_a_cdb(path: Path) -> None:
    """It is, and is not when it was cut or has grown."""
    assert kind(path) == "cdb"
    whole = path.read_bytes()
    entries = len(whole) > 2048
    for size in {0, 1, 2047, len(whole) - 1} | ({2048} if entries else set()):
        path.write_bytes(whole[:size])
        assert kind(path) is None
    path.write_bytes(whole + b"\0")
    assert kind(path) is None


@pytest.mark.servers
@pytest.mark.parametrize("entries", ENTRIES)
def test_cdb(tmp_path: Path, entries: int) -> None:
    path = tmp_path / "map.db"
    make(["cdb", "-c", "-m"], path, entries)
    assert not can_be_read(MAKEMAP, "hash", path)
    is_known_for_a_cdb(path)


@pytest.mark.servers
@pytest.mark.slow
@pytest.mark.parametrize("entries", ENTRIES)
def test_cdb_of_makemap(tmp_path: Path, entries: int) -> None:
    makemap = built().makemap
    path = tmp_path / "map.cdb"
    make([makemap, "-C", "/dev/null", "cdb"], path, entries)
    assert can_be_read(makemap, "cdb", path)
    assert not can_be_read(makemap, "hash", path)
    is_known_for_a_cdb(path)


@given(st.binary(max_size=5000))
def test_garbage_is_none(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage"
    path.write_bytes(content)
    assert kind(path) is None


def test_long_garbage_is_none(tmp_path: Path) -> None:
    path = tmp_path / "garbage"
    for content in (
        b"\0" * 5000,
        b"\xa5" * 5000,
        random.Random(1).randbytes(5000),
        b"x: y\n" * 900,
    ):
        path.write_bytes(content)
        assert kind(path) is None
