"""From the claims to the live map: decide, publish what changed, and tell what that was.

Failure contract. The map's own (see `maps`). The state is changed in memory alone; where the map
could not be published it keeps whom the map lets in, and since when.
"""

from __future__ import annotations

from collections.abc import Mapping

from sapd import decision, errors, maps, report
from sapd.config import Config
from sapd.maps import live
from sapd.report import Change, Report
from sapd.state import SavedState, Unpublished


class Publisher:
    """What one pass has to know to publish; `now` is in UTC epoch seconds.

    With `dry` nothing is published, and what would be done is reported.
    """

    def __init__(
        self,
        config: Config,
        server: maps.Map,
        saved: SavedState,
        report: Report,
        now: float,
        *,
        dry: bool,
    ) -> None:
        """Do nothing yet."""
        self.config = config
        self.map = server
        self.saved = saved
        self.report = report
        self.now = now
        self.dry = dry

    def bring_up_to_date(self, renewed: Mapping[tuple[str, str], float]) -> list[Change]:
        """Decide, and bring the map up to date; what changed then.

        `renewed` has the logins that were merged, as `report.changes` wants them.
        """
        was, rules = self.saved.state, self.config.rules
        try:
            decided = decision.decide(was.ledger, rules, self.map.objection_to, self.now)
            wanted = self.map.wanted(decided.ends())
            rewrite = not self.map.is_published(wanted, was.published)
            summary = self.map.summary(len(decided.open))
            if rewrite and not self.dry:
                published = self.map.publish(wanted, was.published)
                self.saved.change(published=published, access=self.config.access)
        except errors.SapdError as problem:
            self.report.problems.append(problem)
            return [] if self.dry else self._close_at_least(problem.status)
        objection = self.map.objection_to
        gone = decision.of_gone(was.lets_in(), was.ledger, rules, objection, self.now)
        changes = report.changes(was.ledger, was.lets_in(), decided, renewed, gone, self.now)
        self.saved.change(unpublished=None, decision=decided)
        self.report.actions += [change.action for change in changes if change.verb != "refuse"]
        self.report.warnings += report.refusals(decided, was.decision.closed)
        if rewrite:
            self.report.actions.append(("rewrite", f"{self.map.path}: {summary}"))
        old = live.left_behind(was.published, self.map.path)
        self.report.warnings += report.left_behind(old)
        return changes

    def _close_at_least(self, status: int) -> list[Change]:
        """Where the map could not be published, open nobody, but close whom that can close."""
        was, rules = self.saved.state, self.config.rules
        lets_in = was.lets_in()
        decided = decision.decide(was.ledger, rules, lambda _: None, self.now).only(lets_in)
        changes: list[Change] = []
        if decided.open.keys() != lets_in.keys():
            published = maps.publish_fewer(self.map, status, decided.ends(), lets_in, was.published)
            if published is not None:
                gone = decision.of_gone(lets_in, was.ledger, rules, lambda _: None, self.now)
                changes = report.changes(was.ledger, lets_in, decided, {}, gone, self.now)
                self.report.actions += [change.action for change in changes]
                self.saved.change(published=published)
                lets_in = {address: sorted(accounts) for address, accounts in decided.open.items()}
        since = was.unpublished.since if was.unpublished else self.now
        self.saved.change(unpublished=Unpublished(since, lets_in))
        return changes
