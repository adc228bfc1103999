"""What a run leaves for the next one: `state.json`, version 6, mode 0600.

JSON that a person can read. Times are UTC epoch seconds, offsets bytes; an anchor's bytes stand
as Latin-1 text, each character one byte. What there may be many of stands in tables, a row a line:

`claims`        address, account, login as written, as counted, end; the end is null if the claim
                does not open its address, and then `closed` has the reason
`logouts`       address, account, logout as written, as counted
`last_address`  account, address, time
`revoked`       address or "every", time of the closing, time up to which no login counts
`closed`        address, account, code of the reason, its detail

`seal` is a digest of all that stands before it. Where it does not fit, because somebody edited the
file, everything counts all the same, but the decision is made anew from the claims. Version 4, of
sapd 0.1.0, is read as well.

A file that is damaged, or of a version this program does not know, is never half used and never
overwritten: `Damaged` says why, `set_aside` renames it, and the next pass rebuilds everything still
inside the window from the log.

Failure contract. A save replaces the file by rename, after the new one is on the disk: a run that
is killed leaves the old state or the new one, and perhaps `state.json.new`, which the next save
overwrites.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from math import inf
from typing import Any, NamedTuple, TypeVar

from sapd import cut, errors, files
from sapd.addresses import are_addresses
from sapd.cut import PendingCut
from sapd.decision import Closed, Decision, Reason
from sapd.events import frames
from sapd.events.context import Context, Doubt
from sapd.idle import LAST_PASS, Snapshot, note, touch
from sapd.idle import NAME as NOTE
from sapd.maps import Access
from sapd.maps.live import Published, digest
from sapd.reading.place import Cursor, Place, Position
from sapd.relay import EVERY_ADDRESS, Ledger, Stamp
from sapd.timestamps import AHEAD, LAST

T = TypeVar("T")

VERSION = 6
_NAME = "state.json"
_HOUR = 3600  # seconds
_LONG_HELD = 120  # seconds, after which another run's lock is worth a word
_LARGEST = 512 * 1024 * 1024  # bytes; a million addresses take 80 MB


class Damaged(errors.SapdError):
    """The state can't be used."""


class Unpublished(NamedTuple):
    """Since when the map could not be published, and whom it lets in, as `Decision.open`."""

    since: float
    open: Mapping[str, Mapping[str, float]]


class State(NamedTuple):
    """Everything that is kept between runs.

    `time` is when the state last changed, `latest` the latest such time: the clock may have been
    set back. `contexts` has, for each log, what its lines say about later ones, `pending_cuts` cuts
    that were begun, and `at_set_back` the positions when the clock was set back. `decision` is
    the last one, and `basis` a digest of what it went by beside the claims; empty if that is not
    known. `ahead` names the logs whose stamps lie ahead of now. `access` is the last [access] with
    which a map was published, `unpublished` tells of a map that could not be.
    """

    time: float
    latest: float
    positions: dict[str, Position | Place]
    pending_cuts: dict[str, PendingCut]
    at_set_back: dict[str, Position | Place]
    contexts: dict[str, Context]
    ledger: Ledger
    decision: Decision
    ahead: set[str]
    access: Access | None = None
    published: Published | None = None
    unpublished: Unpublished | None = None
    basis: str = ""

    def lets_in(self) -> Mapping[str, Mapping[str, float]]:
        """Whom the map lets in by what was done last, as `Decision.open`."""
        return self.decision.open if self.unpublished is None else self.unpublished.open

    def of_logs(self, paths: Collection[str]) -> State:
        """The state without what is about other logs."""
        return self._replace(
            positions={path: at for path, at in self.positions.items() if path in paths},
            pending_cuts={path: of for path, of in self.pending_cuts.items() if path in paths},
            contexts={path: of for path, of in self.contexts.items() if path in paths},
        )

    def resume_cut(self, path: str, *, dry: bool) -> errors.SapdError | None:
        """Finish the cut of a log that was begun, if one was; what kept it from that, if it was."""
        position, pending = self.positions.get(path), self.pending_cuts.get(path)
        if not isinstance(position, Position) or pending is None:
            return None
        try:
            self.note_cut(path, cut.resume(path, position, pending, dry=dry))
        except (OSError, errors.SapdError) as error:
            return errors.of_writing(path, error)
        return None

    def note_read(self, path: str, position: Position | Place | None, context: Context) -> None:
        """A log was read up to a position; with None the next pass begins at the edge again."""
        if position is not None:
            self.positions[path] = position
        else:
            self.positions.pop(path, None)
        self.contexts[path] = context

    def note_cut(self, path: str, position: Position) -> None:
        """A log was cut, and goes on at a position.

        The cut may have taken the bytes by which the place was known where the clock was set back,
        and a place that is lost has all be read again. So nothing before the cut is.
        """
        self.positions[path] = position
        if path in self.at_set_back:
            self.at_set_back[path] = position
        self.pending_cuts.pop(path, None)

    def next_doubt(self) -> float:
        """When the logs may have to be read again; see `after_clock_change`."""
        return min(self.latest, self.time + AHEAD) if self.time < self.latest else inf


def empty() -> State:
    """The state before the first run."""
    return State(0, 0, {}, {}, {}, {}, Ledger(), Decision({}, {}), set())


def after_clock_change(state: State, paths: Collection[str], now: float) -> State | None:
    """The state to go on with if the clock was set back, or since then put forward; else None.

    Addresses may have been closed too early meanwhile, and logins taken for old or for ahead of
    now. So the logs at these paths are read again. But what was read under a clock that was fast
    must not open a second time when the right clock comes to that hour: from then on only what was
    written after the clock was set back is read again.
    """
    was = state
    if was.time > now + AHEAD:
        at_set_back = {path: at for path, at in was.positions.items() if path in paths}
        positions = {path: at for path, at in was.positions.items() if path not in paths}
    elif was.time < was.latest and now > min(was.latest, was.time + AHEAD):
        at_set_back = was.at_set_back if now <= was.latest else {}
        positions = {path: at for path, at in was.positions.items() if path not in paths}
        positions |= {path: at for path, at in was.at_set_back.items() if path in paths}
    else:
        return None
    return was._replace(positions=positions, at_set_back=at_set_back, contexts={})


def note_idle(
    config_path: str,
    directory: str,
    snapshot: Snapshot,
    now: float,
    until: float,
    questions: Iterable[Iterable[str]] = (),
) -> None:
    """Note that nothing is to be done from `now` to `until`, if the snapshot proves it.

    Where that fails the next run finds out by itself.
    """
    text = note(config_path, snapshot, now, until, questions)
    if text is not None:
        with suppress(errors.SapdError):
            files.replace(os.path.join(directory, NOTE), text, 0o600, durable=False)


def note_pass(directory: str) -> None:
    """Leave a trace of a pass that came to its end, for `last_pass`."""
    with suppress(OSError):
        try:
            touch(directory)
        except FileNotFoundError:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(os.path.join(directory, LAST_PASS), flags, 0o600))


def last_pass(directory: str) -> float | None:
    """When the last pass came to its end (UTC epoch seconds), to the minute; None if none did."""
    times = []
    for name in (LAST_PASS, _NAME):
        with suppress(OSError):
            times.append(os.lstat(os.path.join(directory, name)).st_mtime)
    return max(times, default=None)


class SavedState:
    """The state, and how it compares with its file; for a pass, or for several of one process.

    `snapshot` is of the file that holds `state`; it is None during a pass, and where the file
    could neither be loaded nor saved. What was loaded but could not be saved is kept all the same,
    so that the next pass of the process does not tell everything again.
    """

    def __init__(self, directory: str, *, dry: bool = False) -> None:
        """Read nothing yet. With `dry` nothing is ever written."""
        self.directory = directory
        self.state = empty()
        self.snapshot: Snapshot | None = None
        self._dry = dry
        self._can_save = True
        self._seen: Snapshot | None = None
        self._body = ""  # of the file

    def load(self, problems: list[errors.SapdError]) -> None:
        """Load the state, unless the file looks as it did when this process used it last.

        Where that fails the state is empty, the file is kept, and `problems` gets the reason.
        Raises `SapdError` in a dry run if the file may not be read.
        """
        self._seen, self._can_save = Snapshot([path(self.directory)]), True
        known, self.snapshot = self.snapshot, None
        if known == self._seen:
            return
        self.state, self._body = empty(), ""
        try:
            text = _read(self.directory)
            if text:
                self.state = _of_text(self.directory, text)
            self._body = _body_of(text) if text else _body(self.state)
        except Damaged as damaged:
            self._seen = None
            problems.append(self._set_aside(damaged))
        except errors.SapdError as problem:
            if self._dry:
                raise
            self._seen, self._can_save = None, False
            problems.append(problem)

    def _set_aside(self, damaged: Damaged) -> errors.SapdError:
        what = "a run would set it aside and read the log again"
        if not self._dry:
            try:
                aside = os.path.basename(set_aside(self.directory))
                what = f"set aside as {aside}, and rebuilt from the log"
            except errors.SapdError as problem:
                self._can_save = False
                what = f"nor be set aside ({problem.reason}); nothing is saved"
        return errors.SapdError(damaged.status, damaged.subject, f"{damaged.reason}; {what}")

    def change(self, **fields: Any) -> None:
        """Replace these fields of the state."""
        self.state = self.state._replace(**fields)

    def must_be_saved(self) -> None:
        """Have the next `save` write the file, whatever it holds."""
        self._body = ""

    def save(self, now: float, problems: list[errors.SapdError]) -> bool:
        """Save the state if it changed; whether the disk now holds what memory does.

        If it can't be saved `problems` gets the reason, once.
        """
        if self._dry:
            return True
        body = _body(self.state)
        if body == self._body:
            return True
        if not self._can_save:
            return False
        self.state = self.state._replace(time=now, latest=max(self.state.latest, now))
        self._body = ""  # it may be large
        try:
            save(self.directory, _with_head(self.state, body))
        except errors.SapdError as problem:
            problems.append(problem)
            self._can_save = False
            return False
        self._body = body
        self._seen = Snapshot([path(self.directory)])
        return True

    def finish(self) -> None:
        """Keep the state for the next pass of this process, if a file stands for it."""
        self.snapshot = self._seen


def path(directory: str) -> str:
    """Where the state lies."""
    return os.path.join(directory, _NAME)


def load(directory: str) -> State:
    """Read the state; an absent one is empty. Raises `Damaged`, or `SapdError` 73, 77."""
    try:
        text = _read(directory)
        return _of_text(directory, text) if text else empty()
    except Damaged as damaged:
        reason = f"{damaged.reason}; sapd run rebuilds it from the log"
        raise Damaged(damaged.status, damaged.subject, reason) from None


def _read(directory: str) -> str:
    """The file's text, nothing if there is no file; raises as `load` does."""
    path = os.path.join(directory, _NAME)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    except NotADirectoryError:
        reason = "is not a folder; move it away"
        raise errors.SapdError(errors.CANT_CREATE, directory, reason) from None
    except PermissionError as error:
        raise errors.SapdError(
            errors.NO_PERMISSION, path, f"can't be read: {error.strerror}"
        ) from None
    except OSError as error:
        raise _damaged(directory, f"can't be used: {error.strerror}") from None
    try:
        with os.fdopen(fd, "rb") as file:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode):
                raise _damaged(directory, "can't be used (is not a regular file)")
            if about.st_size > _LARGEST:
                raise _damaged(directory, f"can't be used (has {about.st_size} bytes)")
            data = file.read()
            if not (text := data.decode(json.detect_encoding(data), "surrogatepass")):
                raise _damaged(directory, "can't be used (is empty)")
            return text
    except OSError as error:
        raise _damaged(directory, f"can't be used ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise _damaged(directory, f"can't be used ({error})") from None


def _damaged(directory: str, reason: str) -> Damaged:
    return Damaged(errors.BAD_STATE, os.path.join(directory, _NAME), reason)


def _of_text(directory: str, text: str) -> State:
    """The state that a file's text holds; raises `Damaged`."""
    try:
        state = _from_json(json.loads(text, object_pairs_hook=_unique))
    except (
        LookupError,
        ArithmeticError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
    ) as error:
        what = str(error) if isinstance(error, ValueError) else "has an unknown shape"
        raise _damaged(directory, f"can't be used ({what})") from None
    sealed, _, seal = text.rpartition(_SEAL)
    return state if seal == f'"{_seal(sealed)}"\n}}\n' else state._replace(basis="")


def set_aside(directory: str) -> str:
    """Rename a damaged state to `state.json.damaged-<time>` and return that name.

    One that was set aside before is never overwritten: names that are taken get a number.
    """
    path = os.path.join(directory, _NAME)
    name = f"{path}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    aside = next(name for name in names if not os.path.lexists(name))
    try:
        os.rename(path, aside)
    except OSError as error:
        raise errors.cannot_write(path, error) from None
    return aside


def make_directory(directory: str) -> None:
    """Make the state's folder (mode 0755: a separate map in it is read by sendmail)."""
    try:
        os.mkdir(directory, 0o755)  # nothing secret but state.json, which is 0600
    except FileExistsError:
        pass
    except OSError as error:
        raise errors.cannot_write(directory, error) from None


def lock(directory: str) -> int:
    """Take the lock of this state; see `files.lock`.

    Where another run has held it for long, `files.Locked` has a complaint, once an hour.
    """
    path = os.path.join(directory, "lock")
    try:
        return files.lock(path)
    except files.Locked as locked:
        held = time.time() - locked.since
        if held > _LONG_HELD and _an_hour_passed(os.path.join(directory, "lock-held")):
            reason = f"a run has held the lock for {held / 60:.0f} minutes, and nobody is closed"
            remedy = f"look at process {locked.holder}" if locked.holder else "see fuser(1)"
            locked.complaint = f"{path}: {reason} meanwhile; {remedy}"
        raise


def _an_hour_passed(path: str) -> bool:
    """Whether this was not asked within the last hour; the file's time of change keeps that."""
    try:
        if abs(time.time() - os.lstat(path).st_mtime) < _HOUR:
            return False
        os.utime(path, follow_symlinks=False)
    except FileNotFoundError:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with suppress(OSError):
            os.close(os.open(path, flags, 0o600))
    except OSError:
        return True
    return True


def save(directory: str, text: str) -> None:
    """Replace the state on the disk by `text`, as `to_text` gives it.

    Raises `SapdError`; the old state then stands.
    """
    files.replace(os.path.join(directory, _NAME), text.encode("ascii"), 0o600)


def to_text(state: State) -> str:
    """The state as JSON."""
    return _with_head(state, _body(state))


_SEAL = ',\n "seal": '


def _with_head(state: State, body: str) -> str:
    """The whole text, of which the body is all that makes a state worth saving."""
    head = {"version": VERSION, "time": state.time, "latest": state.latest, "basis": state.basis}
    members = _members({name: json.dumps(value) for name, value in head.items()})
    sealed = f"{{\n{members},\n{body}"
    return f'{sealed}{_SEAL}"{_seal(sealed)}"\n}}\n'


def _body_of(text: str) -> str:
    """The body of a whole text; of any other text, something else."""
    return text.split("\n", 5)[-1].rpartition(_SEAL)[0]


def _seal(text: str) -> str:
    return digest(text.encode("utf-8", "surrogatepass"))


def _body(state: State) -> str:
    tables = {name: _table(rows) for name, rows in _tables(state).items()}
    others = {name: json.dumps(value) for name, value in _to_json(state).items()}
    return _members(others | tables)


def _members(values: dict[str, str]) -> str:
    return ",\n".join(f' "{name}": {text}' for name, text in values.items())


def _table(rows: Iterable[tuple[Any, ...]]) -> str:
    """JSON, a row a line. Inside of a text no quotation mark follows a bracket, but a backslash."""
    return json.dumps(list(rows)).replace('], ["', '],\n  ["').replace('[["', '[\n  ["')


def _tables(state: State) -> dict[str, Iterable[tuple[Any, ...]]]:
    ledger, none = state.ledger, dict[str, float]()
    return {
        "claims": (
            (address, account, login.written, login.counted, ends.get(account))
            for address, accounts in ledger.claims.items()
            for ends in (state.decision.open.get(address, none),)
            for account, login in accounts.items()
        ),
        "logouts": (
            (address, account, *logout)
            for address, accounts in ledger.logouts.items()
            for account, logout in accounts.items()
        ),
        "last_address": ((account, *where) for account, where in ledger.last_address.items()),
        "revoked": ((address, *times) for address, times in ledger.revoked.items()),
        "closed": (
            (address, account, why.reason.value, why.detail)
            for address, accounts in sorted(state.decision.closed.items())
            for account, why in sorted(accounts.items())
        ),
    }


def _to_json(state: State) -> dict[str, Any]:
    unpublished = state.unpublished
    return {
        "logs": {
            path: {
                **_position_to_json(where),
                "pending_cut": _pending_cut_to_json(state.pending_cuts.get(path)),
            }
            for path, where in state.positions.items()
        },
        "at_set_back": {path: _position_to_json(at) for path, at in state.at_set_back.items()},
        "contexts": {
            path: {**vars(context)}
            for path, context in state.contexts.items()
            if any(vars(context).values())
        },
        "ahead": sorted(state.ahead),
        "access": state.access and {"server": state.access.server, **state.access.options},
        "published": state.published and state.published._asdict(),
        "unpublished": unpublished and unpublished._asdict(),
    }


def _position_to_json(where: Position | Place) -> dict[str, Any]:
    if isinstance(where, Place):
        return where._asdict()
    return {
        **_cursor_to_json(where.here),
        "lines": where.lines,
        "rotated": where.rotated and _cursor_to_json(where.rotated),
        "stalls": where.stalls,
    }


def _pending_cut_to_json(cut: PendingCut | None) -> dict[str, Any] | None:
    return cut and {**_cursor_to_json(cut.after), "marker": cut.marker.decode("latin-1")}


def _cursor_to_json(cursor: Cursor) -> dict[str, Any]:
    return {"offset": cursor.offset, "anchor": cursor.anchor.decode("latin-1")}


def _from_json(read: Any) -> State:
    version = _natural(read["version"])
    if version == 4:
        read = _from_version_4(read)
    elif version != VERSION:
        raise ValueError(f"is of version {version}, this program knows {VERSION}")
    logs = {_text(path): where for path, where in read["logs"].items()}
    cuts = {path: where["pending_cut"] for path, where in logs.items() if where["pending_cut"]}
    ledger, decision = _ledger(read)
    return State(
        time=_number(read["time"]),
        latest=_number(read["latest"]),
        positions={path: _position(where) for path, where in logs.items()},
        pending_cuts={path: _pending_cut(cut) for path, cut in cuts.items()},
        at_set_back={_text(path): _position(at) for path, at in read["at_set_back"].items()},
        contexts={_text(path): _context(of) for path, of in read["contexts"].items()},
        ledger=ledger,
        decision=decision,
        ahead={_text(path) for path in _list(read["ahead"])},
        access=None if read["access"] is None else _access(read["access"]),
        published=None if read["published"] is None else _published(read["published"]),
        unpublished=None if read["unpublished"] is None else _unpublished(read["unpublished"]),
        basis=_text(read["basis"]),
    )


def _ledger(read: Any) -> tuple[Ledger, Decision]:
    ledger = Ledger()
    stamped = (_addresses, _texts, _numbers, _numbers)
    addresses, accounts, written, counted, ends = _columns(read["claims"], *stamped, _ends)
    ledger.claims = _nested(zip(addresses, accounts, map(Stamp, written, counted), strict=True))
    is_open = _nested(
        row for row in zip(addresses, accounts, ends, strict=True) if row[2] is not None
    )
    addresses, accounts, written, counted = _columns(read["logouts"], *stamped)
    ledger.logouts = _nested(zip(addresses, accounts, map(Stamp, written, counted), strict=True))
    names, *where = _columns(read["last_address"], _texts, _addresses, _numbers)
    ledger.last_address = _unique([*zip(names, zip(*where, strict=True), strict=True)])
    names, *times = _columns(read["revoked"], _addresses_or_every, _numbers, _numbers)
    ledger.revoked = _unique([*zip(names, zip(*times, strict=True), strict=True)])
    addresses, accounts, codes, details = _columns(
        read["closed"], _addresses, _texts, _texts, _texts
    )
    why = map(Closed, map(Reason, codes), details)
    return ledger, Decision(is_open, _nested(zip(addresses, accounts, why, strict=True)))


def _columns(rows: Any, *checks: Callable[[Collection[Any]], None]) -> list[tuple[Any, ...]]:
    """The columns of a table, each checked as a whole: there may be a million rows."""
    if not set(map(type, _list(rows))) <= {list} or not set(map(len, rows)) <= {len(checks)}:
        raise ValueError("has something else where a table should stand")
    columns = [*zip(*rows, strict=True)] or [()] * len(checks)
    for check, column in zip(checks, columns, strict=True):
        check(column)
    return columns


def _nested(rows: Iterable[tuple[str, str, T]]) -> dict[str, dict[str, T]]:
    """{address: {account: value}}."""
    found: dict[str, dict[str, T]] = {}
    count = 0
    for address, account, value in rows:
        found.setdefault(address, {})[account] = value
        count += 1
    if sum(map(len, found.values())) != count:
        raise ValueError("says something twice")
    return found


def _unique(pairs: list[tuple[str, T]]) -> dict[str, T]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("says something twice")
    return found


def _access(read: Any) -> Access:
    options = dict(read)
    return Access(_text(options.pop("server")), options)


def _published(read: Any) -> Published:
    return Published(
        path=_text(read["path"]),
        wanted=_text(read["wanted"]),
        content=_text(read["content"]),
        file=tuple(_natural(n) for n in _list(read["file"])),
        boot=_text(read["boot"]),
        lock_was_held=read["lock_was_held"] is True,
        entries=_natural(read["entries"]),
    )


def _unpublished(read: Any) -> Unpublished:
    return Unpublished(
        _number(read["since"]),
        {
            _address(address): {_text(account): _number(end) for account, end in ends.items()}
            for address, ends in read["open"].items()
        },
    )


def _context(read: Any) -> Context:
    return Context(
        {
            _text(key): (_address(address), _number(time))
            for key, (address, time) in read["connects"].items()
        },
        {_text(writer): _doubt(doubt) for writer, doubt in read["cut"].items()},
        _frame(read.get("frame")),
        unframed=read.get("unframed") is True,
        containers={_text(key): _number(at) for key, at in read.get("containers", {}).items()},
    )


def _frame(read: Any) -> str | None:
    """A name that is none counts as if there were none: the frame is found again."""
    if read is None:
        return None
    return str(read) if not _text(read) or frames.is_frame(_text(read)) else None


def _doubt(read: Any) -> Doubt:
    """0.1.0 wrote the bytes alone."""
    return Doubt(*(_natural(n) for n in (read if isinstance(read, list) else [read])))


def _position(read: Any) -> Position | Place:
    if "cursor" in read:
        streams = tuple(_text(stream) for stream in _list(read["open_streams"]))
        return Place(_text(read["cursor"]), streams, _natural(read["doubted"]))
    return Position(
        here=_cursor(read),
        rotated=_cursor(read["rotated"]) if read["rotated"] is not None else None,
        lines=_natural(read["lines"]) if read["lines"] is not None else None,
        stalls=_natural(read.get("stalls", 0)),
    )


def _pending_cut(read: Any) -> PendingCut:
    return PendingCut(_cursor(read), _text(read["marker"]).encode("latin-1"))


def _from_version_4(read: Any) -> dict[str, Any]:
    """The state of sapd 0.1.0, in today's shape. What it did not keep ends at once."""
    closed, stuck = _closed_of_version_4(read), read["stuck"]
    return {
        **read,
        "logs": {
            path: {**where, "rotated": where["before"], "pending_cut": where["cut"]}
            for path, where in read["logs"].items()
        },
        "at_set_back": {},
        "claims": [
            [address, account, login, login, None if (address, account) in closed else login]
            for address, account, login in _rows(read["claims"])
        ],
        "logouts": [[*who, logout, logout] for *who, logout in _rows(read["logouts"])],
        "last_address": [[account, *where] for account, where in read["homes"].items()],
        "revoked": [[address, *times] for address, times in read["shut"].items()],
        "closed": [[*who, *why] for who, why in closed.items()],
        "access": None,
        "basis": "",
        "published": read["published"]
        and {
            **read["published"],
            "file": read["published"]["database"],
            "content": "",
            "lock_was_held": False,
            "entries": 0,
        },
        "unpublished": stuck
        and {
            **stuck,
            "open": {
                address: dict.fromkeys(_list(accounts), stuck["since"])
                for address, accounts in stuck["open"].items()
            },
        },
    }


def _closed_of_version_4(read: Any) -> dict[tuple[str, str], tuple[str, str]]:
    closed = {(address, account): words for address, account, words in _rows(read["closed"])}
    for address, words in read["refused"].items():
        for account in read["claims"].get(address, ()):
            closed[address, account] = words
    return {who: _code_of(words) for who, words in closed.items()}


def _rows(nested: Any) -> list[tuple[str, str, Any]]:
    """The rows of {address: {account: value}}."""
    return [
        (address, account, value)
        for address, accounts in nested.items()
        for account, value in accounts.items()
    ]


def _code_of(words: str) -> tuple[str, str]:
    """The reason that version 4 kept in words."""
    if found := re.fullmatch(r'.* says "(.*)"', words, re.DOTALL):
        return Reason.REFUSED.value, found[1]
    if words == "":
        return Reason.RELAYS_ALREADY.value, ""
    return Reason.EXPIRED.value, ""


def _cursor(read: Any) -> Cursor:
    offset, anchor = _natural(read["offset"]), _text(read["anchor"]).encode("latin-1")
    if len(anchor) > offset:
        raise ValueError(f"has an anchor longer than its offset {offset}")
    return Cursor(offset, anchor)


def _number(value: Any) -> float:
    _numbers([value])
    return value  # type: ignore[no-any-return]


def _natural(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError("has something else where a whole number should stand")
    return value


def _numbers(column: Collection[Any]) -> None:
    if not set(map(type, column)) <= {int, float} or not all(0 <= n < LAST for n in column):
        raise ValueError("has something else where a time should stand")


def _ends(column: Collection[Any]) -> None:
    _numbers([end for end in column if end is not None])


def _text(value: Any) -> str:
    _texts([value])
    return str(value)


def _texts(column: Collection[Any]) -> None:
    if not set(map(type, column)) <= {str}:
        raise ValueError("has something else where a text should stand")


def _address(value: Any) -> str:
    _addresses([value])
    return str(value)


def _addresses(column: Collection[Any]) -> None:
    _texts(column)
    if not are_addresses(column):
        raise ValueError("has something else where an address should stand")


def _addresses_or_every(column: Collection[Any]) -> None:
    _addresses([address for address in column if address != EVERY_ADDRESS])


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("has something else where a list should stand")
    return value
