"""A real rsyslogd on a really full disk: it leaves half a line, and appends the next one to it."""

import tempfile
import time
from pathlib import Path
from random import Random

import pytest

from sapd.events import formats, frames
from sapd.events.frames import Frame
from sapd.events.recogniser import Recogniser
from sapd.timestamps import Clock
from tests.servers.filesystems import fill, mounted
from tests.servers.rsyslog import Rsyslog, read, wait_until

pytestmark = pytest.mark.servers

STRANGER = "203.0.113.66"
ROUNDS = 60
PATTERNS = [kind.pattern for kind in formats.load("courier").lines if kind.event == "login"]


def is_dangerous(line: bytes) -> bool:
    """Whether a torn line fits a login's pattern with the stranger's address."""
    frame: Frame | None = frames.split(line)
    fits = frame and any(pattern.fullmatch(frame.message) for pattern in PATTERNS)
    return bool(fits) and STRANGER.encode() in line


def fill_and_free(daemon: Rsyslog, disk: Path, random: Random) -> None:
    """Let the daemon write until nothing fits any more; then make room, and let it go on."""
    fill(disk / "filler")
    with (disk / "filler").open("r+b") as filler:
        filler.truncate((disk / "filler").stat().st_size - 2 * 4096)
    for number in range(120):
        if number % 2:
            name = "b" * random.randrange(1, 80)
            daemon.local("pop3d", f"LOGIN, user={name}, ip=[::ffff:192.0.2.10], port=[4711]")
        else:
            daemon.local("pop3d", f"LOGIN FAILED, user=m, ip=[::ffff:{STRANGER}], port=[4711]")
    (disk / "filler").unlink()
    mark = f"room {random.random()}"
    deadline = time.monotonic() + 20
    while mark.encode() not in read(daemon.rest) and time.monotonic() < deadline:
        daemon.local("pop3d", f"LOGIN FAILED, user=m, ip=[::ffff:{STRANGER}], port=[4711]")
        daemon.local("test", mark)
        time.sleep(0.05)


@pytest.mark.parametrize("template", ["RSYSLOG_TraditionalFileFormat", "RSYSLOG_FileFormat"])
def test_a_full_disk_opens_no_stranger(template: str) -> None:
    random = Random(7)
    dangerous: list[bytes] = []
    with (
        tempfile.TemporaryDirectory(prefix="sapd-") as folder,
        mounted(Path(folder), "tmpfs", megabytes=1) as disk,
        Rsyslog(disk, template) as daemon,
    ):
        for _ in range(ROUNDS):
            fill_and_free(daemon, disk, random)
            log = read(daemon.rest)
            events = list(Recogniser(["courier"], Clock(time.time())).events(log))
            assert {event.address for event in events} <= {"192.0.2.10"}
            dangerous += filter(is_dangerous, log.split(b"\n"))
            if dangerous:
                break
            with daemon.rest.open("r+b") as file:
                file.truncate(0)
        wait_until(lambda: daemon.process.poll() is None)
    assert dangerous  # or the test proves nothing
