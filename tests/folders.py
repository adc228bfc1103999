"""What tests put into folders, and how it looks to a user without root's powers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sapd
from tests.servers.unprivileged import NOBODY

ROOT = Path(__file__).parents[1]
PACKAGE = Path(sapd.__file__).parent  # elsewhere where the wheel is tried
ME = os.getuid()


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's powers, if the tests have them."""
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(ME)


def put(path: Path, content: str | bytes, mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else os.fsencode(content))
    path.chmod(mode)
    return path


def fill(text: str, folder: Path) -> str:
    """A configuration of logrotate or syslog, with LOG for a log and DIR for its folder."""
    return text.replace("LOG", f"{folder}/qpopper").replace("DIR", str(folder))


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """Name, inode, size, mode, mtime, ctime and contents of everything in a folder."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path.relative_to(folder))] = (
            about.st_ino,
            about.st_size,
            about.st_mode,
            about.st_mtime_ns,
            about.st_ctime_ns,
            content,
        )
    return found
