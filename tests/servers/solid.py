"""A real solid-pop3d, started for each connection by a real inetd: Debian's way for it.

As a daemon of its own it would take six connections from an address in a few seconds, no more.
"""

from collections.abc import Sequence

from tests.servers.machine import ACCOUNTS
from tests.servers.server import Server

# Debian's settings, and a domain whose users have mailboxes of their own.
_CONFIGURATION = """\
<Global>
	MailDropName	"/var/mail/%s"
	MailDropType	mailbox
	LogStatistics	no
</Global>
<VirtualHost example.com>
	DoMapping	true
	UserMapFile	"/etc/solid.users"
</VirtualHost>
"""

_INETD = "pop3 stream {family} nowait.10000 root /usr/sbin/solid-pop3d solid-pop3d\n"

_PREPARE = """\
cp "$1/spop3d.conf" "$1/inetd.conf" /etc
echo eve:alice >/etc/solid.users
install -o alice -g alice -m 600 /dev/null /var/mail/eve
"""


class Solid(Server):
    """It has the usual port, with IPv4 and IPv6. A failed login is answered after a second."""

    NAME = "solid-pop3d"
    PACKAGES = ("solid-pop3d", "openbsd-inetd")
    USERS = (*ACCOUNTS, "eve@example.com")
    pop3 = 110

    def prepare(self) -> None:
        """Write its files."""
        (self.folder / "spop3d.conf").write_text(_CONFIGURATION)
        (self.folder / "inetd.conf").write_text(
            "".join(_INETD.format(family=family) for family in ("tcp4", "tcp6"))
        )
        self.shell(_PREPARE, str(self.folder))

    def commands(self) -> Sequence[Sequence[str]]:
        """In the foreground."""
        return [["inetd", "-i", "/etc/inetd.conf"]]
