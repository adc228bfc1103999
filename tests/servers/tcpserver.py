"""A real tcpserver, started by examples/tcpserver, with a real SMTP server that heeds RELAYCLIENT.

Debian has no qmail; Bruce Guenter's mailfront stands in qmail-smtpd's place, on whose control files
and variables it goes. Debian 13 has no mailfront, either: there it is Debian 12's.
"""

from collections.abc import Sequence

from tests.servers.mailserver import EXAMPLES, MailServer
from tests.servers.namespace import PORT


class Tcpserver(MailServer):
    """The administrator's rules are `settings["rules"]`."""

    NAME = "tcpserver"
    PACKAGES = ("ucspi-tcp", "mailfront|bookworm")
    TABLE = "/etc/tcp.smtp.cdb"
    IPV6 = False
    ACCESS = 'source = "/etc/tcp.smtp"\n'
    SOURCE = "/etc/tcp.smtp"

    def prepare(self) -> None:
        """The rules and qmail's control files."""
        self.write(self.SOURCE, self.settings.get("rules", ""))
        self.write("/var/lib/qmail/control/rcpthosts", "example.net\n")
        self.write("/var/lib/qmail/control/me", "mx1.example.net\n")
        self.write("/etc/qmail-smtpd/run", (EXAMPLES / "tcpserver/run").read_text(), 0o755)
        self.put()

    def command(self) -> Sequence[str]:
        """The example with another port and program."""
        smtpd = "SMTPD=env QMAILHOME=/var/lib/qmail /usr/sbin/smtpfront-qmail"
        return ["env", f"PORT={PORT}", smtpd, "sh", "/etc/qmail-smtpd/run"]

    def put(self, *addresses: str, end: float | None = None) -> None:
        """The administrator's rules, then ours, by tcprules."""
        rules = self.path(self.SOURCE).read_text()
        rules += "".join(f'{address}:allow,RELAYCLIENT=""\n' for address in addresses)
        self.run("tcprules", self.TABLE, f"{self.TABLE}.tmp", text=rules)
        self.path(self.TABLE).chmod(0o644)
