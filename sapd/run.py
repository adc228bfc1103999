"""The order of one pass; the only orchestrator.

Read, merge, expire, publish, keep the trail, save the state, cut, save the state. A crash between
any two steps is repaired by the next pass. What can't be done is noted, and everything that is safe
is done all the same: an unreadable log never keeps a stale address open.

A dry run takes the same way, and leaves out what writes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial

from sapd import access, audit, cut, errors, files, idle, maillog, relay, scan, state, timestamps
from sapd.config import Config, Log
from sapd.maillog import PendingCut, Position, Reading
from sapd.recogniser import Context, Event, Recogniser
from sapd.timestamps import AHEAD, Clock


class Report:
    """What a pass did, or would do.

    `actions` are (verb, object) pairs, such as ("close", "192.0.2.7 bob"); `warnings` (subject,
    text) want attention although all was done; `problems` are what could not be done.
    """

    def __init__(self) -> None:
        """Of nothing yet."""
        self.actions: list[tuple[str, str]] = []
        self.warnings: list[tuple[str, str]] = []
        self.problems: list[errors.SapdError] = []

    @property
    def status(self) -> int:
        """The exit status: that of the first problem, 0 if there was none."""
        return self.problems[0].status if self.problems else 0


class Memory:
    """What a pass leaves for the next of the same process, for as long as its file looks the same.

    `looks` is how the state's file looked, None where nothing is left: the state could neither be
    loaded nor saved. What could be loaded but not saved is left, so that it is not told again.
    """

    looks: idle.Looks | None = None
    state: state.State
    saved: str


def once(
    config: Config,
    at: float | None = None,
    *,
    dry: bool = False,
    closing: Collection[str] | None = None,
    memory: Memory | None = None,
) -> Report:
    """Run one pass as of now, or as of `at` (UTC epoch seconds).

    Logins until then no longer count from the addresses `closing`, of all if that is empty.

    As root a separate map's run goes on, for good, as the user to whom the map's folder belongs:
    see `files.become_owner`. Raises `files.Locked` if another run is at work, and `SapdError`
    where nothing could be done.
    """
    if config.access.source is None:
        files.become_owner(os.path.dirname(config.access.database))
    if dry:
        return _Pass(config, at, dry=True).run()
    state.make_directory(config.state_directory)
    lock = state.lock(config.state_directory)
    try:
        return _Pass(config, at, dry=False, closing=closing, memory=memory).run()
    finally:
        os.close(lock)


def _looked_at(config: Config) -> list[str]:
    """Every file that a pass goes by, but for the configuration and the formats."""
    settings = config.access
    return [
        *(path for log in config.logs for path in maillog.looked_at(log.path)),
        *([settings.source] if settings.source else []),
        settings.database,
        settings.database.removesuffix(".db"),  # it must not be there unless it is the source
        state.path(config.state_directory),
    ]


def grants(config: Config, now: float) -> tuple[list[relay.Grant], float | None]:
    """Who may relay at `now`, and since when the map could not be brought up to date, if so.

    Times are UTC epoch seconds. Raises `SapdError`.
    """
    saved = state.load(config.state_directory)
    since = saved.stuck.since if saved.stuck else None
    return saved.ledger.grants(config.rules, saved.refused, now), since


def _pairs(claims: Mapping[str, Iterable[str]]) -> set[tuple[str, str]]:
    return {(address, account) for address, accounts in claims.items() for account in accounts}


def _events(reading: Reading, recogniser: Recogniser, until: float) -> Iterator[Event]:
    """What a log's new lines say; those stamped later than `until` (UTC epoch) are given each."""
    deduplicator = scan.Deduplicator(recogniser, until)
    begun = False
    for block in reading.blocks():
        if not begun:
            begun = _begin(reading, recogniser)
        if reading.at_head:
            recogniser.begin(block)
        yield from deduplicator.events(block)
    yield from deduplicator.flush()
    if not begun:
        _begin(reading, recogniser)


def _begin(reading: Reading, recogniser: Recogniser) -> bool:
    """Where lines before the first one may never have been read, see what they say of it."""
    if reading.anew:
        recogniser.learn(reading.lead)
        recogniser.context.connects.clear()  # of whose process other lines may be missing
    return True


class _Pass:
    def __init__(
        self,
        config: Config,
        at: float | None,
        *,
        dry: bool,
        closing: Collection[str] | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.config = config
        self.memory = memory
        self.now = time.time() if at is None else at
        self.edge = self.now - config.rules.longest
        # Files carry the real clock's times; as of another moment they say nothing.
        self.modified_since = self.edge if at is None else float("-inf")
        self.dry = dry
        # Taken before anything is read; as of another moment nothing is noted.
        self.looks = None if dry or at is not None else idle.Looks(_looked_at(config))
        self.report = Report()
        self.state = state.empty()
        self.saved = ""
        self.seen: idle.Looks | None = None  # the state's file, before it was loaded or once saved
        self.may_save = True
        # (address, account): whom the map lets in by the last pass's doing, and who logged in.
        self.before: set[tuple[str, str]] = set()
        # The same, with the login before, if any.
        self.renewed: dict[tuple[str, str], float] = {}
        self.logouts: list[tuple[str, str, float]] = []  # address, account, time
        self.ending: set[str] = set()  # formats whose logouts count
        self.wanted = ["login"] if config.rules.after_logout is None else ["login", "logout"]
        self.closing = closing
        self.trail: list[audit.Entry] = []

    def run(self) -> Report:
        self._load()
        whole = [log for log in self.config.logs if self._finish_cut(log)]
        self._doubt(whole)
        read = [log for log in whole if self._read(log)]
        rules, ledger = self.config.rules, self.state.ledger
        for address, account, logout in self.logouts:
            ledger.logout(rules, address, account, logout, self.now)
        if self.closing is not None:
            ledger.close(self.closing, self.now)
            self._save()  # first of all: what is not remembered is opened again by the next run
        ledger.expire(rules, self.now)
        self._publish()
        trouble = self._keep_trail()
        if self._save():
            for log in read:
                self._cut(log)
            if trouble:  # else the state has the same, in the same folder
                self.report.problems.append(trouble)
        if self.memory:
            self.memory.looks = self.seen
            self.memory.state, self.memory.saved = self.state, self.saved
        self._note()
        return self.report

    def _load(self) -> None:
        """Load the state; where that fails, go on with what the log says, and keep the file."""
        directory, problems = self.config.state_directory, self.report.problems
        seen, memory = idle.Looks([state.path(directory)]), self.memory
        try:
            if memory and memory.looks == seen:
                self.state, self.saved = memory.state, memory.saved
                memory.looks = None  # from now on this pass changes what is there
            else:
                self.state = state.load(directory)
                self.saved = self._text()
            self.seen = seen
        except state.Damaged as damaged:
            what = "a run would set it aside and read the log again"
            if not self.dry:
                try:
                    aside = os.path.basename(state.set_aside(directory))
                    what = f"set aside as {aside}, and rebuilt from the log"
                except errors.SapdError as problem:
                    self.may_save = False
                    what = f"nor be set aside ({problem.reason}); nothing is saved"
            reason = f"{damaged.reason}; {what}"
            problems.append(errors.SapdError(damaged.status, damaged.subject, reason))
        except errors.SapdError as problem:
            if self.dry:
                raise
            self.may_save = False
            problems.append(problem)
        was = self.state
        open_ = was.ledger.open(was.closed, was.refused)
        self.before = _pairs(was.stuck.open if was.stuck else open_)
        paths = {log.path for log in self.config.logs}
        self.state = was._replace(
            positions={path: at for path, at in was.positions.items() if path in paths},
            contexts={path: of for path, of in was.contexts.items() if path in paths},
        )

    def _finish_cut(self, log: Log) -> bool:
        """Finish a cut that an earlier run began; whether the log is whole and may be read.

        In a dry run nothing is finished, and any log is read. A cut that can't be finished but has
        not spoilt anything is no problem: it is made anew.
        """
        position = self.state.positions.get(log.path)
        if (
            self.dry
            or position is None
            or position.pending_cut is None
            or not position.pending_cut.marker
        ):
            return True
        after, marker = position.pending_cut
        try:
            fd = files.open_in_place(log.path, writing=True)
            try:
                if cut.finish(fd, marker, position.here.offset - after.offset):
                    self.state.positions[log.path] = Position(after, position.rotated)
            finally:
                os.close(fd)
        except (OSError, errors.SapdError) as error:
            if cut.half_copied(log.path, marker):
                if isinstance(error, OSError):
                    error = errors.cannot_write(log.path, error)
                self.report.problems.append(error)
                return False
        return True

    def _doubt(self, logs: list[Log]) -> None:
        """Read these logs again if the clock was set back, or since then put forward.

        Meanwhile addresses may have been closed too early, and logins taken for old or for ahead of
        now. The logs' own times may be that clock's, too.
        """
        was = self.state
        back = was.time > self.now + AHEAD
        forward = was.time < was.latest and self.now > min(was.latest, was.time + AHEAD)
        if back or forward:
            for log in logs:
                was.positions.pop(log.path, None)
            was.contexts.clear()
            self.modified_since = float("-inf")
            self.saved = ""

    def _read(self, log: Log) -> bool:
        """Merge a log's new logins; whether it could be read."""
        # A copy: where the reading fails, its lines are read again, and mean the same again.
        known = self.state.contexts.get(log.path, Context())
        context = Context(dict(known.connects), dict(known.cut))
        recogniser = self._recogniser(log, context, self.wanted)
        reading = Reading(
            log.path,
            self.state.positions.get(log.path),
            self.edge,
            self.modified_since,
            recogniser.clock,
            [other.path for other in self.config.logs],
            counting=log.keep_lines is not None,
        )
        logins = ahead = 0
        try:
            if "logout" in self.wanted:
                self.ending |= {format.name for format in recogniser.formats if format.logs_out}
            for event in _events(reading, recogniser, self.now + AHEAD):
                if event.event == "login":
                    logins += 1
                    ahead += event.address is not None and event.time > self.now + AHEAD
                self._merge(event)
        except errors.SapdError as problem:
            self.report.problems.append(problem)
            return False
        except Exception as error:
            self.report.problems.append(errors.bug(error))  # the other logs, and expiry, go on
            return False
        unusable = recogniser.unusable
        lines = "" if log.keep_lines is None else f"{reading.lines_read} lines, "
        counts = (
            f"{reading.bytes_read} bytes, {lines}{logins} different logins, "
            f"{ahead} ahead of now, {unusable.no_address} without an address; "
            f"unusable: {unusable.address} addresses, {unusable.stamp} stamps, {unusable.cut} cut"
        )
        self.report.actions.append(("read", f"{log.path}: {counts}"))
        if reading.position is not None:
            self.state.positions[log.path] = reading.position
        context.expire(self.now)
        self.state.contexts[log.path] = context
        if ahead and log.path not in self.state.ahead:
            self.report.warnings.append(
                (
                    log.path,
                    f"logins stamped more than {AHEAD} s ahead of now, which open nothing: "
                    f"{ahead}; check the clock, or set timezone for this log",
                )
            )
        if ahead:
            self.state.ahead.add(log.path)
        elif logins:
            self.state.ahead.discard(log.path)
        return True

    def _recogniser(self, log: Log, context: Context, wanted: list[str]) -> Recogniser:
        clock, folder = Clock(self.now, log.zone), self.config.formats_directory
        return Recogniser(log.formats, clock, folder, context, wanted)

    def _merge(self, event: Event) -> None:
        """Claim for a login; keep a logout for later, as it counts behind all logins."""
        if event.address is None or event.time > self.now + AHEAD:
            return
        if event.event == "login":
            self._claim(event.address, event.account, event.time)
        elif event.event == "logout" and event.format in self.ending:
            self.logouts.append((event.address, event.account, event.time))

    def _claim(self, address: str, account: str, login: float) -> None:
        ledger = self.state.ledger
        before = ledger.claims.get(address, {}).get(account, 0)
        if ledger.login(self.config.rules, address, account, login, self.now):
            self.renewed.setdefault((address, account), before)

    def _publish(self) -> None:
        """Bring the map up to date, then report what opened and closed."""
        settings, rules, ledger = self.config.access, self.config.rules, self.state.ledger
        closed = ledger.closed(rules, self.now)
        try:
            source = access.Source(settings.source, settings.tag)
            refused = {}
            for address, accounts in ledger.open(closed, ()).items():
                word = source.says(address)
                if word is None:
                    word = rules.crowd(accounts)
                if word is not None:
                    refused[address] = word
            opened = ledger.open(closed, refused)
            own = source.entries(opened, settings.limits)
            server = access.Sendmail(settings.database, settings.makemap, source)
            rewrite = not server.holds(own, self.state.published)
            kept = self.state.published
            if rewrite and not self.dry:
                self.state = self.state._replace(published=server.publish(own))
        except errors.SapdError as problem:
            self.report.problems.append(problem)
            if self.state.stuck is None:
                before: dict[str, list[str]] = {}
                for address, account in sorted(self.before):
                    before.setdefault(address, []).append(account)
                self.state = self.state._replace(stuck=state.Stuck(self.now, before))
            return
        self.state = self.state._replace(stuck=None)
        self._report_claims(_pairs(opened), closed, refused)
        self._warn_of_refused(refused, source)
        self.state = self.state._replace(refused=refused, closed=closed)
        if kept and kept.path != settings.database and os.path.exists(kept.path):
            reason = "is no longer kept, and lets in whoever was open last; rebuild or remove it"
            self.report.warnings.append((kept.path, reason))
        if rewrite:
            counts = f"{source.count} own entries, {len(opened)} open addresses"
            self.report.actions.append(("rewrite", f"{settings.database}: {counts}"))

    def _report_claims(
        self,
        after: set[tuple[str, str]],
        closed: Mapping[str, Mapping[str, str]],
        refused: Mapping[str, str],
    ) -> None:
        ledger, rules, before = self.state.ledger, self.config.rules, self.before
        changed = [("open", after - before), ("renew", after & before & self.renewed.keys())]
        for verb, pairs in changed:
            for address, account in sorted(pairs):
                until = timestamps.rfc3339(ledger.end(rules, address, account))
                self.report.actions.append((verb, f"{address} {account} until {until}"))
                if verb == "open" or self._is_another_hour(address, account):
                    self._audit(verb, address, account, f"until {until}")
        for address, account in sorted(before - after):
            self.report.actions.append(("close", f"{address} {account}"))
            why = self._why_closed(closed, refused, address, account)
            self._audit("close", address, account, why)
        for address, account in sorted(self.renewed.keys() - before - after):
            if self._is_another_hour(address, account):
                why = self._why_closed(closed, refused, address, account)
                self._audit("refuse", address, account, why)

    def _is_another_hour(self, address: str, account: str) -> bool:
        """Whether a login that was read is of another hour than the one before: once is enough."""
        before = self.renewed[address, account]
        login = self.state.ledger.claims.get(address, {}).get(account, self.now)
        return before // audit.HOUR != login // audit.HOUR

    def _why_closed(
        self,
        closed: Mapping[str, Mapping[str, str]],
        refused: Mapping[str, str],
        address: str,
        account: str,
    ) -> str:
        if why := closed.get(address, {}).get(account):
            return why
        if address in refused:
            return refused[address] or "it relays by an entry of its own"
        rules = self.config.rules
        if rules.forbids(address):
            return "policy.never has it"
        if self.state.ledger.closed_by_hand(rules, address, self.now) is not None:
            return "closed by sapd close"
        return "its window is over"

    def _audit(self, event: str, address: str, account: str, reason: str) -> None:
        login = self.state.ledger.claims.get(address, {}).get(account)
        self.trail.append(audit.Entry(self.now, event, address, account, login, reason))

    def _keep_trail(self) -> errors.SapdError | None:
        """Write down what was done; what kept it from that, if anything did."""
        settings, directory = self.config.audit, self.config.state_directory
        if self.dry or not self.trail:
            return None
        try:
            if settings.syslog:
                audit.to_syslog(self.trail)
            if settings.keep_lines:
                audit.append(directory, self.trail, settings.keep_lines)
        except errors.SapdError as problem:
            return problem
        except OSError as error:
            return errors.cannot_write(os.path.join(directory, audit.NAME), error)
        return None

    def _warn_of_refused(self, refused: dict[str, str], source: access.Source) -> None:
        """Say of an address, when it is new, that the administrator's entries hold it shut."""
        for address in sorted(refused):
            word = source.says(address)
            if word and word != self.state.refused.get(address):
                accounts = ", ".join(self.state.ledger.claims[address])
                reason = f"logged in as {accounts}, but {word}"
                self.report.warnings.append((address, f"not opened: {reason}"))

    def _text(self) -> str:
        """The state as it would be saved, but for the times, which change with every pass."""
        return state.to_text(self.state._replace(time=0, latest=0))

    def _save(self) -> bool:
        """Save the state if it changed; whether the disk now holds what memory does."""
        text = self._text()
        if self.dry or text == self.saved:
            return True
        if not self.may_save:
            return False
        latest = max(self.state.latest, self.now)
        self.state = self.state._replace(time=self.now, latest=latest)
        try:
            state.save(self.config.state_directory, state.to_text(self.state))
        except errors.SapdError as problem:
            self.report.problems.append(problem)
            self.may_save = False  # neither tried nor said a second time
            return False
        self.saved = text
        self.seen = idle.Looks([state.path(self.config.state_directory)])
        self.looks = None
        return True

    def _note(self) -> None:
        """If nothing was to be done, note until when; where that fails the next run finds out."""
        if self.looks is None or self.report.problems or self.report.warnings:
            return
        self.looks.add(self.config.looks)
        until = self.state.ledger.next_end(self.config.rules, self.now)
        if self.state.time < self.state.latest:  # see _doubt
            until = min(until, self.state.latest, self.state.time + AHEAD)
        note = idle.note(self.config.path, self.looks, self.now, until)
        if note is not None:
            path = os.path.join(self.config.state_directory, idle.NAME)
            with suppress(errors.SapdError):
                files.replace(path, note, 0o600, durable=False)

    def _cut(self, log: Log) -> None:
        position = self.state.positions[log.path]
        if log.keep_lines is None:
            return
        if position.lines is not None and position.lines <= log.cut_above:
            return
        try:
            fd = files.open_in_place(log.path, writing=not self.dry)
        except FileNotFoundError:
            return
        except errors.SapdError as problem:
            self.report.problems.append(problem)
            return
        try:
            self._cut_open(fd, log, position, log.keep_lines)
        except OSError as error:
            self.report.problems.append(errors.cannot_write(log.path, error))
        finally:
            os.close(fd)
        self._save()

    def _cut_open(self, fd: int, log: Log, position: Position, keep_lines: int) -> None:
        position = self.state.positions[log.path] = cut.counted(fd, position)
        fresh = self._recogniser(log, Context(), [])
        planned = cut.due(
            fd,
            position,
            keep_lines,
            log.cut_above,
            lambda line: timestamps.stamp_like(line, self.now, log.zone),
            partial(scan.safe_start, fresh) if fresh.cuts else None,
        )
        if planned is None:
            return
        if not self.dry:
            begun = PendingCut(planned.after.here, planned.marker)
            self.state.positions[log.path] = position._replace(pending_cut=begun)
            if not self._save() or not cut.perform(fd, planned):
                return
        self.state.positions[log.path] = planned.after
        counts = f"{planned.removed} lines removed, {planned.kept} kept"
        self.report.actions.append(("cut", f"{log.path}: {counts}"))
