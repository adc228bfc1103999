"""What all mail servers of the tests have in common: start, answer, end."""

import shlex
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Self

from tests.servers.machine import ACCOUNTS, PASSWORD, Machine
from tests.servers.namespace import SERVER_IPV4
from tests.servers.pop import Session

STARTUP = 20.0  # seconds


class Server:
    """A server on a machine that has its `PACKAGES`, from `with` to its end.

    `NAME` is what sapd calls the format of its lines, `pop3` and `imap` are the ports, and
    `users` can log in with these passwords; by POP3 those with a blank only if `blanks`. Clients
    with IPv6 can connect if `ipv6`.
    """

    NAME: ClassVar[str]
    PACKAGES: ClassVar[tuple[str, ...]]
    USERS: ClassVar[tuple[str, ...]] = ACCOUNTS
    pop3: int | None = None
    imap: int | None = None
    blanks = True
    ipv6 = True

    def __init__(self, machine: Machine, folder: Path, settings: str = "") -> None:
        """`folder` is for its own files and what it says; `settings` are more lines for those."""
        self.machine = machine
        self.folder = folder
        self.output = folder / f"{self.NAME}.out"
        self.users = dict.fromkeys(self.USERS, PASSWORD)
        self.settings = settings

    def __enter__(self) -> Self:
        """Start it and wait until it answers; RuntimeError with its own words if it does not."""
        self.prepare()
        with self.output.open("wb") as out:
            self.processes = [
                self.machine.start(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
                for command in self.commands()
            ]
        deadline = time.monotonic() + STARTUP
        for port in (self.pop3, self.imap):
            while port is not None and not self._answers(port):
                if time.monotonic() > deadline or any(p.poll() for p in self.processes):
                    said = self.output.read_text(errors="replace")
                    logged = self.machine.log.read_text(errors="replace")
                    raise RuntimeError(f"{self.NAME} does not answer: {said}{logged[-4000:]}")
                time.sleep(0.02)
        return self

    def __exit__(self, *error: object) -> None:
        """End it; what has become a daemon ends with the machine."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(STARTUP)

    def prepare(self) -> None:
        """What the administrator does before the start: users, settings."""

    def commands(self) -> Sequence[Sequence[str]]:
        """The processes to start."""
        raise NotImplementedError

    def shell(self, script: str, *arguments: str) -> None:
        """Run a shell script on the machine; RuntimeError with its words if it fails."""
        command = ["sh", "-euc", script, "sh", *arguments]
        done = self.machine.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{shlex.join(command)}: {done.stderr}")

    def _answers(self, port: int) -> bool:
        with suppress(OSError), Session(self.machine, SERVER_IPV4, port) as session:
            return session.greeting != b""
        return False
