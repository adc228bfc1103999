"""Who was it, and why can't I send: what is known of one address, now or at a past moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sapd import access, audit, state
from sapd.config import Config
from sapd.relay import Grant
from sapd.state import State
from sapd.timestamps import rfc3339

_LATEST = 20  # lines of the trail that are shown


def tell(config: Config, address: str, now: float, at: float | None) -> Iterator[str]:
    """Lines that say whether an address may relay at `now`, or might `at` (UTC epoch seconds).

    The address is in its usual spelling. Raises `SapdError`, or OSError if the trail can't be read.
    """
    try:
        trail = list(audit.read(config.state_directory))
    except FileNotFoundError:
        trail = []
    if at is None:
        yield from at_present(config, [address], now)
    else:
        yield f"{address} {_at(trail, address, at, config.rules.longest)}"
    moment = now if at is None else at
    for entry in [one for one in trail if one.address == address and one.time <= moment][-_LATEST:]:
        login = "" if entry.login is None else f", login of {rfc3339(entry.login)}"
        reason = f": {entry.reason}" if entry.reason else ""
        yield f"{rfc3339(entry.time)} {entry.event} {entry.account}{login}{reason}"


def at_present(config: Config, addresses: Iterable[str], now: float) -> Iterator[str]:
    """A line for each address that says whether it may relay at `now`. Raises `SapdError`."""
    saved = state.load(config.state_directory)
    source = access.Source(config.access.source, config.access.tag)
    granted = saved.ledger.grants(config.rules, saved.refused, now)
    grants = {grant.address: grant for grant in granted}
    for address in addresses:
        if address in grants:
            said = _why_open(saved, grants[address])
        else:
            said = _why_closed(config, saved, source, address, now)
        if saved.stuck is not None:
            is_so = "open" if address in saved.stuck.open else "closed"
            since = f"since {rfc3339(saved.stuck.since)} sapd could not rebuild it, see sapd run"
            said = f"is {is_so} in the map as it stands; {since}; else it {said}"
        yield f"{address} {said}"


def _why_open(saved: State, grant: Grant) -> str:
    logins = saved.ledger.claims[grant.address]
    by = ", ".join(f"{name} ({rfc3339(logins[name])})" for name in grant.accounts)
    return f"is open until {rfc3339(grant.until)}, by the login of {by}"


def _why_closed(
    config: Config, saved: State, source: access.Source, address: str, now: float
) -> str:
    ledger, word = saved.ledger, source.says(address)
    if word == "":
        return "is not opened by sapd: it relays by an entry of its own in access.source"
    if word:
        return f"is closed: {word}"
    if source.permits(address):
        return "is not opened by sapd: it relays by its network's entry in access.source"
    if config.rules.forbids(address):
        return "is closed: policy.never has it, or it can be no client's"
    if address in ledger.claims:
        closed = ledger.closed(config.rules, now).get(address, {})
        held = saved.refused.get(address) or "no run has opened it yet"
        found = [
            f"{account} logged in at {rfc3339(login)}, but {closed.get(account, held)}"
            for account, login in ledger.claims[address].items()
        ]
        return f"is closed: {'; '.join(found)}"
    shut = ledger.closed_by_hand(config.rules, address, now)
    if shut is not None:
        return f"is closed: by sapd close at {rfc3339(shut)}, and nobody has logged in since"
    return "is closed: nobody has logged in from it within the window; fetch mail first"


def _at(trail: list[audit.Entry], address: str, at: float, longest: float) -> str:
    begins = trail[0].time if trail else at + 1
    if begins > at:
        since = f"begins at {rfc3339(begins)}" if trail else "is empty"
        return f"at {rfc3339(at)}: not known, the trail {since}"
    last: dict[str, audit.Entry] = {}
    for entry in trail:
        if entry.address == address and (entry.time <= at or entry.account not in last):
            last[entry.account] = entry
    # Of whom nothing earlier is told, the next tells: who was closed or renewed had been open.
    was_open = {True: ("open", "renew"), False: ("renew", "close")}
    by = [who for who, entry in last.items() if entry.event in was_open[entry.time <= at]]
    if by:
        return f"was open at {rfc3339(at)}, by the login of {', '.join(by)}"
    if not last and at < begins + longest:
        return (
            f"at {rfc3339(at)}: not known, the trail begins at {rfc3339(begins)}, too late for it"
        )
    return f"was closed at {rfc3339(at)}"
