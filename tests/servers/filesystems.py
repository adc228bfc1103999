"""Small file systems of a test's own: ext4 or XFS in a file, a tmpfs soon full, an overlay."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.impossible import impossible


@contextmanager
def mounted(folder: Path, kind: str, megabytes: int) -> Iterator[Path]:
    """Mount a new file system of `kind` ("ext4", "xfs" or "tmpfs") below `folder`; needs root.

    An image that is there already, as `folder`/KIND.img, is mounted as it is.
    """
    point = folder / f"{kind}-mount"
    point.mkdir(exist_ok=True)
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "tmpfs"]
    else:
        image = folder / f"{kind}.img"
        if not image.exists():
            with image.open("wb") as file:
                file.truncate(megabytes * 1024 * 1024)
            _run(f"mkfs.{kind}", "-q", str(image))
        command = ["mount", "-o", "loop", str(image)]
    _run(*command, str(point))
    try:
        yield point
    finally:
        _run("umount", "--lazy", str(point))


@contextmanager
def overlaid(folder: Path, lower: Path, upper: Path) -> Iterator[Path]:
    """Mount an overlay below `folder` that shows `lower` and writes to a new folder in `upper`."""
    point, written, work = folder / "overlay-mount", upper / "written", upper / "work"
    for made in (point, written, work):
        made.mkdir()
    layers = f"lowerdir={lower},upperdir={written},workdir={work}"
    _run("mount", "-t", "overlay", "-o", layers, "overlay", str(point))
    try:
        yield point
    finally:
        _run("umount", "--lazy", str(point))


def fill(path: Path) -> None:
    """Write `path` until the file system is full, to the last block."""
    with path.open("wb", buffering=0) as file:
        for size in (4096, 64):
            with suppress(OSError):
                while file.write(b"x" * size):
                    pass
            os.fsync(file)


def remount(folder: Path, how: str) -> None:
    """Mount a file system again with an option, such as "ro"."""
    _run("mount", "-o", f"remount,{how}", str(folder))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        impossible(" ".join(command[:3]), done.stderr.strip())
