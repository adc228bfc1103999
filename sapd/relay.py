"""Who may relay: the claims. Pure; `now` is an argument.

A claim is an address and an account, with the *log's* time of that account's latest login from
there. It lasts for the window of the address's network, or until some time after a logout. What
ends it early is remembered for as long as the login would have lasted, so that merging the same
lines twice changes nothing: that is why reading a log again is always safe.
"""

import re
from collections.abc import Collection, Container, Mapping
from fnmatch import translate
from functools import cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network
from math import inf
from typing import NamedTuple

Network = IPv4Network | IPv6Network
Claims = dict[str, dict[str, float]]
"""{address: {account: login time}}, times in UTC epoch seconds."""

EVERY = "every"
"""Stands for all addresses among those that were closed by hand."""

_MULTICAST_IPV4 = range(224, 240)  # RFC 1112; the first eight bits
_MULTICAST_IPV6 = (255,)  # RFC 4291 section 2.7


class Rules(NamedTuple):
    """How long a login opens the relay, in seconds, and for whom it never does.

    `after_logout`: seconds that an address stays open behind a logout within the window, be that
    shorter or longer. `most_accounts`: with more accounts than these an address is closed.
    `one_address`: a login closes the account's earlier addresses. `denied`: accounts, or shell
    patterns of such, whose logins open nothing.
    """

    window: float
    windows: tuple[tuple[Network, float], ...] = ()
    never: tuple[Network, ...] = ()
    after_logout: float | None = None
    most_accounts: int | None = None
    one_address: bool = False
    denied: tuple[str, ...] = ()

    @property
    def longest(self) -> float:
        """The longest that a login may last, in seconds: older log lines open nothing."""
        return max([self.window, *(window for _, window in self.windows)]) + self.longer

    @property
    def longer(self) -> float:
        """By how much a logout may prolong a window, in seconds."""
        return self.after_logout or 0

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

    def denies(self, account: str) -> str | None:
        """The name or pattern in `denied` that fits an account, in any case of letters."""
        folded = account.casefold()
        if not self.denied or _any_of(self.denied).fullmatch(folded) is None:
            return None
        return next(name for name in self.denied if _any_of((name,)).fullmatch(folded))

    def crowd(self, accounts: Collection[str]) -> str | None:
        """What is to be said of an address where these are too many accounts."""
        if self.most_accounts is None or len(accounts) <= self.most_accounts:
            return None
        people = {account.casefold() for account in accounts}
        if len(people) <= self.most_accounts:
            return None
        return f"{len(people)} accounts, policy.max_accounts_per_address is {self.most_accounts}"

    def until(self, address: str, login: float) -> float:
        """When a login at `login` from `address` ends, if nothing comes between."""
        return login + self.window_of(address)


@cache
def _any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """What fits one of these shell patterns, in small letters."""
    return re.compile("|".join(translate(pattern.casefold()) for pattern in patterns))


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


def contains(outer: Network, inner: Network) -> bool:
    """Whether all of one network lies in another."""
    bits = inner.max_prefixlen
    return outer.prefixlen <= inner.prefixlen and _holds(outer, bits, int(inner.network_address))


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


class Grant(NamedTuple):
    """An address that may relay: by whose logins, since and until when (UTC epoch seconds)."""

    address: str
    accounts: tuple[str, ...]
    since: float
    until: float


class Ledger:
    """The claims, and what ends them early.

    `logouts` has the first logout since an account's login from an address. `homes` says where an
    account, in small letters, logged in last, and when. `shut` says of an address, or of `EVERY`
    one, when somebody closed it, and up to when logins do not count; the latter is earlier once the
    clock was set back.
    """

    def __init__(self) -> None:
        """Nobody has logged in."""
        self.claims: Claims = {}
        self.logouts: Claims = {}
        self.homes: dict[str, tuple[str, float]] = {}
        self.shut: dict[str, tuple[float, float]] = {}

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        """Whether another says the same."""
        return isinstance(other, Ledger) and vars(self) == vars(other)

    def login(self, rules: Rules, address: str, account: str, login: float, now: float) -> bool:
        """Merge one login; whether it changed the claims and is still within its window.

        A login whose address may never relay changes nothing. A stale one does not either, but for
        ending claims of other addresses, whose windows may be longer. One that is a little ahead of
        now counts as now: nobody stays open longer than the window.
        """
        login = min(login, now)
        if rules.forbids(address) or login + rules.longest <= now:
            return False
        person = account.casefold()
        if rules.one_address and self.homes.get(person, ("", -inf))[1] < login:
            self.homes[person] = (address, login)
        until = rules.until(address, login)
        if until + rules.longer <= now or login <= self.shut_until(address, now):
            return False
        accounts = self.claims.setdefault(address, {})
        if accounts.get(account, -inf) >= login:
            return False
        accounts[account] = login
        return until > now

    def logout(self, rules: Rules, address: str, account: str, logout: float, now: float) -> None:
        """Merge one logout, behind all logins that are known: the first since the login counts.

        So nobody's later logout opens again, or prolongs, nor does one behind the window's end.
        """
        logout = min(logout, now)
        login = self.claims.get(address, {}).get(account, inf)
        if login <= logout < rules.until(address, login):
            known = self.logouts.setdefault(address, {})
            before = known.get(account, -inf)
            known[account] = min(logout, before) if before >= login else logout

    def close(self, addresses: Collection[str], now: float) -> None:
        """Have no login until now count for these addresses, or for all if none is named."""
        for address in addresses or [EVERY]:
            self.shut[address] = (now, now)
        for address in addresses or list(self.claims):
            self.claims.pop(address, None)

    def shut_until(self, address: str, now: float) -> float:
        """Up to when no login from an address counts, because somebody closed it."""
        known = [self.shut[key] for key in (address, EVERY) if key in self.shut]
        return max((closed if closed <= now else until for closed, until in known), default=-inf)

    def closed_by_hand(self, rules: Rules, address: str, now: float) -> float | None:
        """When somebody closed an address, if a login until then would still open it."""
        shut = self.shut_until(address, now)
        return shut if rules.until(address, shut) > now else None

    def end(self, rules: Rules, address: str, account: str) -> float:
        """When a claim ends or ended: after its logout, or with the window."""
        login = self.claims[address][account]
        logout = self.logouts.get(address, {}).get(account, -inf)
        if rules.after_logout is not None and logout >= login:
            return logout + rules.after_logout
        return rules.until(address, login)

    def moved(self, rules: Rules, address: str, account: str) -> str | None:
        """The address from which an account logged in since, if that ends its claim here."""
        home, since = self.homes.get(account.casefold(), (address, -inf))
        moved = rules.one_address and home != address and since > self.claims[address][account]
        return home if moved else None

    def expire(self, rules: Rules, now: float) -> None:
        """Drop what is stale or may not be any more.

        A claim ahead of now (the clock was set back) is moved to now, for the same reason.
        """
        for address, accounts in list(self.claims.items()):
            for account, login in list(accounts.items()):
                accounts[account] = login = min(login, now)
                if max(rules.until(address, login), self.end(rules, address, account)) <= now:
                    del accounts[account]
            if not accounts or rules.forbids(address):
                del self.claims[address]
        self.logouts = {
            address: kept
            for address, accounts in self.logouts.items()
            if (kept := {a: min(t, now) for a, t in accounts.items() if self._has(address, a)})
        }
        since = now - rules.longest  # no claim can be older
        self.homes = {a: (at, min(t, now)) for a, (at, t) in self.homes.items() if t > since}
        self.shut = {
            address: (closed, min(until, now))
            for address, (closed, until) in self.shut.items()
            if closed > since
        }

    def _has(self, address: str, account: str) -> bool:
        return account in self.claims.get(address, ())

    def why_closed(self, rules: Rules, address: str, account: str, now: float) -> str | None:
        """What keeps a claim from opening its address, in words; None if nothing does."""
        if (name := rules.denies(account)) is not None:
            return f'policy.deny_accounts has "{name}"'
        if (home := self.moved(rules, address, account)) is not None:
            return f"{account} logged in from {home} since"
        if self.end(rules, address, account) <= now:
            by_logout = now < rules.until(address, self.claims[address][account])
            return "it logged out" if by_logout else "its window is over"
        return None

    def closed(self, rules: Rules, now: float) -> dict[str, dict[str, str]]:
        """Claims that do not open their address, and why: {address: {account: words}}."""
        found: dict[str, dict[str, str]] = {}
        for address, accounts in self.claims.items():
            for account in accounts:
                if why := self.why_closed(rules, address, account, now):
                    found.setdefault(address, {})[account] = why
        return found

    def open(self, closed: Mapping[str, Container[str]], refused: Container[str]) -> Claims:
        """The claims without those that are `closed` and those of addresses that are `refused`."""
        found: Claims = {}
        for address, accounts in self.claims.items():
            if address in refused:
                continue
            if shut := closed.get(address):
                accounts = {a: login for a, login in accounts.items() if a not in shut}
            if accounts:
                found[address] = accounts
        return found

    def next_end(self, rules: Rules, now: float) -> float:
        """When time alone will close something (UTC epoch seconds); infinite if it never does."""
        ends = (
            self.end(rules, address, account)
            for address, accounts in self.claims.items()
            for account in accounts
        )
        return min((end for end in ends if end > now), default=inf)

    def grants(self, rules: Rules, refused: Container[str], now: float) -> list[Grant]:
        """Who may relay at `now`; `refused` are addresses that are held shut."""
        found = []
        for address, accounts in self.open(self.closed(rules, now), refused).items():
            logins = {account: login for account, login in accounts.items() if login <= now}
            if logins and not rules.forbids(address) and not rules.crowd(logins):
                until = max(self.end(rules, address, account) for account in logins)
                found.append(Grant(address, tuple(sorted(logins)), min(logins.values()), until))
        return sorted(found, key=lambda grant: (grant.until, grant.address))
