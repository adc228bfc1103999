"""Real GNU mailutils pop3d and imap4d: the lines of their logins name no address.

They know the machine's accounts by PAM, and virtual users by a file for each domain.
"""

from collections.abc import Sequence

from tests.servers.machine import ACCOUNTS
from tests.servers.server import Server

_CONFIGURATION = """\
mode daemon;
foreground yes;
virtdomain {{ passwd-dir "/etc/virtual"; }};
program pop3d {{ server "[::]:{pop3}" {{ }}; }};
program imap4d {{ server "[::]:{imap}" {{ }}; }};
{settings}
"""

# The virtual user has the same hash of the password as the accounts in /etc/shadow.
_PREPARE = """\
cp "$1/mailutils.conf" /etc
install -d /etc/virtual
hash=$(getent shadow bob | cut -d : -f 2)
printf 'eve:%s:%d:%d::/var/lib/eve:/bin/sh\\n' "$hash" "$(id -u bob)" "$(id -g bob)" \\
    >/etc/virtual/example.com
install -d -o bob -g bob /var/lib/eve
"""


class Mailutils(Server):
    """It has the usual ports, with IPv4 and IPv6. By POP3 no name may have a blank."""

    NAME = "gnu-mailutils"
    PACKAGES = ("mailutils-pop3d", "mailutils-imap4d")
    USERS = (*ACCOUNTS, "eve@example.com")
    pop3 = 110
    imap = 143
    blanks = False

    def prepare(self) -> None:
        """Write its files, and make the virtual user."""
        (self.folder / "mailutils.conf").write_text(
            _CONFIGURATION.format(pop3=self.pop3, imap=self.imap, settings=self.settings)
        )
        self.shell(_PREPARE, str(self.folder))

    def commands(self) -> Sequence[Sequence[str]]:
        """In the foreground, as the settings say."""
        return [["/usr/sbin/pop3d"], ["/usr/sbin/imap4d"]]
