"""A pass that only closes, because the configuration has a mistake.

A mistake must not keep anybody open. What can't be read for sure opens and renews nothing, moves no
place in a log, and cuts nothing; but each claim ends when it would have ended, or earlier if the
rules that can still be read say so. Where [access] can't be read the one serves by which the map
was published last.

Failure contract. Map and state are replaced as by any pass; nothing else is written.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping

from sapd import decision, defaults, errors, files, idle, maps, state
from sapd.config import Mistake, Readable
from sapd.decision import Closed, Decision, OfAddress, Reason
from sapd.relay import Ledger
from sapd.report import Report
from sapd.state import SavedState, State, Unpublished


def close_only(path: str, mistake: Mistake, *, closing: Collection[str] | None = None) -> Report:
    """Close what has ended by now, for the configuration at `path`.

    Also the addresses `closing`, all if that is empty, as `run.once` does. The report has the
    mistakes as its first problems. Raises `files.Locked`.
    """
    report = Report()
    report.problems += [mistake, *mistake.others]
    directory = mistake.readable.state_directory or _state_directory(path)
    try:
        if not _was_used(directory):
            return report  # nobody was ever opened
        access = _access(mistake.readable, directory)
        if access is None:
            return report
        server = maps.chosen(access)
        if server.belongs_to is not None:
            files.become_owner(server.belongs_to)
        lock = state.lock(directory)
        try:
            saved, now = SavedState(directory), time.time()
            saved.load(report.problems)
            if closing is not None:
                saved.state.ledger.close(closing, now)
                saved.save(now, report.problems)  # first of all, as in `run`
            _close(saved, server, mistake.readable, now, report)
        finally:
            os.close(lock)
    except errors.SapdError as problem:
        report.problems.append(problem)
    return report


def _was_used(directory: str) -> bool:
    """Whether there is a state. Raises `SapdError` 77 if this user can't tell."""
    try:
        os.stat(state.path(directory))
    except PermissionError as error:
        reason = f"can't be read: {error.strerror}"
        raise errors.SapdError(errors.NO_PERMISSION, state.path(directory), reason) from None
    except OSError:
        return False
    return True


def _access(readable: Readable, directory: str) -> maps.Access | None:
    """The map's settings, if they are there and can be read; else those of the last good map."""
    if readable.access is not None and readable.names_access:
        return readable.access
    try:
        return state.load(directory).access or readable.access
    except state.Damaged:  # see `SavedState.load`
        return readable.access


def _state_directory(path: str) -> str:
    try:
        return idle.state_directory(path) or defaults.STATE_DIRECTORY
    except OSError:
        return defaults.STATE_DIRECTORY


def _close(
    saved: SavedState, server: maps.Map, readable: Readable, now: float, report: Report
) -> None:
    was = saved.state
    try:
        decided = only_closing(was, readable, server.objection_to, now)
        wanted = server.wanted(decided.ends())
        if not server.is_published(wanted, was.published):
            saved.change(published=server.publish(wanted, was.published))
        unpublished = None
    except errors.SapdError as problem:  # the next best way, as in `publishing`
        report.problems.append(problem)
        decided = only_closing(was, readable, lambda _: None, now)
        ends = decided.ends()
        published = maps.publish_fewer(server, problem.status, ends, was.lets_in(), was.published)
        if published is None:
            return
        saved.change(published=published)
        since = was.unpublished.since if was.unpublished else now
        unpublished = Unpublished(since, decided.open)
    for address, accounts in sorted(was.lets_in().items()):
        for account in sorted(set(accounts) - decided.open.get(address, {}).keys()):
            report.actions.append(("close", f"{address} {account}"))
    saved.change(decision=decided, unpublished=unpublished, basis="")
    saved.save(now, report.problems)
    state.note_pass(saved.directory)


def only_closing(was: State, readable: Readable, objection: OfAddress, now: float) -> Decision:
    """The decision without whatever would open or renew something."""
    ends = was.decision.only(was.lets_in()).open  # less than was open, if publishing failed
    closed = dict(was.decision.closed)
    if readable.rules is not None:
        judged = decision.decide(was.ledger, readable.rules, objection, now)
        closed = judged.closed
        ends = {
            address: {
                account: min(end, judged.open.get(address, {}).get(account, now))
                for account, end in accounts.items()
            }
            for address, accounts in ends.items()
        }
    still = {
        address: left
        for address, accounts in ends.items()
        if (left := _still_open(was.ledger, address, accounts, now)) and objection(address) is None
    }
    for address, accounts in was.decision.open.items():
        gone = accounts.keys() - still.get(address, {}).keys() - closed.get(address, {}).keys()
        if gone:
            whys = {
                account: decision.revoked(was.ledger, address, now)
                if _is_revoked(was.ledger, address, account, now)
                else Closed(Reason.EXPIRED)
                for account in gone
            }
            closed[address] = {**closed.get(address, {}), **whys}
    return Decision(still, closed)


def _still_open(
    ledger: Ledger, address: str, ends: Mapping[str, float], now: float
) -> dict[str, float]:
    return {
        account: end
        for account, end in ends.items()
        if end > now and not _is_revoked(ledger, address, account, now)
    }


def _is_revoked(ledger: Ledger, address: str, account: str, now: float) -> bool:
    """The same as `Ledger.is_revoked`, of an account that may have no claim any more."""
    if account not in ledger.claims.get(address, ()):
        return ledger.revoked_until(address, now) > 0
    return ledger.is_revoked(address, account, now)
