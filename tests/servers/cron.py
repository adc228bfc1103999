"""Debian's real cron on a shipped cron.d file, with private copies of all that it looks at."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.servers.mounts import private

SHIPPED = Path(__file__).parents[2] / "cron" / "sapd"
OFTEN = SHIPPED.with_name("sapd-often")
SAPD = Path(sys.executable).with_name("sapd")

# What an administrator does, and a mail program that only keeps what cron hands it.
_SET_UP = """\
: >/etc/crontab
rm -rf /etc/cron.d /var/spool/cron/crontabs
mkdir -p /etc/cron.d /var/spool/cron/crontabs /etc/sapd /usr/local/bin
install -m 644 '{shipped}' /etc/cron.d/sapd
ln -sf '{sapd}' /usr/local/bin/sapd
install -m 644 '{folder}/sapd.toml' /etc/sapd/sapd.toml
rm -f /usr/sbin/sendmail
printf '%s\\n' '#!/bin/sh' 'cat >"{folder}/mail/$$"' >/usr/sbin/sendmail
chmod 755 /usr/sbin/sendmail
exec cron -f
"""


class Cron:
    """cron from `with` to its end; the configuration is `sapd.toml` in `folder`."""

    def __init__(self, folder: Path, shipped: Path = SHIPPED) -> None:
        """`folder` is absolute, and without blanks; `shipped` is what goes into cron.d."""
        self.folder = folder
        self.shipped = shipped
        self.mailbox = folder / "mail"

    def __enter__(self) -> Self:
        """Start it."""
        stage = self.folder / "stage"
        stage.mkdir()
        self.mailbox.mkdir()
        script = _SET_UP.format(shipped=self.shipped, sapd=SAPD, folder=self.folder)
        self.process = subprocess.Popen(private(stage, script))
        return self

    def __exit__(self, *error: object) -> None:
        """End it and its jobs."""
        self.end_jobs()
        self.process.terminate()
        self.process.wait()

    def end_jobs(self) -> None:
        """Have the programs end that its jobs have come to."""
        for pid in _last_descendants(str(self.process.pid)):
            if pid != str(self.process.pid):
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGTERM)

    def wait_for_job(self, seen: Callable[[], object], patience: float) -> None:
        """Wait until a job's work is seen and it has ended; at most `patience` seconds."""
        deadline = time.monotonic() + patience
        while not seen() or self._children():
            if self.process.poll() is not None:
                raise RuntimeError(f"cron has ended with status {self.process.returncode}")
            if time.monotonic() > deadline:
                raise TimeoutError("no job has done its work")
            time.sleep(0.1)

    def mails(self) -> list[str]:
        """The mails that cron has sent, headers included."""
        return [mail.read_text() for mail in sorted(self.mailbox.iterdir())]

    def _children(self) -> list[str]:
        return _children(str(self.process.pid))


def _children(pid: str) -> list[str]:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []


def _last_descendants(pid: str) -> Iterator[str]:
    children = _children(pid)
    for child in children:
        yield from _last_descendants(child)
    if not children:
        yield pid
