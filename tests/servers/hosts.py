"""POP hosts and relays, each in a network of its own, with the shipped rules for rsyslog.

Each POP host has a cable to each relay, so that one of them can be cut. A host is a namespace with
a name, a file of host names and a real rsyslogd; what a POP server logs there is said through the
socket that rsyslogd listens on.
"""

import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self

from tests.servers.certificates import Authority, Certificate
from tests.servers.namespace import Namespace
from tests.servers.rsyslog import read, wait_until

EXAMPLES = Path(__file__).parents[2] / "examples" / "rsyslog"
POPS = ("pop1", "pop2")
RELAYS = ("smtp1", "smtp2")
DOMAIN = "example.net"

_AS_A_HOST = """
hostname "$1" && mount --bind "$2" /etc/hosts && shift 2 && exec "$@"
"""

# Stamps are those of the sender, so that a test can have a clock that is wrong. A real host takes
# the time at which its own rsyslogd received the line.
_CONFIGURATION = """\
global(workDirectory="{folder}/spool")
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="{folder}/dev-log" RateLimit.Interval="0"
      IgnoreTimestamp="off" UseSysTimeStamp="off")
include(file="{folder}/rules.conf")
*.* action(type="omfile" file="{folder}/rest" template="RSYSLOG_FileFormat")
"""


class Host:
    """rsyslogd on a host, from `start` to `stop`; `log` is the file that a relay's rules write."""

    def __init__(
        self, name: str, namespace: Namespace, folder: Path, rules: str, called: str | None = None
    ) -> None:
        """`rules` are a shipped example, with its paths; `called` is the host's own name."""
        folder.mkdir()
        (folder / "spool").mkdir()
        self.name = name
        self.called = called or name
        self.namespace = namespace
        self.folder = folder
        self.log = folder / "pop"
        self.rest = folder / "rest"
        self.output = folder / "rsyslog.out"
        self.process: subprocess.Popen[bytes] | None = None
        self.configuration = folder / "rsyslog.conf"
        self.configuration.write_text(_CONFIGURATION.format(folder=folder))
        (folder / "rules.conf").write_text(rules.replace("/var/log/pop", str(self.log)))

    def start(self) -> None:
        """Start rsyslogd, and wait until it listens; RuntimeError with its words if it fails."""
        command = ["rsyslogd", "-n", "-f", str(self.configuration), "-i", str(self.folder / "pid")]
        prefix = ["unshare", "--uts", "sh", "-c", _AS_A_HOST, "sh", self.called]
        with self.output.open("ab") as out:
            self.process = self.namespace.start(
                [*prefix, str(self.folder.parent / "hosts"), *command], stdout=out, stderr=out
            )
        before = self.rest.stat().st_size if self.rest.exists() else 0
        try:
            self.say("ready", "started")
            wait_until(lambda: b"ready: started" in read(self.rest)[before:])
        except (OSError, TimeoutError) as error:
            self.stop(signal.SIGKILL)
            raise RuntimeError(f"rsyslogd does not start: {self.output.read_text()}") from error

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """End it if it runs; TERM lets it save what waits."""
        if self.process is not None:
            self.process.send_signal(sig)
            self.process.wait(30)
            self.process = None

    def say(self, tag: str, *messages: str, at: float | None = None) -> None:
        """Say something as syslog(3) does, facility mail, stamped `at` (epoch; default: now)."""
        stamp = time.strftime("%b %e %H:%M:%S", time.localtime(at))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            wait_until(lambda: sender.connect_ex(str(self.folder / "dev-log")) == 0)
            for message in messages:
                sender.send(f"<22>{stamp} {tag}: {message}".encode())

    def lines(self) -> list[str]:
        """What the relay's private file holds."""
        return read(self.log).decode().splitlines()


class Cable(NamedTuple):
    """A network cable from a POP host to a relay."""

    pop: Namespace
    relay: Namespace
    pop_address: str
    relay_address: str
    device: str

    def lay(self) -> None:
        """Put it in; `device` is its name at both ends."""
        _ip("link", "add", self.device, "netns", self.pop.name, "type", "veth",
            "peer", "name", self.device, "netns", self.relay.name)  # fmt: skip
        for namespace, address in ((self.pop, self.pop_address), (self.relay, self.relay_address)):
            _ip("-n", namespace.name, "address", "add", f"{address}/30", "dev", self.device)
        self.mend()

    def cut(self) -> None:
        """Nothing gets through any more, and nobody is told."""
        _ip("-n", self.relay.name, "link", "set", self.device, "down")

    def mend(self) -> None:
        """Everything gets through again."""
        for namespace in (self.pop, self.relay):
            _ip("-n", namespace.name, "link", "set", self.device, "up")


class Hosts:
    """Two POP hosts and two relays, from `with` to its end; all but rsyslogd is running then."""

    def __init__(
        self, folder: Path, clients: Iterable[str] = (), called: Mapping[str, str] | None = None
    ) -> None:
        """`clients` are addresses in the relays' networks; `called` what POP hosts call themselves.

        `folder` has a short path, as sockets lie in it.
        """
        self.folder = folder
        self.clients = tuple(clients)
        self.called = called or {}
        self.opened = ExitStack()

    def __enter__(self) -> Self:
        """Make namespaces, cables, certificates and configurations."""
        with self.opened as opened:
            spaces = {
                name: opened.enter_context(Namespace(self.clients if name in RELAYS else ()))
                for name in (*POPS, *RELAYS)
            }
            self.cables = {
                (pop, relay): Cable(spaces[pop], spaces[relay], *_addresses(m, n), f"wire{m}{n}")
                for m, pop in enumerate(POPS, 1)
                for n, relay in enumerate(RELAYS, 1)
            }
            for cable in self.cables.values():
                cable.lay()
            self.authority = Authority(self.folder / "authority")
            (self.folder / "hosts").write_text("127.0.0.1 localhost\n")
            self.pops = {name: self.pop_host(name, spaces[name]) for name in POPS}
            self.relays = {name: self.relay(name, spaces[name]) for name in RELAYS}
            for host in (*self.pops.values(), *self.relays.values()):
                opened.callback(host.stop, signal.SIGKILL)
            self.opened = opened.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        """End all processes, and remove the networks."""
        self.opened.close()

    def start(self) -> None:
        """Start rsyslogd everywhere."""
        for host in (*self.relays.values(), *self.pops.values()):
            host.start()

    def pop_host(self, name: str, namespace: Namespace) -> Host:
        """A POP host with the shipped rules; the relays' names lead along its own cables."""
        rules = (EXAMPLES / "20-pop-host.conf").read_text()
        for relay in RELAYS:
            address = self.cables[name, relay].relay_address
            rules = rules.replace(f'target="{relay}.{DOMAIN}"', f'target="{address}"')
        rules = self.with_certificate(rules, self.authority.certificate(f"{name}.{DOMAIN}"))
        return Host(name, namespace, self.folder / name, rules, self.called.get(name))

    def relay(self, name: str, namespace: Namespace) -> Host:
        """A relay with the shipped rules."""
        rules = (EXAMPLES / "21-relay.conf").read_text()
        rules = self.with_certificate(rules, self.authority.certificate(f"{name}.{DOMAIN}"))
        return Host(name, namespace, self.folder / name, rules)

    def with_certificate(self, rules: str, own: Certificate) -> str:
        """The rules with the paths of a certificate, and of this authority's."""
        for shipped, path in {
            "ca.pem": self.authority.own.certificate,
            "host.pem": own.certificate,
            "host.key": own.key,
        }.items():
            rules = rules.replace(f"/etc/rsyslog.d/tls/{shipped}", str(path))
        return rules


def _addresses(pop: int, relay: int) -> tuple[str, str]:
    return f"10.{pop}.{relay}.1", f"10.{pop}.{relay}.2"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
