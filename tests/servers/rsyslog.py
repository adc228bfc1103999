"""A real rsyslogd of our own: its own socket, files and process, and the shipped rules."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

SHIPPED = Path(__file__).parents[2] / "examples" / "rsyslog" / "10-qpopper.conf"
PATIENCE = 20.0  # seconds

_CONFIGURATION = """\
global(workDirectory="{folder}")
module(load="imuxsock" SysSock.Use="off")
module(load="imudp")
input(type="imuxsock" Socket="{folder}/dev-log")
input(type="imudp" address="127.0.0.1" port="{port}")
include(file="{folder}/10-qpopper.conf")
*.* action(type="omfile" file="{folder}/rest" template="{template}")
"""


class Rsyslog:
    """rsyslogd from `with` to its end: `log` is qpopper's file, `rest` has all other lines."""

    def __init__(self, folder: Path, template: str = "RSYSLOG_FileFormat") -> None:
        """`folder` has a short path (a socket lies there); `template` is one of rsyslog's own."""
        self.folder = folder
        self.template = template
        self.log = folder / "qpopper"
        self.rest = folder / "rest"

    def __enter__(self) -> Self:
        """Start it and wait until it reads its socket; RuntimeError with its own words if not."""
        rules = SHIPPED.read_text().replace("/var/log/qpopper", str(self.log))
        rules = rules.replace("RSYSLOG_FileFormat", self.template)
        (self.folder / "10-qpopper.conf").write_text(rules)
        configuration = self.folder / "rsyslog.conf"
        self.port = _free_port()
        configuration.write_text(
            _CONFIGURATION.format(folder=self.folder, port=self.port, template=self.template)
        )
        pid_file = self.folder / "rsyslogd.pid"
        output = self.folder / "rsyslog.out"
        with output.open("wb") as out:
            self.process = subprocess.Popen(
                ["rsyslogd", "-n", "-f", str(configuration), "-i", str(pid_file)],
                stdout=out,
                stderr=out,
            )
        try:
            self.local("ready", "started")
            wait_until(lambda: b"started" in read(self.rest))
        except (OSError, TimeoutError) as error:
            self.process.kill()
            self.process.wait()
            raise RuntimeError(f"rsyslogd does not start: {output.read_text()}") from error
        return self

    def __exit__(self, *error: object) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()

    def local(self, tag: str, message: str) -> None:
        """Say something as syslog(3) does, facility local0; `tag` includes the pid."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            wait_until(lambda: sender.connect_ex(str(self.folder / "dev-log")) == 0)
            sender.send(_syslog(tag, message))

    def remote(self, tag: str, message: str) -> None:
        """Say the same through the network."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(_syslog(tag, message), ("127.0.0.1", self.port))

    def hang_up(self) -> None:
        """Make it open its files anew."""
        os.kill(self.process.pid, signal.SIGHUP)


def _syslog(tag: str, message: str) -> bytes:
    stamp = time.strftime("%b %e %H:%M:%S")
    return f"<133>{stamp} {tag}: {message}".encode()


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
    return port


def read(path: Path) -> bytes:
    """What is in a file; nothing if it is not there yet."""
    return path.read_bytes() if path.exists() else b""


def wait_until(seen: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Return as soon as it is so; TimeoutError if it never is."""
    deadline = time.monotonic() + patience
    while not seen():
        if time.monotonic() > deadline:
            raise TimeoutError("waited in vain")
        time.sleep(0.02)
