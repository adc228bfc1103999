"""A mail host as an administrator runs it: sendmail, qpopper's log, and sapd.

Its clients: one that logs in, a stranger, one that the administrator lets relay, and one that he
may refuse; each by IPv4 and IPv6.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.servers.namespace import Namespace
from tests.servers.sendmail import MAKEMAP, SENDMAIL, Sendmail
from tests.servers.sendmail_cdb import built

EXAMPLES = Path(__file__).parents[2] / "examples" / "sendmail"
COMPRESSED = "define(`confUSE_COMPRESSED_IPV6_ADDRESSES', `True')dnl\n"
DELAYED = "FEATURE(`delay_checks', `friend', `n')dnl\n"

CLIENT, CLIENT6 = "192.0.2.10", "2001:db8::10"
STRANGER, STRANGER6 = "192.0.2.11", "2001:db8::11"
OWN, OWN6 = "198.51.100.1", "2001:db8:0:1::1"  # the administrator lets these relay
UNWANTED, UNWANTED6 = "203.0.113.7", "2001:db8:bad::7"  # and may refuse these
CLIENTS = [CLIENT, CLIENT6, STRANGER, STRANGER6, OWN, OWN6, UNWANTED, UNWANTED6]

SOURCE = f"""\
# the administrator's own entries
Connect:{OWN}\tRELAY
IPv6:2001:db8:0:1:0:0:0:1\tRELAY
IPv6:2001:db8:0:1::1\tRELAY
"""
ONE_MAP = '[access]\nsource = "mail/access"\ndatabase = "mail/access.db"\n'
OF_ANY_TYPE = """\
[access]
source = "mail/access"
database = "mail/access{suffix}"
makemap = "{makemap}"
cf = "sendmail.cf"
"""
SEPARATE_MAP = '[access]\ndatabase = "state/relay.db"\nself_closing = true\n'
CONFIG = """
window = "{window}"
[[log]]
path = "qpopper"
formats = ["qpopper"]
{access}
[state]
directory = "state"
"""
REFUSALS = [
    pytest.param(entry, client, id=entry)
    for entry, client in [
        ("Connect:203.0.113.7 REJECT", UNWANTED),
        ("203.0.113.7 REJECT", UNWANTED),
        ("connect:203.0.113.7\tREJECT", UNWANTED),
        ("Connect:203.0.113 REJECT", UNWANTED),
        ("203.0.113 REJECT", UNWANTED),
        ("203 REJECT", UNWANTED),
        ("203.0.113 REJECT\r", UNWANTED),
        ("203.0.113.7 ERROR:5.7.1:550 not you", UNWANTED),
        ("Connect:203.0.113 ERROR:550 not you", UNWANTED),
        ("Connect:IPv6:2001:db8:bad:0:0:0:0:7 REJECT", UNWANTED6),
        ("IPv6:2001:db8:bad:0:0:0:0:7 REJECT", UNWANTED6),
        ("Connect:IPv6:2001:db8:bad REJECT", UNWANTED6),
        ("IPv6:2001:db8:bad REJECT", UNWANTED6),
    ]
]
Result = subprocess.CompletedProcess[str]


class Site:
    """The host, and what is done to it."""

    def __init__(self, namespace: Namespace, sendmail: Sendmail) -> None:
        self.namespace = namespace
        self.sendmail = sendmail
        self.folder = sendmail.folder
        self.log = self.folder / "qpopper"
        self.log.touch()
        self.source = sendmail.mail / "access"
        self.database = sendmail.mail / f"access{sendmail.suffix}"
        self.sapd = [sys.executable, "-m", "sapd"]
        self.privileges: dict[str, Any] = {}  # of the process that runs it
        self.configure(self.access())

    def access(self, more: str = "") -> str:
        """The part of the configuration that says of which map sapd is to take care."""
        if self.sendmail.kind == "hash":
            return ONE_MAP + more
        makemap = self.sendmail.builder
        return OF_ANY_TYPE.format(suffix=self.sendmail.suffix, makemap=makemap) + more

    def configure(self, access: str, window: str = "30m") -> None:
        (self.folder / "sapd.toml").write_text(CONFIG.format(window=window, access=access))

    def rebuild(self, source: str) -> None:
        """What the administrator does after a change: edit the source, run makemap."""
        self.source.write_text(source)
        self.source.chmod(0o600)
        self.sendmail.makemap(source, self.database)

    def login(self, *addresses: str) -> None:
        """qpopper writes that somebody just logged in from each address."""
        stamp = time.strftime("%b %e %H:%M:%S")
        with self.log.open("a") as log:
            for address in addresses:
                log.write(
                    f"{stamp} mx1 popper[4242]: (v4.0.5) POP login by user "
                    f'"bob" at (client.example.net) {address} [pop_log.c:244]\n'
                )

    def start(self, *options: str) -> Result:
        """One pass of sapd, whatever comes of it."""
        command = [*self.sapd, "run", "-c", str(self.folder / "sapd.toml"), *options]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, **self.privileges
        )

    def run(self, *options: str, exits: tuple[int, ...] = (0,)) -> None:
        """One pass that says nothing if all is well, and else in one line what is not."""
        result = self.start(*options)
        assert result.returncode in exits, result.stderr
        assert result.stdout == ""
        if result.returncode == 0:
            assert result.stderr == ""
        else:
            assert result.stderr.startswith("sapd: error: ")
            assert result.stderr.count("\n") == 1

    def code(self, client: str) -> int:
        return self.namespace.probe(client).code

    def codes(self, *clients: str) -> list[int]:
        return [self.code(client) for client in clients]


@contextmanager
def running_site(
    folder: Path,
    example: str = "access.mc",
    more: str = "",
    source: str = SOURCE,
    kind: str = "hash",
) -> Iterator[Site]:
    """Sendmail with the lines of an example behind `more`, and a map without any login."""
    lines = more + (EXAMPLES / example).read_text()
    programs = built() if kind == "cdb" else (SENDMAIL, MAKEMAP)
    with (
        Namespace(CLIENTS) as namespace,
        Sendmail(namespace, folder, lines, kind, programs) as sendmail,
    ):
        site = Site(namespace, sendmail)
        site.rebuild(source)
        yield site


def overwrite(database: Path, content: bytes) -> None:
    with database.open("r+b") as file:
        file.truncate(0)
        file.write(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "missing": lambda database: database.unlink(),
    "empty": lambda database: os.truncate(database, 0),
    "garbage": lambda database: overwrite(database, b"\xa5" * database.stat().st_size),
    "short garbage": lambda database: overwrite(database, b"not a database\n"),
    "truncated to a page": lambda database: os.truncate(database, 4096),
    "truncated to some pages": lambda database: os.truncate(database, 16384),
    "truncated within a page": lambda database: os.truncate(database, 16384 + 100),
}
