"""How long a login waits for the relay, and what waiting costs: pass after pass, and by cron.

`python -m tests.benchmarks.latency [LOGINS [LOGINS_BY_CRON [MINUTES]]]` (default: 50, 20 and 4), as
root, prints a table in Markdown. A login is handed to a real rsyslogd by its socket, and counts as
let in when a real sendmail says 250 to the RCPT of its address. Each comes at a random moment: one
after the other while passes are repeated, and spread over so many minutes for a real cron.
"""

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.servers.cron import SAPD, Cron
from tests.servers.namespace import Namespace
from tests.servers.rsyslog import Rsyslog
from tests.servers.sendmail import Sendmail

LINES = Path(__file__).parents[2] / "examples" / "sendmail" / "access.mc"
CONFIG = """\
[[log]]
path = "{log}"
[access]
source = "{mail}/access"
database = "{mail}/access.db"
[state]
directory = "{state}"
"""
PATIENCE = 150.0  # seconds


class Server(NamedTuple):
    """A mail server with its log, and sapd's configuration in a folder."""

    namespace: Namespace
    rsyslog: Rsyslog
    folder: Path

    @property
    def command(self) -> list[str]:
        return [str(SAPD), "run", "-c", str(self.folder / "sapd.toml")]

    def login(self, client: str) -> None:
        message = f'(v4.0.5) POP login by user "bob" at (client.example.net) {client}'
        self.rsyslog.local("popper[4242]", message)

    def relays(self, client: str) -> bool:
        return self.namespace.probe(client).code == 250


@contextmanager
def serving(clients: Sequence[str]) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="sapd-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "syslog").mkdir()
        with (
            Namespace(clients) as namespace,
            Sendmail(namespace, folder, LINES.read_text()) as sendmail,
            Rsyslog(folder / "syslog") as rsyslog,
        ):
            (sendmail.mail / "access").write_text("Connect:198.51.100.1\tRELAY\n")
            sendmail.makemap("Connect:198.51.100.1\tRELAY\n", sendmail.mail / "access.db")
            rsyslog.log.touch()
            (folder / "sapd.toml").write_text(
                CONFIG.format(log=rsyslog.log, mail=sendmail.mail, state=folder / "state")
            )
            yield Server(namespace, rsyslog, folder)


def waits(server: Server, moments: dict[str, float]) -> list[float]:
    """The seconds from each client's login, at that moment (of `monotonic`), to its 250."""
    due = sorted(moments, key=moments.__getitem__)
    waiting: dict[str, float] = {}
    found = []
    while due or waiting:
        while due and time.monotonic() >= moments[due[0]]:
            client = due.pop(0)
            assert not server.relays(client), client
            waiting[client] = time.monotonic()
            server.login(client)
        for client, since in list(waiting.items()):
            if server.relays(client):
                found.append(time.monotonic() - since)
                del waiting[client]
            elif time.monotonic() - since > PATIENCE:
                sys.exit(f"{client} is not let in")
        time.sleep(0.005)
    return found


def repeated(server: Server, clients: Sequence[str]) -> list[float]:
    with subprocess.Popen([*server.command, "--for", "1h", "--every", "1s"]) as process:
        time.sleep(2)
        found = []
        for client in clients:
            found += waits(server, {client: time.monotonic() + random.random()})
        process.terminate()
    if process.returncode != 0:
        sys.exit(f"sapd run --for: status {process.returncode}")
    return found


def by_cron(server: Server, clients: Sequence[str], minutes: float) -> list[float]:
    folder = server.folder / "cron"
    folder.mkdir()
    shutil.copy(server.folder / "sapd.toml", folder)
    with Cron(folder) as cron:
        start = time.monotonic()
        found = waits(server, {c: start + random.uniform(0, minutes * 60) for c in clients})
        cron.wait_for_job(lambda: True, PATIENCE)
        if mails := cron.mails():
            sys.exit("\n".join(mails))
    return found


def processor_seconds(command: Sequence[str]) -> float:
    """User's and system's, of a command and all that it starts."""
    with subprocess.Popen(command) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)}: status {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def idle_minute(server: Server, *options: str) -> float:
    for _ in range(3):  # it must have noted that nothing happens
        processor_seconds(server.command)
        time.sleep(0.3)
    return processor_seconds([*server.command, *options])


def row(name: str, times: Sequence[float], idle: float) -> str:
    median, worst = statistics.median(times), max(times)
    return f"| {name} | {len(times)} | {median:.2f} s | {worst:.2f} s | {idle:.3f} s |"


def main() -> None:
    chosen = [int(word) for word in sys.argv[1:]]
    logins, by_minute, minutes = [*chosen, *(50, 20, 4)[len(chosen) :]]
    clients = [f"10.0.{n // 250}.{n % 250 + 1}" for n in range(logins + by_minute)]
    with serving(clients) as server:
        print("| | logins | median wait | worst | processor, idle minute |")
        print("|---|---|---|---|---|")
        often = repeated(server, clients[:logins])
        idle = idle_minute(server, "--for", "1m", "--every", "1s")
        print(row("`sapd run --for 1m --every 1s`", often, idle), flush=True)
        seldom = by_cron(server, clients[logins:], minutes)
        idle = statistics.median(idle_minute(server) for _ in range(5))
        print(row("cron, `sapd run`", seldom, idle))


if __name__ == "__main__":
    main()
