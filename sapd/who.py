"""Who was it, and why can't I send: what is known of one address, now or at a past moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import inf
from typing import NamedTuple

from sapd import audit, decision, errors, maps, state
from sapd.config import Config
from sapd.decision import Closed, Decision, Grant, Objection, Reason
from sapd.relay import same_account
from sapd.state import State
from sapd.timestamps import local, localised, moment

_LATEST = 20  # lines of the trail that are shown
_MOST = 5  # addresses that are named in a warning
_INTERVALS = 3  # that may pass before a pass is overdue
_OF_THE_MAP = {Reason.REFUSED, Reason.RELAYS_ALREADY, Reason.UNSUPPORTED}
_OF_ADDRESSES = {Reason.FORBIDDEN, *_OF_THE_MAP, Reason.REVOKED}


def grants(config: Config, now: float) -> tuple[list[Grant], float | None]:
    """Who may relay at `now`, and since when the map could not be brought up to date, if so.

    The administrator's entries count as the last run knew them. Times are UTC epoch seconds.
    Raises `SapdError`.
    """
    saved = state.load(config.state_directory)
    since = saved.unpublished.since if saved.unpublished else None
    return decision.grants(saved.ledger, _decide(config, saved, now)), since


def _decide(config: Config, saved: State, now: float) -> Decision:
    return decision.decide(saved.ledger, config.rules, _known_objections(saved), now)


def differences(config: Config, now: float) -> Iterator[tuple[str, str]]:
    """Warnings (subject, text) where the live map at `now` is not what it should be.

    Also where the last pass was too long ago. Nothing is said when all is well.
    """
    saved = state.load(config.state_directory)
    path = maps.chosen(config.access).path
    is_open = _decide(config, saved, now).open.keys()
    candidates = {*saved.ledger.claims, *saved.lets_in()}
    try:
        live = set(maps.chosen(config.access).published_now(now, candidates))
    except errors.SapdError as problem:
        yield problem.subject, f"can't be compared with what should be: {problem.reason}"
    else:
        found = [
            ("still lets in", sorted(live - is_open)),
            ("does not let in yet", sorted(is_open - live)),
        ]
        said = [f"{verb} {_few(addresses)}" for verb, addresses in found if addresses]
        if said:
            yield path, f"{' and '.join(said)}; the next sapd run changes that"
    if overdue := last_pass_overdue(config, now):
        yield config.state_directory, overdue


def _few(addresses: list[str]) -> str:
    more = f" and {len(addresses) - _MOST} more" if len(addresses) > _MOST else ""
    return ", ".join(addresses[:_MOST]) + more


def last_pass_overdue(config: Config, now: float, root: str = "/") -> str | None:
    """What is to be said if no pass came for three intervals of the schedule."""
    from sapd.check.schedules import interval  # only where somebody asks

    last = state.last_pass(config.state_directory)
    if last is None or now - last <= _INTERVALS * interval(config.path, root):
        return None
    return f"the last pass was at {local(last)}; is cron running? Nobody is closed meanwhile"


def _known_objections(saved: State) -> Callable[[str], Objection | None]:
    def objection_to(address: str) -> Objection | None:
        why = next(iter(saved.decision.closed.get(address, {}).values()), None)
        return Objection(why.reason, why.detail) if why and why.reason in _OF_THE_MAP else None

    return objection_to


def tell(config: Config, address: str, now: float, at: float | None) -> Iterator[str]:
    """Lines that say whether an address may relay at `now`, or might `at` (UTC epoch seconds).

    The address is in its usual spelling. Raises `SapdError`.
    """
    trail = _trail(config)
    if at is None:
        yield from at_present(config, [address], now)
    else:
        yield f"{address} {_at(config, trail, address, at)}"
    moment = now if at is None else at
    for entry in [one for one in trail if one.address == address and one.time <= moment][-_LATEST:]:
        yield _of_trail(entry, entry.account)


def tell_of_account(config: Config, account: str, now: float, at: float | None) -> Iterator[str]:
    """The same for an account: a line for each address from which it logged in.

    A name without @ also stands for accounts that a server completed by a domain.
    """
    trail = _trail(config)
    moment = now if at is None else at
    own = [one for one in trail if _is(account, one.account) and one.time <= moment]
    known = dict.fromkeys(entry.address for entry in own)
    if (denied := config.rules.denied_by(account)) is not None:
        yield f"{account} opens nothing: {Closed(Reason.DENIED, denied).words}"
    if at is None:
        addresses = _addresses_of(account, state.load(config.state_directory))
        yield from at_present(config, addresses, now)
        if not addresses:
            last = f"; the last known was from {list(known)[-1]}" if known else ""
            why = "has no login within the window that could open an address"
            hint = "fetch mail first, or see what sapd match says of the log"
            yield f"{account} {why}{last}; {hint}"
    else:
        for address in known:
            yield f"{address} {_at(config, trail, address, at)}"
        if not known:
            unknown = _unknown(trail, at)
            yield f"{account} {unknown or f'has no login in the trail up to {local(at)}'}"
    for entry in own[-_LATEST:]:
        yield _of_trail(entry, f"{entry.address} {entry.account}")


def _addresses_of(account: str, saved: State) -> list[str]:
    """The addresses that an account has claims to, the one of its latest login at the end."""
    latest = {
        address: max(logins)
        for address, accounts in saved.ledger.claims.items()
        if (logins := [login for name, login in accounts.items() if _is(account, name)])
    }
    return sorted(latest, key=latest.__getitem__)


def _is(asked: str, account: str) -> bool:
    asked, account = same_account(asked), same_account(account)
    return account == asked or ("@" not in asked and account.partition("@")[0] == asked)


def _trail(config: Config) -> list[audit.Entry]:
    try:
        return list(audit.read(config.state_directory))
    except FileNotFoundError:
        return []
    except OSError as error:
        reason = f"can't be read: {error.strerror}"
        raise errors.SapdError(errors.status_of(error), str(error.filename), reason) from None


def _of_trail(entry: audit.Entry, subject: str) -> str:
    login = "" if entry.login is None else f", login of {local(entry.login)}"
    reason = f": {localised(entry.reason)}" if entry.reason else ""
    return f"{local(entry.time)} {entry.event} {subject}{login}{reason}"


def at_present(config: Config, addresses: Iterable[str], now: float) -> Iterator[str]:
    """A line for each address that says whether it may relay at `now`. Raises `SapdError`."""
    saved = state.load(config.state_directory)
    server = maps.chosen(config.access)
    for address in addresses:
        said = _said(config, saved, server, address, now)
        if (unpublished := saved.unpublished) is not None:
            is_so = "open" if address in unpublished.open else "closed"
            since = f"since {local(unpublished.since)} sapd could not rebuild it, see sapd run"
            said = f"is {is_so} in the map as it stands; {since}; else it {said}"
        yield f"{address} {said}"


def _said(config: Config, saved: State, server: maps.Map, address: str, now: float) -> str:
    ledger, rules = saved.ledger, config.rules
    claims = ledger.claims.get(address, {})
    ends: dict[str, float] = {}
    closed: dict[str, Closed] = {}
    if claims:
        ends, closed = decision.judge(ledger, rules, server.objection_to, address, now)
    if ends:
        by = ", ".join(f"{name} ({local(claims[name].written)})" for name in sorted(ends))
        return f"is open until {local(max(ends.values()))}, by the login of {by}"
    if closed and not all(why.reason in _OF_ADDRESSES for why in closed.values()):
        found = [
            f"{account} logged in at {local(claims[account].written)}, but {localised(why.words)}"
            for account, why in closed.items()
        ]
        return f"is closed: {'; '.join(found)}"
    why = next(iter(closed.values()), None)
    if why is None:
        why = decision.without_claim(ledger, rules, server.objection_to, address, now)
    return _of_address(why, permitted=server.permits(address))


def _of_address(why: Closed, *, permitted: bool) -> str:
    if why.reason is Reason.RELAYS_ALREADY:
        return f"is not opened by sapd: {localised(why.words)}"
    if permitted and why.reason is not Reason.REFUSED:
        return "is not opened by sapd: it relays by its network's entry in access.source"
    if why.reason is Reason.EXPIRED:
        return "is closed: nobody has logged in from it within the window; fetch mail first"
    since = ", and nobody has logged in since" if why.reason is Reason.REVOKED else ""
    return f"is closed: {localised(why.words)}{since}"


def _unknown(trail: list[audit.Entry], at: float) -> str | None:
    """What is to be said if the trail begins behind `at`."""
    begins = trail[0].time if trail else at + 1
    if begins <= at:
        return None
    since = f"begins at {local(begins)}" if trail else "is empty"
    return f"at {local(at)}: not known, the trail {since}"


def _at(config: Config, trail: list[audit.Entry], address: str, at: float) -> str:
    if (unknown := _unknown(trail, at)) is not None:
        return unknown
    own = [entry for entry in trail if entry.address == address]
    claims = [
        claim
        for who in dict.fromkeys(entry.account for entry in own)
        if (claim := _claim(config, [entry for entry in own if entry.account == who], at))
    ]
    begins = trail[0].time
    if not claims and not own and at < begins + config.rules.longest:
        return f"at {local(at)}: not known, the trail begins at {local(begins)}, too late for it"
    if not claims:
        return f"was closed at {local(at)}"
    end = max(claim.end for claim in claims)
    late = end <= at
    if maps.chosen(config.access).closes_by_itself and late:
        written = config.rules.written_end(address, end)
        if written <= at:
            return f"was closed at {local(at)}: its window ended at {local(written)}"
        claims, late = [claim for claim in claims if claim.end == end], False
    by = ", ".join(claim.account for claim in claims if late or claim.end > at or claim.end == end)
    said = f"was open at {local(at)}, by the login of {by}"
    if not late:
        return said
    closed = max(claim.closed for claim in claims)
    until = f"no pass closed it before {local(closed)}" if closed < inf else "no pass has closed it"
    return f"{said}; its window ended at {local(end)}, but {until}"


class _Claim(NamedTuple):
    """A claim that no pass had closed at a moment: its end, and when a pass closed or renewed it.

    UTC epoch seconds; infinite where that is not known, or has not come.
    """

    account: str
    end: float
    closed: float


def _claim(config: Config, own: list[audit.Entry], at: float) -> _Claim | None:
    """The claim at that moment by an account's entries of one address; None if it had none.

    Renewals of the same hour are not in the trail: the end is told best by what came next, or if
    nothing did, by the state.
    """
    before = next((entry for entry in reversed(own) if entry.time <= at), None)
    behind = next((entry for entry in own if entry.time > at), None)
    if before is not None:
        is_open = before.event in ("open", "renew")
    else:  # the next one tells: who was closed or renewed had been open
        is_open = behind is not None and behind.event in ("renew", "close")
    if not is_open:
        return None
    account = own[0].account
    closed = inf if behind is None else behind.time
    if behind is not None and behind.ended is not None:
        return _Claim(account, behind.ended, closed)
    end = inf if before is None else _end_told(before)
    if behind is None:
        is_open_now = state.load(config.state_directory).decision.open
        end = is_open_now.get(own[0].address, {}).get(account, end)
    return _Claim(account, end, closed)


def _end_told(entry: audit.Entry) -> float:
    """The end that an opening or a renewal names in its reason; infinite if it names none."""
    try:
        return moment(entry.reason.removeprefix("until "), None)
    except ValueError:
        return inf
