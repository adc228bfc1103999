"""A real OpenSMTPD, configured by the lines of examples/opensmtpd."""

from collections.abc import Sequence

from tests.servers.mailserver import EXAMPLES, MailServer
from tests.servers.namespace import PORT, SERVER_IPV4, SERVER_IPV6

_MARK = "match from src <relays>"


class OpenSMTPD(MailServer):
    """Refuses the networks `settings["refused"]`, as "{ 203.0.113.0/24 }"."""

    NAME = "opensmtpd"
    PACKAGES = ("opensmtpd",)

    def prepare(self) -> None:
        """Write its configuration with the administrator's rules where the example says."""
        lines = (EXAMPLES / "opensmtpd/smtpd.conf").read_text()
        assert lines.count("\n" + _MARK) == 1
        own = "\n".join(
            [
                f"listen on {SERVER_IPV4} port {PORT}",
                f"listen on {SERVER_IPV6} port {PORT}",
                f"table blocked {self.settings.get('refused', '{ 203.0.113.99 }')}",
                'action "local" mbox',
                "match from src <blocked> for any reject",
                'match from any for domain "example.net" action "local"',
                "",
            ]
        )
        self.write("/etc/smtpd.conf", lines.replace("\n" + _MARK, f"\n{own}{_MARK}"))
        self.write("/var/lib/sapd/relay", "127.0.0.1\n")
        self.run("mkdir", "-p", "/var/spool/smtpd")
        self.run("chmod", "711", "/var/spool/smtpd")
        self.run("chgrp", "opensmtpq", "/usr/sbin/smtpctl")
        self.run("chmod", "2755", "/usr/sbin/smtpctl")

    def command(self) -> Sequence[str]:
        """In the foreground; what it logs is its output."""
        return ["smtpd", "-d"]

    def put(self, *addresses: str, end: float | None = None) -> None:
        """A new file, a rename, and an update."""
        lines = ("127.0.0.1", *addresses)
        new = self.write("/var/lib/sapd/new", "".join(f"{line}\n" for line in lines))
        new.rename(self.path(self.TABLE))
        self.run("smtpctl", "update", "table", "relays")
