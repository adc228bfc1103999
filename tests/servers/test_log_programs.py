"""Logs that real programs rotate to other names than `LOG.1`: multilog, svlogd, s6-log, logrotate.

Each gets ever new logins; passes come now and then, and none may be lost.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sapd import config, run
from tests.servers.logrotate import debians, rotate
from tests.servers.packages import unpacked
from tests.servers.rsyslog import wait_until
from tests.site import Site, login

pytestmark = [pytest.mark.servers, pytest.mark.makemap]


def address(number: int) -> str:
    return f"10.77.{number // 250}.{number % 250 + 1}"


class Logs:
    """A site whose log has another name, and the logins written to it so far."""

    def __init__(self, folder: Path, log: str) -> None:
        self.site = Site(folder)
        self.site.source.write_text("")
        self.site.configure()
        self.log = folder / log
        self.log.parent.mkdir(exist_ok=True)
        text = self.site.config.read_text()
        self.site.config.write_text(text.replace('"qpopper"', f'"{self.log}"'))
        self.written = 0

    def lines(self, count: int) -> bytes:
        numbers = range(self.written, self.written + count)
        self.written += count
        return "".join(login(address(number)) for number in numbers).encode()

    def look(self) -> None:
        """A pass, after which all are open."""
        report = run.once(config.load(str(self.site.config)))
        assert (report.problems, report.warnings) == ([], [])
        assert self.site.relaying() == {address(number) for number in range(self.written)}


def program(name: str) -> list[str]:
    """The command of a program that isn't installed."""
    root = unpacked("daemontools", "runit", "s6")
    return [
        "env",
        f"LD_LIBRARY_PATH={root}/usr/lib/{os.uname().machine}-linux-gnu",
        f"{root}/usr/bin/{name}",
    ]


COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "multilog": lambda folder: [*program("multilog"), "s4096", "n20", str(folder)],
    "multilog, gzip": lambda folder: [*program("multilog"), "s4096", "n20", "!gzip", str(folder)],
    "svlogd": lambda folder: [*program("svlogd"), str(folder)],
    "s6-log": lambda folder: [*program("s6-log"), "n20", "s4096", str(folder)],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_log_that_a_supervisors_logger_rotates(name: str, tmp_path: Path) -> None:
    logs = Logs(tmp_path, "main/current")
    folder = logs.log.parent
    if name == "svlogd":
        (folder / "config").write_text("s4096\nn20\n")

    def started() -> subprocess.Popen[bytes]:
        return subprocess.Popen(COMMANDS[name](folder), stdin=subprocess.PIPE, bufsize=0)

    def write(count: int) -> None:
        assert logger.stdin is not None
        logger.stdin.write(logs.lines(count))
        last = address(logs.written - 1).encode()
        wait_until(lambda: logger.poll() is None and any(last in data for data in contents(folder)))

    def rotated() -> set[str]:
        return {path.name for path in folder.glob("@*")}

    logger = started()
    try:
        write(5)
        logs.look()
        for turn in range(4):
            write(7)
            before = rotated()
            logger.send_signal(signal.SIGALRM)  # rotate
            wait_until(lambda: len(rotated()) > len(before))  # noqa: B023
            write(2 if turn != 2 else 90)  # over 4,096 bytes: it rotates by itself, too
            if turn % 2:
                logs.look()
        end(logger)
        logger = started()  # what was not ended well becomes .u
        write(3)
        logs.look()
    finally:
        end(logger)
    assert len(rotated()) >= 5


def end(logger: subprocess.Popen[bytes]) -> None:
    logger.kill()
    logger.communicate()


def contents(folder: Path) -> list[bytes]:
    """What the files hold; one may be renamed meanwhile."""
    found = []
    for path in folder.iterdir():
        try:
            done = subprocess.run(["zcat", "-f", path], capture_output=True, check=False)
            found.append(done.stdout)
        except FileNotFoundError:
            continue
    return found


@pytest.mark.parametrize(
    ("add", "left"),
    [
        ("extension .log\n\tdaily\n\tdateext\n\tdateformat -%Y%m%d%s\n\tnocompress", "mail-2*.log"),
        ("extension .log\n\tnocompress", "mail.1.log"),
        ("extension .log\n\tnodelaycompress", "mail.1.log.gz"),
        (
            "nodelaycompress\n\tcompresscmd /usr/bin/zstd\n\tcompressext .zst\n"
            "\tcompressoptions -q --rm",
            "mail.log.1.zst",
        ),
        (
            "extension .log\n\tdateext\n\tdateformat -%Y%m%d%s\n\tnodelaycompress\n"
            "\tcompresscmd /usr/bin/zstd\n\tcompressext .zst\n\tcompressoptions -q",
            "mail-2*.log.zst",
        ),
    ],
)
def test_names_that_logrotate_gives(add: str, left: str, tmp_path: Path) -> None:
    logs = Logs(tmp_path, "mail.log")

    def write(count: int) -> None:
        with logs.log.open("ab") as file:
            file.write(logs.lines(count))

    def taken() -> bool:
        """Whether a file has the name of this second, or of the one that may just have ended."""
        now = time.time()
        seconds = {int(now), int(now - 0.1)}
        return any(any(tmp_path.glob(f"mail-*{second}*")) for second in seconds)

    write(5)
    logs.look()
    for turn in range(3):
        write(4)
        wait_until(lambda: not taken())
        rotate(tmp_path, debians(logs.log, "true", add))
        write(2)
        if turn != 1:
            logs.look()
    assert list(tmp_path.glob(left))
