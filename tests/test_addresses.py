"""Addresses and networks: one spelling for each, held against the standard library."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapd.addresses import (
    are_addresses,
    contains,
    groups,
    lies_in,
    parse_address,
    parse_network,
    to_bits,
)

addresses = st.ip_addresses()


@given(addresses)
def test_an_address_has_one_spelling(address: IPv4Address | IPv6Address) -> None:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    usual = str(mapped or address)
    spellings = [str(address), address.exploded, address.exploded.upper()]
    if isinstance(address, IPv4Address):
        spellings = [str(address), f"::ffff:{address}", f"::FFFF:{address}"]
    for spelling in spellings:
        assert parse_address(spelling.encode()) == usual


@given(st.ip_addresses(v=6))
def test_vpopmail_writes_underscores(address: IPv6Address) -> None:
    assert parse_address(str(address).replace(":", "_").encode()) == parse_address(
        str(address).encode()
    )


@given(st.binary(max_size=40) | st.text("0123456789abcdef.:_%/ \n", max_size=40).map(str.encode))
def test_whatever_is_taken_is_an_address_in_its_usual_spelling(text: bytes) -> None:
    found = parse_address(text)
    if found is not None:
        assert str(ip_address(found)) == found
        assert parse_address(found.encode()) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "192.0.2",
        "192.0.2.256",
        "192.0.2.01",  # octal to some
        "192.0.2.1\n",
        " 192.0.2.1",
        "192.0.2.1/32",
        "192.0.2.1:25",
        "3221225985",
        "fe80::1%eth0",  # a scope is this host's own
        "2001:db8::1::2",
        "[2001:db8::1]",
        "١٩٢.0.2.1",
    ],
)
def test_what_is_no_address(text: str) -> None:
    assert parse_address(text.encode()) is None


@given(addresses)
def test_bits(address: IPv4Address | IPv6Address) -> None:
    assert to_bits(str(address)) == (address.max_prefixlen, int(address))


@given(st.ip_addresses(v=6))
def test_groups(address: IPv6Address) -> None:
    found = groups(str(address)).split(":")
    assert found == [f"{int(address) >> shift & 0xFFFF:x}" for shift in range(112, -1, -16)]


@given(addresses, addresses, st.integers(0, 128), st.integers(0, 128))
def test_networks_hold_what_ipaddress_says(
    one: IPv4Address | IPv6Address, other: IPv4Address | IPv6Address, long: int, short: int
) -> None:
    outer = ip_network((one, min(long, one.max_prefixlen)), strict=False)
    inner = ip_network((other, min(short, other.max_prefixlen)), strict=False)
    assert lies_in(outer, *to_bits(str(one)))
    assert lies_in(outer, *to_bits(str(other))) == (other in outer)
    expected = outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]
    assert contains(outer, inner) == expected


@pytest.mark.parametrize(
    ("text", "usual"),
    [
        ("192.0.2.7", "192.0.2.7/32"),
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::/95", "::/95"),  # more than the mapped addresses
        ("2001:DB8::/32", "2001:db8::/32"),
    ],
)
def test_networks(text: str, usual: str) -> None:
    assert str(parse_network(text)) == usual


def test_bits_behind_the_prefix() -> None:
    with pytest.raises(ValueError, match="host bits"):
        parse_network("192.0.2.1/24")
    assert str(parse_network("192.0.2.1/24", strict=False)) == "192.0.2.0/24"


@given(st.text("0123456789abcdef.:_%\n\u0661\udcff", max_size=20) | addresses.map(str))
def test_texts_are_addresses_if_each_is_one_in_its_usual_spelling(text: str) -> None:
    usual = parse_address(text.encode("utf-8", "surrogatepass")) == text
    assert are_addresses(["192.0.2.1", text, "2001:db8::7"]) == usual


@pytest.mark.parametrize("text", ["\u0661.2.3.4", "1.2.3.4\n", "1.2.3.04", "2001:DB8::7", "\udcff"])
def test_what_only_looks_like_an_address(text: str) -> None:
    assert not are_addresses([text])
