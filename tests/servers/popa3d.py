"""A real popa3d, as a daemon of its own: only so it tells the clients' addresses."""

from collections.abc import Sequence

from tests.servers.server import Server


class Popa3d(Server):
    """It knows port 110 only. Once it has started it is a daemon, and ends with the machine."""

    NAME = "popa3d"
    PACKAGES = ("popa3d",)
    pop3 = 110
    blanks = False
    ipv6 = False

    def commands(self) -> Sequence[Sequence[str]]:
        """It has no settings."""
        return [["popa3d", "-D"]]
