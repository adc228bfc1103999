"""A database read twice: by makemap, and by Berkeley DB's own programs."""

import shutil
import subprocess
from pathlib import Path

from tests.impossible import impossible
from tests.site import MAKEMAP


def whole(database: Path) -> set[str]:
    """The keys of a database, by both readings, which must agree; Berkeley DB finds it sound."""
    for program in ("db_verify", "db_dump"):
        if shutil.which(program) is None:
            impossible(program, "is not installed; it comes with Debian's db-util")
    subprocess.run(["db_verify", "-q", database], check=True)
    dump = [MAKEMAP, "-u", "hash", str(database)]
    keys = [line.split("\t")[0] for line in _said(dump)]
    berkeley = _said(["db_dump", "-p", str(database)])
    rows = berkeley[berkeley.index("HEADER=END") + 1 : berkeley.index("DATA=END")]
    assert sorted(rows[::2]) == sorted(f" {key}" for key in keys)
    return set(keys)


def relaying(database: Path) -> set[str]:
    """The addresses that it opens, where every entry says RELAY."""
    return {key.removeprefix("connect:") for key in whole(database)}


def _said(command: list[str]) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
