"""A DNS server with one blocklist: Debian's rbldnsd, in the namespace of a mail server.

It answers for its own zone only and refuses the rest. Inside the namespace nothing else answers
on port 53, and nothing is asked outside.
"""

import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from tests.servers.namespace import Namespace
from tests.servers.packages import unpacked

ZONE = "bl.example.net"
STARTUP = 10.0  # seconds


class Blocklist:
    """The zone `bl.example.net` with some IPv4 addresses, from `with` to its end."""

    def __init__(self, namespace: Namespace, folder: Path, listed: Iterable[str]) -> None:
        """`folder` is for its file."""
        self.namespace = namespace
        self.zone = folder / "blocklist"
        self.zone.write_text(":127.0.0.2:listed\n" + "".join(f"{one}\n" for one in listed))

    def __enter__(self) -> Self:
        """Start it and wait until it listens; RuntimeError with its own words if it does not."""
        program = unpacked("rbldnsd") / "usr/sbin/rbldnsd"
        self.process = self.namespace.start(
            [
                *(str(program), "-n", "-4", "-u", "nobody", "-b", "127.0.0.1/53"),
                f"{ZONE}:ip4set:{self.zone}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + STARTUP
        while not self._listens():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                said, _ = self.process.communicate()
                raise RuntimeError(f"rbldnsd does not listen: {said.decode()}")
            time.sleep(0.02)
        return self

    def __exit__(self, *error: object) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()

    def _listens(self) -> bool:
        with self.namespace.start(["ss", "-Hlun", "sport = :53"], stdout=subprocess.PIPE) as ss:
            said, _ = ss.communicate()
        return said != b""
