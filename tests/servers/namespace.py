"""A private network for one mail server and its clients.

A network namespace has addresses of its own, so that a test may use any documentation address
without touching the machine's network: nothing leaves the namespace, and nothing comes in.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import count
from typing import Any, NamedTuple, Self

from tests.servers import probe

SERVER_IPV4 = "192.0.2.25"
SERVER_IPV6 = "2001:db8::25"
PORT = 2525
FOREIGN = "someone@foreign.example"
_numbers = count(1)


class Answer(NamedTuple):
    """How a connection ended: the step it came to, the code and the text of the reply."""

    step: str
    code: int
    text: str


class Namespace:
    """A network namespace that has the server's addresses and the clients', and an SMTP client.

    The client is one process that lives as long as the namespace (see probe.py); ``client`` is
    always the address it connects from, and the server the one of the same family.
    """

    def __init__(self, clients: Sequence[str]) -> None:
        """``clients`` are the addresses that tests will connect from."""
        self.name = f"sapd-test-{os.getpid()}-{next(_numbers)}"
        self.clients = clients

    def __enter__(self) -> Self:
        """Make it; nothing stays behind if that fails."""
        _ip("netns", "add", self.name)
        try:
            _ip("-n", self.name, "link", "set", "lo", "up")
            for address in (SERVER_IPV4, SERVER_IPV6, *self.clients):
                options = ["nodad"] if ":" in address else []
                _ip("-n", self.name, "address", "add", address, "dev", "lo", *options)
            self.prober = self.start(
                [sys.executable, probe.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        except BaseException:
            _ip("netns", "delete", self.name)
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """End the client and remove the namespace."""
        try:
            self.prober.kill()
            self.prober.communicate()
        finally:
            _ip("netns", "delete", self.name)

    def start(self, command: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
        """Start a process inside; ``options`` as of Popen."""
        return subprocess.Popen(["ip", "netns", "exec", self.name, *command], **options)

    def probe(self, client: str, rcpt: str = FOREIGN) -> Answer:
        """One connection, up to RCPT."""
        return Answer(**self._ask("probe", client, rcpt))

    def hasty(self, client: str) -> Answer:
        """One connection of a client that does not wait for the greeting, up to the reply."""
        return Answer(**self._ask("hasty", client))

    def send(self, client: str, rcpt: str = FOREIGN) -> Answer:
        """One connection that sends a mail of one line."""
        return Answer(**self._ask("send", client, rcpt))

    def open_session(self, client: str, rcpt: str = FOREIGN) -> Answer:
        """Begin a session that stays open until ``close_session``, and take it up to MAIL."""
        return Answer(**self._ask("open", client, rcpt))

    def session_rcpt(self) -> Answer:
        """Ask the open session for one more recipient."""
        return Answer(**self._ask("rcpt"))

    def session_again(self) -> Answer:
        """Begin one more envelope in the open session, up to RCPT."""
        return Answer(**self._ask("again"))

    def close_session(self) -> None:
        """End the open session."""
        self._ask("close")

    def start_loop(self, client: str, rcpt: str = FOREIGN) -> None:
        """Probe in the background, one connection after the other, until ``stop_loop``."""
        self._ask("start", client, rcpt)

    def count_loop(self) -> dict[str, int]:
        """How many answers of each kind so far, as ``{"rcpt 250": 17}``."""
        return self._ask("count")

    def stop_loop(self) -> dict[str, int]:
        """End the loop; how many answers of each kind it got in all."""
        return self._ask("stop")

    def _ask(self, do: str, client: str = "", rcpt: str = "") -> dict[str, Any]:
        server = SERVER_IPV6 if ":" in client else SERVER_IPV4
        request = {"do": do, "client": client, "server": server, "port": PORT, "rcpt": rcpt}
        assert self.prober.stdin is not None
        assert self.prober.stdout is not None
        self.prober.stdin.write(json.dumps(request).encode() + b"\n")
        self.prober.stdin.flush()
        answer: dict[str, Any] = json.loads(self.prober.stdout.readline())
        return answer


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
