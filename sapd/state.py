"""What a run leaves for the next one: `state.json`, version 5, mode 0600.

JSON that a person can read. Times are UTC epoch seconds, offsets bytes; an anchor's bytes stand
as Latin-1 text, each character one byte. A claim is [login as written, as counted, end]; its end is
null if it does not open its address, and `closed` then has the code and the detail of the reason.
Version 4, of sapd 0.1.0, is read as well.

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
from collections.abc import Collection, Iterable
from contextlib import suppress
from math import inf
from typing import Any, NamedTuple

from sapd import cut, errors, files
from sapd.addresses import parse_address
from sapd.cut import PendingCut
from sapd.decision import Closed, Decision, Reason
from sapd.idle import LAST_PASS, Snapshot, note, touch
from sapd.idle import NAME as NOTE
from sapd.journal import Place
from sapd.maps import Access
from sapd.maps.live import Published
from sapd.place import Cursor, Position
from sapd.recogniser import Context, Doubt
from sapd.relay import EVERY_ADDRESS, Claims, Ledger, Stamp
from sapd.timestamps import AHEAD, LAST

VERSION = 5
_NAME = "state.json"
_HOUR = 3600  # seconds
_LONG_HELD = 120  # seconds, after which another run's lock is worth a word
_LARGEST = 512 * 1024 * 1024  # bytes; a million addresses take 80 MB


class Damaged(errors.SapdError):
    """The state can't be used."""


class Unpublished(NamedTuple):
    """Since when the map could not be published, and whom it lets in: {address: accounts}."""

    since: float
    open: dict[str, list[str]]


class State(NamedTuple):
    """Everything that is kept between runs.

    `time` is when the state last changed, `latest` the latest such time: the clock may have been
    set back. `contexts` has, for each log, what its lines say about later ones, `pending_cuts` cuts
    that were begun, and `at_set_back` the positions when the clock was set back. `decision` is
    the last one. `ahead` names the logs whose stamps lie ahead of now. `access` is the last
    [access] with which a map was published, `unpublished` tells of a map that could not be.
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

    def lets_in(self) -> dict[str, list[str]]:
        """Whom the map lets in by what was done last: {address: accounts}."""
        if self.unpublished is not None:
            return self.unpublished.open
        return {address: sorted(accounts) for address, accounts in self.decision.open.items()}

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
        self._text = ""

    def load(self, problems: list[errors.SapdError]) -> None:
        """Load the state, unless the file looks as it did when this process used it last.

        Where that fails the state is empty, the file is kept, and `problems` gets the reason.
        Raises `SapdError` in a dry run if the file may not be read.
        """
        self._seen, self._can_save = Snapshot([path(self.directory)]), True
        known, self.snapshot = self.snapshot, None
        if known == self._seen:
            return
        self.state, self._text = empty(), ""
        try:
            self.state = load(self.directory)
            self._text = self._timeless()
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

    def _timeless(self) -> str:
        """The state as it would be saved, but for the times, which change with every pass."""
        return to_text(self.state._replace(time=0, latest=0))

    def change(self, **fields: Any) -> None:
        """Replace these fields of the state."""
        self.state = self.state._replace(**fields)

    def must_be_saved(self) -> None:
        """Have the next `save` write the file, whatever it holds."""
        self._text = ""

    def save(self, now: float, problems: list[errors.SapdError]) -> bool:
        """Save the state if it changed; whether the disk now holds what memory does.

        If it can't be saved `problems` gets the reason, once.
        """
        text = self._timeless()
        if self._dry or text == self._text:
            return True
        if not self._can_save:
            return False
        self.state = self.state._replace(time=now, latest=max(self.state.latest, now))
        try:
            save(self.directory, to_text(self.state))
        except errors.SapdError as problem:
            problems.append(problem)
            self._can_save = False
            return False
        self._text = text
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
    path = os.path.join(directory, _NAME)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return empty()
    except NotADirectoryError:
        reason = "is no folder; move it away"
        raise errors.SapdError(errors.CANT_CREATE, directory, reason) from None
    except PermissionError as error:
        raise errors.SapdError(
            errors.NO_PERMISSION, path, f"can't be read: {error.strerror}"
        ) from None
    except OSError as error:
        raise Damaged(errors.BAD_STATE, path, f"can't be used: {error.strerror}") from None
    try:
        with os.fdopen(fd, "rb") as file:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode):
                raise ValueError("is not a regular file")
            if about.st_size > _LARGEST:
                raise ValueError(f"has {about.st_size} bytes")
            return _from_json(json.loads(file.read(), object_pairs_hook=_unique))
    except OSError as error:
        raise Damaged(errors.BAD_STATE, path, f"can't be used ({error.strerror})") from None
    except (
        LookupError,
        ArithmeticError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
    ) as error:
        what = str(error) if isinstance(error, ValueError) else "has an unknown shape"
        raise Damaged(errors.BAD_STATE, path, f"can't be used ({what})") from None


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
    """The state as JSON, one address a line."""
    breaking = (",\n  ", ": ")  # with `indent` json would do it in Python, ten times slower
    sections = [
        f' "{name}": {json.dumps(value, separators=breaking)}'
        for name, value in _to_json(state).items()
    ]
    return "{\n" + ",\n".join(sections) + "\n}\n"


def _to_json(state: State) -> dict[str, Any]:
    return {
        "version": VERSION,
        "time": state.time,
        "latest": state.latest,
        "logs": {
            path: {
                **_position_to_json(where),
                "pending_cut": _pending_cut_to_json(state.pending_cuts.get(path)),
            }
            for path, where in state.positions.items()
        },
        "at_set_back": {path: _position_to_json(at) for path, at in state.at_set_back.items()},
        "contexts": {
            path: {"connects": context.connects, "cut": context.cut}
            for path, context in state.contexts.items()
            if context.connects or context.cut
        },
        "claims": _claims_to_json(state.ledger.claims, state.decision.open),
        "logouts": state.ledger.logouts,
        "last_address": state.ledger.last_address,
        "revoked": state.ledger.revoked,
        "closed": {
            address: {account: [why.reason.value, why.detail] for account, why in accounts.items()}
            for address, accounts in state.decision.closed.items()
        },
        "ahead": sorted(state.ahead),
        "access": state.access and {"server": state.access.server, **state.access.options},
        "published": state.published and state.published._asdict(),
        "unpublished": state.unpublished and state.unpublished._asdict(),
    }


def _claims_to_json(
    claims: Claims, open_: dict[str, dict[str, float]]
) -> dict[str, dict[str, tuple[float, float, float | None]]]:
    none: dict[str, float] = {}
    return {
        address: {
            account: (login.written, login.counted, ends.get(account))
            for account, login in accounts.items()
        }
        for address, accounts in claims.items()
        for ends in (open_.get(address, none),)
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
    return State(
        time=_number(read["time"]),
        latest=_number(read["latest"]),
        positions={path: _position(where) for path, where in logs.items()},
        pending_cuts={path: _pending_cut(cut) for path, cut in cuts.items()},
        at_set_back={_text(path): _position(at) for path, at in read["at_set_back"].items()},
        contexts={_text(path): _context(of) for path, of in read["contexts"].items()},
        ledger=_ledger(read),
        decision=_decision(read),
        ahead={_text(path) for path in _list(read["ahead"])},
        access=None if read["access"] is None else _access(read["access"]),
        published=None if read["published"] is None else _published(read["published"]),
        unpublished=None if read["unpublished"] is None else _unpublished(read["unpublished"]),
    )


def _ledger(read: Any) -> Ledger:
    ledger = Ledger()
    ledger.claims, ledger.logouts = _stamps(read["claims"]), _stamps(read["logouts"])
    ledger.last_address = {
        _text(account): (_address(address), _number(time))
        for account, (address, time) in read["last_address"].items()
    }
    ledger.revoked = {
        address if address == EVERY_ADDRESS else _address(address): (
            _number(closed),
            _number(until),
        )
        for address, (closed, until) in read["revoked"].items()
    }
    return ledger


def _stamps(read: Any) -> Claims:
    return {
        _address(address): {
            _text(account): Stamp(_number(written), _number(counted))
            for account, (written, counted, *_) in accounts.items()
        }
        for address, accounts in read.items()
    }


def _decision(read: Any) -> Decision:
    ends = {
        address: {
            account: _number(end) for account, (_, _, end) in accounts.items() if end is not None
        }
        for address, accounts in read["claims"].items()
    }
    closed = {
        _address(address): {
            _text(account): Closed(Reason(code), _text(detail))
            for account, (code, detail) in accounts.items()
        }
        for address, accounts in read["closed"].items()
    }
    return Decision({address: found for address, found in ends.items() if found}, closed)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
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
            _address(address): [_text(account) for account in _list(accounts)]
            for address, accounts in read["open"].items()
        },
    )


def _context(read: Any) -> Context:
    return Context(
        {
            _text(key): (_address(address), _number(time))
            for key, (address, time) in read["connects"].items()
        },
        {_text(writer): _doubt(doubt) for writer, doubt in read["cut"].items()},
    )


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
    closed = _closed_of_version_4(read)
    return {
        **read,
        "logs": {
            path: {**where, "rotated": where["before"], "pending_cut": where["cut"]}
            for path, where in read["logs"].items()
        },
        "at_set_back": {},
        "claims": {
            address: {
                account: (login, login, None if account in closed.get(address, ()) else login)
                for account, login in accounts.items()
            }
            for address, accounts in read["claims"].items()
        },
        "logouts": {
            address: {account: (logout, logout) for account, logout in accounts.items()}
            for address, accounts in read["logouts"].items()
        },
        "last_address": read["homes"],
        "revoked": read["shut"],
        "closed": closed,
        "access": None,
        "published": read["published"]
        and {
            **read["published"],
            "file": read["published"]["database"],
            "content": "",
            "lock_was_held": False,
            "entries": 0,
        },
        "unpublished": read["stuck"],
    }


def _closed_of_version_4(read: Any) -> dict[str, dict[str, tuple[str, str]]]:
    closed = {
        address: {account: _code_of(words) for account, words in accounts.items()}
        for address, accounts in read["closed"].items()
    }
    for address, words in read["refused"].items():
        refused = dict.fromkeys(read["claims"].get(address, {}), _code_of(words))
        closed[address] = {**closed.get(address, {}), **refused}
    return closed


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
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < LAST:
        raise ValueError("has something else where a time should stand")
    return value


def _natural(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError("has something else where a whole number should stand")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("has something else where a text should stand")
    return value


def _address(value: str) -> str:
    if parse_address(value.encode()) != value:
        raise ValueError("has something else where an address should stand")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("has something else where a list should stand")
    return value
