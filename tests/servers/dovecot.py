"""A real Dovecot with virtual users: names may be anything that its passwd-file can hold."""

import re
from collections.abc import Sequence

from tests.servers.machine import Machine
from tests.servers.server import Server

# As Debian has it, but for what follows: it logs by syslog, facility mail. Without the anvil's
# socket it does not make clients wait longer and longer after failed logins.
_COMMON = """\
protocols = pop3 imap
ssl = no
auth_username_chars =
auth_failure_delay = 0
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
"""

_UP_TO_2_3 = """\
disable_plaintext_auth = no
auth_username_format = %u
mail_location = maildir:/var/lib/virtual/%Mu
passdb {
  driver = passwd-file
  args = scheme=PLAIN username_format=%u /etc/dovecot/users
}
userdb {
  driver = static
  args = uid=bob gid=bob home=/var/lib/virtual/%Mu
}
"""

# The versions must stand first: https://doc.dovecot.org/2.4.1/installation/upgrade/2.3-to-2.4.html
_VERSIONS = """\
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
"""

_FROM_2_4 = """\
auth_allow_cleartext = yes
auth_username_format = %{user}
mail_driver = maildir
mail_path = /var/lib/virtual/%{user | md5 | hexlify}
passdb passwd-file {
  default_password_scheme = PLAIN
  auth_username_format = %{user}
  passwd_file_path = /etc/dovecot/users
}
userdb static {
  fields {
    uid = bob
    gid = bob
    home = /var/lib/virtual/%{user | md5 | hexlify}
  }
}
"""

_PREPARE = """\
install -D -m 644 -t /etc/dovecot "$1/users" "$1/dovecot.conf"
install -d -o bob -g bob /var/lib/virtual
"""


def version(machine: Machine) -> tuple[int, ...]:
    """The first two numbers of the version that the machine has."""
    done = machine.run(["dovecot", "--version"], capture_output=True, text=True)
    return tuple(map(int, re.findall(r"\d+", done.stdout)[:2]))


class Dovecot(Server):
    """It has the usual ports, with IPv4 and IPv6."""

    NAME = "dovecot"
    PACKAGES = ("dovecot-pop3d", "dovecot-imapd")
    USERS = (
        "bob",
        "alice",
        "carol",
        "mail user",
        "eve@example.com",
        "a, rip=9.9.9.9",
        "a>, method=PLAIN, rip=6.6.6.6, lip=192.0.2.25, mpid=7, session=<AAAA",
    )
    pop3 = 110
    imap = 143

    def prepare(self) -> None:
        """Write its files, and put them where its unprivileged processes may read them."""
        (self.folder / "users").write_text(
            "".join(f"{name}:{password}::::::\n" for name, password in self.users.items())
        )
        (self.folder / "dovecot.conf").write_text(self._configuration() + self.settings)
        self.shell(_PREPARE, str(self.folder))

    def _configuration(self) -> str:
        if version(self.machine) >= (2, 4):
            return _VERSIONS + _COMMON + _FROM_2_4
        return _COMMON + _UP_TO_2_3

    def commands(self) -> Sequence[Sequence[str]]:
        """In the foreground."""
        return [["dovecot", "-F"]]


class Dovecot24(Dovecot):
    """Debian 13's, which says "Logged in"."""

    PACKAGES = ("dovecot-pop3d/trixie", "dovecot-imapd/trixie")
