"""IP addresses and networks, as text and as bits. Pure.

An address is a `str` in the spelling of `ipaddress` (RFC 5952 for IPv6); an IPv4-mapped IPv6
address is the IPv4 address that it stands for (RFC 4291 section 2.5.5.2).
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network

Network = IPv4Network | IPv6Network

_OCTET = rb"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = re.compile(_OCTET + rb"(?:\." + _OCTET + rb"){3}")  # a fifth of the time ipaddress takes
_IPV4_TEXT = re.compile(_IPV4.pattern.decode())


def parse_address(text: bytes) -> str | None:
    """The address in its usual spelling, an IPv4-mapped one as IPv4; None if it is none.

    vpopmail writes an underscore for each colon of an IPv6 address (vchkpw.c).
    """
    if _IPV4.fullmatch(text):
        return text.decode("ascii")
    try:
        ip = IPv6Address(text.replace(b"_", b":").decode("ascii"))
    except ValueError:
        return None
    if ip.scope_id is not None:
        return None
    return str(ip.ipv4_mapped or ip)


def are_addresses(texts: Iterable[str]) -> bool:
    """Whether all of these are addresses in their usual spelling."""
    is_ipv4 = _IPV4_TEXT.fullmatch
    return all(parse_address(text.encode()) == text for text in texts if not is_ipv4(text))


def parse_network(text: str, *, strict: bool = True) -> Network:
    """A network such as 192.0.2.0/24, an IPv4-mapped one as IPv4; raises ValueError.

    `strict` refuses bits behind the prefix.
    """
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
