"""Does `sapd check` compare the map with what sendmail, as m4 configures it, really asks?"""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sapd import check, config, errors
from sapd.check.finding import Finding
from sapd.check.running import mail_servers
from tests.servers.namespace import Namespace
from tests.servers.sendmail import Sendmail
from tests.servers.sendmail_site import DELAYED, EXAMPLES
from tests.site import Site

pytestmark = pytest.mark.servers  # m4 and sendmail's rules for it make the configuration

EXAMPLE = {
    name: (EXAMPLES / f"{name}.mc").read_text()
    for name in ("access", "self-closing", "separate-map")
}
SELF_CLOSING = "self_closing = true\n"


class Machine:
    """A sendmail.cf, and sapd's configuration beside it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.cf = site.folder / "sendmail.cf"

    def build(self, lines: str, kind: str = "hash") -> None:
        """Have m4 make sendmail.cf; its maps are in the site's folder."""
        text = Sendmail(Namespace([]), self.site.folder, lines, kind).build_configuration()
        text = text.replace(f"{self.site.folder}/mail/", f"{self.site.folder}/")
        self.cf.write_text(
            text.replace(f"{self.site.folder}/state/relay", f"{self.site.folder}/relay")
        )

    def configure(self, settings: str, separate: bool = False) -> None:
        self.site.configure(access_settings=f'cf = "sendmail.cf"\n{settings}')
        if separate:
            text = self.site.config.read_text().replace('source = "access"\n', "")
            self.site.config.write_text(text.replace('"access.db"', '"relay.db"'))

    def findings(self, name: str = "access.db") -> list[Finding]:
        """What is found about how sendmail asks the map of this name."""
        root = str(self.site.folder / "root")
        found = check.findings(config.load(str(self.site.config)), root)
        words = ("sendmail", "only a run", "asks", "spared")
        path = f"{self.site.folder}/{name}: "
        texts = [f for f in found if f.text.startswith(path)]
        return [f for f in texts if any(word in f.text for word in words)]

    def said(self, name: str = "access.db") -> str:
        """The one problem that is found."""
        (found,) = (finding for finding in self.findings(name) if finding.status)
        assert found.status == errors.BAD_CONFIG
        return found.text.removeprefix(f"{self.site.folder}/{name}: ")


@pytest.fixture
def machine(site: Site) -> Machine:
    return Machine(site)


def test_what_closes_an_address(machine: Machine) -> None:
    machine.build(EXAMPLE["access"])
    machine.configure("")
    texts = [finding.text.partition(": ")[2] for finding in machine.findings()]
    assert texts == [
        "sendmail asks it, as its map access",
        "only a run closes an address: if the schedule stops, it stays open; "
        "see access.self_closing",
    ]
    machine.build(EXAMPLE["self-closing"])
    machine.configure(SELF_CLOSING)
    texts = [finding.text.partition(": ")[2] for finding in machine.findings()]
    assert texts == [
        "sendmail asks it, as its map access",
        "sendmail closes an address by itself when its time is over",
    ]


@pytest.mark.parametrize("more", ["", DELAYED], ids=["plain", "delayed"])
def test_a_separate_map(machine: Machine, more: str) -> None:
    machine.build(more + EXAMPLE["separate-map"])
    machine.configure(SELF_CLOSING, separate=True)
    assert [finding.status for finding in machine.findings("relay.db")][-2:] == [0, 0]
    machine.build(more + EXAMPLE["self-closing"])
    assert machine.said("relay.db") == (
        f"{machine.cf} has no map of that file; "
        "add the lines of sapd init --sendmail separate-map to sendmail.mc"
    )
    machine.build(more + EXAMPLE["separate-map"])
    machine.configure("", separate=True)
    assert "has no rule that looks entries with Connect: up in its map sapd" in machine.said(
        "relay.db"
    )


def test_no_access_map(machine: Machine) -> None:
    machine.build("")
    machine.configure("")
    assert machine.said() == (
        f"{machine.cf} has no map for access; add the lines of sapd init --sendmail to sendmail.mc"
    )


def test_another_file(machine: Machine) -> None:
    machine.build("FEATURE(`access_db', `hash -T<TMPF> /etc/other')dnl\n")
    machine.configure("")
    assert machine.said() == (
        f'sendmail asks /etc/other.db, by {machine.cf}; set access.database = "/etc/other.db"'
    )
    machine.build("FEATURE(`access_db', `ldap -T<TMPF> -1')dnl\n")
    assert machine.said().startswith("sendmail asks a map of class ldap, by ")


def test_another_type(machine: Machine) -> None:
    machine.build(EXAMPLE["access"], "btree")
    machine.configure('type = "hash"\n')
    assert machine.said() == (
        f"sendmail reads it as a btree map, by {machine.cf}, and sapd makes a hash one; "
        'set access.type = "btree"'
    )
    machine.configure("")
    assert config.load(str(machine.site.config)).access.options["type"] == "btree"
    assert not [finding for finding in machine.findings() if finding.status]


def test_no_lookups_of_addresses(machine: Machine) -> None:
    machine.build(EXAMPLE["access"])
    machine.configure("")
    machine.cf.write_text(machine.cf.read_text().replace("+ Connect>", "+ Other>"))
    assert "has no rule that looks entries with Connect: up in its map access" in machine.said()


def test_self_closing_without_its_rules(machine: Machine) -> None:
    machine.build(EXAMPLE["access"])
    machine.configure(SELF_CLOSING)
    assert machine.said() == (
        f"{machine.cf} has no rule that looks entries with sapd: up in its map access; "
        "add the lines of sapd init --sendmail self-closing to sendmail.mc"
    )


def test_checks_that_are_delayed_after_the_rules_were_written(machine: Machine) -> None:
    machine.build(EXAMPLE["self-closing"] + DELAYED)
    machine.configure(SELF_CLOSING)
    assert machine.said() == (
        f"by {machine.cf} an open address is spared all checks of its mail's sender; "
        "put FEATURE(`delay_checks') before the lines of sapd init --sendmail self-closing"
    )
    machine.build(DELAYED + EXAMPLE["self-closing"])
    assert not [finding for finding in machine.findings() if finding.status]


@pytest.mark.parametrize(
    ("line", "kind", "path"),
    [
        ("Kaccess hash -T<TMPF> FOLDER/access", "hash", "access.db"),
        ("Kaccess btree -o FOLDER/access.db", "btree", "access.db"),
        ("Kaccess cdb -T<TMPF> FOLDER/map", "cdb", "map.cdb"),
        ("Kaccess cdb\n\t-T<TMPF>\n\tFOLDER/map", "cdb", "map.cdb"),
        ("Kaccess hash /old\nKaccess cdb FOLDER/map.cdb", "cdb", "map.cdb"),
        ("#Kaccess cdb /old\nKaccess hash FOLDER/map", "hash", "map.db"),
    ],
)
def test_what_sendmail_says_is_the_default(site: Site, line: str, kind: str, path: str) -> None:
    (site.folder / "sendmail.cf").write_text(line.replace("FOLDER", str(site.folder)) + "\n")
    text = site.config.read_text().replace('database = "access.db"\n', 'cf = "sendmail.cf"\n')
    site.config.write_text(text)
    options = config.load(str(site.config)).access.options
    assert (options["type"], options["database"]) == (kind, f"{site.folder}/{path}")


def test_a_map_whose_type_must_be_said(site: Site) -> None:
    (site.folder / "sendmail.cf").write_text("Kaccess ldap -1 -k (x=%0)\n")
    text = site.config.read_text().replace('database = "access.db"\n', 'cf = "sendmail.cf"\n')
    site.config.write_text(text)
    with pytest.raises(errors.SapdError, match="its map access is of class ldap; set database and"):
        config.load(str(site.config))
    site.config.write_text(text.replace("cf =", 'type = "hash"\ndatabase = "access.db"\ncf ='))
    assert config.load(str(site.config)).access.options["type"] == "hash"


@contextmanager
def process(name: str, folder: Path, *prefix: str) -> Iterator[None]:
    """A process of this machine that has the name of a mail server."""
    program = folder / name
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([*prefix, program, "60"]) as started:
        while name not in Path(f"/proc/{started.pid}/comm").read_text():
            time.sleep(0.01)
        yield
        started.kill()


def test_another_mail_server_runs(machine: Machine) -> None:
    root = machine.site.folder / "root"
    root.mkdir()
    (root / "proc").symlink_to("/proc")
    machine.configure("")
    with process("exim4", machine.site.folder):
        running = mail_servers()
        found = check.findings(config.load(str(machine.site.config)), str(root))
        said = [finding.text for finding in found if "access.server" in finding.text]
    assert "exim" in running
    if "sendmail" in running:  # of this machine itself
        assert said == []
    else:
        assert said == [
            f'{machine.site.config}: access.server is "sendmail", but what runs here is '
            f"{' and '.join(sorted(running))}; set it to that"
        ]


@pytest.mark.parametrize("inside", [False, True])
def test_a_server_in_a_container_does_not_count(tmp_path: Path, inside: bool) -> None:
    """Nor where this user may not know its network."""
    for pid, numbers in (("self", "1"), ("7", "7\t1" if inside else "7")):
        process = tmp_path / "proc" / pid
        process.mkdir(parents=True)
        (process / "comm").write_text("qmgr\n")
        (process / "status").write_text(f"Name:\tqmgr\nNSpid:\t{numbers}\nThreads:\t1\n")
    assert mail_servers(str(tmp_path)) == (set() if inside else {"postfix"})


def test_a_server_in_another_network_does_not_count(tmp_path: Path) -> None:
    with process("tcpserver", tmp_path):
        assert "tcpserver" in mail_servers()
    with process("tcpserver", tmp_path, "unshare", "--net"):
        assert "tcpserver" not in mail_servers()
