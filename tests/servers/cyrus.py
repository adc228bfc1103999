"""Real Cyrus POP3 and IMAP servers, with virtual users and a password file of their own."""

from collections.abc import Sequence

from tests.servers.machine import HOST, PASSWORD
from tests.servers.server import Server

# Debian's, but for the services that nobody asks here.
_SERVICES = """\
START {
  recover cmd="/usr/sbin/cyrus ctl_cyrusdb -r"
}
SERVICES {
  imap cmd="imapd" listen="imap" prefork=0
  pop3 cmd="pop3d" listen="pop3" prefork=0
}
EVENTS {
}
"""

# Debian's, but for those of the last paragraph.
_CONFIGURATION = """\
configdirectory: /var/lib/cyrus
proc_path: /run/cyrus/proc
mboxname_lockpath: /run/cyrus/lock
defaultpartition: default
partition-default: /var/spool/cyrus/mail
allowplaintext: yes
sasl_pwcheck_method: auxprop
syslog_prefix: cyrus

popminpoll: 0
sasl_auxprop_plugin: sasldb
sasl_mech_list: PLAIN
autocreate_quota: 0
virtdomains: userid
defaultdomain: example.net
loginrealms: example.com
"""

# What the packages' set-up scripts do; then a password for each user@realm.
_PREPARE = """\
password=$1; shift
install -d -o cyrus -g cyrus -m 750 /var/lib/cyrus
install -d -o cyrus -g cyrus /var/spool/cyrus /var/spool/cyrus/mail
install -d -o cyrus -g cyrus /run/cyrus /run/cyrus/socket /run/cyrus/proc /run/cyrus/lock
install -d -o cyrus -g cyrus /var/lib/cyrus/db /var/lib/cyrus/socket
for user; do
    printf %s "$password" | saslpasswd2 -p -c -u "${user##*@}" "${user%@*}"
done
chown cyrus /etc/sasldb2
"""


class Cyrus(Server):
    """It has the usual ports, with IPv4 and IPv6, and makes a mailbox at the first login.

    A failed login is answered after 3 seconds.
    """

    NAME = "cyrus"
    PACKAGES = ("cyrus-pop3d", "cyrus-imapd", "sasl2-bin")
    USERS = ("bob", "alice", "carol", "mail user", "eve@example.com")
    pop3 = 110
    imap = 143

    def prepare(self) -> None:
        """Write its files and make its folders and users."""
        (self.folder / "cyrus.conf").write_text(_SERVICES)
        (self.folder / "imapd.conf").write_text(_CONFIGURATION)
        self.shell('cp "$1/cyrus.conf" "$1/imapd.conf" /etc', str(self.folder))
        names = [name if "@" in name else f"{name}@{HOST}" for name in self.users]
        self.shell(_PREPARE, PASSWORD, *names)

    def commands(self) -> Sequence[Sequence[str]]:
        """Its master, in the foreground."""
        return [["/usr/lib/cyrus/bin/master"]]
