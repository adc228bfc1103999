"""The rules, and the claims that logins make. Facts only: `decision` judges. Pure.

A claim is an address and an account, with the *log's* time of that account's latest login from
there. It lasts for the window of the address's network, or until some time after a logout. What
ends a claim early is kept for as long as its login would have lasted, so that merging the same
lines twice changes nothing: that is why reading a log again is always safe.

All times are UTC epoch seconds, and `now` is an argument.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from fnmatch import translate
from functools import cache
from math import ceil, inf
from typing import TYPE_CHECKING, NamedTuple

from sapd.addresses import lies_in, to_bits
from sapd.timestamps import AHEAD

if TYPE_CHECKING:
    from sapd.addresses import Network

EVERY_ADDRESS = "every"
"""Stands for all addresses among those that were closed by hand."""

_MULTICAST_IPV4 = range(224, 240)  # RFC 1112; the first eight bits
_MULTICAST_IPV6 = (255,)  # RFC 4291 section 2.7


def same_account(account: str) -> str:
    """What two spellings of an account have in common: they differ in case and outer blanks."""
    return account.strip().casefold()


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
        longest_window = max([self.window, *(window for _, window in self.windows)])
        return longest_window + self.logout_grace

    @property
    def logout_grace(self) -> float:
        """By how much a logout may prolong a window, in seconds."""
        return self.after_logout or 0

    def window_of(self, address: str) -> float:
        """Seconds that a login from `address` lasts; the longest prefix wins."""
        if not self.windows:
            return self.window
        bits, number = to_bits(address)
        matching = [
            (net.prefixlen, window) for net, window in self.windows if lies_in(net, bits, number)
        ]
        return max(matching)[1] if matching else self.window

    def until(self, address: str, login: float) -> float:
        """When a login at `login` from `address` ends, if nothing ends it earlier."""
        return login + self.window_of(address)

    def written_end(self, address: str, end: float) -> int:
        """The end that is written for an address into a map which closes by itself (seconds).

        It is later than the true one by less than a quarter of the address's window, and by less
        than a second with `after_logout`: so a map need not be rewritten at each renewal.
        """
        step = 1 if self.after_logout is not None else max(1, int(self.window_of(address) / 4))
        return ceil(end / step) * step

    def forbids(self, address: str) -> bool:
        """Whether no login opens `address`: unspecified, multicast, or in a `never` network."""
        bits, number = to_bits(address)
        return (
            number == 0
            or number >> (bits - 8) in (_MULTICAST_IPV4 if bits == 32 else _MULTICAST_IPV6)
            or any(lies_in(net, bits, number) for net in self.never)
        )

    def denied_by(self, account: str) -> str | None:
        """The name or pattern in `denied` that fits an account."""
        if not self.denied:
            return None
        folded = same_account(account)
        if _any_of(self.denied).fullmatch(folded) is None:
            return None
        return next(name for name in self.denied if _any_of((name,)).fullmatch(folded))

    def too_many_accounts(self, accounts: Collection[str]) -> int | None:
        """How many different accounts these are, if they are too many for one address."""
        if self.most_accounts is None or len(accounts) <= self.most_accounts:
            return None
        people = {same_account(account) for account in accounts}
        return len(people) if len(people) > self.most_accounts else None


@cache
def _any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """A regular expression for any of these shell patterns."""
    return re.compile("|".join(translate(same_account(pattern)) for pattern in patterns))


class Stamp(NamedTuple):
    """When something happened, in UTC epoch seconds.

    `written` is the log line's time, by which events are put in order. `counted` is that or, if
    the line was a little ahead of the clock when it was read, the time of the reading: nobody
    stays open longer than the window.
    """

    written: float
    counted: float

    def not_after(self, now: float) -> Stamp:
        """The same as seen by a clock that may have been set back since."""
        if self.written > now + AHEAD:
            return Stamp(now, now)
        return self if self.counted <= now else Stamp(self.written, now)


Claims = dict[str, dict[str, Stamp]]
"""{address: {account: its latest login, or its first logout since}}"""


class Ledger:
    """The claims, and what ends them early.

    `logouts` has the first logout since an account's login from an address. `last_address` says
    where an account logged in last, and when. `revoked` says of an address, or of
    `EVERY_ADDRESS`, when somebody closed it, and up to when logins do not count; the latter is
    earlier once the clock was set back. `touched` are the addresses whose claims or logouts have
    changed since they were judged, in order: see `decision.unsettled`.
    """

    def __init__(self) -> None:
        """Start with no claims."""
        self.touched: dict[str, None] = {}
        self.claims: Claims = {}
        self.logouts: Claims = {}
        self.last_address: dict[str, tuple[str, float]] = {}
        self.revoked: dict[str, tuple[float, float]] = {}

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        """Whether another ledger says the same."""
        return isinstance(other, Ledger) and vars(self) | {"touched": other.touched} == vars(other)

    def login(self, rules: Rules, address: str, account: str, login: float, now: float) -> bool:
        """Merge one login; whether it changed the claims and is still within its window.

        A login whose address may never relay changes nothing. Nor does a stale one, but it ends
        claims of other addresses, whose windows may be longer.
        """
        if rules.forbids(address) or login + rules.longest <= now:
            return False
        if rules.one_address:
            person = same_account(account)
            if self.last_address.get(person, ("", -inf))[1] < login:
                self.last_address[person] = (address, login)
        counted = min(login, now)
        until = rules.until(address, counted)
        if until + rules.logout_grace <= now:
            return False
        accounts = self.claims.setdefault(address, {})
        if account in accounts and accounts[account].written >= login:
            return False
        accounts[account] = Stamp(login, counted)
        self.touched[address] = None
        return until > now and not self.is_revoked(address, account, now)

    def logout(self, rules: Rules, address: str, account: str, logout: float, now: float) -> None:
        """Merge one logout; all logins that are known must have been merged before.

        The first logout since the login counts, so that a later one of anybody's never prolongs
        a window or opens it again. Nor does one behind the window's end.
        """
        login = self.claims.get(address, {}).get(account)
        if login is None or not login.written <= logout < rules.until(address, login.written):
            return
        known = self.logouts.setdefault(address, {})
        first = known.get(account)
        if first is None or first.written < login.written or logout < first.written:
            known[account] = Stamp(logout, min(logout, now))
            self.touched[address] = None

    def close(self, addresses: Collection[str], now: float) -> None:
        """Revoke what was read until now from these addresses, or from all if none is named."""
        for address in addresses or [EVERY_ADDRESS]:
            self.revoked[address] = (now, now)

    def revoked_until(self, address: str, now: float) -> float:
        """Up to when no login from an address counts, because somebody closed it."""
        known = [self.revoked[key] for key in (address, EVERY_ADDRESS) if key in self.revoked]
        return max((closed if closed <= now else until for closed, until in known), default=-inf)

    def is_revoked(self, address: str, account: str, now: float) -> bool:
        """Whether somebody closed the address after this claim was made.

        Logins are stamped in whole seconds, so one in the second of the closing is revoked, too.
        """
        if not self.revoked:
            return False
        return self.claims[address][account].counted <= self.revoked_until(address, now)

    def end(self, rules: Rules, address: str, account: str) -> float:
        """When a claim ends or ended: after its logout, or with the window."""
        login = self.claims[address][account]
        if rules.after_logout is not None:
            logout = self.logouts.get(address, {}).get(account)
            if logout and logout.written >= login.written:
                return logout.counted + rules.after_logout
        return rules.until(address, login.counted)

    def moved_to(self, rules: Rules, address: str, account: str) -> str | None:
        """The address from which an account logged in since, if that ends its claim here."""
        if not rules.one_address:
            return None
        latest, since = self.last_address.get(same_account(account), (address, -inf))
        login = self.claims[address][account].written
        return latest if latest != address and since > login else None

    def expire(self, rules: Rules, now: float, addresses: Collection[str] | None = None) -> None:
        """Drop what is stale, and what may not be any more; of these `addresses`, if not of all."""
        for address in [*self.claims] if addresses is None else addresses:
            self._expire(rules, address, now)
        for address in [*self.logouts] if addresses is None else addresses:
            known = self.logouts.get(address, {})
            kept = {a: t.not_after(now) for a, t in known.items() if self._has(address, a)}
            if kept:
                self.logouts[address] = kept
            elif known:
                del self.logouts[address]
        since = now - rules.longest  # no claim can be older
        self.last_address = {
            account: (address, min(time, now + AHEAD))
            for account, (address, time) in self.last_address.items()
            if time > since
        }
        self.revoked = {
            address: (closed, min(until, now))
            for address, (closed, until) in self.revoked.items()
            if closed > since
        }

    def _expire(self, rules: Rules, address: str, now: float) -> None:
        accounts = self.claims.get(address, {})
        for account, login in list(accounts.items()):
            accounts[account] = login = login.not_after(now)
            if rules.until(address, login.counted) > now:
                continue
            if self.end(rules, address, account) <= now:
                del accounts[account]
        if address in self.claims and (not accounts or rules.forbids(address)):
            del self.claims[address]

    def _has(self, address: str, account: str) -> bool:
        return account in self.claims.get(address, ())
