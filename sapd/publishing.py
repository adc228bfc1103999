"""Drop what is stale, decide who is open, and bring the mail server's map up to date.

Failure contract. What could not be published leaves the old map in force, and the state says since
when and whom it lets in. Whom time or a rule closes is then closed by the next best way, where
there is one; nobody is opened.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import chain

from sapd import decision, errors, idle, maps, report
from sapd.config import Config
from sapd.decision import Decision
from sapd.maps import live
from sapd.relay import Rules
from sapd.report import Change, Report
from sapd.state import State, Unpublished


def publish(
    config: Config,
    server: maps.Map,
    was: State,
    renewed: Mapping[tuple[str, str], float],
    now: float,
    said: Report,
    *,
    dry: bool,
) -> tuple[State, list[Change]]:
    """Decide as of `now` (UTC epoch seconds) by the claims in the state, and publish.

    Returns the state with the decision, and what changed; problems go into the report. `renewed`
    are the logins that were merged, with the time of the login before. With `dry` nothing is
    written.
    """
    basis = _basis(config, server)
    last, unsettled = _last_decision(was, config.rules, basis, now)
    was.ledger.expire(config.rules, now, unsettled)
    try:
        decided = decision.decide(
            was.ledger, config.rules, server.objection_to, now, last, unsettled
        )
        state, rewritten = _bring_up_to_date(config, server, was, decided, said, dry=dry)
    except errors.SapdError as problem:
        said.problems.append(problem)
        return (was, []) if dry else _close_at_least(config, server, was, problem.status, now, said)
    lets_in = {address: who for address in unsettled if (who := was.lets_in().get(address))}
    gone = decision.of_gone(lets_in, was.ledger, config.rules, server.objection_to, now)
    changed = decided.of(unsettled)
    changes = report.changes(was.ledger, lets_in, changed, renewed, gone, now)
    said.actions += [change.action for change in changes if change.verb != "refuse"]
    said.actions += rewritten
    said.warnings += report.refusals(decided, was.decision.closed)
    said.warnings += report.left_behind(live.left_behind(was.published, server.path))
    state.ledger.touched.clear()
    return state._replace(unpublished=None, decision=decided, basis=basis), changes


def _bring_up_to_date(
    config: Config, server: maps.Map, was: State, decided: Decision, said: Report, *, dry: bool
) -> tuple[State, list[tuple[str, str]]]:
    """Publish a decision, unless the map says the same already; raises `SapdError`.

    Returns the state, and what was done.
    """
    wanted = server.wanted(_ends(server, decided, config))
    if server.is_published(wanted, was.published):
        return was, []
    summary = server.summary(len(decided.open))
    if not dry:
        published = server.publish(wanted, was.published)
        was = was._replace(published=published, access=config.access)
        if server.remark is not None:
            said.warnings.append((server.path, server.remark))
    return was, [("rewrite", f"{server.path}: {summary}")]


def _basis(config: Config, server: maps.Map) -> str:
    """A digest of what a decision goes by beside claims and time; empty if that can't be told."""
    try:
        entries = server.objects_by()
    except errors.SapdError:
        entries = None
    if entries is None:
        return ""
    words = [*idle.machine(), repr(config.rules), repr(config.access)]
    return live.digest("\n".join(words).encode("utf-8", "surrogatepass"), entries)


def _last_decision(
    was: State, rules: Rules, basis: str, now: float
) -> tuple[Decision, Collection[str]]:
    """A decision that still holds, but for the addresses that have to be judged."""
    if basis and basis == was.basis and was.unpublished is None and was.time <= now:
        unsettled = decision.unsettled(was.ledger, rules, was.decision, now)
        if unsettled is not None:
            return was.decision, unsettled
    every = (was.ledger.claims, was.ledger.logouts, was.lets_in())
    return Decision({}, {}), list(dict.fromkeys(chain.from_iterable(every)))


def _ends(server: maps.Map, decided: Decision, config: Config) -> Mapping[str, float]:
    """When each open address closes, as the map is to say it, if it says it."""
    return decided.written_ends(config.rules) if server.closes_by_itself else decided.ends()


def _close_at_least(
    config: Config, server: maps.Map, was: State, status: int, now: float, said: Report
) -> tuple[State, list[Change]]:
    """Where the map could not be published, open nobody, but close whom that can close."""
    rules, state = config.rules, was
    lets_in = was.lets_in()
    decided = decision.decide(was.ledger, rules, lambda _: None, now).only(lets_in)
    changes: list[Change] = []
    if decided.open.keys() != lets_in.keys():
        ends = _ends(server, decided, config)
        published = maps.publish_fewer(server, status, ends, lets_in, was.published)
        if published is not None:
            gone = decision.of_gone(lets_in, was.ledger, rules, lambda _: None, now)
            changes = report.changes(was.ledger, lets_in, decided, {}, gone, now)
            said.actions += [change.action for change in changes]
            state = was._replace(published=published)
            lets_in = decided.open
    since = was.unpublished.since if was.unpublished else now
    if not server.closes_by_itself and since + rules.window < now:
        said.warnings += report.kept_open(server.path, lets_in, decided, since)
    return state._replace(unpublished=Unpublished(since, lets_in)), changes
