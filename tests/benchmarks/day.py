"""A day of a mail server under each setting: which strangers could relay, which owners could not.

`python -m tests.benchmarks.day` prints a table in Markdown, the same every time; two cores take
about a minute. The settings go through sapd's own reader, and the day's logins and logouts through
its own rules, with a pass at each minute, as cron starts them. What is made up is the day:

- a dial-up pool, whose addresses go on to whoever calls next: customers who fetch by hand, whose
  mail program polls, or who stay logged in until they hang up; as many subscribers of others; and
  bots among those, which try within the minute in which they get an address, then every 5 minutes;
- customers with an address of their own, at home, or a shop's scanner that polls or fetches before
  it sends; some also fetch by telephone, from behind a carrier's NAT, as other customers do, where
  a bot tries every 5 minutes;
- a small office behind a NAT of its own;
- a stolen password of a customer's: from 10:00 on six foreign addresses log in with it every hour,
  and try every 5 minutes.

Owners send after they logged in from that very address; each mail is tried once, and one that comes
before the next pass is refused, if nothing else held the address open. A mail counts as let in if
the address was open. `client_rate` and its like are not in the table, because they change none of
its numbers: they bound how much an open address may send, not who has one. With `client_rate = 10`
each minute in which a stranger's address is open is worth ten connections to him, without it as
many as the line carries.
"""

import random
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from functools import cache
from multiprocessing import Pool
from pathlib import Path
from typing import NamedTuple

from sapd import config, decision
from sapd.relay import Ledger, Rules
from tests.site import Site

START = 1_795_132_800  # 2026-11-20, midnight, UTC
MINUTE, HOUR, DAY = 60, 3600, 86400

OFFICE, CARRIER = "192.0.2.10", "203.0.113.7"
STOLEN = "home0"
WAYS = POOL, NAT, PASSWORD = "from a dial-up pool", "from behind a NAT", "by a stolen password"
"""The ways by which a stranger comes to an open address."""


class Event(NamedTuple):
    """A line of the POP server's log; times are in UTC epoch seconds."""

    at: int
    event: str
    address: str
    account: str


class Send(NamedTuple):
    """A mail that somebody tries to send: an owner, or a stranger by one of the ways."""

    at: int
    address: str
    way: str | None = None


class Day(NamedTuple):
    """All that happens, in order."""

    events: list[Event]
    sends: list[Send]


class _Maker:
    """Makes a day up."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.events: list[Event] = []
        self.sends: list[Send] = []

    def around(self, hour: float, hours: float) -> float:
        return START + HOUR * self.dice.gauss(hour, hours)

    def soon(self, minutes: float, spread: float) -> float:
        """Some seconds, half of the time less than so many minutes."""
        return MINUTE * minutes * self.dice.lognormvariate(0, spread)

    def fetch(self, account: str, address: str, at: float, until: float | None = None) -> None:
        """Log in, and out again when the mail is there."""
        self.events.append(Event(int(at), "login", address, account))
        until = at + self.dice.uniform(1, 20) if until is None else until
        self.events.append(Event(int(until), "logout", address, account))

    def poll(
        self, account: str, address: str, since: float, until: float, minutes: tuple[int, int]
    ) -> None:
        every = MINUTE * self.dice.uniform(*minutes)
        while since < until:
            self.fetch(account, address, since)
            since += every + self.dice.uniform(0, 5)

    def send(self, address: str, at: float) -> None:
        self.sends.append(Send(int(at), address))

    def attack(self, address: str, since: float, until: float, way: str) -> None:
        """A stranger tries within a minute, then every five."""
        first = int(since + self.dice.uniform(5, 60))
        self.sends += (Send(at, address, way) for at in range(first, int(until), 5 * MINUTE))

    def dial_up(self, customers: int) -> None:
        calls = []
        for number in range(2 * customers):
            bot = number >= customers and number % 20 == 0
            for hour, hours in ((8, 1.2), (13, 2), (20, 1.5)):
                if bot or self.dice.random() < 0.7:
                    at = self.around(hour, hours)
                    calls.append((at, at + min(self.soon(20, 0.7), 3 * HOUR), number, bot))
        free = [f"198.18.{n // 250}.{n % 250 + 1}" for n in range(customers // 3)]
        busy: list[tuple[float, str]] = []
        for at, until, number, bot in sorted(calls):
            free += (address for end, address in busy if end <= at)
            busy = [(end, address) for end, address in busy if end > at]
            if not free:
                continue
            address = free.pop(self.dice.randrange(len(free)))
            busy.append((until, address))
            if bot:
                self.attack(address, at, until, POOL)
            elif number < customers:
                self.call(f"dialup{number}", number % 4, address, at + 20, until)

    def call(self, account: str, habit: int, address: str, at: float, until: float) -> None:
        """What a customer does while on the line."""
        sending = self.dice.uniform(at, until)
        if habit == 0:
            self.poll(account, address, at, until, (5, 10))
        elif habit == 1:
            dropped = self.dice.random() < 0.2
            self.fetch(account, address, at, until + 2 * HOUR if dropped else until)
        else:
            self.fetch(account, address, at)
            sending = at + self.soon(7, 0.8)
        if sending < until:
            self.send(address, sending)

    def home(self, number: int) -> None:
        account, address = f"home{number}", f"198.51.{number // 250}.{number % 250 + 1}"
        if number % 2 == 0:
            since, until = self.around(8, 1), self.around(22, 1)
            self.poll(account, address, since, until, (8, 15))
            self.send(address, self.dice.uniform(since, until))
        else:
            for hour in (8, 19):
                at = self.around(hour, 1)
                self.fetch(account, address, at)
                self.send(address, at + self.soon(15, 1))
        if number % 5 == 0:
            self.telephone(account)

    def telephone(self, account: str) -> None:
        since, until = self.around(7, 1), self.around(23, 1)
        self.poll(account, CARRIER, since, until, (15, 60))
        self.send(CARRIER, self.dice.uniform(since, until))

    def shop(self, number: int) -> None:
        """A scanner: it polls all day, or fetches before it sends."""
        account, address = f"scanner{number}", f"192.88.{number // 250}.{number % 250 + 1}"
        if number % 2 == 0:
            self.poll(account, address, START + self.dice.uniform(0, 300), START + DAY, (5, 10))
        for _ in range(4):
            at = self.around(13, 3)
            if number % 2:
                self.fetch(account, address, at - self.dice.uniform(30, 120))
            self.send(address, at)

    def office(self, people: int) -> None:
        for number in range(people):
            logins = sorted(self.around(hour, 0.7) for hour in (8.5, 11, 14))
            for at in logins:
                self.fetch(f"office{number}", OFFICE, at)
            for _ in range(6):
                self.send(OFFICE, self.dice.uniform(logins[0], START + 17.5 * HOUR))

    def thief(self, addresses: int) -> None:
        for number in range(addresses):
            address = f"192.31.196.{number + 1}"
            since = START + 10 * HOUR + number * HOUR // addresses
            for at in range(since, START + DAY, HOUR):
                self.fetch(STOLEN, address, at)
            self.attack(address, since + 30, START + DAY, PASSWORD)


@cache
def make(accounts: int = 2000, seed: int = 1) -> Day:
    """A day with so many accounts: half dial up, a quarter is at home, the rest is mixed."""
    maker = _Maker(seed)
    maker.dial_up(accounts // 2)
    for number in range(accounts // 4):
        maker.home(number)
    for number in range(accounts // 8):
        maker.shop(number)
        maker.telephone(f"telephone{number}")
    maker.attack(CARRIER, START, START + DAY, NAT)
    maker.office(12)
    maker.thief(6)
    end = START + DAY
    return Day(
        sorted(event for event in maker.events if START <= event.at < end),
        sorted((send for send in maker.sends if START <= send.at < end), key=lambda s: s[:2]),
    )


Pass = Callable[[list[Event], int], Collection[str]]
"""A pass: what was logged since the one before, and now; which addresses are open behind it."""


def passes(day: Day, a_pass: Pass, every: int = MINUTE) -> Iterator[tuple[int, Collection[str]]]:
    """The passes of a day, each with its time and the addresses that it leaves open."""
    read = 0
    for now in range(START, START + DAY, every):
        known = read
        while read < len(day.events) and day.events[read].at <= now:
            read += 1
        yield now, a_pass(day.events[known:read], now)


def sapd(rules: Rules) -> Pass:
    """What sapd does in a pass, from the log's events to the addresses in the map."""
    ledger = Ledger()

    def once(events: list[Event], now: int) -> Collection[str]:
        for at, event, address, account in events:
            if event == "login":
                ledger.login(rules, address, account, at, now)
        for at, event, address, account in events:
            if event == "logout":
                ledger.logout(rules, address, account, at, now)
        ledger.expire(rules, now)
        return decision.decide(ledger, rules, lambda _: None, now).open

    return once


def plain() -> Pass:
    """The rule of DRAC and pop-before-smtp: any login opens for 30 minutes after it was seen.

    They get a pass at each minute, too. As daemons they see it sooner, as `sapd run --every` does.
    """
    seen: dict[str, int] = {}

    def once(events: list[Event], now: int) -> Collection[str]:
        seen.update((event.address, now) for event in events if event.event == "login")
        return {address for address, since in seen.items() if now < since + 30 * MINUTE}

    return once


def relayed(day: Day, a_pass: Pass, every: int = MINUTE) -> list[Send]:
    """The mails that found their address open."""
    found, tried = [], 0
    for now, open_ in passes(day, a_pass, every):
        while tried < len(day.sends) and day.sends[tried].at < now + every:
            if day.sends[tried].address in open_:
                found.append(day.sends[tried])
            tried += 1
    return found


NETWORKS = """
[[network]]
networks = ["198.18.0.0/16"] # the dial-up pool
window = "20m"

[[network]]
networks = ["192.0.2.0/28"] # the office
window = "8h"
"""
NEVER = f'never = ["{CARRIER}"]\n'
CROWD = "max_accounts_per_address = {}\n"
ONE_ADDRESS = "one_address_per_account = true\n"
DENY = f'deny_accounts = ["{STOLEN}"]\n'
TOGETHER = f"{NETWORKS}[policy]\n{NEVER}{CROWD.format(20)}{ONE_ADDRESS}"

SETTINGS = {
    'the default, `window = "30m"`': "",
    '`window = "10m"`': 'window = "10m"',
    '`window = "8h"`': 'window = "8h"',
    '`[[network]]`: dial-up `"20m"`, office `"8h"`': NETWORKS,
    '`after_logout = "2m"`': '[policy]\nafter_logout = "2m"',
    '`window = "8h"`, `after_logout = "30m"`': 'window = "8h"\n[policy]\nafter_logout = "30m"',
    "`never`: the carrier's NAT": f"[policy]\n{NEVER}",
    "`max_accounts_per_address = 5`": f"[policy]\n{CROWD.format(5)}",
    "`one_address_per_account = true`": f"[policy]\n{ONE_ADDRESS}",
    "`deny_accounts`: the one that is stolen": f"[policy]\n{DENY}",
    "together: `[[network]]`, `never`, at most 20 accounts, one address": TOGETHER,
    "the same, and `deny_accounts`": TOGETHER + DENY,
    "DRAC's and pop-before-smtp's rule": None,
}
"""What the rows are called, and what sapd's file says; None is not sapd."""


def configured(folder: Path, settings: str) -> Site:
    """A site with these settings."""
    site = Site(folder)
    site.config.write_text(
        f'{settings}\n[[log]]\npath = "qpopper"\n'
        '[access]\nsource = "access"\ndatabase = "access.db"\n[state]\ndirectory = "state"\n'
    )
    return site


def pass_of(settings: str | None) -> Pass:
    """The passes of a row, with the rules as sapd reads them from its file."""
    if settings is None:
        return plain()
    with tempfile.TemporaryDirectory() as folder:
        return sapd(config.load(str(configured(Path(folder), settings).config)).rules)


def row(name: str) -> str:
    """A row of the table."""
    day = make()
    through = relayed(day, pass_of(SETTINGS[name]))
    tried, found = (Counter(send.way for send in sends) for sends in (day.sends, through))
    ways = " | ".join(f"{found[way]:,}" for way in WAYS)
    addresses = len({send.address for send in through if send.way})
    strangers, refused = sum(found[way] for way in WAYS), tried[None] - found[None]
    share = f"{refused / tried[None]:.1%}"
    return f"| {name} | {strangers:,} | {ways} | {addresses} | {refused:,} ({share}) |"


def main() -> None:
    tried = Counter(send.way for send in make().sends)
    ways = " | ".join(f"{way}, of {tried[way]:,}" for way in WAYS)
    print(
        f"| | strangers' mails let in, of {sum(tried[way] for way in WAYS):,} | {ways} | "
        f"strangers' addresses | owners' mails refused, of {tried[None]:,} |"
    )
    print("|---|---|---|---|---|---|---|")
    with Pool() as pool:
        for line in pool.imap(row, SETTINGS):
            print(line, flush=True)


if __name__ == "__main__":
    main()
