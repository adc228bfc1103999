"""One log, read: what its new lines say, and where the next pass goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from sapd import cut, errors
from sapd.config import Config, Log
from sapd.cut import Cut
from sapd.events import frames, scan
from sapd.events.context import Context
from sapd.events.framing import UNKNOWN, Framing
from sapd.events.recogniser import Event, Recogniser
from sapd.reading import dated, maillog
from sapd.reading.maillog import LATE, Reading
from sapd.reading.place import Place, Position
from sapd.reading.plan import Missed
from sapd.relay import Ledger, Rules
from sapd.timestamps import AHEAD, Clock, stamp_like

if TYPE_CHECKING:
    from sapd.reading.journal import JournalReading


class Batch(NamedTuple):
    """What was read of a log; times are UTC epoch seconds.

    `logins` is {(address, account): the latest login}, `logouts` are (address, account, time).
    `ahead` counts logins that open nothing because they are stamped too far ahead of now.
    `position` is None where the log could not be read to its end: then `problem` says why, and
    what was read before is here all the same. It is also None where `unframed` lines of interest
    stood, but none in a frame that counts: from the window's edge on, these are read again by each
    pass, because their frame may become known. `unframed` is told once. `counts` is for people.
    `unfinished` is reading that ran out of time, `given_up` a rotated file that it never came to
    the end of, `missed` what a rotation took out of sight.
    """

    log: Log
    logins: dict[tuple[str, str], float]
    logouts: list[tuple[str, str, float]]
    ahead: int
    position: Position | Place | None
    context: Context
    counts: str
    problem: errors.SapdError | None = None
    unfinished: bool = False
    given_up: str = ""
    missed: Sequence[Missed] = ()
    unframed: int = 0


def looked_at(config: Config, now: float) -> list[str]:
    """All files and folders that a reading of the logs goes by.

    Of a log whose name is the date also the next one, which it has from `names_stay_until` on.
    """
    found: list[str] = []
    for log in config.logs:
        if log.journal:
            from sapd.reading import journal  # which nobody else pays for

            found += journal.looked_at()
            continue
        found += maillog.looked_at(log.file(now), _earlier(log, config, now))
        if log.pattern:
            coming = log.file(names_stay_until([log], now))
            found += [os.path.dirname(coming), coming]
    return found


def names_stay_until(logs: Collection[Log], now: float) -> float:
    """A time (UTC epoch seconds) until which no log's name changes."""
    files = [log for log in logs if not log.journal]
    return min((dated.next_change(log.pattern, now, log.zone) for log in files), default=inf)


def _earlier(log: Log, config: Config, now: float) -> list[str]:
    """The names of a dated log's older files that may matter."""
    return dated.earlier(log.pattern, now, now - config.rules.longest - LATE, log.zone)


def questions(
    logs: Collection[Log], positions: Mapping[str, Position | Place]
) -> list[tuple[str, ...]]:
    """What to ask the journals, to learn whether anything is new; nothing if one has no place."""
    asked = []
    for log in logs:
        if log.journal:
            from sapd.reading import journal

            place = positions.get(log.path)
            if not isinstance(place, Place):
                return []
            asked.append(journal.question(log.journal, place))
    return asked


def read(
    log: Log,
    config: Config,
    position: Position | Place | None,
    context: Context | None,
    now: float,
    modified_since: float,
    deadline: float = inf,
) -> Batch:
    """Read the lines of a log that are new since `position`; None means a first run.

    After `deadline` (seconds of `time.monotonic`) the rest is left to the next pass.
    `context` is what earlier lines said about these. A file that was last changed before
    `modified_since` (UTC epoch seconds) holds nothing of interest.
    """
    was = context or Context()
    if log.frame and was.frame not in (None, log.frame):
        position = None  # lines that counted for nothing may now
    recogniser = _recogniser(log, config, _copy(was), now)
    reading = _reading(log, config, position, recogniser, modified_since, deadline)
    tally = _Tally(now + AHEAD)
    problem = _count_all(reading, recogniser, log.frame, tally)
    context, unframed, again = _outcome(was, recogniser, tally, unfinished=reading.unfinished)
    context.expire(now)
    return Batch(
        log=log,
        logins=tally.latest,
        logouts=[(address, account, time) for _, address, account, time in tally.logouts],
        ahead=tally.ahead,
        position=None if problem or again else reading.position,
        context=context,
        counts=_counts(log, reading, recogniser, tally),
        problem=problem,
        unfinished=reading.unfinished,
        given_up=reading.given_up,
        missed=reading.missed,
        unframed=unframed,
    )


def _outcome(
    was: Context, recogniser: Recogniser, tally: _Tally, *, unfinished: bool
) -> tuple[Context, int, bool]:
    """What is known now of the lines to come, and how many of interest count for nothing.

    That number is 0 where it was told before, or where some of them count. With it whether they are
    to be read again; those of a server's own file, or of a container that is not believed, never
    count.
    """
    context, unframed = recogniser.context, recogniser.unusable.unframed
    told = was.unframed and was.frame == context.frame
    if recogniser.framed and not (tally.frame_was_unknown or told):
        unframed = 0
    never = frames.is_own(context.frame) or context.containers
    again = unframed > 0 and not (never or unfinished)
    if again:
        context = Context(was.connects, was.cut, context.frame, containers=context.containers)
    context.unframed = told or unframed > 0
    return context, 0 if told else unframed, again


def merge(
    batches: Collection[Batch], ledger: Ledger, rules: Rules, now: float
) -> dict[tuple[str, str], float]:
    """Merge all logins, then all logouts; {(address, account): the login before, or 0}.

    In the result are the logins that changed something and are still within their window.
    """
    renewed: dict[tuple[str, str], float] = {}
    for batch in batches:
        for (address, account), login in batch.logins.items():
            known = ledger.claims.get(address, {}).get(account)
            if ledger.login(rules, address, account, login, now):
                renewed.setdefault((address, account), known.written if known else 0)
    for batch in batches:
        for address, account, logout in batch.logouts:
            ledger.logout(rules, address, account, logout, now)
    return renewed


def _count_all(
    reading: Reading | JournalReading, recogniser: Recogniser, frame: str | None, tally: _Tally
) -> errors.SapdError | None:
    """Count all events of a reading; what ended it early, if anything did."""
    try:
        for event in _events(reading, recogniser, frame, tally):
            tally.add(event)
        if tally.logouts:
            ending = {format.name for format in recogniser.formats if format.logs_out}
            tally.keep_logouts_of(ending)
    except errors.SapdError as error:
        return error
    except Exception as error:
        return errors.bug(error)  # the other logs, and expiry, go on
    return None


class _Tally:
    """The events of a reading, as far as they matter; those stamped later than `until` do not."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.frame_was_unknown = False
        self.latest: dict[tuple[str, str], float] = {}
        self.logouts: list[tuple[str, str, str, float]] = []  # format, address, account, time
        self.logins = 0
        self.ahead = 0

    def add(self, event: Event) -> None:
        is_login = event.event == "login"
        self.logins += is_login
        if event.address is None:
            return
        if event.time > self.until:
            self.ahead += is_login
        elif is_login:
            key = (event.address, event.account)
            if self.latest.get(key, event.time) <= event.time:
                self.latest[key] = event.time
        elif event.event == "logout":
            self.logouts.append((event.format, event.address, event.account, event.time))

    def keep_logouts_of(self, formats: set[str]) -> None:
        """Forget the logouts of other formats: those prove nothing."""
        self.logouts = [logout for logout in self.logouts if logout[0] in formats]


def mistakes(batches: Collection[Batch]) -> list[errors.SapdError]:
    """What is wrong with a format, where a log could not be read for that."""
    problems = [batch.problem for batch in batches if batch.problem is not None]
    return [problem for problem in problems if problem.status == errors.BAD_CONFIG]


def cut_plan(log: Log, config: Config, now: float) -> Callable[[int, Position], Cut | None]:
    """`cut.plan` with the settings of a log that is to be cut."""
    recogniser = _recogniser(log, config, Context(), now)
    safe_start = partial(scan.safe_start, recogniser) if recogniser.cuts else None

    def stamp(line: bytes) -> bytes:
        return stamp_like(line, now, log.zone)

    def plan(fd: int, counted: Position) -> Cut | None:
        return cut.plan(fd, counted, log.keep_lines or 0, log.cut_above, stamp, safe_start)

    return plan


def _copy(context: Context) -> Context:
    """Where a reading fails, its lines are read again, and must mean the same again."""
    return Context(
        dict(context.connects),
        dict(context.cut),
        context.frame,
        unframed=context.unframed,
        containers=dict(context.containers),
    )


def _recogniser(log: Log, config: Config, context: Context, now: float) -> Recogniser:
    wanted = ["login"] if config.rules.after_logout is None else ["login", "logout"]
    clock = Clock(now, log.zone)
    folder = config.formats_directory
    return Recogniser(log.formats, clock, folder, context, wanted, log.programs, log.frame)


def _reading(
    log: Log,
    config: Config,
    position: Position | Place | None,
    recogniser: Recogniser,
    modified_since: float,
    deadline: float,
) -> Reading | JournalReading:
    if log.journal:
        return _of_journal(log, config, position, recogniser, deadline)
    return _of_file(log, config, position, recogniser.clock, modified_since, deadline)


def _of_file(
    log: Log,
    config: Config,
    position: Position | Place | None,
    clock: Clock,
    modified_since: float,
    deadline: float,
) -> Reading:
    return Reading(
        log.file(clock.now),
        position if isinstance(position, Position) else None,
        clock.now - config.rules.longest,
        modified_since,
        clock,
        [other.file(clock.now) for other in config.logs if not other.journal],
        _earlier(log, config, clock.now),
        counting=log.keep_lines is not None,
        deadline=deadline,
    )


def _of_journal(
    log: Log,
    config: Config,
    position: Position | Place | None,
    recogniser: Recogniser,
    deadline: float,
) -> JournalReading:
    from sapd.reading.journal import JournalReading

    return JournalReading(
        log.journal,
        position if isinstance(position, Place) else None,
        recogniser.clock.now - config.rules.longest,
        lambda: max(format.cut_behind for format in recogniser.formats),
        deadline=deadline,
    )


def _events(
    reading: Reading | JournalReading, recogniser: Recogniser, frame: str | None, tally: _Tally
) -> Iterator[Event]:
    """What a log's new lines say; those stamped later than the tally's `until` are all given.

    `frame` is what the log's setting says.
    """
    if not isinstance(reading, Reading):
        yield from _events_of_journal(reading, recogniser)
        return
    deduplicator = scan.Deduplicator(recogniser, tally.until)
    context = recogniser.context
    framing = Framing(
        recogniser.formats, context.frame, frame, context.containers, recogniser.clock.now
    )
    recogniser.context.frame = framing.name
    begun = False
    for block in reading.blocks():
        lead = b"" if begun else reading.lead
        if not begun:
            begun = _begin(reading, recogniser)
        if reading.at_head:
            recogniser.begin(block)
        name = framing.of_block(block, lead, at_head=reading.at_head)
        if name != recogniser.context.frame:
            yield from deduplicator.flush()
            recogniser.context.frame = name
        tally.frame_was_unknown |= name == UNKNOWN
        yield from deduplicator.events(block)
    yield from deduplicator.flush()
    if not begun:
        _begin(reading, recogniser)


def _begin(reading: Reading, recogniser: Recogniser) -> bool:
    """Where lines before the first one may never have been read, see what they say of it."""
    if reading.anew:
        recogniser.learn(reading.lead)
        recogniser.context.connects.clear()  # their process' other lines may be missing
    return True


def _events_of_journal(reading: JournalReading, recogniser: Recogniser) -> Iterator[Event]:
    """What a journal's new entries say."""
    for number, frame in enumerate(reading.frames()):
        if number == 0 and reading.anew:
            recogniser.context.connects.clear()  # their process' other lines may be missing
        found = recogniser.recognise_frame(frame)
        if isinstance(found, Event):
            yield found


def _counts(
    log: Log, reading: Reading | JournalReading, recogniser: Recogniser, tally: _Tally
) -> str:
    unusable = recogniser.unusable
    if isinstance(reading, Reading):
        lines = "" if log.keep_lines is None else f"{reading.lines_read} lines, "
        read = f"{reading.bytes_read} bytes, {lines}"
    else:
        read = f"{reading.entries} entries, {reading.unusable} of them unusable, "
    return (
        f"{read}{tally.logins} different logins, "
        f"{tally.ahead} ahead of now, {unusable.no_address} without an address; "
        f"unusable: {unusable.address} addresses, {unusable.stamp} stamps, "
        f"{unusable.cut} cut, {unusable.torn} torn"
    )
