"""The order of one pass; the only orchestrator.

Resume cuts, read, merge, expire, decide, publish, report, save, cut, save, note. What can't be done
is noted, and everything that is safe is done all the same: an unreadable log never keeps a stale
address open. A dry run takes the same way, and leaves out what writes.

Failure contract. A pass that stops between any two steps is repaired by the next one. Before the
map is published nothing is left behind. After that the map is ahead of the state: the next pass
reads the same lines again, and comes to the same map. A line of the trail may then be told twice.
After the state is saved only a cut may be unfinished, which the state knows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection

from sapd import audit, cut, decision, errors, files, idle, intake, maps, publishing, report, state
from sapd.config import Config, Log, Mistake, Readable
from sapd.reading import maillog
from sapd.reading.place import Position
from sapd.state import SavedState


def once(
    config: Config,
    at: float | None = None,
    *,
    dry: bool = False,
    closing: Collection[str] | None = None,
    saved: SavedState | None = None,
) -> report.Report:
    """Run one pass as of now, or as of `at` (UTC epoch seconds).

    Logins until then no longer count from the addresses `closing`, of all if that is empty.
    `saved` is what the pass before in the same process left.

    As root a run goes on, for good, as the owner of a separate map's folder. Raises
    `files.Locked` if another run is at work, and `SapdError` where nothing could be done.
    """
    server = maps.chosen(config.access)
    if server.belongs_to is not None:
        files.become_owner(server.belongs_to)
    saved = saved or SavedState(config.state_directory, dry=dry)
    if dry:
        return _Pass(config, server, saved, at, dry=True).run()
    state.make_directory(config.state_directory)
    lock = state.lock(config.state_directory)
    try:
        return _Pass(config, server, saved, at, dry=False).run(closing)
    finally:
        os.close(lock)


class _Pass:
    def __init__(
        self, config: Config, server: maps.Map, saved: SavedState, at: float | None, *, dry: bool
    ) -> None:
        self.config = config
        self.map = server
        self.saved = saved
        self.dry = dry
        self.report = report.Report()
        self.now = time.time() if at is None else at
        # Files carry the real clock's times; as of another moment they say nothing.
        self.modified_since = self.now - config.rules.longest if at is None else float("-inf")
        # Taken before anything is read; as of another moment nothing is noted.
        self.snapshot: idle.Snapshot | None = None
        if not dry and at is None:
            logs = intake.looked_at(config, self.now)
            own_state = state.path(config.state_directory)
            self.snapshot = idle.Snapshot([*logs, *server.watched(), own_state])

    def run(self, closing: Collection[str] | None = None) -> report.Report:
        config = self.config
        self.saved.load(self.report.problems)
        loaded = self.saved.state.time
        self.saved.state = self.saved.state.of_logs([log.path for log in config.logs])
        whole = [log for log in config.logs if self._resume_cut(log)]
        self._doubt(whole)
        deadline = time.monotonic() + maillog.BUDGET
        batches = [self._read(log, deadline) for log in whole]
        if mistakes := intake.mistakes(batches):  # of a format: nothing may open; see closing
            raise Mistake(mistakes, Readable(config.state_directory, config.access, config.rules))
        ledger = self.saved.state.ledger
        renewed = intake.merge(batches, ledger, config.rules, self.now)
        batches = [batch._replace(logins={}, logouts=[]) for batch in batches]  # which may be large
        if closing is not None:
            ledger.close(closing, self.now)
            self._save()  # first of all: what is not remembered is opened again by the next run
        self.saved.state, changes = publishing.publish(
            config, self.map, self.saved.state, renewed, self.now, self.report, dry=self.dry
        )
        trouble = [] if self.dry else audit.keep(config, changes, self.now)
        if self._save():
            for batch in batches:
                if batch.problem is None:
                    self._cut(batch.log)
            self.report.problems += trouble  # else the state has the same, in the same folder
        if not self.dry:
            self.report.problems += audit.tell_syslog(config, changes)
        self.saved.finish()
        if self.saved.state.time == loaded and not any(batch.unfinished for batch in batches):
            self._note()  # nothing was to be done
        if not self.dry:
            state.note_pass(config.state_directory)
        return self.report

    def _save(self) -> bool:
        return self.saved.save(self.now, self.report.problems)

    def _resume_cut(self, log: Log) -> bool:
        """Finish a cut that an earlier run began; whether the log is whole and may be read."""
        problem = self.saved.state.resume_cut(log.path, dry=self.dry)
        if problem is not None:
            self.report.problems.append(problem)
        return problem is None

    def _doubt(self, logs: Collection[Log]) -> None:
        """Read these logs again if the clock was set back, or since then put forward."""
        again = state.after_clock_change(self.saved.state, [log.path for log in logs], self.now)
        if again is not None:
            self.saved.state = again
            self.saved.must_be_saved()
            self.modified_since = float("-inf")  # the logs' own times may be that clock's, too

    def _read(self, log: Log, deadline: float) -> intake.Batch:
        was = self.saved.state
        position, context = was.positions.get(log.path), was.contexts.get(log.path)
        batch = intake.read(
            log, self.config, position, context, self.now, self.modified_since, deadline
        )
        if batch.problem is not None:
            self.report.problems.append(batch.problem)
            return batch
        self.report.actions.append(("read", f"{log.path}: {batch.counts}"))
        was.note_read(log.path, batch.position, batch.context)
        ahead = 0 if log.path in was.ahead else batch.ahead
        stalled = isinstance(position, Position) and position.stalls > 0
        given_up = batch.given_up if stalled else ""
        unread = given_up, batch.missed, batch.unframed
        self.report.warnings += report.of_reading(log.path, ahead, *unread)
        if batch.ahead:
            was.ahead.add(log.path)
        elif batch.logins:
            was.ahead.discard(log.path)
        return batch

    def _cut(self, log: Log) -> None:
        was = self.saved.state
        position = was.positions.get(log.path)
        if log.keep_lines is None or not isinstance(position, Position):
            return
        if position.lines is not None and position.lines <= log.cut_above:
            return

        def begin(pending: cut.PendingCut) -> bool:
            was.pending_cuts[log.path] = pending
            return self._save()

        plan = intake.cut_plan(log, self.config, self.now)
        try:
            position, done = cut.cut_log(log.path, position, plan, begin, dry=self.dry)
        except FileNotFoundError:
            return
        except (OSError, errors.SapdError) as error:
            self.report.problems.append(errors.of_writing(log.path, error))
            return
        was.positions[log.path] = position
        if done is not None:
            was.note_cut(log.path, done.after)
            counts = f"{done.removed} lines removed, {done.kept} kept"
            self.report.actions.append(("cut", f"{log.path}: {counts}"))
        self._save()

    def _note(self) -> None:
        """If nothing was to be done, note until when."""
        if self.snapshot is None or self.report.problems or self.report.warnings:
            return
        config, was = self.config, self.saved.state
        self.snapshot.add(config.snapshot)
        ends = decision.next_end(was.ledger, config.rules, was.decision, self.now)
        until = min(ends, was.next_doubt(), intake.names_stay_until(config.logs, self.now))
        asked = intake.questions(config.logs, was.positions)
        folder = config.state_directory
        state.note_idle(config.path, folder, self.snapshot, self.now, until, asked)
