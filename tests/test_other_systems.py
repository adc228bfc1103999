"""What other systems lack is hidden, one thing after the other: passes do all the same.

Each pass is a process of its own, in which the missing piece is taken away before sapd is loaded.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sapd import config, defaults
from sapd.cut import MARKER
from tests.faults.test_power_cut import believe_it_is_as_published
from tests.site import Site, login, noise, when

pytestmark = pytest.mark.servers

FAILS = """
def fails(name, number):
    def call(*args):
        raise OSError(number, os.strerror(number))
    setattr(os, name, call)
"""

# Symbols of the C library: one of the class below has none of those named.
NOT_EXPORTED = """
class Library(ctypes.CDLL):
    def __getattr__(self, name):
        if name in {names}:
            raise AttributeError(f"{{name}}: symbol not found")
        return super().__getattr__(name)
ctypes.CDLL = Library
"""

MISSING = {
    "nothing": "",
    "fallocate64 (musl)": NOT_EXPORTED.format(names=["fallocate64"]),
    "fallocate (BSD)": NOT_EXPORTED.format(names=["fallocate64", "fallocate"]),
    "ctypes": "sys.modules['ctypes'] = None",
    "a C library to look into": "def none(*args, **more): raise OSError\nctypes.CDLL = none",
    "posix_fallocate (OpenBSD)": "del os.posix_fallocate",
    "posix_fallocate on ZFS (FreeBSD)": "fails('posix_fallocate', errno.EINVAL)",
    "posix_fallocate on NFS (musl)": "fails('posix_fallocate', errno.EOPNOTSUPP)",
    "memfd_create (BSD)": "del os.memfd_create",
    "memfd_create (an old kernel)": "fails('memfd_create', errno.ENOSYS)",
    "CLOCK_BOOTTIME (BSD)": "del time.CLOCK_BOOTTIME",
}
MISSING["all of it"] = "\n".join(
    MISSING[name]
    for name in [
        "fallocate (BSD)",
        "posix_fallocate on ZFS (FreeBSD)",
        "memfd_create (BSD)",
        "CLOCK_BOOTTIME (BSD)",
    ]
)

WITHOUT_PROC = ("unshare", "--mount", "sh", "-euc", 'mount -t tmpfs none /proc; exec "$@"', "sh")


class Lacking:
    """Runs sapd on a site where something is missing."""

    def __init__(self, site: Site, folder: Path, missing: str, *, proc: bool) -> None:
        self.site = site
        self.prefix: tuple[str, ...] = () if proc else WITHOUT_PROC
        head = "import ctypes, errno, os, sys, time\n"
        (folder / "sitecustomize.py").write_text(head + FAILS + missing)
        self.env = {"PYTHONPATH": str(folder)}

    def run(self, *options: str, prefix: tuple[str, ...] = ()) -> None:
        done = self.site.sapd("run", *options, env=self.env, prefix=(*prefix, *self.prefix))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def quiet(self, *prefix: str) -> bool:
        """Whether a run would leave at once."""
        code = f"from sapd import idle; print(idle.nothing_happened({str(self.site.config)!r}))"
        command = [*prefix, *self.prefix, sys.executable, "-c", code]
        env = {**os.environ, **self.env}
        return subprocess.check_output(command, env=env, text=True) == "True\n"

    def settle(self) -> None:
        deadline = time.monotonic() + 20
        while not self.quiet():
            assert time.monotonic() < deadline
            self.run()


@pytest.mark.parametrize("proc", [True, False], ids=["", "without /proc"])
@pytest.mark.parametrize("missing", MISSING.values(), ids=MISSING)
def test_whole_passes(
    site: Site, tmp_path_factory: pytest.TempPathFactory, missing: str, proc: bool
) -> None:
    """Open, cut, renew, close: a thousand lines go, then the window ends."""
    lacking = Lacking(site, tmp_path_factory.mktemp("missing"), missing, proc=proc)
    site.configure(log_settings="keep_lines = 100\ncut_above = 1000")
    now = time.time()
    rows = [noise(number, now) for number in range(1200)]
    site.write(login("192.0.2.1", at=now - 1795), *rows, login("192.0.2.2"))
    lacking.run()
    assert site.relaying() == {"198.51.100.9", "192.0.2.1", "192.0.2.2"}
    marker, *kept = site.log.read_text().splitlines(keepends=True)
    assert MARKER.fullmatch(marker.encode())
    assert kept == [*rows[-99:], kept[-1]]
    assert "192.0.2.2" in kept[-1]

    site.write(login("192.0.2.3"))
    lacking.run()
    assert site.relaying() >= {"192.0.2.2", "192.0.2.3"}
    lacking.run("--at", when(now + 6))
    assert site.relaying() == {"198.51.100.9", "192.0.2.2", "192.0.2.3"}


CLOCKS = {"with CLOCK_BOOTTIME": "", "without": MISSING["CLOCK_BOOTTIME (BSD)"]}


@pytest.mark.parametrize("missing", CLOCKS.values(), ids=CLOCKS)
def test_another_boot_is_noticed_by_the_clocks(
    site: Site, tmp_path_factory: pytest.TempPathFactory, missing: str
) -> None:
    """The machine of a time namespace was started at another time, as after a power cut."""
    booted = ("unshare", "--time", "--boottime", "100", "--monotonic", "100")
    lacking = Lacking(site, tmp_path_factory.mktemp("missing"), missing, proc=False)
    site.write(login("192.0.2.1"))
    lacking.settle()
    assert json.loads(site.state.read_text())["published"]["boot"].startswith("at ")
    assert not lacking.quiet(*booted)

    whole, stat = site.database.read_bytes(), site.database.stat()
    site.database.write_bytes(bytes(len(whole)))  # as a disk has it that lost its last writes
    os.utime(site.database, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    believe_it_is_as_published(site)
    lacking.run()
    assert site.database.read_bytes() == bytes(len(whole))  # nothing but the boot tells
    lacking.run(prefix=booted)
    assert site.relaying() == {"198.51.100.9", "192.0.2.1"}


def test_the_time_of_the_boot_stays_the_same(site: Site, tmp_path: Path) -> None:
    lacking = Lacking(site, tmp_path, "", proc=False)
    code = "import time; from sapd.idle import boot_id\n"
    code += "for _ in range(5): print(boot_id()); time.sleep(0.3)"
    command = [*WITHOUT_PROC, sys.executable, "-c", code]
    env = {**os.environ, **lacking.env}
    assert len(set(subprocess.check_output(command, env=env, text=True).split("\n"))) == 2


def test_makemap_is_found_where_other_systems_have_it(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "sbin" / "makemap"
    monkeypatch.setattr(defaults, "MAKEMAP", ("/nowhere/makemap", str(there), "/usr/sbin/makemap"))
    assert config.load(str(site.config)).access.options["makemap"] == "/usr/sbin/makemap"
    there.parent.mkdir()
    there.touch()
    assert config.load(str(site.config)).access.options["makemap"] == str(there)
    monkeypatch.setattr(defaults, "MAKEMAP", ("/nowhere/makemap", "/nowhere/else/makemap"))
    assert config.load(str(site.config)).access.options["makemap"] == "/nowhere/makemap"
