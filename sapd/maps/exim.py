"""Exim's table of sapd's own entries: a text for its lookup `iplsearch`, spec.txt section 9.3.

Each line is an address, which must be in quotes if it is an IPv6 one, and when it closes in epoch
seconds. Exim compares that with its clock (examples/exim), so that an entry closes by itself.
Measured with Exim 4.96: a renamed file is seen at the next lookup, and no answer was wrong.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from math import ceil
from typing import TYPE_CHECKING, Any

from sapd import addresses
from sapd.maps import only
from sapd.maps.table import DEFAULT, OwnTable

if TYPE_CHECKING:
    from sapd.check.finding import Finding
    from sapd.maps.live import Published
    from sapd.toml_table import Table

_ENTRY = re.compile(rb'"?([0-9a-f.:]+)"?: (\d+)')


class Exim(OwnTable):
    """A text that Exim searches; with more than `MANY` addresses that takes long.

    110 ms a lookup with 100,000.
    """

    MANY = 10_000
    closes_by_itself = True

    def __init__(self, database: str) -> None:
        """`database` is the file's path."""
        super().__init__(database)

    @classmethod
    def options_of(cls, access: Table, policy: Table) -> dict[str, Any]:
        """See `Map`."""
        only("exim", access, policy, "database")
        return {"database": access.path("database", DEFAULT)}

    def wanted(self, open_until: Mapping[str, float]) -> bytes:
        """A line for each address, with its end."""
        lines = (
            f'"{address}": {ceil(end)}\n' if ":" in address else f"{address}: {ceil(end)}\n"
            for address, end in sorted(open_until.items())
        )
        return "".join(lines).encode("ascii")

    def is_own(self, line: bytes) -> bool:
        """See `OwnTable`."""
        return _ENTRY.fullmatch(line) is not None

    def published_now(self, now: float, candidates: Collection[str]) -> Iterable[str]:
        """See `Map`."""
        return {address for address, end in self.entries().items() if now < end}

    def entries(self) -> dict[str, int]:
        """{address: end} in the live table, the first of equal ones; raises `SapdError`."""
        found: dict[str, int] = {}
        for line in self.lines():
            entry = _ENTRY.fullmatch(line)
            address = entry and addresses.parse_address(entry[1])
            if entry and address:
                found.setdefault(address, int(entry[2]))
        return found

    def findings(self, published: Published | None, scratch: str, root: str) -> Iterator[Finding]:
        """See `Map`."""
        from sapd.check import exim

        return exim.findings(self, published)
