"""Mail clients: they log in by POP3 or IMAP, or send whatever bytes a test wants to be sent."""

import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from tests.servers.machine import Machine

TIMEOUT = 5.0  # seconds for one reply


class Session:
    """One connection from a client's address, from `with` to its end.

    A reply is what comes up to a line that ends it, and empty once the server has hung up or is
    silent. A POP3 reply is one line here: ask for no lists.
    """

    def __init__(self, machine: Machine, client: str, port: int, imap: bool = False) -> None:
        """Connect, and read the greeting."""
        self.going_on = b"* " if imap else None
        self.socket = machine.connect(client, port, TIMEOUT)
        self.reader = self.socket.makefile("rb")
        self.greeting = self._line()

    def __enter__(self) -> Self:
        """The connection is there already."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it, said goodbye or not."""
        self.reader.close()
        self.socket.close()

    def say(self, line: bytes) -> bytes:
        """Send a line, or the lines of a literal; the reply."""
        try:
            self.socket.sendall(line + b"\r\n")
        except OSError:
            return b""
        reply = more = self._line()
        while self.going_on is not None and more.startswith(self.going_on):
            more = self._line()
            reply += more
        return reply

    def start_tls(self, command: bytes) -> None:
        """Ask for TLS, and go on with it, whatever the server's certificate."""
        self.say(command)
        self.reader.close()
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.socket = context.wrap_socket(self.socket)
        self.reader = self.socket.makefile("rb")

    def hang_up(self, line: bytes) -> None:
        """Send the last line, and wait until the server has hung up: it has logged by then."""
        with suppress(OSError):
            self.socket.sendall(line + b"\r\n")
            self.reader.read()

    def _line(self) -> bytes:
        with suppress(OSError):
            return self.reader.readline()
        return b""


def login_pop3(machine: Machine, client: str, port: int, user: str, password: str) -> bool:
    """Log in as a mail program does, and quit; was it let in?"""
    with Session(machine, client, port) as session:
        session.say(b"USER " + _bytes(user))
        let_in = session.say(b"PASS " + _bytes(password)).startswith(b"+OK")
        session.hang_up(b"QUIT")
    return let_in


def login_imap(machine: Machine, client: str, port: int, user: str, password: str) -> bool:
    """Log in by IMAP, and out; was it let in? Literals take any name, so it needs no quotes."""
    name, word = _bytes(user), _bytes(password)
    with Session(machine, client, port, imap=True) as session:
        session.say(b"a LOGIN {%d}" % len(name))
        session.say(name + b" {%d}" % len(word))
        reply = session.say(word)
        session.hang_up(b"b LOGOUT")
    return b"a OK" in reply


def say_pop3(machine: Machine, client: str, port: int, lines: Sequence[bytes]) -> list[bytes]:
    """Send lines as they are, one after each reply; the replies."""
    with Session(machine, client, port) as session:
        return [session.say(line) for line in lines]


def say_imap(machine: Machine, client: str, port: int, lines: Sequence[bytes]) -> list[bytes]:
    """The same by IMAP. A literal is a line of its own, with what follows it on its last line."""
    with Session(machine, client, port, imap=True) as session:
        return [session.say(line) for line in lines]


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
