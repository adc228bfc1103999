"""The entries of sendmail's access map that let an address in: keys and values.

Formats are those of cf/README ("Anti-Spam Configuration Control"), and what was measured with
sendmail 8.17.
"""

from collections.abc import Collection, Mapping, Set
from typing import NamedTuple

from sapd import addresses
from sapd.maps import LIMITS

RELAYS, ENDS, EXEMPTS = "RELAY", "sapd:", "Connect:"
"""The value of an entry that relays; the tags of those that close by themselves."""

TAGS = dict(zip(LIMITS, ("ClientRate", "ClientConn", "GreetPause"), strict=True))
"""The tag of sendmail's entries for each limit, by its setting."""


class Entries(NamedTuple):
    """How sapd's own entries are written.

    With `closes_by_itself` they say until when, and `tag` is `ENDS`; those that `exempts` asks for
    exempt from DNS blocklists. `limits` has the value of each further entry, by its tag.
    """

    tag: str
    limits: Mapping[str, int]
    closes_by_itself: bool
    exempts: bool

    @property
    def limiting(self) -> list[str]:
        """The tags of the entries that limit, with their colons."""
        return [f"{tag}:" for tag in self.limits]

    def lines(self, open_until: Mapping[str, float], taken: Set[str]) -> bytes:
        """The lines that let addresses relay, or say until when, and those of each one's limits.

        sendmail looks an IPv6 client up as eight groups without padding, or, where it is
        configured with UseCompressedIPv6Addresses, in the usual short form; both are written,
        unless the administrator wrote one: `taken` are his keys in lower case. Nor is a limit
        written where he limited a network.
        """
        limits = {f"{tag}:": str(value) for tag, value in self.limits.items()}
        lines, tags = [], {self.tag: RELAYS, **limits}
        for address in sorted(open_until):
            if self.closes_by_itself:
                tags = {**self._ends(open_until[address]), **limits}
            for key in _keys(address):
                for tag, word in tags.items():
                    name = f"{tag}{key}"
                    if name.lower() in taken:
                        continue
                    if tag not in limits or taken.isdisjoint(_networks(tag, key)):
                        lines.append(f"{name}\t{word}\n")
        return "".join(lines).encode("ascii")

    def _ends(self, end: float) -> dict[str, str]:
        """{tag: value} of the entries for an address that is open until `end`."""
        return {ENDS: f"{end:.0f}", **({EXEMPTS: "OK"} if self.exempts else {})}

    def address_let_in(self, line: bytes, not_own: Collection[str], now: float) -> str | None:
        """The address that a line of a map lets in at `now`, if it is one of sapd's entries."""
        key, _, value = line.lower().partition(b"\t")
        prefix = self.tag.lower().encode()
        if not key.startswith(prefix) or key.decode("latin-1") in not_own:
            return None
        value = value.strip()
        if self.closes_by_itself:
            lets_in = value.isdigit() and now < int(value[:20])
        else:
            lets_in = value == b"relay"
        text = key.removeprefix(prefix).removeprefix(b"ipv6:")
        return addresses.parse_address(text) if lets_in else None


def _keys(address: str) -> list[str]:
    """The keys by which sendmail may look an address up."""
    if ":" not in address:
        return [address]
    return sorted({f"IPv6:{address}", f"IPv6:{addresses.groups(address)}"})


def _networks(tag: str, key: str) -> list[str]:
    """The keys of the networks that an address's key lies in, in lower case."""
    separator = ":" if key.startswith("IPv6:") else "."
    parts = key.split(separator)
    return [f"{tag}{separator.join(parts[:n])}".lower() for n in range(1, len(parts))]
