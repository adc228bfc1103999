"""A real Postfix, with master and all, configured by the lines of examples/postfix."""

import re
from collections.abc import Mapping, Sequence

from tests.servers.machine import Machine
from tests.servers.mailserver import EXAMPLES, MailServer
from tests.servers.namespace import PORT

# Files for whatever Postfix looks names up in: there is no DNS.
_MAIN = """
compatibility_level = 3.6
myhostname = mx1.example.net
mydestination = $myhostname, example.net
mynetworks = 127.0.0.0/8
alias_maps =
local_recipient_maps =
smtpd_client_restrictions = check_client_access cidr:/etc/postfix/client_access
smtpd_client_connection_rate_limit = 0
anvil_status_update_time = 3600s
in_flow_delay = 0
"""


class Postfix(MailServer):
    """Postfix's settings are those of `settings["examples"]`, files in that folder by name.

    At most `settings["processes"]` smtpd answer at a time, by default as many as are needed.
    """

    NAME = "postfix"
    PACKAGES = ("postfix", "postfix-cdb", "postfix-lmdb")
    REFUSED = 554

    def __init__(self, machine: Machine, settings: Mapping[str, str]) -> None:
        """With tables of `settings["type"]`; cdb is then Postfix's default, lmdb is not."""
        super().__init__(machine, settings)
        self.type = settings.get("type", "hash")
        self.suffix = "db" if self.type == "hash" else self.type
        self.TABLE = f"/var/lib/sapd/relay.{self.suffix}"
        self.ACCESS = 'type = "lmdb"\n' if self.type == "lmdb" else ""

    def prepare(self) -> None:
        """Write its configuration, and let it make its queue."""
        names = self.settings.get("examples", "main.cf").split()
        lines = [(EXAMPLES / "postfix" / name).read_text() for name in names if name != "master.cf"]
        default = f"default_database_type = {'cdb' if self.type == 'cdb' else 'hash'}"
        text = "\n".join([_MAIN, default, *lines])
        self.write("/etc/postfix/main.cf", text.replace("hash:/", f"{self.type}:/"))
        self.write("/etc/postfix/client_access", self.settings.get("refused", ""))
        dist = self.path("/usr/share/postfix/master.cf.dist").read_text()
        # Not in a jail: Debian's has to be filled by its own script.
        dist = re.sub(r"(?m)^(\w\S*(?:\s+\S+){3}\s+)y(\s)", r"\1n\2", dist)
        listen = f"{PORT}      inet"
        if "postscreen.cf" in names:
            dist = re.sub(r"(?m)^smtp  .*$", "", dist, count=1)
            dist = re.sub(r"(?m)^#(smtp(?= .*postscreen)|smtpd |dnsblog|tlsproxy)", r"\1", dist)
        dist = dist.replace("smtp      inet", listen, 1)
        if "master.cf" in names:
            dist = re.sub(rf"(?m)^{listen}", "#", dist, count=1)
            dist += (EXAMPLES / "postfix/master.cf").read_text().replace("submission inet", listen)
        self.write("/etc/postfix/master.cf", dist)
        if "processes" in self.settings:
            limit = f"{PORT}/inet/process_limit={self.settings['processes']}"
            self.run("postconf", "-F", limit)
        # What the set-up scripts of the two packages add.
        maps = (f"{t} postfix-{t}.so dict_{t}_open mkmap_{t}_open\n" for t in ("cdb", "lmdb"))
        self.write("/etc/postfix/dynamicmaps.cf", "".join(maps))
        self.run("chown", "postfix:", "/var/lib/postfix")
        self.run("chgrp", "postdrop", "/usr/sbin/postqueue", "/usr/sbin/postdrop")
        self.run("chmod", "g+s", "/usr/sbin/postqueue", "/usr/sbin/postdrop")
        if self.settings.get("table", "made") == "made":
            self.put()

    def command(self) -> Sequence[str]:
        """Its own script, which looks at the set-up and starts master."""
        return ["postfix", "start-fg"]

    def put(self, *addresses: str, end: float | None = None) -> None:
        """postmap, as its documentation has it: a new table beside, then a rename."""
        text = self.write("/var/lib/sapd/new", "".join(f"{address} OK\n" for address in addresses))
        self.run("postmap", f"{self.type}:/var/lib/sapd/new")
        text.unlink()
        self.path(f"/var/lib/sapd/new.{self.suffix}").rename(self.path(self.TABLE))
