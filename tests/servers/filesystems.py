"""Small file systems of a test's own: an ext4 or XFS image, or a tmpfs that is soon full."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.impossible import impossible


@contextmanager
def mounted(folder: Path, kind: str, megabytes: int) -> Iterator[Path]:
    """Mount a new file system of `kind` ("ext4", "xfs" or "tmpfs") below `folder`; needs root."""
    point = folder / f"{kind}-mount"
    point.mkdir()
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "tmpfs"]
    else:
        image = folder / f"{kind}.img"
        with image.open("wb") as file:
            file.truncate(megabytes * 1024 * 1024)
        _run(f"mkfs.{kind}", "-q", str(image))
        command = ["mount", "-o", "loop", str(image)]
    _run(*command, str(point))
    try:
        yield point
    finally:
        _run("umount", "--lazy", str(point))


def fill(path: Path) -> None:
    """Write `path` until the file system is full."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 4096):
            pass


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        impossible(" ".join(command[:3]), done.stderr.strip())
