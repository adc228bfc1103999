"""What a pass did: what changed between two decisions, in the words of `-v` and of the trail. Pure.

The actions are (verb, object) pairs, such as ("close", "192.0.2.7 bob").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from sapd import errors
from sapd.decision import Closed, Decision, Reason, pairs
from sapd.relay import Ledger
from sapd.timestamps import AHEAD, rfc3339

if TYPE_CHECKING:
    from sapd.reading.plan import Missed

HOUR = 3600
"""Seconds; renewals and refusals of an hour are told once."""


class Report:
    """What a pass did, or would do.

    `actions` are (verb, object) pairs; `warnings` (subject, text) want attention although all was
    done; `problems` are what could not be done.
    """

    def __init__(self) -> None:
        """Nothing was done yet."""
        self.actions: list[tuple[str, str]] = []
        self.warnings: list[tuple[str, str]] = []
        self.problems: list[errors.SapdError] = []

    @property
    def status(self) -> int:
        """The exit status: that of the first problem, 0 if there was none."""
        return self.problems[0].status if self.problems else 0

    @property
    def changed_something(self) -> bool:
        """Whether more was done than reading."""
        return any(verb != "read" for verb, _ in self.actions)


class Change(NamedTuple):
    """What became of one account's claim to an address.

    `verb` is open, renew, close or refuse; `login` the time of the login (UTC epoch seconds), None
    where there is no claim any more; `trailed` whether the trail tells of it; `ended` when the
    claim as it was before ended, or would have; None if there was none.
    """

    verb: str
    address: str
    account: str
    login: float | None
    reason: str
    trailed: bool = True
    ended: float | None = None

    @property
    def action(self) -> tuple[str, str]:
        """The change as `-v` shows it."""
        until = f" {self.reason}" if self.verb in ("open", "renew") else ""
        return self.verb, f"{self.address} {self.account}{until}"


def changes(
    ledger: Ledger,
    before: Mapping[str, Mapping[str, float]],
    decision: Decision,
    renewed: Mapping[tuple[str, str], float],
    gone: Mapping[str, Closed],
    now: float,
) -> list[Change]:
    """Compare who was let in `before`, {address: {account: end}}, with a decision.

    `renewed` has the logins that were merged, with the time of the login before (0 if there was
    none), `gone` why an address is closed from which nobody has a claim any more.
    """
    opened, was_open = pairs(decision.open), pairs(before)

    def change(verb: str, pair: tuple[str, str], trailed: bool = True) -> Change:
        address, account = pair
        login = ledger.claims.get(address, {}).get(account)
        if pair in opened:
            reason = f"until {rfc3339(decision.open[address][account])}"
        else:
            why = decision.closed.get(address, {}).get(account) or gone.get(address)
            reason = (why or Closed(Reason.EXPIRED)).words
        ended = before.get(address, {}).get(account)
        written = login.written if login else None
        return Change(verb, address, account, written, reason, trailed, ended)

    def of_another_hour(pair: tuple[str, str]) -> bool:
        return renewed[pair] // HOUR != _written(ledger, pair, now) // HOUR

    refused = sorted(renewed.keys() - was_open - opened)
    again = sorted(opened & was_open & renewed.keys())
    return [
        *(change("open", pair) for pair in sorted(opened - was_open)),
        *(change("renew", pair, of_another_hour(pair)) for pair in again),
        *(change("close", pair) for pair in sorted(was_open - opened)),
        *(change("refuse", pair) for pair in refused if of_another_hour(pair)),
    ]


def _written(ledger: Ledger, pair: tuple[str, str], default: float) -> float:
    login = ledger.claims.get(pair[0], {}).get(pair[1])
    return default if login is None else login.written


def refusals(
    decision: Decision, known: Mapping[str, Mapping[str, Closed]]
) -> list[tuple[str, str]]:
    """Warnings about addresses that logged in, but that the administrator's entries keep shut.

    Of an address whose reason was `known` before nothing is said. Renumbering the entries' lines
    changes no reason. What the mail server can't do is said of one address, and not of more.
    """
    warnings = []
    said = {why for accounts in known.values() for why in accounts.values() if _can_not(why)}
    for address, accounts in sorted(decision.closed.items()):
        why = next(iter(accounts.values()))
        is_new = why not in known.get(address, {}).values()
        if (why.reason is Reason.REFUSED and is_new) or (_can_not(why) and why not in said):
            said.add(why)
            who = ", ".join(accounts)
            warnings.append((address, f"not opened: logged in as {who}, but {why.words}"))
    return warnings


def kept_open(
    path: str, lets_in: Mapping[str, Iterable[str]], decision: Decision, since: float
) -> list[tuple[str, str]]:
    """A warning about those whom the map at `path` lets in although they should be closed.

    No map could be published `since` then (UTC epoch seconds).
    """
    late = sorted(lets_in.keys() - decision.open.keys())
    if not late:
        return []
    who = ", ".join(f"{address} ({', '.join(sorted(lets_in[address]))})" for address in late)
    when = f"no map could be published since {rfc3339(since)}, for longer than a window"
    return [(path, f"{who} may still relay, and should not: {when}")]


def _can_not(why: Closed) -> bool:
    return why.reason is Reason.UNSUPPORTED


def left_behind(path: str | None) -> list[tuple[str, str]]:
    """A warning about a map at `path` that was published before, and is not any more."""
    reason = "is no longer kept, and lets in whoever was open last; rebuild or remove it"
    return [] if path is None else [(path, reason)]


def of_reading(
    path: str, ahead: int, given_up: str, missed: Iterable[Missed], unframed: int
) -> list[tuple[str, str]]:
    """Warnings about a log with logins too far ahead of now, or with lines that can't be read.

    These stand in a rotated file that takes too long, in one that is out of sight, or in no frame
    that counts in this log.
    """
    warnings = []
    if unframed:
        reason = f"lines that may be logins, but have no frame that is believed here: {unframed}"
        warnings.append((path, f"{reason}; see sapd check, and FRAMES in sapd.toml(5)"))
    if ahead:
        reason = f"logins stamped more than {AHEAD} s ahead of now, which open nothing: {ahead}"
        warnings.append((path, f"{reason}; check the clock, or set timezone for this log"))
    if given_up:
        reason = f"the rotated file {given_up} takes too long to unpack, and was left out"
        warnings.append((path, f"{reason}; {_FETCH_AGAIN}"))
    return warnings + [(path, f"{_of_missed(one)}; {_FETCH_AGAIN}") for one in missed]


_FETCH_AGAIN = "who logged in there must fetch mail again"


def _of_missed(missed: Missed) -> str:
    if missed.why:
        return f"the rotated file {missed.path} {missed.why}"
    if missed.path:
        return (
            f"{missed.unread} bytes were not read in {missed.path}, which looks like its rotated "
            "file, but has a name that is not looked for"
        )
    return (
        f"the {missed.unread} bytes that were read of it are nowhere to be found: it was emptied, "
        "lost its end in a power cut, or was rotated to a place that is not looked at, perhaps "
        "with lines that were not read"
    )
