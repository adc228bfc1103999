"""Who may relay, said in few words: what sapd must come to, whatever happens on the way.

A login opens its address from its time on, for the window of the address's network. A login ahead
of the clock by more than two minutes opens nothing; one a little ahead keeps its place among the
others, and its window begins now. Nobody is open whom `never` or the administrator's entries
refuse.

What else the rules may say: an account's logout, while the window of its login lasts, sets the end
to so long after it; alone it opens nothing, and of what is read at once logins count first. An
account that logged in from another address later is not open from here. Nor is who is denied, nor
anybody where too many would be. And once somebody closed an address, what was read before does not
count, whatever its stamp; of what is read later, logins until then don't count. Two spellings of an
account that differ in case alone are one.

Every line is read while it stands in a log; what was read is remembered until it is stale, or the
state is lost. A run may read what stands in the logs once more, whenever it is in doubt, and must
where the clock was set back. When the clock is right again, it reads what came since; what it had
read before, and lay ahead of the clock that was set back, does not count a second time. So there
are two answers: what is `surely` known, and what `possibly` is. They differ only by lines whose
rules, clock or state have changed since they were read. Who must be open is so by what is sure,
whatever is possible beside it; who may be is so by what is possible.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from ipaddress import IPv6Address, ip_address, ip_network
from itertools import product
from math import inf
from typing import NamedTuple

AHEAD = 120
"""Seconds by which clocks may differ."""


EVERY = "every address"

Who = tuple[str, str]
"""An address and an account."""


def person(account: str) -> str:
    """Whose account it is."""
    return account.lower()


class Stamp(NamedTuple):
    """What the line says, and from when it counts: as of now at most."""

    written: float
    counted: float

    def seen_at(self, now: float) -> "Stamp":
        """As a clock sees it that may have been set back."""
        if self.written > now + AHEAD:
            return Stamp(now, now)
        return Stamp(self.written, min(self.counted, now))


@dataclass(frozen=True)
class Event:
    """A login or a logout, with the number by which its line is known."""

    number: int
    time: int
    address: str
    account: str
    is_logout: bool = False

    @property
    def who(self) -> Who:
        """Where, and as whom."""
        return self.address, self.account


@dataclass(frozen=True)
class Rules:
    """How long a login lasts, in seconds, `windows` by network; and who may not relay."""

    window: int = 1800
    windows: tuple[tuple[str, int], ...] = ()
    never: tuple[str, ...] = ()
    after_logout: int | None = None
    most_accounts: int | None = None
    one_address: bool = False
    denied: tuple[str, ...] = ()

    def until(self, address: str, time: float) -> float:
        """When a login of that time ends: as the smallest network that has the address says."""
        ip = ip_address(address)
        lasting, smallest = self.window, -1
        for text, window in self.windows:
            network = ip_network(text)
            if ip in network and network.prefixlen > smallest:
                lasting, smallest = window, network.prefixlen
        return time + lasting

    def forbid(self, address: str) -> bool:
        """Whether no login opens the address."""
        return any(ip_address(address) in ip_network(text) for text in self.never)

    def deny(self, account: str) -> bool:
        """Whether none of the account's logins opens anything."""
        return any(fnmatchcase(account.lower(), pattern.lower()) for pattern in self.denied)

    def crowded(self, accounts: int) -> bool:
        """Whether so many accounts are too many for one address."""
        return self.most_accounts is not None and accounts > self.most_accounts

    def forgotten(self, time: float, now: float) -> bool:
        """Whether nothing that lasts can be as old as this."""
        longest = max(self.window, *(window for _, window in self.windows), 0)
        return time + longest + (self.after_logout or 0) <= now


@dataclass(frozen=True)
class Source:
    """The administrator's entries, key and word, with keys as sendmail looks them up."""

    entries: tuple[tuple[str, str], ...] = ()

    def leave_open(self, address: str) -> bool:
        """Whether it is sapd that decides about the address.

        The longest key that means it counts. An address's own entry is the administrator's word,
        whatever it says; a network's is one only where it refuses.
        """
        name = key_of(address)
        for key, word in sorted(self.entries, key=lambda entry: -len(entry[0])):
            key = key.removeprefix("connect:")
            if name == key:
                return False
            if name.startswith((f"{key}.", f"{key}:")):
                return word in ("RELAY", "OK")
        return True


def key_of(address: str) -> str:
    """The address as sendmail looks it up."""
    ip = ip_address(address)
    if isinstance(ip, IPv6Address):
        return "ipv6:" + ":".join(f"{int(group, 16):x}" for group in ip.exploded.split(":"))
    return address


@dataclass
class Known:
    """What was read: who opened an address, who logged in anywhere, who logged out.

    `closed` says when somebody closed an address. If the clock was set back since, only logins up
    to when that was seen don't count, until the clock is right again.
    """

    opened: dict[Who, Stamp] = field(default_factory=dict)
    logins: dict[Who, float] = field(default_factory=dict)
    logouts: dict[Who, Stamp] = field(default_factory=dict)
    closed: dict[str, tuple[float, float]] = field(default_factory=dict)

    def read(self, events: Collection[Event], rules: Rules, now: float) -> None:
        """Logins, then logouts."""
        for event in sorted(events, key=lambda event: event.is_logout):
            if event.time <= now + AHEAD and not rules.forbid(event.address):
                read = self.read_logout if event.is_logout else self.read_login
                read(event.who, Stamp(event.time, min(event.time, now)), rules, now)

    def read_login(self, who: Who, login: Stamp, rules: Rules, now: float) -> None:
        """It opens from its time on, and never for longer than the window, or after its logout."""
        if rules.one_address:
            self.logins[who] = max(self.logins.get(who, 0), login.written)
        lasts = rules.until(who[0], login.counted) + (rules.after_logout or 0) > now
        if lasts and (who not in self.opened or self.opened[who].written < login.written):
            self.opened[who] = login

    def read_logout(self, who: Who, logout: Stamp, rules: Rules, _: float) -> None:
        """The first since the login counts, while that lasts."""
        login = self.opened.get(who)
        if login and login.written <= logout.written < rules.until(who[0], login.written):
            before = self.logouts.get(who)
            if not before or not login.written <= before.written <= logout.written:
                self.logouts[who] = logout

    def close(self, addresses: Collection[str], now: float) -> None:
        """Close these addresses, or all if none is named."""
        self.closed |= dict.fromkeys(addresses or [EVERY], (now, now))

    def closed_until(self, address: str, now: float) -> float:
        """Up to when logins from an address don't count."""
        known = [self.closed.get(key, (0, 0)) for key in (address, EVERY)]
        return max(time if time <= now else seen for time, seen in known)

    def ends(self, who: Who, rules: Rules, other: "Known") -> list[float]:
        """When an open address is closed: by what is known here, and by what is in `other`."""
        logins = {known.opened[who] for known in (self, other) if who in known.opened}
        logouts = {known.logouts.get(who) for known in (self, other)}
        return [
            logout.counted + rules.after_logout
            if rules.after_logout is not None and logout and logout.written >= login.written
            else rules.until(who[0], login.counted)
            for login, logout in product(logins, logouts)
        ]

    def moved(self, who: Who, time: float) -> bool:
        """Whether the person logged in from another address after a time."""
        address, account = who
        return any(
            person(name) == person(account) and at != address and since > time
            for (at, name), since in self.logins.items()
        )

    def last_here(self, who: Who) -> float:
        """When the person logged in from this address last, in whatever spelling."""
        address, account = who
        return max(
            (
                since
                for (at, name), since in self.logins.items()
                if at == address and person(name) == person(account)
            ),
            default=-inf,
        )

    def forget(self, rules: Rules, now: float) -> None:
        """What is stale, or may not be, goes; nothing lies ahead of now."""
        for stamps in (self.opened, self.logouts):
            for who, stamp in stamps.items():
                stamps[who] = stamp.seen_at(now)
        for who, login in list(self.opened.items()):
            ends = [rules.until(who[0], login.counted), *self.ends(who, rules, self)]
            if rules.forbid(who[0]) or max(ends) <= now:
                del self.opened[who]
        for who in self.logouts.keys() - self.opened.keys():
            del self.logouts[who]
        for who, time in list(self.logins.items()):
            self.logins[who] = min(time, now + AHEAD)
            if rules.forgotten(time, now):
                del self.logins[who]
        self.closed = {
            key: (time, min(seen, now))
            for key, (time, seen) in self.closed.items()
            if not rules.forgotten(time, now)
        }


@dataclass
class Model:
    """What must be, and what may be, after all runs until now."""

    rules: Rules = Rules()
    source: Source = Source()
    unread: list[Event] = field(default_factory=list)
    read: list[Event] = field(default_factory=list)  # since the clock was set back, if it was
    earlier: list[Event] = field(default_factory=list)  # read before that, and of these ...
    beyond: set[int] = field(default_factory=set)  # ... those that then lay ahead of the clock
    surely: Known = field(default_factory=Known)
    possibly: Known = field(default_factory=Known)
    saved: float = 0  # when the state was saved last, and
    latest: float = 0  # the latest time at which it ever was

    def lose_the_state(self) -> None:
        """Nothing is remembered; the logs are all there is."""
        self.surely = Known()
        self.possibly = Known()
        self.unread += self.read + self.earlier
        self.read.clear()
        self.earlier.clear()
        self.beyond.clear()
        self.saved = self.latest = 0

    def was_set_back(self, now: float) -> bool:
        """Whether the clock was set back: all lines are then as if unread."""
        return self.saved > now + AHEAD

    def is_right_again(self, now: float) -> bool:
        """Whether the clock comes to where it was: what was read since is then as if unread."""
        return self.saved < self.latest <= now

    def run(
        self,
        now: float,
        surely: Collection[int],
        perhaps: Collection[int],
        closing: Collection[str] | None = None,
        *,
        lost: bool = False,
    ) -> None:
        """One pass. Lines with these numbers can be read: these `surely`, those `perhaps`.

        `closing` are addresses that somebody closes, all if it is empty. If the place in the log
        may be `lost`, nobody can tell what was read before the clock was set back.
        """
        certain = list(self.unread)
        if self.was_set_back(now):
            certain += self.read + self.earlier
            self.earlier += self.read
            self.read.clear()
            self.beyond = {one.number for one in self.earlier if one.time > now + AHEAD}
        elif self.is_right_again(now):
            certain += self.read
        any_time = [
            one
            for one in self.unread + self.read + self.earlier
            if lost or one.number not in self.beyond
        ]
        self.surely.read([one for one in certain if one.number in surely], self.rules, now)
        self.possibly.read([one for one in any_time if one.number in perhaps], self.rules, now)
        self.read += self.unread
        self.unread.clear()
        for known in (self.surely, self.possibly):
            if closing is not None:
                known.close(closing, now)
            known.forget(self.rules, now)

    def is_certain(self) -> bool:
        """Whether there is but one answer."""
        return self.surely == self.possibly

    def save(self, now: float) -> None:
        """The state was saved: it remembers its time, too."""
        self.saved, self.latest = now, max(now, self.latest)

    def must_be_open(self, now: float) -> dict[str, dict[str, float]]:
        """{address: {account: until when at least}}."""
        return self._open(now, self.surely, self.possibly, min)

    def may_be_open(self, now: float) -> dict[str, dict[str, float]]:
        """{address: {account: until when at most}}."""
        return self._open(now, self.possibly, self.surely, max)

    def _open(
        self, now: float, known: Known, other: Known, choose: Callable[[list[float]], float]
    ) -> dict[str, dict[str, float]]:
        """Whom a login that is `known` opens, and the `other` knowledge does not close."""
        found = self._uncrowded(now, known, other, choose)
        others = self._uncrowded(now, other, known, max if choose is min else min)
        return {
            address: accounts
            for address, accounts in found.items()
            if not self.rules.crowded(len({*map(person, others.get(address, {}))}))
        }

    def _uncrowded(
        self, now: float, known: Known, other: Known, choose: Callable[[list[float]], float]
    ) -> dict[str, dict[str, float]]:
        """The same, however many they are at one address."""
        found: dict[str, dict[str, float]] = {}
        for who, login in known.opened.items():
            address, account = who
            until = choose(known.ends(who, self.rules, other))
            since = max(login.written, known.last_here(who) if choose is max else -inf)
            moved = self.rules.one_address and other.moved(who, since)
            read = choose([one.opened[who].counted for one in (known, other) if who in one.opened])
            revoked = read <= known.closed_until(address, now)
            refused = self.rules.deny(account) or not self.source.leave_open(address)
            if until > now and not (moved or revoked or refused):
                found.setdefault(address, {})[account] = until
        return found

    def entries(self, addresses: Collection[str]) -> dict[str, str]:
        """What the map holds while these are open; IPv6 also as sendmail may be set to ask."""
        keys = {key_of(address) for address in addresses}
        keys |= {f"ipv6:{address}" for address in addresses if ":" in address}
        return dict(self.source.entries) | {f"connect:{key}": "RELAY" for key in keys}
