"""A real sendmail daemon of our own: its own configuration, maps and queue, no way out.

It is configured as Debian configures it, by m4, with the lines that a test hands over (those of
examples/sendmail). It listens inside a network namespace, asks no DNS, and delivers nothing.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.servers.namespace import PORT, SERVER_IPV4, SERVER_IPV6, Namespace

SENDMAIL = "/usr/sbin/sendmail-mta"
MAKEMAP = "/usr/sbin/makemap"
CF_FOLDER = "/usr/share/sendmail/cf"
MAP_OWNER, MAP_GROUP = "smmta", "smmsp"  # as Debian has them
STARTUP = 20.0  # seconds
HOST = "mx1.example.net"
# Without a domain in the machine's own name sendmail waits a minute, and with DNS as a source of
# names (and no network) it answers 450 in place of 550. So it gets files of its own to ask: `ip
# netns exec` has made the mounts private already. DNS is asked for blocklists only (blocklist.py).
IN_ITS_OWN_WORLD = """
hostname "$1" && mount --bind "$2/nsswitch.conf" /etc/nsswitch.conf &&
mount --bind "$2/hosts" /etc/hosts && mount --bind "$2/resolv.conf" /etc/resolv.conf &&
shift 2 && exec "$@"
"""

CONFIGURATION = """\
divert(0)dnl
define(`_USE_ETC_MAIL_')dnl
include(`{cf}/m4/cf.m4')dnl
OSTYPE(`debian')dnl
DOMAIN(`debian-mta')dnl
define(`DATABASE_MAP_TYPE', `{kind}')dnl
{plain}dnl
define(`MAIL_SETTINGS_DIR', `{folder}/mail/')dnl
define(`QUEUE_DIR', `{folder}/queue')dnl
define(`ALIAS_FILE', `')dnl
define(`STATUS_FILE', `')dnl
undefine(`confHOST_STATUS_DIRECTORY')dnl
undefine(`confCONTROL_SOCKET_NAME')dnl
define(`confPID_FILE', `{folder}/sendmail.pid')dnl
define(`confSERVICE_SWITCH_FILE', `{folder}/service.switch')dnl
define(`confDOMAIN_NAME', `{host}')dnl
define(`confDONT_PROBE_INTERFACES', `True')dnl
define(`confDELIVERY_MODE', `q')dnl
define(`confLOG_LEVEL', `0')dnl
define(`confTO_IDENT', `0s')dnl
define(`confQUEUE_LA', `10000')dnl
define(`confREFUSE_LA', `10000')dnl
define(`confCONNECTION_RATE_THROTTLE', `0')dnl
FEATURE(`no_default_msa')dnl
FEATURE(`nocanonify')dnl
FEATURE(`accept_unresolvable_domains')dnl
DAEMON_OPTIONS(`Name=MTA4, Family=inet, Addr={ipv4}, Port={port}')dnl
DAEMON_OPTIONS(`Name=MTA6, Family=inet6, Addr={ipv6}, Port={port}')dnl
{lines}
MAILER_DEFINITIONS
MAILER(`local')dnl
MAILER(`smtp')dnl
"""


class Sendmail:
    """A sendmail daemon in a namespace, with its files in a private folder.

    What an administrator has in /etc/mail and /var/lib/sapd is in ``mail`` and ``state``.
    """

    def __init__(
        self,
        namespace: Namespace,
        folder: Path,
        lines: str,
        kind: str = "hash",
        programs: tuple[str, str] = (SENDMAIL, MAKEMAP),
    ) -> None:
        """``lines`` go into sendmail.mc, with the folders' names replaced by the private ones.

        Its maps are of this kind; the programs are sendmail and makemap.
        """
        self.kind = kind
        self.suffix = ".cdb" if kind == "cdb" else ".db"
        self.program, self.builder = programs
        self.namespace = namespace
        self.folder = folder
        self.mail = folder / "mail"
        self.state = folder / "state"
        self.lines = lines.replace("/etc/mail", str(self.mail)).replace(
            "/var/lib/sapd", str(self.state)
        )
        self.configuration = folder / "sendmail.cf"
        self.output = folder / "sendmail.out"

    def __enter__(self) -> Self:
        """Start it and wait until it answers; RuntimeError with its own words if it does not."""
        for path in (self.mail, self.state, self.folder / "queue"):
            path.mkdir(exist_ok=True)
        shutil.chown(self.mail, MAP_OWNER, MAP_GROUP)
        self.mail.chmod(0o2755)
        (self.folder / "queue").chmod(0o700)
        (self.folder / "service.switch").write_text("passwd files\nhosts files\naliases files\n")
        (self.folder / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")
        (self.folder / "resolv.conf").write_text(
            "nameserver 127.0.0.1\noptions timeout:2 attempts:2\n"
        )
        (self.folder / "hosts").write_text(
            "".join(
                f"{address} client{number}.example.net\n"
                for number, address in enumerate(self.namespace.clients)
            )
        )
        self.configuration.write_text(self.build_configuration())
        with self.output.open("wb") as output:
            self.process = self.namespace.start(
                [
                    *(
                        "unshare",
                        "--uts",
                        "sh",
                        "-c",
                        IN_ITS_OWN_WORLD,
                        "sh",
                        HOST,
                        str(self.folder),
                    ),
                    *(self.program, "-C", str(self.configuration), "-bD"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """Kill it and all its children."""
        self._kill()

    def makemap(self, text: str, database: Path) -> None:
        """Write a database the way an administrator does; makemap's warnings don't matter."""
        command = [self.builder, "-C", str(self.configuration), self.kind, str(database)]
        subprocess.run(command, input=text.encode(), capture_output=True, check=True)

    def dump(self, database: Path) -> dict[str, str]:
        """The entries of a database."""
        command = [self.builder, "-C", str(self.configuration), "-u", self.kind, str(database)]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        return dict(line.split("\t", 1) for line in result.stdout.splitlines())

    def build_configuration(self) -> str:
        """The .cf, made by m4; RuntimeError if m4 has anything to say about the lines."""
        result = subprocess.run(
            ["m4", f"-D_CF_DIR_={CF_FOLDER}/", "-"],
            input=CONFIGURATION.format(
                cf=CF_FOLDER,
                folder=self.folder,
                host=HOST,
                ipv4=SERVER_IPV4,
                ipv6=SERVER_IPV6,
                port=PORT,
                kind=self.kind,
                plain="" if self.program == SENDMAIL else "undefine(`_FFR_MAIL_MACRO')",
                lines=self.lines,
            ),
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode or result.stderr:
            raise RuntimeError(f"m4 exits {result.returncode}: {result.stderr}")
        if self.program == SENDMAIL:
            return result.stdout
        # Debian's m4 files ask for what Debian's sendmail alone is built with.
        return re.sub(r"(?m)^O RejectNUL.*\n", "", result.stdout)

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + STARTUP
        for address in (SERVER_IPV4, SERVER_IPV6):
            while self.namespace.probe(address).step == "connect":
                if self.process.poll() is not None or time.monotonic() > deadline:
                    status = self.process.returncode
                    said = self.output.read_text()
                    raise RuntimeError(f"sendmail does not answer (status {status}): {said}")
                time.sleep(0.05)

    def _kill(self) -> None:
        with suppress(ProcessLookupError):  # it ended by itself
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
