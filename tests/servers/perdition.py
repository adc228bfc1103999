"""A real Perdition: a proxy that logs who logged in, in front of a Dovecot that lets them in."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from tests.servers.dovecot import Dovecot
from tests.servers.machine import Machine
from tests.servers.namespace import SERVER_IPV4, SERVER_IPV6
from tests.servers.server import Server

BOTH = f"{SERVER_IPV4},[{SERVER_IPV6}]"


class Perdition(Server):
    """Dovecot's users are its users, and Dovecot's lines name the proxy's address.

    A failed login is answered after 3 seconds.
    """

    NAME = "perdition"
    PACKAGES = ("perdition", *Dovecot.PACKAGES)
    pop3 = 1110
    imap = 1143
    blanks = False

    def __init__(self, machine: Machine, folder: Path, bind: str = BOTH) -> None:
        """Listen on `bind`; "[::]" takes IPv4 too, and writes ::ffff:192.0.2.10 in the log."""
        super().__init__(machine, folder)
        self.bind = bind
        self.dovecot = Dovecot(machine, folder)
        self.users = self.dovecot.users

    def __enter__(self) -> Self:
        """Start Dovecot, then Perdition."""
        with ExitStack() as stack:
            stack.enter_context(self.dovecot)
            super().__enter__()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        """End both."""
        super().__exit__(*error)
        self.stack.close()

    def commands(self) -> Sequence[Sequence[str]]:
        """One process for each protocol, in the foreground."""
        return [
            [
                *(f"perdition.{protocol}", "--no_daemon", "--map_library="),
                *("--username=nobody", "--group=nogroup", f"--listen_port={port}"),
                *(f"--bind_address={self.bind}", f"--outgoing_server={SERVER_IPV4}:{behind}"),
            ]
            for protocol, port, behind in (
                ("pop3", self.pop3, self.dovecot.pop3),
                ("imap4", self.imap, self.dovecot.imap),
            )
        ]
