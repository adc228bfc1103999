"""The rules of examples/sendmail that close by themselves, against a real sendmail.

Nothing of sapd runs here: the maps are made by hand, as an administrator's makemap makes them.
"""

import ipaddress
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.servers.blocklist import ZONE, Blocklist
from tests.servers.namespace import Namespace
from tests.servers.sendmail import HOST, Sendmail
from tests.servers.sendmail_site import (
    CLIENT,
    CLIENT6,
    CLIENTS,
    COMPRESSED,
    DAMAGES,
    DELAYED,
    EXAMPLES,
    OWN,
    REFUSALS,
    SOURCE,
    STRANGER,
    UNWANTED,
    overwrite,
)

pytestmark = pytest.mark.servers

ONE_MAP, SEPARATE = "self-closing.mc", "separate-map.mc"
HATER = "FEATURE(`delay_checks', `hater')dnl\n"
LISTS = {
    "dnsbl": f"FEATURE(`dnsbl', `{ZONE}')dnl\n",
    "enhdnsbl": f"FEATURE(`enhdnsbl', `{ZONE}')dnl\n",
    "require_rdns": "FEATURE(`require_rdns')dnl\n",
}
LOCAL = f"root@{HOST}"
A_WHILE = 1000  # seconds
SENDER = "client.example.net"  # the domain of whoever sends


class Host:
    """A sendmail with one of the two examples, and its maps."""

    def __init__(self, sendmail: Sendmail, example: str) -> None:
        self.sendmail = sendmail
        self.namespace = sendmail.namespace
        self.separate = example == SEPARATE
        self.relay = sendmail.state / "relay.db"

    def put(self, own: str = "", source: str = SOURCE) -> None:
        """The administrator's entries, and those that sapd would write."""
        if self.separate:
            self.sendmail.makemap(source, self.sendmail.mail / "access.db")
            self.sendmail.makemap(own, self.relay)
            self.relay.chmod(0o644)
        else:
            self.sendmail.makemap(source + own, self.sendmail.mail / "access.db")

    def entries(self, *addresses: str, end: float | None = None, exempt: bool = True) -> str:
        """What sapd writes for these addresses; by default they are open for a while."""
        lines = ""
        for address in addresses:
            for key in keys(address):
                lines += f"sapd:{key}\t{time.time() + A_WHILE if end is None else end:.0f}\n"
                lines += f"Connect:{key}\tOK\n" if exempt and not self.separate else ""
        return lines

    def code(self, client: str, rcpt: str = "") -> int:
        return (self.namespace.probe(client, rcpt) if rcpt else self.namespace.probe(client)).code

    def codes(self, *clients: str) -> list[int]:
        return [self.code(client) for client in clients]

    def queued(self) -> int:
        return len(list((self.sendmail.folder / "queue").rglob("qf*")))


def keys(address: str) -> set[str]:
    """How sendmail looks the address up, with and without UseCompressedIPv6Addresses."""
    if ":" not in address:
        return {address}
    groups = ipaddress.IPv6Address(address).exploded.split(":")
    long = ":".join(f"{int(group, 16):x}" for group in groups)
    return {f"IPv6:{address}", f"IPv6:{long}"}


@contextmanager
def running(
    folder: Path,
    example: str,
    more: str = "",
    listed: tuple[str, ...] = (),
    clock: str = "/bin/date",
) -> Iterator[Host]:
    lines = more + (EXAMPLES / example).read_text().replace("/bin/date", clock)
    with (
        Namespace(CLIENTS) as namespace,
        Blocklist(namespace, folder, listed),
        Sendmail(namespace, folder, lines) as sendmail,
    ):
        host = Host(sendmail, example)
        host.put()
        yield host


@pytest.fixture(
    params=[(ONE_MAP, ""), (ONE_MAP, DELAYED), (SEPARATE, ""), (SEPARATE, DELAYED)],
    ids=["one map", "one map, delayed", "separate", "separate, delayed"],
    scope="module",
)
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    example, more = request.param
    with TemporaryDirectory(prefix="sapd-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with running(folder, example, more) as host:
            yield host


@pytest.mark.parametrize("client", [CLIENT, CLIENT6])
def test_an_entry_closes_within_two_seconds_of_its_end(host: Host, client: str) -> None:
    end = int(time.time()) + 4
    host.put(host.entries(client, end=end))
    assert host.codes(client, STRANGER, OWN) == [250, 550, 250]
    while host.code(client) == 250:
        assert time.time() < end + 2
    assert time.time() >= end
    assert host.codes(client, STRANGER, OWN) == [550, 550, 250]


def test_full_and_compressed_ipv6(folder: Path) -> None:
    with running(folder, ONE_MAP, COMPRESSED) as host:
        host.put(host.entries(CLIENT6))
        assert host.codes(CLIENT6, CLIENT) == [250, 550]


def test_a_session_that_is_open_ends_with_the_entry(host: Host) -> None:
    """Neither the envelope that has begun nor another one goes on; a time macro would let both."""
    end = int(time.time()) + 4
    host.put(host.entries(CLIENT, end=end))
    assert host.namespace.open_session(CLIENT).code == 250
    assert host.namespace.session_rcpt().code == 250
    time.sleep(max(end + 0.1 - time.time(), 0))
    assert host.namespace.session_rcpt().code == 550
    assert [host.namespace.session_again().code for _ in range(2)] == [550, 550]
    host.namespace.close_session()


def test_no_session_opens_what_has_ended(host: Host) -> None:
    """Sendmail's ${time} is the daemon's start from a session's second envelope on."""
    host.put(host.entries(CLIENT, end=time.time() - 1))
    assert host.namespace.open_session(CLIENT).code == 250
    assert host.namespace.session_rcpt().code == 550
    assert [host.namespace.session_again().code for _ in range(3)] == [550] * 3
    host.namespace.close_session()


@pytest.mark.parametrize(
    "value",
    ["RELAY", "OK", "TRUE", "soon", "0", "-1", "1 {0}", "{0} {0}", "<{0}>", "x{0}", "08{0}"],
)
def test_a_value_that_is_no_end_opens_nothing(host: Host, value: str) -> None:
    end = f"{time.time() + A_WHILE:.0f}"
    host.put(f"sapd:{CLIENT}\t{value.format(end)}\n")
    assert host.code(CLIENT) == 550
    host.put(f"sapd:{CLIENT}\t{end}\n")
    assert host.code(CLIENT) == 250


@pytest.mark.parametrize("example", [ONE_MAP, SEPARATE])
def test_without_a_clock_nothing_is_open(folder: Path, example: str) -> None:
    clock = folder / "clock"
    with running(folder, example, clock=str(clock)) as host:
        host.put(host.entries(CLIENT))
        assert host.codes(CLIENT, OWN) == [550, 250]
        for script in ("exit 1", "exit 75", "echo", "echo soon", "echo 0", "echo 86400", "kill $$"):
            clock.write_text(f"#!/bin/sh\n{script}\n")
            clock.chmod(0o755)
            assert (host.code(CLIENT) >= 500, host.code(OWN)) == (True, 250), script
            assert host.code(CLIENT, LOCAL) == 250, script
        clock.write_text("#!/bin/sh\ndate +%s\n")
        assert host.codes(CLIENT, OWN) == [250, 250]


def test_an_entry_for_a_network_opens_nothing(host: Host) -> None:
    end = f"{time.time() + A_WHILE:.0f}"
    host.put(f"sapd:192.0.2\t{end}\nsapd:192\t{end}\n{CLIENT}\t{end}\n")
    assert host.code(CLIENT) != 250


@pytest.mark.parametrize(("entry", "client"), REFUSALS)
def test_what_the_administrator_refuses_stays_refused(host: Host, entry: str, client: str) -> None:
    host.put(source=f"{SOURCE}{entry}\n")
    refused = host.namespace.probe(client)
    assert refused.code == 550
    host.put(host.entries(client, CLIENT, exempt=False), f"{SOURCE}{entry}\n")
    assert host.namespace.probe(client) == refused
    assert host.code(CLIENT) == 250


@pytest.mark.parametrize(
    "entry",
    [
        "Connect:203.0.113.7 550 go away",
        "Connect:203.0.113 550 go away",
        "203.0.113 550 go away",
        f"From:{SENDER} REJECT",
        f"From:someone@{SENDER} ERROR:5.7.1:550 not you",
        f"Connect:client{CLIENTS.index(UNWANTED)}.example.net REJECT",
        "Connect:example.net REJECT",
    ],
)
def test_so_does_what_is_refused_in_other_ways(host: Host, entry: str) -> None:
    host.put(source=f"{SOURCE}{entry}\n")
    before = host.namespace.probe(UNWANTED)
    assert before.code == 550
    host.put(host.entries(UNWANTED, exempt=False), f"{SOURCE}{entry}\n")
    assert host.namespace.probe(UNWANTED).code == 550


@pytest.mark.parametrize("entry", ["Connect:203.0.113.7 DISCARD", "203.0.113 DISCARD"])
def test_what_is_discarded_stays_so(host: Host, entry: str) -> None:
    host.put(host.entries(UNWANTED, CLIENT, exempt=False), f"{SOURCE}{entry}\n")
    queued = host.queued()
    assert host.namespace.send(CLIENT).code == 250
    assert host.queued() == queued + 1
    host.namespace.send(UNWANTED)
    assert host.queued() == queued + 1


def test_what_lets_the_whole_network_in_lets_a_login_of_it_in(host: Host) -> None:
    host.put(host.entries(UNWANTED, exempt=False), SOURCE + "Connect:203.0.113 OK\n")
    assert host.codes(UNWANTED, STRANGER) == [250, 550]


@pytest.mark.parametrize("more", ["", DELAYED, HATER], ids=["plain", "friend", "hater"])
@pytest.mark.parametrize("example", [ONE_MAP, SEPARATE])
def test_local_mail_is_treated_as_before(folder: Path, example: str, more: str) -> None:
    """A login neither opens nor closes it: with friend and hater that depends on the recipient."""
    sources = [SOURCE + entry for entry in ("", f"From:{SENDER} REJECT\n", "To:root@ REJECT\n")]
    sources += [
        source + f"Spam:root@ {word}\n" for source in sources for word in ("FRIEND", "HATER")
    ]
    with running(folder, example, more) as host:
        for source in sources:
            host.put(source=source)
            before = host.namespace.probe(CLIENT, LOCAL)
            host.put(host.entries(CLIENT), source)
            assert host.namespace.probe(CLIENT, LOCAL) == before, source
        host.put(host.entries(CLIENT))
        assert host.codes(CLIENT, STRANGER) == [250, 550]


@pytest.mark.parametrize("more", ["", DELAYED], ids=["plain", "delayed"])
@pytest.mark.parametrize("feature", LISTS)
@pytest.mark.parametrize("example", [ONE_MAP, SEPARATE])
def test_an_open_address_is_exempt_from_blocklists(
    folder: Path, example: str, feature: str, more: str
) -> None:
    listed = (CLIENT, UNWANTED)
    with running(folder, example, more + LISTS[feature], listed) as host:
        if feature == "require_rdns":
            forget_names(host, *listed)
        assert is_refused_by(feature, host.namespace.probe(CLIENT, LOCAL).text)
        assert host.code(CLIENT) == 550
        host.put(host.entries(CLIENT))
        assert (host.code(CLIENT), host.code(CLIENT, LOCAL)) == (250, 250)
        assert is_refused_by(feature, host.namespace.probe(UNWANTED, LOCAL).text)
        # The administrator's word still counts.
        for entry in ("Connect:192.0.2", f"Connect:client{CLIENTS.index(CLIENT)}.example.net"):
            if feature != "require_rdns" or "client" not in entry:
                host.put(host.entries(CLIENT, exempt=False), SOURCE + f"{entry} REJECT\n")
                assert (host.code(CLIENT), host.code(CLIENT, LOCAL)) == (550, 550)
        # In a map of its own the exemption ends with the entry, in one map with the next run.
        host.put(host.entries(CLIENT, end=time.time() - 1))
        text = host.namespace.probe(CLIENT, LOCAL).text
        assert is_refused_by(feature, text) == host.separate
        assert host.code(CLIENT) == 550
        assert host.code(STRANGER, LOCAL) == 250


def forget_names(host: Host, *clients: str) -> None:
    """Their addresses have no names any more."""
    hosts = host.sendmail.folder / "hosts"
    lines = hosts.read_text().splitlines(keepends=True)
    content = "".join(line for line in lines if line.split()[0] not in clients)
    overwrite(hosts, content.encode())  # it is mounted: a new file would not be seen


def is_refused_by(feature: str, text: str) -> bool:
    return ("reverse DNS" if feature == "require_rdns" else f"listed at {ZONE}") in text


def test_without_the_ok_a_listed_address_stays_refused(folder: Path) -> None:
    with running(folder, ONE_MAP, LISTS["dnsbl"], (CLIENT,)) as host:
        host.put(host.entries(CLIENT, exempt=False))
        assert host.code(CLIENT) == 550


def as_another_type(database: Path) -> None:
    database.unlink()
    text = f"sapd:{CLIENT}\t{time.time() + A_WHILE:.0f}\n".encode()
    subprocess.run(["makemap", "-C", "/dev/null", "btree", database], input=text, check=True)
    database.chmod(0o644)


def as_a_folder(database: Path) -> None:
    database.unlink()
    database.mkdir()


def as_a_dangling_link(database: Path) -> None:
    database.unlink()
    database.symlink_to("nowhere")


OTHER_DAMAGES: dict[str, Callable[[Path], None]] = {
    "another type": as_another_type,
    "a folder": as_a_folder,
    "a dangling link": as_a_dangling_link,
    "in a folder of others": lambda database: database.parent.chmod(0o777),
}


@pytest.mark.parametrize("more", ["", DELAYED], ids=["plain", "delayed"])
def test_a_separate_map_that_is_damaged_opens_nothing_and_stops_no_mail(
    folder: Path, more: str
) -> None:
    many = "".join(f"sapd:10.0.{number >> 8}.{number & 255}\t0\n" for number in range(2000))
    with running(folder, SEPARATE, more) as host:
        for name, damage in {**DAMAGES, **OTHER_DAMAGES}.items():
            if host.relay.is_dir():
                host.relay.rmdir()
            host.relay.unlink(missing_ok=True)
            host.put(host.entries(CLIENT, CLIENT6) + many)
            assert host.codes(CLIENT, CLIENT6, STRANGER, OWN) == [250, 250, 550, 250]
            damage(host.relay)
            assert host.codes(CLIENT, CLIENT6, STRANGER, OWN) == [550, 550, 550, 250], name
            assert host.code(CLIENT, LOCAL) == host.code(STRANGER, LOCAL) == 250, name
            host.relay.parent.chmod(0o755)


def test_both_examples_have_the_same_rules() -> None:
    """But for the map that they ask, and the exemption, which needs no rule in one map."""
    ruleset = re.compile(r"(?ms)^SSapd_open\n.*?^R\$\*\t+\$@ go on$")
    one, separate = (
        ruleset.findall(re.sub(r"(?m)^dnl.*\n", "", (EXAMPLES / name).read_text()))
        for name in (ONE_MAP, SEPARATE)
    )
    assert one
    assert [rules.replace("$(access sapd:", "$(sapd sapd:") for rules in one] == separate
