"""Who may relay, said in few words: what sapd must come to, whatever happens on the way.

A login opens its address from its time on, for the window of the address's network. A login ahead
of the clock by more than two minutes opens nothing; one a little ahead counts as of now. Nobody
is open whom `never` or the administrator's entries refuse.

Every line is read while it stands in a log; what was read is remembered until it is stale, or the
state is lost. A run may read what stands in the logs once more, whenever it is in doubt, and must
where the clock was set back, or is right again. So there are two answers: `surely` is who must be
open, `possibly` who may be. They differ only by lines whose rules, clock or state have changed
since they were read.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network

AHEAD = 120
"""Seconds by which clocks may differ."""


@dataclass(frozen=True)
class Login:
    """A login, with the number by which its line is known."""

    number: int
    time: int
    address: str
    account: str


@dataclass(frozen=True)
class Rules:
    """How long a login lasts, in seconds, `windows` by network; and who may never relay."""

    window: int = 1800
    windows: tuple[tuple[str, int], ...] = ()
    never: tuple[str, ...] = ()

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


class Claims(dict[tuple[str, str], float]):
    """The latest login of each (address, account)."""

    def read(self, login: Login, rules: Rules, now: float) -> None:
        """A login that is read opens from its time on, and never for longer than the window."""
        if login.time <= now + AHEAD and not rules.forbid(login.address):
            who = login.address, login.account
            self[who] = max(self.get(who, 0), min(login.time, now))

    def forget(self, rules: Rules, now: float) -> None:
        """What is stale, or may not be, goes; nothing lies ahead of now."""
        for who, time in list(self.items()):
            address, _ = who
            self[who] = min(time, now)
            if rules.forbid(address) or rules.until(address, self[who]) <= now:
                del self[who]


@dataclass
class Model:
    """What must be, and what may be, after all runs until now."""

    rules: Rules = Rules()
    source: Source = Source()
    unread: list[Login] = field(default_factory=list)
    read: list[Login] = field(default_factory=list)
    surely: Claims = field(default_factory=Claims)
    possibly: Claims = field(default_factory=Claims)
    saved: float = 0  # when the state was saved last, and
    latest: float = 0  # the latest time at which it ever was

    def lose_the_state(self) -> None:
        """Nothing is remembered; the logs are all there is."""
        self.surely.clear()
        self.possibly.clear()
        self.unread += self.read
        self.read.clear()
        self.saved = self.latest = 0

    def reads_again(self, now: float) -> bool:
        """Whether the clock was set back, or is right again: all lines are then as if unread."""
        return self.saved > now + AHEAD or self.saved < self.latest <= now

    def run(self, now: float, surely: Collection[int], perhaps: Collection[int]) -> None:
        """One pass. Lines with these numbers can be read: these `surely`, those `perhaps`."""
        again = self.reads_again(now)
        for login in self.unread + self.read * again:
            if login.number in surely:
                self.surely.read(login, self.rules, now)
        for login in self.unread + self.read:
            if login.number in perhaps:
                self.possibly.read(login, self.rules, now)
        self.read += self.unread
        self.unread.clear()
        self.surely.forget(self.rules, now)
        self.possibly.forget(self.rules, now)

    def save(self, now: float) -> None:
        """The state was saved: it remembers its time, too."""
        self.saved, self.latest = now, max(now, self.latest)

    def open(self, claims: Claims) -> dict[str, dict[str, float]]:
        """Of whom claims, `surely` or `possibly`, open: {address: {account: time}}."""
        found: dict[str, dict[str, float]] = {}
        for (address, account), time in claims.items():
            if self.source.leave_open(address):
                found.setdefault(address, {})[account] = time
        return found

    def entries(self, addresses: Collection[str]) -> dict[str, str]:
        """What the map holds while these are open; IPv6 also as sendmail may be set to ask."""
        keys = {key_of(address) for address in addresses}
        keys |= {f"ipv6:{address}" for address in addresses if ":" in address}
        return dict(self.source.entries) | {f"connect:{key}": "RELAY" for key in keys}
