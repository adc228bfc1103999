"""Who may relay: the claims. Pure; `now` is an argument.

A claim is an address and an account, with the *log's* time of that account's latest login from
there. It lasts for the window of the address's network. Merging the same login twice changes
nothing, which is why reading a log again is always safe.
"""

from collections.abc import Container
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network
from math import inf
from typing import NamedTuple

Network = IPv4Network | IPv6Network
Claims = dict[str, dict[str, float]]
"""{address: {account: login time}}, times in UTC epoch seconds."""

_MULTICAST_IPV4 = range(224, 240)  # RFC 1112; the first eight bits
_MULTICAST_IPV6 = (255,)  # RFC 4291 section 2.7


class Rules(NamedTuple):
    """How long a login opens the relay, in seconds, and for whom it never does."""

    window: float
    windows: tuple[tuple[Network, float], ...] = ()
    never: tuple[Network, ...] = ()

    @property
    def longest(self) -> float:
        """The longest window of all, in seconds: older log lines open nothing."""
        return max([self.window, *(window for _, window in self.windows)])

    def window_of(self, address: str) -> float:
        """Seconds that a login from `address` lasts; the longest prefix wins."""
        if not self.windows:
            return self.window
        bits, number = as_number(address)
        matching = [
            (net.prefixlen, window) for net, window in self.windows if _holds(net, bits, number)
        ]
        return max(matching)[1] if matching else self.window

    def forbids(self, address: str) -> bool:
        """Whether no login opens `address`: unspecified, multicast, or in a `never` network."""
        bits, number = as_number(address)
        return (
            number == 0
            or number >> (bits - 8) in (_MULTICAST_IPV4 if bits == 32 else _MULTICAST_IPV6)
            or any(_holds(net, bits, number) for net in self.never)
        )

    def until(self, address: str, login: float) -> float:
        """When a login at `login` from `address` ends."""
        return login + self.window_of(address)


def network(text: str, *, strict: bool = True) -> Network:
    """A network such as 192.0.2.0/24, an IPv4-mapped one as IPv4; raises ValueError.

    `strict` refuses bits behind the prefix.
    """
    found = ip_network(text, strict)
    if isinstance(found, IPv6Network) and found.prefixlen >= 96:
        mapped = found.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, found.prefixlen - 96))
    return found


def as_number(address: str) -> tuple[int, int]:
    """How many bits an address in its usual spelling has, and the number that they make.

    For IPv4 by hand: `ipaddress` takes four times as long, and a large map asks 300,000 times.
    """
    if ":" in address:
        return 128, int(IPv6Address(address))
    first, second, third, last = map(int, address.split("."))
    return 32, first << 24 | second << 16 | third << 8 | last


def _holds(network: Network, bits: int, number: int) -> bool:
    """Whether an address, as `as_number` has it, lies in a network."""
    if network.max_prefixlen != bits:
        return False
    return int(network.network_address) == number >> (shift := bits - network.prefixlen) << shift


def claim(
    claims: Claims, rules: Rules, address: str, account: str, login: float, now: float
) -> bool:
    """Merge one login; whether it changed the claims.

    A login that is stale, or whose address may never relay, changes nothing. One that is a
    little ahead of now counts as now: nobody stays open longer than the window.
    """
    login = min(login, now)
    if rules.forbids(address) or rules.until(address, login) <= now:
        return False
    accounts = claims.setdefault(address, {})
    known = accounts.get(account)
    if known is not None and known >= login:
        return False
    accounts[account] = login
    return True


def expire(claims: Claims, rules: Rules, now: float) -> None:
    """Drop what is stale or may not be any more.

    A claim ahead of now (the clock was set back) is moved to now, for the same reason.
    """
    for address, accounts in list(claims.items()):
        for account, login in list(accounts.items()):
            if rules.until(address, min(login, now)) <= now:
                del accounts[account]
            elif login > now:
                accounts[account] = now
        if not accounts or rules.forbids(address):
            del claims[address]


def next_end(claims: Claims, rules: Rules) -> float:
    """When the first claim ends (UTC epoch seconds); infinite if there is none."""
    return min(
        (
            rules.until(address, login)
            for address, accounts in claims.items()
            for login in accounts.values()
        ),
        default=inf,
    )


class Grant(NamedTuple):
    """An address that may relay: by whose logins, since and until when (UTC epoch seconds)."""

    address: str
    accounts: tuple[str, ...]
    since: float
    until: float


def grants(claims: Claims, rules: Rules, refused: Container[str], now: float) -> list[Grant]:
    """Who may relay at `now`; `refused` are addresses that the administrator's map holds shut."""
    found = []
    for address, accounts in claims.items():
        logins = {
            account: login
            for account, login in accounts.items()
            if login <= now < rules.until(address, login)
        }
        if logins and address not in refused and not rules.forbids(address):
            until = rules.until(address, max(logins.values()))
            found.append(Grant(address, tuple(sorted(logins)), min(logins.values()), until))
    return sorted(found, key=lambda grant: (grant.until, grant.address))
