"""Debian's packages without installing them: fetched by apt, unpacked in a folder of the tests.

A machine may have one POP server at most (their packages conflict), and installing one starts it.
What is here is for `machine.Machine`, which lays it over its own view of the machine's folders.

Whatever one process of a test run has fetched serves all of them: `SHARED` names the folder, which
the first of them makes and removes.
"""

import atexit
import fcntl
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import blake2b
from pathlib import Path

try:
    RELEASE = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    """The codename of this machine's Debian."""
except OSError:
    RELEASE = ""

SHARED = "SAPD_TEST_PACKAGES"
_MERGED = ("bin", "lib", "lib64", "sbin")  # Debian 12 has them in /usr
_SOURCES = Path("/etc/apt/sources.list.d")
_KEYS = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"


@cache
def unpacked(*names: str) -> Path:
    """A folder like `/` with these packages, and all that they need and this machine lacks.

    A name may end in a slash and another release of Debian, as "courier-pop/trixie". Then all that
    it needs is of that release, its C library, too. Or it may end in "|" and an older release, as
    "mailfront|bookworm": where this machine's has the package no more, it is of that one, and so
    is what it needs and this machine's release lacks.
    """
    # A short name: many such folders must fit into the 256 bytes of one option of a mount.
    folder = _shared() / blake2b("+".join(names).encode(), digest_size=4).hexdigest()
    root = folder / "root"
    with _locked(folder):
        if root.exists():
            return root
        archives = folder / "archives"
        (archives / "partial").mkdir(parents=True, exist_ok=True)
        for name in names:
            _download(name, archives)
        new = folder / "new"
        for merged in _MERGED:
            (new / "usr" / merged).mkdir(parents=True)
            (new / merged).symlink_to(f"usr/{merged}")
        for archive in sorted(archives.glob("*.deb")):
            _unpack(archive, new)
            archive.unlink()
        new.rename(root)
    return root


def unpacked_apart(names: Iterable[str]) -> list[Path]:
    """A folder for each package of this machine's release, and one for all of another."""
    of: dict[str, list[str]] = {}
    for name in names:
        of.setdefault(name.partition("/")[2] or f" {name}", []).append(name)
    return [unpacked(*group) for group in of.values()]


@cache
def _shared() -> Path:
    """The folder of all processes of this test run, or one of our own."""
    if SHARED in os.environ:
        return Path(os.environ[SHARED])
    folder = tempfile.mkdtemp(prefix="sapd-packages-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make a folder, and let one process at a time work in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@cache
def source(name: str) -> Path:
    """The unpacked source of one package, patched as Debian builds it."""
    folder = Path(tempfile.mkdtemp(prefix="sapd-source-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    ours = _copied_sources(folder)
    for listed in (folder / "parts").iterdir():
        text = re.sub(r"(?m)^Types: deb$", "Types: deb-src", listed.read_text())
        listed.write_text(re.sub(r"(?m)^deb\s", "deb-src ", text))
    ours += _updated("source", ours)
    done = _apt(ours, "source", "--download-only", name, cwd=folder)
    if done.returncode:
        raise RuntimeError(f"apt-get does not fetch the source of {name}: {done.stdout}")
    (description,) = folder.glob("*.dsc")
    unpacked = folder / "source"
    command = ["dpkg-source", "--no-check", "-x", str(description), str(unpacked)]
    subprocess.run(command, check=True, capture_output=True)
    return unpacked


def _copied_sources(folder: Path) -> list[str]:
    """The options for a copy of the machine's sources in `folder`/parts."""
    parts = folder / "parts"
    parts.mkdir(exist_ok=True)
    for listed in (_SOURCES.with_name("sources.list"), *_SOURCES.iterdir()):
        if listed.suffix in (".list", ".sources") and listed.exists():
            shutil.copy(listed, parts / listed.name.replace("sources.list", "main.list"))
    return [f"Dir::Etc::SourceParts={parts}", "Dir::Etc::SourceList=/dev/null"]


def _updated(name: str, options: list[str]) -> list[str]:
    """The options for lists of our own, of the sources in `options`, updated once in a test run."""
    folder = _shared() / f"lists of {name}"
    lists = folder / "lists"
    ours = [f"Dir::State::lists={lists}", "Dir::Cache::pkgcache=", "Dir::Cache::srcpkgcache="]
    with _locked(folder):
        if not lists.exists():
            (lists / "partial").mkdir(parents=True)
            _apt([*options, *ours], "update")
    return ours


def _download(name: str, archives: Path) -> None:
    """Fetch one package and its dependencies; with lists of our own if the machine's are old.

    One at a time, as apt would refuse two that conflict. It only simulates and fetches: what it
    would remove in exchange stays.
    """
    name, _, release = name.partition("/")
    name, _, older = name.partition("|")
    ours = [f"Dir::Cache::archives={archives}", "Debug::NoLocking=true"]
    install = ("install", "-y", "--download-only", "--no-install-recommends", name)
    if release:
        ours += _of(release, archives.parent)
    if release or _apt(ours, *install).returncode:
        own = [*ours, *_updated(release or "this machine", ours)]
        done = _apt(own, *install)
        if done.returncode and older:
            ours += _with(older, archives.parent)
            done = _apt([*ours, *_updated(older, ours)], *install)
        if done.returncode:
            raise RuntimeError(f"apt-get does not fetch {name}: {done.stdout}")


def _with(release: str, folder: Path) -> list[str]:
    """Apt's options for an older release behind the machine's own sources."""
    options = _copied_sources(folder)
    (folder / "parts/older.list").write_text(f"deb {_KEYS} {_mirror()} {release} main\n")
    return [*options, f"APT::Default-Release={RELEASE}", "APT::Sandbox::User=root"]


def _of(release: str, folder: Path) -> list[str]:
    """Apt's options for a system of that release with nothing installed on it."""
    sources = folder / "sources.list"
    sources.write_text(f"deb {_KEYS} {_mirror()} {release} main\n")
    (folder / "status").touch()
    return [
        f"Dir::Etc::sourcelist={sources}",
        "Dir::Etc::sourceparts=/nonexistent",
        f"Dir::State::status={folder / 'status'}",
        "APT::Sandbox::User=root",
    ]


def _mirror() -> str:
    """Where this machine fetches Debian's packages from."""
    form = "$(REPO_URI)"
    command = ["apt-get", "indextargets", "--format", form, "Created-By: Packages"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [uri for uri in done.stdout.split() if uri.rstrip("/").endswith("/debian")]
    if not found:
        raise RuntimeError("apt has no lists: run apt-get update")
    return found[0]


def _apt(
    options: list[str], *command: str, cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["apt-get", "-q", *(f"-o{option}" for option in options), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=cwd,
    )


def _unpack(archive: Path, root: Path) -> None:
    """Like `dpkg -x`, which would put a folder in the place of the links in `_MERGED`."""
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE
    ) as package:
        subprocess.run(
            ["tar", "-x", "-p", "--keep-directory-symlink", "-C", root],
            stdin=package.stdout,
            check=True,
        )
    if package.returncode:
        raise RuntimeError(f"dpkg-deb does not unpack {archive.name}")
