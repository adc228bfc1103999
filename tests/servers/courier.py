"""Real Courier POP3 and IMAP servers, their logins checked by authdaemond, with virtual users.

What they log goes through courierlogger, as in Debian. It reads their stderr by pieces of 511
bytes: what comes after such a piece is a line of its own in the log. Before it logs the piece it
waits for the next line of any session, and drops that.
"""

from collections.abc import Sequence
from typing import ClassVar

from tests.servers.server import Server

# What the packages' set-up scripts do, but for the certificates; then authdaemond, which is there
# when it knows the first user. Its users' file has the same hash of the password as /etc/shadow.
_PREPARE = """\
ln -sf makedat.courier /usr/bin/makedat
install -d -m 775 -g courier /run/courier
install -d -m 750 -o courier -g courier /run/courier/authdaemon
install -d -o bob -g bob /var/lib/virtual
umask 077
hash=$(getent shadow bob | cut -d : -f 2)
ids="uid=$(id -u bob)|gid=$(id -g bob)"
for user; do
    home=/var/lib/virtual/$user
    mkdir "$home"
    maildirmake.courier "$home/Maildir"
    chown -R bob:bob "$home"
    printf '%s\\thome=%s|%s|systempw=%s\\n' "$user" "$home" "$ids" "$hash" >>/etc/courier/userdb
done
makeuserdb
sed -i 's/^authmodulelist=.*/authmodulelist="authuserdb"/' /etc/courier/authdaemonrc
sed -i 's/^MAXPERIP=.*/MAXPERIP=100/; s/^MAXDAEMONS=.*/MAXDAEMONS=300/' \\
    /etc/courier/pop3d /etc/courier/imapd
authdaemond start
for tried in $(seq 100); do
    ! authtest "$1" >/dev/null 2>&1 || break
    sleep 0.02
done
authtest "$1"
"""


_CERTIFICATES = """\
for server in pop3d imapd; do
    certtool --generate-privkey --key-type rsa --bits 2048 --outfile /tmp/$server.key
    printf 'cn = "mx1"\\ntls_www_server\\n' >/tmp/$server.cnf
    certtool --generate-self-signed --load-privkey /tmp/$server.key \\
        --template /tmp/$server.cnf --outfile /tmp/$server.crt
    cat /tmp/$server.crt /tmp/$server.key >/etc/courier/$server.pem
    sed -i 's/^TLS_DHPARAMS=/#&/; s/^TLS_CACHEFILE=/#&/; s/^TLS_TRUSTCERTS=/#&/' \\
        /etc/courier/$server-ssl
done 2>/dev/null
"""


class Courier(Server):
    """It has the usual ports, with IPv4 and IPv6. A failed login is answered after 5 seconds."""

    NAME = "courier"
    PACKAGES: ClassVar[tuple[str, ...]] = ("courier-pop", "courier-imap")
    USERS = ("bob", "alice", "carol", "mail user", "eve@example.com", "a, ip=[6.6.6.6], port=[1]")
    pop3 = 110
    imap = 143

    def prepare(self) -> None:
        """Make the users, and start what checks their passwords."""
        self.shell(_PREPARE, *self.users)

    def commands(self) -> Sequence[Sequence[str]]:
        """Debian's start scripts: a courierlogger for each, which becomes a daemon."""
        return [[f"/usr/lib/courier/{name}", "start"] for name in ("pop3d", "imapd")]


class Courier13(Courier):
    """Debian 13's, with TLS on the usual ports."""

    PACKAGES = ("courier-pop/trixie", "courier-imap/trixie", "gnutls-bin/trixie")

    def prepare(self) -> None:
        """Make certificates, too."""
        super().prepare()
        self.shell(_CERTIFICATES)
