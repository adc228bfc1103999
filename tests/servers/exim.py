"""A real Exim, configured as Debian configures it or by its own example, with examples/exim."""

import time
from collections.abc import Sequence

from tests.servers.mailserver import EXAMPLES, MailServer
from tests.servers.namespace import PORT

_DEBCONF = """
dc_eximconfig_configtype='internet'
dc_other_hostnames='example.net'
dc_local_interfaces=''
dc_readhost=''
dc_relay_domains=''
dc_minimaldns='false'
dc_relay_nets=''
dc_smarthost=''
CFILEMODE='644'
dc_use_split_config='true'
dc_hide_mailname=''
dc_mailname_in_oh='true'
dc_localdelivery='mail_spool'
"""
_EXAMPLE = "/usr/share/doc/exim4-base/examples/example.conf"
_PLAIN = "/etc/exim.conf"


class Exim(MailServer):
    """Exim, by Debian's split configuration, or with `settings["plain"]` by Exim's own example."""

    NAME = "exim"
    PACKAGES = ("exim4-daemon-light",)

    def prepare(self) -> None:
        """Write its configuration by the packages' own means."""
        for folder in ("/var/spool/exim4", "/var/log/exim4", "/run/exim4"):
            self.run("install", "-d", "-oDebian-exim", "-gDebian-exim", "-m750", folder)
        if "plain" in self.settings:
            self._write_plain()
        else:
            self.write("/etc/exim4/update-exim4.conf.conf", _DEBCONF)
            self.write("/etc/exim4/local_host_blacklist", self.settings.get("refused", ""))
            if own := self.settings.get("acl"):
                self.write("/etc/exim4/own_acl", own)
                hook = "CHECK_RCPT_LOCAL_ACL_FILE = /etc/exim4/own_acl\n"
                self.write("/etc/exim4/conf.d/main/000_localmacros", hook)
            for name, folder in (("000_sapd", "main"), ("31_sapd", "acl")):
                text = (EXAMPLES / "exim/debian" / name).read_text()
                self.write(f"/etc/exim4/conf.d/{folder}/{name}", text)
            self.run("update-exim4.conf")

    def _write_plain(self) -> None:
        """Exim's own example with our lines where they say that they go."""
        text = self.path(_EXAMPLE).read_text()
        parts = (EXAMPLES / "exim/exim.conf").read_text().split("\n  accept")
        ours = "\n  accept" + parts[1].partition("\n# ----")[0]
        for before, behind in (
            ("begin acl\n", parts[0] + "\n\n"),
            ("\n  accept  hosts         = +relay_from_hosts", self.settings["plain"] + ours),
            ("\n  accept\n\n\n# This ACL is used once", self.settings.get("acl", "")),
        ):
            assert text.count(before) == 1
            text = text.replace(before, behind + before)
        text = text.replace(
            "domainlist local_domains = @", "domainlist local_domains = @ : example.net"
        )
        text = text.replace("require verify        = sender", "").replace("host_lookup = *", "")
        self.write(_PLAIN, text)

    def command(self) -> Sequence[str]:
        """The daemon; -C only for a configuration at another place than Debian's."""
        more = ["-C", _PLAIN] if "plain" in self.settings else []
        return ["exim4", *more, "-bdf", "-oX", str(PORT)]

    def put(self, *addresses: str, end: float | None = None) -> None:
        """A new file, then a rename."""
        close = int(time.time() + 3600 if end is None else end)
        quoted = (f'"{address}"' if ":" in address else address for address in addresses)
        new = self.write("/var/lib/sapd/new", "".join(f"{key}: {close}\n" for key in quoted))
        new.rename(self.path(self.TABLE))
