"""A DNS blocklist on a machine: dnsmasq, which lists some addresses and knows nothing else."""

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.servers.machine import STARTUP, Machine

PACKAGES = ("dnsmasq-base",)
RESOLV = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"
ZONE = "zen.example.net"


@contextmanager
def nothing(machine: Machine) -> Iterator[None]:
    """Have the machine ask a DNS server to which no route leads: that fails at once."""
    (machine.root / "etc/resolv.conf").write_text("nameserver 198.51.100.53\n")
    yield


@contextmanager
def listing(machine: Machine, addresses: Sequence[str]) -> Iterator[None]:
    """Have the machine ask a DNS server that lists these IPv4 addresses in `ZONE`."""
    (machine.root / "etc/resolv.conf").write_text(RESOLV)
    names = [".".join([*reversed(address.split(".")), ZONE]) for address in addresses]
    options = ["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root"]
    options += ["--listen-address=127.0.0.1", "--bind-interfaces", "--no-resolv", "--no-hosts"]
    options += ["--local=/#/", *(f"--address=/{name}/127.0.0.2" for name in names)]
    options += [f"--txt-record={name},listed" for name in names]  # what rblsmtpd asks for
    output = machine.folder / "dnsmasq.out"
    with output.open("wb") as out:
        process = machine.start(
            ["dnsmasq", *options], stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    deadline = time.monotonic() + STARTUP
    try:
        while "0100007F:0035" not in Path(f"/proc/{machine.init}/net/udp").read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dnsmasq does not start: {output.read_text()}")
            time.sleep(0.02)
        yield
    finally:
        process.kill()
        process.wait(STARTUP)
