"""OpenSMTPD's table of sapd's own entries: a file as of table(5), and smtpctl(8), which needs root.

smtpd reads the file when it starts and when smtpctl says so; measured with 6.8, an update counts
at once, in open sessions as well. A failing one leaves what smtpd had read before.

Failure contract. The new file is renamed onto the old one, and then smtpd is told. Between the two
a restart of smtpd reads the new one already. Where smtpd can't be told the new file stays, so that
a restart closes what is to be closed, and the next run tells it again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sapd import addresses, errors
from sapd.maps import builder, only
from sapd.maps.table import DEFAULT, OwnTable

if TYPE_CHECKING:
    from sapd.check.finding import Finding
    from sapd.maps.live import Published
    from sapd.toml_table import Table


class OpenSMTPD(OwnTable):
    """A text that smtpd reads when it is told. It does not start with an empty one."""

    FIRST = b"127.0.0.1\n"

    def __init__(
        self, database: str, table: str = "relays", builder: str = "/usr/sbin/smtpctl"
    ) -> None:
        """`database` is the file's path, `table` its name in smtpd.conf."""
        super().__init__(database)
        self.belongs_to = None  # smtpctl wants root
        self.table = table
        self.builder = builder

    @classmethod
    def options_of(cls, access: Table, policy: Table) -> dict[str, Any]:
        """See `Map`."""
        only("opensmtpd", access, policy, "database", "table", "builder")
        return {
            "database": access.path("database", DEFAULT),
            "table": access.text("table", "relays"),
            "builder": access.path("builder", "/usr/sbin/smtpctl"),
        }

    def files(self) -> dict[str, str]:
        """See `Map`."""
        return {"access.database": self.path, "access.builder": self.builder}

    def watched(self) -> list[str]:
        """See `Map`."""
        return [self.path]

    def wanted(self, open_until: Mapping[str, float]) -> bytes:
        """A line for each address."""
        return self.FIRST + "".join(f"{address}\n" for address in sorted(open_until)).encode(
            "ascii"
        )

    def publish(self, wanted: bytes, before: Published | None = None) -> Published:
        """See `Map`. If smtpd can't be told, it keeps the old table until it starts anew."""
        made = super().publish(wanted, before)
        arguments = ["update", "table", self.table]
        done = builder.run(self.builder, arguments, b"", 2, "OpenSMTPD")
        if done.status != 0:
            words = done.said.decode("utf-8", "backslashreplace").strip().removeprefix("smtpctl: ")
            reason = f"smtpd did not take it: {words or 'see its log'}; it keeps the old table"
            raise errors.SapdError(errors.MAKEMAP_FAILED, self.path, reason)
        return made

    def is_own(self, line: bytes) -> bool:
        """See `OwnTable`."""
        return addresses.parse_address(line) is not None

    def published_now(self, now: float, candidates: Collection[str]) -> Iterable[str]:
        """See `Map`."""
        own = self.lines()[self.FIRST.count(b"\n") :]
        return {address for line in own if (address := addresses.parse_address(line)) is not None}

    def findings(self, published: Published | None, scratch: str, root: str) -> Iterator[Finding]:
        """See `Map`."""
        from sapd.check import opensmtpd

        return opensmtpd.findings(self, published, root)
