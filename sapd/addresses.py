"""IP addresses and networks, as text and as bits. Pure.

An address is a `str` in the spelling of `ipaddress` (RFC 5952 for IPv6); an IPv4-mapped IPv6
address is the IPv4 address that it stands for (RFC 4291 section 2.5.5.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # else loaded where it is wanted: by a busy minute with IPv4 alone it is not
    from ipaddress import IPv4Network, IPv6Network

    Network = IPv4Network | IPv6Network

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(_OCTET + r"(?:\." + _OCTET + r"){3}")  # a fifth of the time ipaddress takes


def parse_address(text: bytes) -> str | None:
    """The address in its usual spelling, an IPv4-mapped one as IPv4; None if it is none.

    vpopmail writes an underscore for each colon of an IPv6 address (vchkpw.c).
    """
    if _IPV4.fullmatch(found := text.decode("latin-1")):
        return found
    from ipaddress import IPv6Address

    try:
        ip = IPv6Address(text.replace(b"_", b":").decode("ascii"))
    except ValueError:
        return None
    if ip.scope_id is not None:
        return None
    return str(ip.ipv4_mapped or ip)


def are_addresses(texts: Iterable[str]) -> bool:
    """Whether all of these are addresses in their usual spelling."""
    others = (text for text in texts if _IPV4.fullmatch(text) is None)
    return all(parse_address(text.encode("utf-8", "surrogatepass")) == text for text in others)


def parse_network(text: str, *, strict: bool = True) -> Network:
    """A network such as 192.0.2.0/24, an IPv4-mapped one as IPv4; raises ValueError.

    `strict` refuses bits behind the prefix.
    """
    from ipaddress import IPv4Network, IPv6Network, ip_network

    found = ip_network(text, strict)
    if isinstance(found, IPv6Network) and found.prefixlen >= 96:
        mapped = found.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, found.prefixlen - 96))
    return found


@lru_cache(maxsize=16_384)
def to_bits(address: str) -> tuple[int, int]:
    """The number of bits of an address, and the number that they make.

    IPv4 is done by hand: `ipaddress` takes four times as long, and a large map asks often.
    """
    if ":" in address:
        from ipaddress import IPv6Address

        return 128, int(IPv6Address(address))
    first, second, third, last = map(int, address.split("."))
    return 32, first << 24 | second << 16 | third << 8 | last


def groups(address: str) -> str:
    """An IPv6 address as eight groups without padding: `2001:db8:0:0:0:0:0:7`."""
    _, number = to_bits(address)
    return ":".join(f"{number >> shift & 0xFFFF:x}" for shift in range(112, -1, -16))


def lies_in(network: Network, bits: int, number: int) -> bool:
    """Whether an address, as `to_bits` gives it, lies in a network."""
    if network.max_prefixlen != bits:
        return False
    shift = bits - network.prefixlen
    return int(network.network_address) == number >> shift << shift


def contains(outer: Network, inner: Network) -> bool:
    """Whether all of one network lies in another."""
    bits = inner.max_prefixlen
    return outer.prefixlen <= inner.prefixlen and lies_in(outer, bits, int(inner.network_address))
