"""Decide who is open, and bring the mail server's map up to date.

Failure contract. What could not be published leaves the old map in force, and the state says since
when and whom it lets in. Whom time or a rule closes is then closed by the next best way, where
there is one; nobody is opened.
"""

from __future__ import annotations

from collections.abc import Mapping

from sapd import decision, errors, maps, report
from sapd.config import Config
from sapd.decision import Decision
from sapd.maps import live
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
    rules, state = config.rules, was
    try:
        decided = decision.decide(was.ledger, rules, server.objection_to, now)
        wanted = server.wanted(_ends(server, decided, config))
        rewrite = not server.is_published(wanted, was.published)
        summary = server.summary(len(decided.open))
        if rewrite and not dry:
            published = server.publish(wanted, was.published)
            state = was._replace(published=published, access=config.access)
            if server.remark is not None:
                said.warnings.append((server.path, server.remark))
    except errors.SapdError as problem:
        said.problems.append(problem)
        return (was, []) if dry else _close_at_least(config, server, was, problem.status, now, said)
    gone = decision.of_gone(was.lets_in(), was.ledger, rules, server.objection_to, now)
    changes = report.changes(was.ledger, was.lets_in(), decided, renewed, gone, now)
    said.actions += [change.action for change in changes if change.verb != "refuse"]
    said.warnings += report.refusals(decided, was.decision.closed)
    if rewrite:
        said.actions.append(("rewrite", f"{server.path}: {summary}"))
    said.warnings += report.left_behind(live.left_behind(was.published, server.path))
    return state._replace(unpublished=None, decision=decided), changes


def _ends(server: maps.Map, decided: Decision, config: Config) -> Mapping[str, float]:
    """When each open address closes, as the map is to say it, if it says it."""
    return decided.written_ends(config.rules) if server.closes_by_itself else decided.ends()


def _close_at_least(
    config: Config, server: maps.Map, was: State, status: int, now: float, said: Report
) -> tuple[State, list[Change]]:
    """Where the map could not be published, open nobody, but close whom that can close."""
    rules, state, lets_in = config.rules, was, was.lets_in()
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
            lets_in = {address: sorted(accounts) for address, accounts in decided.open.items()}
    since = was.unpublished.since if was.unpublished else now
    if not server.closes_by_itself and since + rules.window < now:
        said.warnings += report.kept_open(server.path, lets_in, decided, since)
    return state._replace(unpublished=Unpublished(since, lets_in)), changes
