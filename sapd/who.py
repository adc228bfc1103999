"""Who was it, and why can't I send: what is known of one address, now or at a past moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from sapd import audit, decision, errors, maps, state
from sapd.config import Config
from sapd.decision import Closed, Decision, Grant, Objection, Reason
from sapd.relay import same_account
from sapd.state import State
from sapd.timestamps import local, localised

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

    The address is in its usual spelling. Raises `SapdError`, or OSError if the trail can't be read.
    """
    trail = _trail(config)
    if at is None:
        yield from at_present(config, [address], now)
    else:
        yield f"{address} {_at(trail, address, at, config.rules.longest)}"
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
            yield f"{address} {_at(trail, address, at, config.rules.longest)}"
        if not known:
            yield f"{account}: the trail knows no login of it up to {local(at)}"
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
    except PermissionError as error:
        reason = f"can't be read: {error.strerror}"
        raise errors.SapdError(errors.NO_PERMISSION, str(error.filename), reason) from None


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


def _at(trail: list[audit.Entry], address: str, at: float, longest: float) -> str:
    begins = trail[0].time if trail else at + 1
    if begins > at:
        since = f"begins at {local(begins)}" if trail else "is empty"
        return f"at {local(at)}: not known, the trail {since}"
    last: dict[str, audit.Entry] = {}
    for entry in trail:
        if entry.address == address and (entry.time <= at or entry.account not in last):
            last[entry.account] = entry
    # Of whom nothing earlier is told, the next tells: who was closed or renewed had been open.
    was_open = {True: ("open", "renew"), False: ("renew", "close")}
    by = [who for who, entry in last.items() if entry.event in was_open[entry.time <= at]]
    if by:
        return f"was open at {local(at)}, by the login of {', '.join(by)}"
    if not last and at < begins + longest:
        return f"at {local(at)}: not known, the trail begins at {local(begins)}, too late for it"
    return f"was closed at {local(at)}"
