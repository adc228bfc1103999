"""Who is open, who is closed, and why: the only place that decides it or puts it into words. Pure.

A claim opens its address unless one of the `Reason`s below holds; of several the first one counts,
everywhere: for the map, the trail, the warnings, `sapd who` and `sapd match --explain`.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from itertools import chain
from math import inf
from typing import NamedTuple

from sapd.relay import Ledger, Rules
from sapd.timestamps import rfc3339


class Reason(Enum):
    """Why a claim does not open its address; the order is that of precedence.

    The value stands in the state's file.
    """

    FORBIDDEN = "forbidden"
    REFUSED = "refused"
    RELAYS_ALREADY = "relays already"
    UNSUPPORTED = "unsupported"
    DENIED = "denied"
    MOVED = "moved"
    TOO_MANY = "too many accounts"
    LOGGED_OUT = "logged out"
    REVOKED = "revoked"
    EXPIRED = "expired"


class Objection(NamedTuple):
    """What the map has against opening an address.

    `reason` is `REFUSED` or `RELAYS_ALREADY`, by an entry of the administrator's, and `detail` the
    entry's key and value; or `UNSUPPORTED`, and `detail` is what the mail server lacks.
    """

    reason: Reason
    detail: str


class Closed(NamedTuple):
    """Why something is closed; what `detail` holds is said in `words`."""

    reason: Reason
    detail: str = ""

    @property
    def words(self) -> str:
        """The reason as people read it: the part behind "because", in one line."""
        return _WORDS[self.reason].format(self.detail)


_WORDS = {
    Reason.FORBIDDEN: "policy.never has it, or it can be no client's",
    Reason.REFUSED: 'access.source says "{}"',
    Reason.RELAYS_ALREADY: "it relays by an entry of its own in access.source",
    Reason.UNSUPPORTED: "{}",
    Reason.DENIED: 'policy.deny_accounts has "{}"',
    Reason.MOVED: "the account logged in from {} since",
    Reason.TOO_MANY: "{} accounts logged in, more than policy.max_accounts_per_address",
    Reason.LOGGED_OUT: "it logged out",
    Reason.REVOKED: "sapd close closed it at {}",
    Reason.EXPIRED: "its window is over",
}

OfAddress = Callable[[str], Objection | None]
"""Gives what the administrator's entries have against an address."""


class Decision(NamedTuple):
    """Every claim is in one of these two.

    `open`: {address: {account: end (UTC epoch seconds)}}; `closed`: {address: {account: why}}.
    """

    open: dict[str, dict[str, float]]
    closed: dict[str, dict[str, Closed]]

    def only(self, lets_in: Mapping[str, Iterable[str]]) -> "Decision":
        """The same, without what would open somebody who is not let in already."""
        kept = {
            address: {account: end for account, end in ends.items() if account in lets_in[address]}
            for address, ends in self.open.items()
            if address in lets_in
        }
        return Decision({address: ends for address, ends in kept.items() if ends}, self.closed)

    def of(self, addresses: Iterable[str]) -> "Decision":
        """The same about these addresses alone."""
        return Decision(
            {address: self.open[address] for address in addresses if address in self.open},
            {address: self.closed[address] for address in addresses if address in self.closed},
        )

    def ends(self) -> dict[str, float]:
        """When each open address closes, if nobody logs in again (UTC epoch seconds)."""
        return {address: max(accounts.values()) for address, accounts in self.open.items()}

    def written_ends(self, rules: Rules) -> dict[str, int]:
        """The same as they are written into the map: see `Rules.written_end`."""
        return {address: rules.written_end(address, end) for address, end in self.ends().items()}


class Grant(NamedTuple):
    """An address that may relay: by whose logins, since and until when (UTC epoch seconds)."""

    address: str
    accounts: tuple[str, ...]
    since: float
    until: float


def decide(
    ledger: Ledger,
    rules: Rules,
    objection: OfAddress,
    now: float,
    last: Decision | None = None,
    addresses: Iterable[str] | None = None,
) -> Decision:
    """Judge every claim as of `now` (UTC epoch seconds); a login after that is no claim yet.

    With `addresses` only those from there: for others the `last` decision still holds.
    """
    decision = Decision({}, {}) if last is None else Decision(last.open.copy(), last.closed.copy())
    for address in ledger.claims if addresses is None else addresses:
        decision.open.pop(address, None)
        decision.closed.pop(address, None)
        if address not in ledger.claims:
            continue
        is_open, closed = judge(ledger, rules, objection, address, now)
        if is_open:
            decision.open[address] = is_open
        if closed:
            decision.closed[address] = closed
    return decision


def unsettled(ledger: Ledger, rules: Rules, last: Decision, now: float) -> list[str] | None:
    """The addresses for which the last decision may not hold any more; None if that is all.

    For a decision that was made before `now` (UTC epoch seconds), by the same rules and the same
    entries of the administrator's. What time or a login changes is found by the address. But a
    login ends claims of other addresses, too, if `one_address` is set; and a closing by hand any.
    """
    if rules.one_address or ledger.revoked:
        return None
    ended = [address for address, ends in last.open.items() if min(ends.values()) <= now]
    return list(dict.fromkeys([*ledger.touched, *last.closed, *ended]))


def judge(
    ledger: Ledger, rules: Rules, objection: OfAddress, address: str, now: float
) -> tuple[dict[str, float], dict[str, Closed]]:
    """The claims of one address: {account: end} of those that open it, {account: why} of others."""
    accounts = [a for a, login in ledger.claims[address].items() if login.counted <= now]
    if (why := _of_address(rules, objection, address)) is not None:
        return {}, dict.fromkeys(accounts, why)
    is_open: dict[str, float] = {}
    closed: dict[str, Closed] = {}
    for account in accounts:
        end = ledger.end(rules, address, account)
        if (why := _of_claim(ledger, rules, address, account, end, now)) is None:
            is_open[account] = end
        else:
            closed[account] = why
    if (number := rules.too_many_accounts(is_open)) is not None:
        crowd = Closed(Reason.TOO_MANY, str(number))
        order = list(Reason).index
        higher = {a: w for a, w in closed.items() if order(w.reason) < order(Reason.TOO_MANY)}
        return {}, {**dict.fromkeys(accounts, crowd), **higher}
    return is_open, closed


def _of_address(rules: Rules, objection: OfAddress, address: str) -> Closed | None:
    if rules.forbids(address):
        return Closed(Reason.FORBIDDEN)
    found = objection(address)
    return None if found is None else Closed(found.reason, found.detail)


def _of_claim(
    ledger: Ledger, rules: Rules, address: str, account: str, end: float, now: float
) -> Closed | None:
    if (name := rules.denied_by(account)) is not None:
        return Closed(Reason.DENIED, name)
    if (other := ledger.moved_to(rules, address, account)) is not None:
        return Closed(Reason.MOVED, other)
    ended = end <= now
    if ended and now < rules.until(address, ledger.claims[address][account].counted):
        return Closed(Reason.LOGGED_OUT)
    if ledger.is_revoked(address, account, now):
        return revoked(ledger, address, now)
    return Closed(Reason.EXPIRED) if ended else None


def revoked(ledger: Ledger, address: str, now: float) -> Closed:
    """Why an address is closed that somebody closed by hand."""
    return Closed(Reason.REVOKED, rfc3339(ledger.revoked_until(address, now)))


def without_claim(
    ledger: Ledger, rules: Rules, objection: OfAddress, address: str, now: float
) -> Closed:
    """Why an address is closed from which nobody has a claim."""
    if (why := _of_address(rules, objection, address)) is not None:
        return why
    if rules.until(address, ledger.revoked_until(address, now)) > now:
        return revoked(ledger, address, now)
    return Closed(Reason.EXPIRED)


def of_gone(
    lets_in: Mapping[str, Iterable[str]],
    ledger: Ledger,
    rules: Rules,
    objection: OfAddress,
    now: float,
) -> dict[str, Closed]:
    """Why those addresses are closed now to accounts that were let in, and have no claim."""
    return {
        address: without_claim(ledger, rules, objection, address, now)
        for address, accounts in lets_in.items()
        if not ledger.claims.get(address, {}).keys() >= set(accounts)
    }


def _nothing(_: str) -> None:
    """No objection."""


def of_login(rules: Rules, address: str, account: str, login: float, now: float) -> Closed | None:
    """Why this one login would open nothing at `now`; None if it would."""
    ledger = Ledger()
    ledger.login(rules, address, account, login, now)
    if address not in ledger.claims:
        name = rules.denied_by(account)
        if name is not None and not rules.forbids(address):
            return Closed(Reason.DENIED, name)
        return without_claim(ledger, rules, _nothing, address, now)
    _, closed = judge(ledger, rules, _nothing, address, now)
    return closed.get(account)


def grants(ledger: Ledger, decision: Decision) -> list[Grant]:
    """Who may relay by a decision, the one that ends first at the top."""
    found = []
    for address, ends in decision.open.items():
        since = min(ledger.claims[address][account].counted for account in ends)
        found.append(Grant(address, tuple(sorted(ends)), since, max(ends.values())))
    return sorted(found, key=lambda grant: (grant.until, grant.address))


def next_end(ledger: Ledger, rules: Rules, decision: Decision, now: float) -> float:
    """When time alone will change a decision (UTC epoch seconds); infinite if it never does."""
    closed = (
        ledger.end(rules, address, account)
        for address, accounts in decision.closed.items()
        for account in accounts
    )
    is_open = (end for ends in decision.open.values() for end in ends.values())
    return min((end for end in chain(is_open, closed) if end > now), default=inf)


def pairs(claims: Mapping[str, Iterable[str]]) -> set[tuple[str, str]]:
    """Each (address, account) of {address: accounts}."""
    return {(address, account) for address, accounts in claims.items() for account in accounts}
