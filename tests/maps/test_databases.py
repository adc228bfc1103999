"""Which kind of database a file is: makemap's own, whole, cut, and anything else."""

import os
import random
import subprocess
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


def make(makemap: str, name: str, path: Path, entries: int) -> None:
    text = "".join(
        f"Connect:10.{n >> 16}.{n >> 8 & 255}.{n & 255}\tRELAY\n" for n in range(entries)
    )
    command = [makemap, "-C", "/dev/null", name, str(path)]
    subprocess.run(command, input=text.encode(), check=True)


def can_be_read(makemap: str, name: str, path: Path) -> bool:
    command = [makemap, "-C", "/dev/null", "-u", name, str(path)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.makemap
@pytest.mark.parametrize("entries", ENTRIES)
@pytest.mark.parametrize("name", ["hash", "btree"])
def test_berkeley_db(tmp_path: Path, name: str, entries: int) -> None:
    path = tmp_path / "map.db"
    make(MAKEMAP, name, path, entries)
    assert kind(path) == name
    assert can_be_read(MAKEMAP, name, path)
    assert not can_be_read(MAKEMAP, {"hash": "btree", "btree": "hash"}[name], path)


@pytest.mark.servers
@pytest.mark.parametrize("entries", ENTRIES)
def test_cdb(tmp_path: Path, entries: int) -> None:
    makemap = built().makemap
    path = tmp_path / "map.cdb"
    make(makemap, "cdb", path, entries)
    assert kind(path) == "cdb"
    assert can_be_read(makemap, "cdb", path)
    assert not can_be_read(makemap, "hash", path.rename(tmp_path / "map.db"))
    whole = (tmp_path / "map.db").read_bytes()
    for size in {0, 1, 2047, len(whole) - 1} | ({2048} if entries else set()):
        path.write_bytes(whole[:size])
        assert kind(path) is None
    path.write_bytes(whole + b"\0")
    assert kind(path) is None


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
