"""What all mail servers that sapd opens have in common: start, answer, end.

Each runs on a `Machine` with its package laid over that machine's folders, so that its own paths,
accounts and tools are where Debian has them, and the examples are used as they stand.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self

from tests.servers import dnsbl
from tests.servers.machine import HOST, Machine
from tests.servers.namespace import SERVER_IPV4, Answer
from tests.site import login

EXAMPLES = Path(__file__).parents[2] / "examples"
STARTUP = 20.0  # seconds
DOMAIN = "example.net"  # mail to it is local
LOCAL = f"bob@{DOMAIN}"
TABLE = "/var/lib/sapd/relay"


class MailServer:
    """A mail server on a machine, from `with` to its end.

    `TABLE` is the live file that sapd writes; `settings` are of the test's, by name, for the class
    to put where they belong.
    """

    NAME: ClassVar[str]
    PACKAGES: ClassVar[tuple[str, ...]]
    TABLE: str = TABLE
    IPV6: ClassVar[bool] = True
    REFUSED: ClassVar[int] = 550
    ACCESS: str = ""
    SAPD: tuple[str, ...] = (sys.executable, "-m", "sapd")

    def __init__(self, machine: Machine, settings: Mapping[str, str]) -> None:
        self.machine = machine
        self.settings = settings
        self.output = machine.folder / f"{self.NAME}.out"

    def __enter__(self) -> Self:
        """Start it and wait until it answers; RuntimeError with its own words if it does not."""
        self.write("/etc/mailname", f"{HOST}.{DOMAIN}\n")
        self.path("/var/lib/sapd").mkdir(exist_ok=True)
        self.prepare()
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        """It ends with the machine."""

    def start(self) -> None:
        """Start it as it is configured."""
        with self.output.open("ab") as out:
            self.process = self.machine.start(
                self.command(), stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        deadline = time.monotonic() + STARTUP
        while self.machine.probe(SERVER_IPV4).step == "connect":
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = self.output.read_text(errors="replace")
                logged = self.machine.log.read_text(errors="replace")
                raise RuntimeError(f"{self.NAME} does not answer: {said}{logged[-4000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it with all its children."""
        self.process.terminate()
        try:
            self.process.wait(STARTUP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STARTUP)

    def prepare(self) -> None:
        """What the administrator does before the start."""

    def command(self) -> Sequence[str]:
        """The daemon, in the foreground."""
        raise NotImplementedError

    def path(self, path: str) -> Path:
        """A file of the machine, as the tests reach it."""
        return self.machine.root / path.lstrip("/")

    def write(self, path: str, text: str, mode: int = 0o644) -> Path:
        """Make a file of the machine's, root's."""
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file

    def run(
        self, *command: str, text: str = "", check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command on the machine; RuntimeError with its words if it fails."""
        done: subprocess.CompletedProcess[str] = self.machine.run(
            command, input=text, check=False, capture_output=True, text=True
        )
        if check and done.returncode:
            raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr}")
        return done

    def put(self, *addresses: str, end: float | None = None) -> None:
        """Let these addresses relay by a table made by hand, as its documentation has it.

        `end` (UTC epoch seconds) is for servers whose entries have one.
        """
        raise NotImplementedError

    def ask(self, client: str, rcpt: str = "") -> Answer:
        """One connection, up to RCPT."""
        return self.machine.probe(client, rcpt) if rcpt else self.machine.probe(client)

    def configure(self, window: str = "30m", access: str = "", more: str = "") -> None:
        """Write sapd's configuration: a qpopper log, the defaults for this mail server."""
        settings = self.ACCESS + access
        self.write(
            "/etc/sapd/sapd.toml",
            f'window = "{window}"\n[[log]]\npath = "/var/log/qpopper"\n'
            f'[access]\nserver = "{self.NAME}"\n{settings}\n{more}',
        )
        self.path("/var/log/qpopper").touch()

    def login(self, *addresses: str, account: str = "bob") -> None:
        """The POP server logs that somebody logged in from each address."""
        with self.path("/var/log/qpopper").open("a") as log:
            log.write("".join(login(address, account) for address in addresses))

    def sapd(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run sapd on the machine as its cron would, whatever comes of it."""
        command, *rest = arguments
        return self.run(*self.SAPD, command, *rest, check=False)

    def update(self, *options: str, status: int = 0) -> str:
        """One pass of sapd that must end with `status`; what it says, nothing if all is well."""
        done = self.sapd("run", *options)
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        assert done.stderr.count("\n") == (status != 0) or status == 0
        return done.stdout + done.stderr

    def open_addresses(self) -> set[str]:
        """The addresses that `sapd list` calls open."""
        done = self.sapd("list", "--json")
        assert done.returncode == 0, done.stderr
        return {row["address"] for row in json.loads(done.stdout)}

    def codes(self, *clients: str) -> list[int]:
        """The codes of the last replies."""
        return [self.ask(client).code for client in clients]

    def wait_for(self, client: str, code: int) -> None:
        """Wait until it answers the client so, as a server does that was told to reload."""
        deadline = time.monotonic() + 3 * STARTUP  # the first connection may be silent for one
        while (answer := self.ask(client)).code != code:
            assert time.monotonic() < deadline, answer
            time.sleep(0.05)


def fill_up(folder: Path) -> Path:
    """Leave no room on a disk; the file that takes it."""
    ballast = folder / "ballast"
    about = os.statvfs(folder)
    ballast.write_bytes(bytes(about.f_bavail * about.f_frsize))
    return ballast


@contextmanager
def running(
    server: type[MailServer],
    folder: Path,
    clients: Sequence[str],
    listed: Sequence[str] = (),
    **settings: str,
) -> Iterator[MailServer]:
    """A machine of its own with this mail server; `listed` are clients in a DNS blocklist."""
    packages = [*server.PACKAGES, *(dnsbl.PACKAGES if listed else ())]
    with (
        Machine(folder, clients, packages=packages) as machine,
        dnsbl.listing(machine, listed) if listed else dnsbl.nothing(machine),
        server(machine, settings) as started,
    ):
        yield started
