"""Several hosts: two POP hosts' lines by real rsyslogd, RELP and TLS to two relays with sapd."""

import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from sapd.events import formats
from tests.folders import PACKAGE
from tests.servers.certificates import Authority
from tests.servers.hosts import EXAMPLES, POPS, RELAYS, Host, Hosts
from tests.servers.rsyslog import read, wait_until
from tests.servers.sendmail import Sendmail
from tests.site import utc, when

pytestmark = pytest.mark.servers

SENDMAIL = EXAMPLES.parent / "sendmail" / "access.mc"
CONFIG = """\
[[log]]
path = "{log}"
formats = ["qpopper", "popa3d", "courier"]
[access]
{access}
[state]
directory = "state"
"""
OWN_MAP = 'database = "relay.db"\ntag = ""'
WINDOW = 1800.0  # seconds, the default
IN_FLIGHT = 128  # lines that RELP has on the way without their being confirmed
SOON = 10.0  # seconds in which a line arrives, on a machine with other work to do


def login(address: str, account: str = "bob") -> str:
    """What qpopper says."""
    return f'(v4.0.5) POP login by user "{account}" at (client.example.net) {address}'


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="sapd-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def hosts(short: Path) -> Iterator[Hosts]:
    """Running hosts; both POP hosts call themselves mx1."""
    with Hosts(short, called=dict.fromkeys(POPS, "mx1")) as hosts:
        hosts.start()
        yield hosts


class Sapd:
    """sapd on a relay."""

    def __init__(self, relay: Host, access: str = OWN_MAP) -> None:
        self.folder = relay.folder / "sapd"
        self.folder.mkdir()
        self.config = self.folder / "sapd.toml"
        self.config.write_text(CONFIG.format(log=relay.log, access=access))

    def command(self, *arguments: str) -> list[str]:
        command, *rest = arguments
        return [sys.executable, "-m", "sapd", command, "-c", str(self.config), *rest]

    def run(self, *options: str) -> str:
        """One pass; what it says on standard error."""
        done = subprocess.run(
            self.command("run", *options), capture_output=True, text=True, check=True, timeout=60
        )
        return done.stderr

    def rows(self, *options: str) -> dict[str, dict[str, Any]]:
        """What `sapd list` shows after a pass, by address."""
        assert self.run(*options) == ""
        shown = subprocess.run(
            self.command("list", "--json", *options),
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        return {row["address"]: row for row in json.loads(shown.stdout)}


def arrived(relay: Host, text: str, patience: float = SOON) -> None:
    wait_until(lambda: text.encode() in read(relay.log), patience)


def numbers(relay: Host) -> list[int]:
    """Of the numbered logins, in the order in which the file has them."""
    return [int(found) for found in re.findall(rb'"user(\d+)"', read(relay.log))]


def address_of(number: int) -> str:
    return f"10.{100 + number // 65536}.{number // 256 % 256}.{number % 256}"


def breaks(found: list[int], said: list[int]) -> str:
    """What is wrong with the numbers that came."""
    at = [n for n in range(1, len(found)) if found[n] <= found[n - 1]]
    lost, doubled = set(said) - set(found), len(found) - len(set(found))
    return f"lost {len(lost)}, doubled {doubled}, out of order at {[found[n] for n in at][:9]}"


def numbered(first: int, count: int) -> list[str]:
    return [login(address_of(n), f"user{n}") for n in range(first, first + count)]


@pytest.mark.parametrize("name", ["20-pop-host.conf", "21-relay.conf"])
def test_rsyslog_accepts_the_shipped_rules(short: Path, name: str) -> None:
    with Hosts(short) as hosts:
        host = hosts.pops["pop1"] if "pop" in name else hosts.relays["smtp1"]
        done = subprocess.run(
            ["rsyslogd", "-N1", "-f", host.folder / "rules.conf"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0
    assert "error" not in done.stderr
    assert "warning" not in done.stderr


def test_the_rules_name_programs_that_log_logins() -> None:
    text = (EXAMPLES / "20-pop-host.conf").read_text()
    named = re.search(r"\$programname == \[(.*)\]", text)
    assert named is not None
    known = {program for name in formats.names() for program in formats.load(name).program_names}
    assert {name.strip(' "') for name in named[1].split(",")} <= known


def test_the_certificates_of_the_documentation_are_good(short: Path) -> None:
    text = (PACKAGE / "README.md").read_text()
    commands = re.findall(r"^ +(openssl .*)$", text, re.MULTILINE)
    for command in commands:
        subprocess.run(["sh", "-euc", command], cwd=short, check=True, capture_output=True)
    verify = ["openssl", "verify", "-CAfile", "ca.pem", "-verify_hostname", "pop1.example.net"]
    subprocess.run([*verify, "host.pem"], cwd=short, check=True, capture_output=True)
    assert len(commands) == 2


def clients(count: int) -> list[str]:
    return [f"198.51.100.{n + 1}" for n in range(count)]


@pytest.mark.parametrize("count", [6, pytest.param(30, marks=pytest.mark.slow)])
def test_a_login_at_either_host_opens_both_relays(short: Path, count: int) -> None:
    stranger, *chosen = clients(count + 1)
    with Hosts(short, [stranger, *chosen]) as hosts, ExitStack() as opened:
        hosts.start()
        for relay in hosts.relays.values():
            opened.enter_context(serving(relay))
        waits = []
        for n, client in enumerate(chosen):
            assert codes(hosts, client) == {550}
            time.sleep(random.random())
            start = time.monotonic()
            hosts.pops[POPS[n % 2]].say("popper[4242]", login(client))
            wait_until(lambda client=client: codes(hosts, client) == {250}, SOON)  # type: ignore[misc]
            waits.append(time.monotonic() - start)
        assert codes(hosts, stranger) == {550}
    print(f"{count} logins, both relays open: median {median(waits):.2f} s, worst {max(waits):.2f}")
    assert median(waits) <= 2.0


def serving(relay: Host) -> ExitStack:
    """Sendmail on a relay, and sapd's passes, a second apart."""
    with ExitStack() as opened:
        folder = relay.folder / "sendmail"
        folder.mkdir()
        sendmail = Sendmail(relay.namespace, folder, SENDMAIL.read_text())
        opened.enter_context(sendmail)
        (sendmail.mail / "access").write_text("")
        sendmail.makemap("", sendmail.mail / "access.db")
        relay.log.touch()
        sapd = Sapd(
            relay, f'source = "{sendmail.mail}/access"\ndatabase = "{sendmail.mail}/access.db"'
        )
        passes = subprocess.Popen(sapd.command("run", "--for", "10m", "--every", "1s"))
        opened.callback(passes.wait)
        opened.callback(passes.terminate)
        return opened.pop_all()


def codes(hosts: Hosts, client: str) -> set[int]:
    return {relay.namespace.probe(client).code for relay in hosts.relays.values()}


@pytest.mark.parametrize("outage", [12, pytest.param(300, marks=pytest.mark.slow)])
def test_a_cut_cable_loses_nothing_and_delays_nothing_else(hosts: Hosts, outage: float) -> None:
    away, here = hosts.relays.values()
    cable = hosts.cables["pop1", away.name]
    stamps: dict[int, int] = {}
    start, worst = time.monotonic(), 0.0
    while time.monotonic() < start + outage + 4:
        elapsed = time.monotonic() - start
        if 2 <= elapsed < outage + 2:
            cable.cut()
        else:
            cable.mend()
        first, said = len(stamps), time.monotonic()
        stamps.update(dict.fromkeys(range(first, first + 40), int(time.time())))
        for n, pop in enumerate(hosts.pops.values()):
            pop.say("popper[4242]", *numbered(first + 20 * n, 20), at=stamps[first])
        wait_until(lambda: len(numbers(here)) == len(stamps), SOON)
        worst = max(worst, time.monotonic() - said)
        time.sleep(0.2)
    wait_until(lambda: len(set(numbers(away))) == len(stamps), 60)
    time.sleep(1)
    print(f"{outage} s: {len(stamps)} lines, the other relay had each within {worst:.2f} s")
    assert worst < 3
    for relay in (away, here):
        of_each = [[n for n in numbers(relay) if n // 20 % 2 == side] for side in (0, 1)]
        for side, found in enumerate(of_each):
            expected = [n for n in stamps if n // 20 % 2 == side]
            print(f"{relay.name}, {POPS[side]}: of {len(expected)} {breaks(found, expected)}")
            # What was on its way when the cable was cut may come by the old connection, too.
            assert list(dict.fromkeys(found)) == expected
            assert len(found) - len(expected) <= (0 if outage > 60 else IN_FLIGHT)
        at = when(max(stamps.values()) + 1)
        rows = Sapd(relay).rows("--at", at)
        assert {rows[address_of(n)]["until"] for n in stamps if stamps[n] == stamps[0]} == {
            utc(stamps[0] + WINDOW)
        }
        assert {n: rows[address_of(n)]["until"] for n in stamps} == {
            n: utc(stamp + WINDOW) for n, stamp in stamps.items()
        }


def test_a_line_that_arrives_late_opens_for_the_rest_of_its_window(hosts: Hosts) -> None:
    relay = hosts.relays["smtp1"]
    relay.stop()
    now = time.time()
    hosts.pops["pop1"].say("popper[1]", login("192.0.2.1"), at=now - WINDOW - 5)
    hosts.pops["pop1"].say("popper[1]", login("192.0.2.2"), at=now - WINDOW + 300)
    relay.start()
    arrived(relay, "192.0.2.2", 30)
    rows = Sapd(relay).rows()
    assert list(rows) == ["192.0.2.2"]
    assert rows["192.0.2.2"]["until"] == utc(int(now - WINDOW + 300) + WINDOW)


def test_a_relay_that_is_down_delays_no_other(hosts: Hosts) -> None:
    down, up = hosts.relays.values()
    hosts.pops["pop1"].say("popper[1]", *numbered(0, 1))
    wait_until(lambda: numbers(down) == numbers(up) == [0], SOON)
    down.stop(signal.SIGKILL)
    count = 15_000
    for first in range(1, count, 500):
        hosts.pops["pop1"].say("popper[1]", *numbered(first, min(500, count - first)))
    wait_until(lambda: len(numbers(up)) == count, 30)
    assert numbers(up) == list(range(count))
    start = time.monotonic()
    hosts.pops["pop1"].say("popper[1]", login("192.0.2.1", "last"))
    arrived(up, "last")
    assert time.monotonic() - start < 2
    down.start()
    arrived(down, "last", 60)
    assert numbers(down) == list(range(count))


def test_an_orderly_end_of_rsyslogd_keeps_what_waits(hosts: Hosts) -> None:
    relay, pop = hosts.relays["smtp1"], hosts.pops["pop1"]
    relay.stop()
    pop.say("popper[1]", *numbered(0, 10))  # on the way, when it is noticed that nobody is there
    wait_until(lambda: b"omrelp" in read(pop.output), 30)
    time.sleep(1)
    pop.say("popper[1]", *numbered(10, 100))
    time.sleep(0.5)
    pop.stop(signal.SIGTERM)
    relay.start()
    pop.start()
    pop.say("popper[1]", *numbered(110, 1))
    wait_until(lambda: 110 in numbers(relay), 30)
    found = [n for n in numbers(relay) if n >= 10]
    print(f"of 10 lines on the way when the relay went {len(numbers(relay)) - len(found)} came")
    assert found == list(range(10, 111))


def test_a_kill_of_rsyslogd_may_lose_lines_and_nothing_else(hosts: Hosts) -> None:
    relay, pop = hosts.relays["smtp1"], hosts.pops["pop1"]
    relay.stop()
    pop.say("popper[1]", *numbered(0, 100))
    time.sleep(0.5)
    pop.stop(signal.SIGKILL)
    relay.start()
    pop.start()
    pop.say("popper[1]", *numbered(100, 1))
    wait_until(lambda: 100 in numbers(relay), 30)
    found = numbers(relay)
    print(f"of 100 lines waiting when rsyslogd was killed {len(found) - 1} came")
    assert found == sorted(set(found))
    assert set(found) <= set(range(101))


def test_a_killed_relay_has_all_that_it_confirmed(hosts: Hosts) -> None:
    relay, pop, count = hosts.relays["smtp1"], hosts.pops["pop1"], 20_000
    for first in range(0, count, 500):
        pop.say("popper[1]", *numbered(first, 500))
    wait_until(lambda: bool(numbers(relay)))
    relay.stop(signal.SIGKILL)
    relay.start()
    wait_until(lambda: count - 1 in numbers(relay), 30)
    found = numbers(relay)
    print(f"doubled: {len(found) - count} of {count}")
    assert sorted(set(found)) == list(range(count))
    assert len(found) - count <= IN_FLIGHT


def plain(rules: str) -> str:
    return rules.replace('tls="on"', 'tls="off"')


def without_a_certificate(rules: str) -> str:
    return re.sub(r'tls\.my(Cert|PrivKey)="[^"]*"', "", rules)


@pytest.mark.parametrize("change", [plain, without_a_certificate])
def test_a_sender_without_a_certificate_is_not_heard(
    hosts: Hosts, change: Callable[[str], str]
) -> None:
    rules = (hosts.pops["pop1"].folder / "rules.conf").read_text()
    assert change(rules) != rules
    nobody_hears(hosts, change(rules))


@pytest.mark.parametrize(
    ("name", "ours"), [("stranger.example.net", True), ("pop1.example.net", False)]
)
def test_a_strangers_certificate_is_not_heard(hosts: Hosts, name: str, ours: bool) -> None:
    signer = hosts.authority if ours else Authority(hosts.folder / "another")
    certificate = signer.certificate(name)
    rules = (hosts.pops["pop1"].folder / "rules.conf").read_text()
    for key, path in (("myCert", certificate.certificate), ("myPrivKey", certificate.key)):
        rules = re.sub(rf'tls\.{key}="[^"]*"', f'tls.{key}="{path}"', rules)
    nobody_hears(hosts, rules)


def nobody_hears(hosts: Hosts, rules: str) -> None:
    """A stranger in a POP host's place is refused by both relays, and the POP host is heard."""
    stranger = Host("stranger", hosts.pops["pop1"].namespace, hosts.folder / "stranger", rules)
    stranger.start()
    try:
        stranger.say("popper[4242]", login("203.0.113.66", "mallory"))
        for relay in hosts.relays.values():
            wait_until(lambda relay=relay: b"TLS handshake failed" in read(relay.output), SOON)  # type: ignore[misc]
        time.sleep(1)
    finally:
        stranger.stop(signal.SIGKILL)
    hosts.pops["pop1"].say("popper[4242]", login("192.0.2.10"))
    for relay in hosts.relays.values():
        arrived(relay, "192.0.2.10")
        assert b"mallory" not in read(relay.log)


def test_a_pop_host_tells_no_stranger_who_logged_in(hosts: Hosts) -> None:
    relay = hosts.relays["smtp1"]
    relay.stop()
    certificate = hosts.authority.certificate("stranger.example.net")
    rules = (EXAMPLES / "21-relay.conf").read_text()
    stranger = Host(
        "stranger",
        relay.namespace,
        hosts.folder / "stranger",
        hosts.with_certificate(rules, certificate),
    )
    stranger.start()
    try:
        pop = hosts.pops["pop1"]
        pop.say("popper[4242]", login("192.0.2.10"))
        wait_until(lambda: b"authentication error" in read(pop.output), 30)
        time.sleep(2)
        assert read(stranger.log) == b""
    finally:
        stranger.stop(signal.SIGKILL)


def test_no_user_of_a_relay_can_write_to_its_file(hosts: Hosts) -> None:
    relay = hosts.relays["smtp1"]
    relay.say("popper[4242]", login("203.0.113.66"))
    wait_until(lambda: b"203.0.113.66" in read(relay.rest))
    hosts.pops["pop1"].say("popper[4242]", login("192.0.2.10"))
    arrived(relay, "192.0.2.10")
    assert b"203.0.113.66" not in read(relay.log)
    assert b"192.0.2.10" not in read(relay.rest)
    assert relay.log.stat().st_mode & 0o7777 == 0o640


def test_a_pop_host_passes_on_no_line_from_the_network(hosts: Hosts) -> None:
    pop = hosts.pops["pop1"]
    pop.stop()
    rules = pop.folder / "rules.conf"
    udp = 'module(load="imudp")\ninput(type="imudp" address="127.0.0.1" port="514")\n'
    rules.write_text(udp + rules.read_text())
    pop.start()
    message = login("203.0.113.66")
    logger = ["logger", "-n", "127.0.0.1", "-d", "-P", "514", "--rfc3164", "-t", "popper", message]
    with pop.namespace.start(logger) as process:
        assert process.wait(10) == 0
    wait_until(lambda: b"203.0.113.66" in read(pop.rest))
    pop.say("popper[4242]", login("192.0.2.10"))
    arrived(hosts.relays["smtp1"], "192.0.2.10", 30)
    assert b"203.0.113.66" not in read(hosts.relays["smtp1"].log)


def test_what_a_message_holds_makes_no_line_of_its_own(hosts: Hosts) -> None:
    forged = f"2026-11-27T00:00:00+00:00 10.1.1.1 popper[4242]: {login('203.0.113.66')}"
    pop, relay = hosts.pops["pop1"], hosts.relays["smtp1"]
    for between in ("\n", "\r\n", "\0", "\u2028", "\n<22>"):
        pop.say("popper[4242]", f"x{between}{forged}")
    pop.say("popper[4242]", "x" * 8100 + "\n" + forged)
    pop.say("popper[4242]", login("192.0.2.10"))
    arrived(relay, "192.0.2.10")
    assert list(Sapd(relay).rows()) == ["192.0.2.10"]


def test_equal_names_and_process_ids_are_told_apart(hosts: Hosts) -> None:
    one, two = hosts.pops.values()
    relay = hosts.relays["smtp1"]
    one.say("popa3d[4242]", "Session from 192.0.2.10")
    arrived(relay, "192.0.2.10")
    two.say("popa3d[4242]", "Session from 203.0.113.66")  # and no login
    arrived(relay, "203.0.113.66")
    one.say("popa3d[4242]", "Authentication passed for alice")
    arrived(relay, "alice")
    assert {a: row["accounts"] for a, row in Sapd(relay).rows().items()} == {
        "192.0.2.10": ["alice"]
    }
    assert b" mx1 popa3d[4242]: Session" in read(two.rest)


def courier(address: str, account: str = "bob") -> str:
    return f"LOGIN, user={account}, ip=[::ffff:{address}], port=[40797]"


def test_a_cut_message_of_one_host_says_nothing_about_the_other(hosts: Hosts) -> None:
    one, two = hosts.pops.values()
    relay = hosts.relays["smtp1"]
    one.say("pop3d", "LOGIN FAILED, user=" + "A" * 484)
    arrived(relay, "AAAA")
    honest = [courier(f"192.0.2.{n % 250 + 1}", f"user{n}") for n in range(1500)]
    assert sum(map(len, honest)) > 73_728  # what one's cut message takes the proof from
    two.say("pop3d", *honest)
    arrived(relay, "user1499", 30)
    one.say("pop3d", courier("203.0.113.66", "mallory"))
    arrived(relay, "mallory")
    rows = Sapd(relay).rows()
    assert len(rows) == 250
    assert "203.0.113.66" not in rows


def test_a_pop_host_whose_clock_is_ahead_opens_nothing(hosts: Hosts) -> None:
    relay, now = hosts.relays["smtp1"], time.time()
    hosts.pops["pop1"].say("popper[1]", login("203.0.113.66"), at=now + 300)
    hosts.pops["pop1"].say("popper[1]", login("192.0.2.10"), at=now + 60)
    arrived(relay, "192.0.2.10")
    sapd = Sapd(relay)
    assert "logins stamped more than 120 s ahead of now, which open nothing: 1" in sapd.run()
    rows = sapd.rows()
    assert list(rows) == ["192.0.2.10"]
    assert rows["192.0.2.10"]["until"] <= utc(time.time() + WINDOW)


def test_a_host_has_a_name_and_cables_of_its_own(hosts: Hosts) -> None:
    for pop in POPS:
        for relay in RELAYS:
            cable = hosts.cables[pop, relay]
            hosts.pops[pop].say("popper[1]", f"from {pop}")
            arrived(hosts.relays[relay], f"{cable.pop_address} popper[1]: from {pop}")
