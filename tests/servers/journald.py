"""A machine whose log is a journal: a real systemd-journald, without systemd as process 1.

journald takes a sender's unit from its control group. So the machine has the hierarchy that systemd
would make, in a part of the real one that belongs to it alone, and starts each process in the unit
that a test names. That is what journald 252 does; units, `systemctl` and users' managers are not
there.

Journal files of any content are made by systemd-journal-remote, from text in the export format
(systemd.io/JOURNAL_EXPORT_FORMATS).
"""

import json
import os
import struct
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.servers.machine import Machine
from tests.servers.packages import unpacked
from tests.servers.rsyslog import wait_until

JOURNALD = "/lib/systemd/systemd-journald"
DOVECOT = "system.slice/dovecot.service"
CRON = "system.slice/cron.service"
SSH = "system.slice/ssh.service"
OTHER = "system.slice/other.service"
USER_UNIT = "user.slice/user-2001.slice/user@2001.service/app.slice/dovecot.service"
SESSION = "user.slice/user-2001.slice/session-1.scope"
JOURNALS = "system.slice/systemd-journald.service"
UNITS = (JOURNALS, DOVECOT, CRON, SSH, OTHER, USER_UNIT, SESSION)

_HIERARCHY = "/sys/fs/cgroup/systemd"
_PREPARE = """\
mount -t tmpfs tmpfs /sys/fs/cgroup
mkdir {hierarchy}
mount -t cgroup -o none,name=systemd systemd {hierarchy}
mkdir {hierarchy}/{name}
mount --bind {hierarchy}/{name} {hierarchy}
for unit in init.scope {units}; do mkdir -p "{hierarchy}/$unit"; done
echo 1 >{hierarchy}/init.scope/cgroup.procs # whose group's parent is where journald sees the root
mkdir -p /run/systemd/journal /var/log/journal /etc/systemd/journald.conf.d
touch /run/systemd/journal/flushed # so that it writes to the disk at once
printf '[Journal]\\n%s\\n' "$1" >/etc/systemd/journald.conf.d/test.conf
rm -rf /var/log/journal/*
ln -sf /run/systemd/journal/dev-log /dev/log
"""
_IN_UNIT = 'echo 0 >"$1/cgroup.procs" && shift && exec "$@"'
_REMOVE = """\
mount -t tmpfs tmpfs /mnt && mkdir /mnt/c
mount -t cgroup -o none,name=systemd systemd /mnt/c
find "/mnt/c/$1" -depth -type d -exec rmdir {} +
"""
_REMOTE = "systemd-journal-remote"


class JournalMachine(Machine):
    """A machine with journald, from `with` to its end; `unit` is where `start` puts a process."""

    unit = DOVECOT

    def __init__(
        self,
        folder: Path,
        clients: Sequence[str],
        packages: Sequence[str] = (),
        settings: str = "Storage=persistent",
    ) -> None:
        """`settings` are lines for journald.conf."""
        super().__init__(folder, clients, packages=packages)
        self.settings = settings
        self.prepared = False
        self.group = f"sapd-test-{self.name}"

    def __enter__(self) -> Self:
        """Start it; RuntimeError with the words of whatever failed."""
        super().__enter__()
        try:
            script = _PREPARE.format(
                hierarchy=_HIERARCHY, name=self.group, units=" ".join(f'"{unit}"' for unit in UNITS)
            )
            self.run(["sh", "-euc", script, "sh", self.settings], capture_output=True)
            self.prepared = True
            self.start_journald()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """End every process, and remove the control groups."""
        super().__exit__(*error)
        subprocess.run(["unshare", "--mount", "sh", "-c", _REMOVE, "sh", self.group], check=True)

    def start_journald(self) -> None:
        """Start journald, and wait until it writes down what it is told."""
        output = self.folder / "journald.out"
        with output.open("ab") as out:
            self.journald = self.start([JOURNALD], JOURNALS, stdout=out, stderr=out)
        self.say("ready", "journald has started")

    def start(self, command: Sequence[str], unit: str | None = None, **options: Any) -> Any:
        """Start a process inside, in a unit; `options` as of Popen."""
        if self.prepared:
            command = self.in_unit(command, unit or self.unit)
        return super().start(command, **options)

    def in_unit(self, command: Sequence[str], unit: str) -> list[str]:
        """The command that runs another in a unit."""
        return ["sh", "-euc", _IN_UNIT, "sh", f"{_HIERARCHY}/{unit}", *command]

    def logger(
        self, tag: str, message: str, *options: str, unit: str = DOVECOT, user: str | None = None
    ) -> None:
        """Run logger in a unit, as a user, with a pid as servers have one.

        It lives on for a moment, as servers do: journald looks for a sender's unit when it comes to
        the message, and finds none for a process that has ended.
        """
        command = ["logger", "--socket-errors=on", "-t", tag, "-i", *options]
        if user is not None:
            command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command]
        script = 'message=$1; shift; { printf "%s\\n" "$message"; sleep 0.2; } | "$@"'
        self.run(self.in_unit(["sh", "-c", script, "sh", message, *command], unit))

    def say(self, tag: str, message: str, unit: str = DOVECOT) -> None:
        """The same, and wait until it can be read."""
        wait_until(lambda: self.run(["test", "-S", "/run/systemd/journal/dev-log"],
                                    check=False).returncode == 0)  # fmt: skip
        self.logger(tag, message, unit=unit)
        wait_until(lambda: message in [entry.get("MESSAGE") for entry in self.entries()])

    def entries(self, *matches: str) -> list[dict[str, Any]]:
        """What the journal holds."""
        found = self.run(
            ["journalctl", "-q", "-o", "json", "--no-pager", *matches], capture_output=True
        )
        return [json.loads(line) for line in found.stdout.splitlines()]

    def wait_for_entry(self, message: str) -> None:
        """Wait until this can be read."""
        wait_until(lambda: any(message in str(entry.get("MESSAGE")) for entry in self.entries()))


def export(entries: Iterable[Mapping[str, str | bytes]]) -> bytes:
    """Entries in journald's export format; see there for values that hold a newline."""
    text = b""
    for entry in entries:
        for name, value in entry.items():
            data = value if isinstance(value, bytes) else value.encode()
            if b"\n" in data or not _is_text(data):
                text += name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
            else:
                text += name.encode() + b"=" + data + b"\n"
        text += b"\n"
    return text


def _is_text(data: bytes) -> bool:
    try:
        return data.decode().isprintable()
    except UnicodeDecodeError:
        return False


def make_journal(path: Path, entries: Iterable[Mapping[str, str | bytes]]) -> None:
    """Write a journal file with these entries; `path` ends in .journal."""
    root = unpacked(_REMOTE)
    libraries = ":".join(
        str(root / folder)
        for folder in (
            "usr/lib/x86_64-linux-gnu",
            "usr/lib/systemd",
            "usr/lib/x86_64-linux-gnu/systemd",
        )
    )
    remote = root / "usr/lib/systemd/systemd-journal-remote"
    installed = Path("/usr/lib/systemd/systemd-journal-remote")
    program = installed if installed.exists() else remote
    subprocess.run(
        [str(program), f"--output={path}", "-"],
        input=export(entries),
        env={**os.environ, "LD_LIBRARY_PATH": libraries},
        check=True,
        capture_output=True,
    )
