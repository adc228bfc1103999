"""What a run leaves for the next one: `state.json`, version 4, mode 0600.

JSON that a person can read. Times are UTC epoch seconds, offsets bytes; an anchor's bytes stand
as Latin-1 text, each character one byte. Older versions are read as well: version 1 had no
`contexts`, version 2 no marker of a cut that was begun, and version 3 claims alone.

A file that is damaged, or of a version this program does not know, is never half used and never
overwritten: `Damaged` says why, `set_aside` renames it, and the next pass rebuilds everything still
inside the window from the log.
"""

import itertools
import json
import os
import stat
import time
from typing import Any, NamedTuple

from sapd import errors, files
from sapd.access import Published
from sapd.formats import parse_address
from sapd.maillog import Cursor, PendingCut, Position
from sapd.recogniser import Context, Doubt
from sapd.relay import EVERY, Claims, Ledger
from sapd.timestamps import LAST

VERSION = 4
_NAME = "state.json"
_LARGEST = 512 * 1024 * 1024  # bytes; a million addresses take 60 MB


class Damaged(errors.SapdError):
    """The state can't be used."""


class Stuck(NamedTuple):
    """Since when the map could not be published, and whom it lets in: {address: accounts}."""

    since: float
    open: dict[str, list[str]]


class State(NamedTuple):
    """Everything that is kept between runs.

    `time` is when the state last changed, `latest` the latest such time: the clock may have been
    set back. `contexts` has, for each log, what its lines say about later ones. `refused` says why
    an address that logged in is not opened, `closed` why a claim does not open its address. `ahead`
    names the logs whose stamps lie ahead of now, `stuck` tells of a map that was not published.
    """

    time: float
    latest: float
    positions: dict[str, Position]
    contexts: dict[str, Context]
    ledger: Ledger
    refused: dict[str, str]
    closed: dict[str, dict[str, str]]
    ahead: set[str]
    published: Published | None = None
    stuck: Stuck | None = None


def empty() -> State:
    """The state before the first run."""
    return State(0, 0, {}, {}, Ledger(), {}, {}, set())


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
    """Take the lock of this state; see `files.lock`."""
    return files.lock(os.path.join(directory, "lock"))


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
        "logs": {path: _position_to_json(where) for path, where in state.positions.items()},
        "contexts": {
            path: {"connects": context.connects, "cut": context.cut}
            for path, context in state.contexts.items()
            if context.connects or context.cut
        },
        "claims": state.ledger.claims,
        "logouts": state.ledger.logouts,
        "homes": state.ledger.homes,
        "shut": state.ledger.shut,
        "refused": state.refused,
        "closed": state.closed,
        "ahead": sorted(state.ahead),
        "published": None
        if state.published is None
        else {
            "path": state.published.path,
            "wanted": state.published.wanted,
            "database": list(state.published.database),
            "boot": state.published.boot,
        },
        "stuck": state.stuck and {"since": state.stuck.since, "open": state.stuck.open},
    }


def _from_json(read: Any) -> State:
    version = _natural(read["version"])
    if not 1 <= version <= VERSION:
        raise ValueError(f"is of version {version}, this program knows {VERSION}")
    if version < 2:
        read["contexts"] = {}
    if version < 3:
        for where in read["logs"].values():
            where["cut"] = where["cut"] and {**where["cut"], "marker": ""}
    if version < 4:
        read |= {"logouts": {}, "homes": {}, "shut": {}, "closed": {}}
    published = read["published"]
    return State(
        time=_number(read["time"]),
        latest=_number(read["latest"]),
        positions={_text(path): _position(where) for path, where in read["logs"].items()},
        contexts={_text(path): _context(of) for path, of in read["contexts"].items()},
        ledger=_ledger(read),
        refused={_address(address): _text(why) for address, why in read["refused"].items()},
        closed={
            _address(address): {_text(account): _text(why) for account, why in accounts.items()}
            for address, accounts in read["closed"].items()
        },
        ahead={_text(path) for path in _list(read["ahead"])},
        published=None
        if published is None
        else Published(
            _text(published["path"]),
            _text(published["wanted"]),
            tuple(_natural(n) for n in _list(published["database"])),
            _text(published["boot"]),
        ),
        stuck=None if read["stuck"] is None else _stuck(read["stuck"]),
    )


def _ledger(read: Any) -> Ledger:
    ledger = Ledger()
    ledger.claims, ledger.logouts = _claims(read["claims"]), _claims(read["logouts"])
    ledger.homes = {
        _text(account): (_address(address), _number(time))
        for account, (address, time) in read["homes"].items()
    }
    ledger.shut = {
        address if address == EVERY else _address(address): (_number(closed), _number(until))
        for address, (closed, until) in read["shut"].items()
    }
    return ledger


def _claims(read: Any) -> Claims:
    return {
        _address(address): {_text(account): _number(time) for account, time in accounts.items()}
        for address, accounts in read.items()
    }


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("says something twice")
    return found


def _stuck(read: Any) -> Stuck:
    return Stuck(
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


def _position_to_json(where: Position) -> dict[str, Any]:
    return {
        **_cursor_to_json(where.here),
        "lines": where.lines,
        "before": where.rotated and _cursor_to_json(where.rotated),
        "cut": where.pending_cut and _pending_cut_to_json(where.pending_cut),
    }


def _position(read: Any) -> Position:
    return Position(
        here=_cursor(read),
        rotated=_cursor(read["before"]) if read["before"] is not None else None,
        lines=_natural(read["lines"]) if read["lines"] is not None else None,
        pending_cut=_pending_cut(read["cut"]) if read["cut"] is not None else None,
    )


def _pending_cut_to_json(cut: PendingCut) -> dict[str, Any]:
    return {**_cursor_to_json(cut.after), "marker": cut.marker.decode("latin-1")}


def _pending_cut(read: Any) -> PendingCut:
    return PendingCut(_cursor(read), _text(read["marker"]).encode("latin-1"))


def _cursor_to_json(cursor: Cursor) -> dict[str, Any]:
    return {"offset": cursor.offset, "anchor": cursor.anchor.decode("latin-1")}


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
