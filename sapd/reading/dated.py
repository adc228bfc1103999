"""A log whose name is the date: a path with conversions of strftime(3), in the log's zone. Pure."""

import re
from datetime import datetime, time, timedelta, tzinfo

_DAYS, _HOURS = "YymdjbBaAGVuU", "H"
_CONVERSION = re.compile(r"%(.?)", re.DOTALL)
_HOUR, _DAY = 3600, 86400
_MOST = 10_000  # earlier names
_LEAST_DAYS = 8  # that are looked at, however short the window is: a quiet server writes no file


def objection_to(path: str) -> str | None:
    """Why a log's path names no file, None if it does."""
    if "*" in path:
        return (
            'has "*", and a log is one file: name the one that is written to, with %Y%m%d for '
            "the date in its name; rotated ones beside it are found"
        )
    for found in _CONVERSION.finditer(path):
        if found[1] not in [*_DAYS, *_HOURS, "%"]:
            known = ", ".join(f"%{letter}" for letter in _DAYS + _HOURS)
            return f'has "{found[0]}", which is not part of a date: {known}; a literal % is %%'
    return None


def is_dated(path: str) -> bool:
    """Whether the name changes with the time."""
    return any(found[1] != "%" for found in _CONVERSION.finditer(path))


def fits(path: str, name: str) -> bool:
    """Whether a file's name may be this path at some time."""
    parts = _CONVERSION.split(path.replace("%%", "\0"))[::2]
    pattern = "[^/]+".join(re.escape(part.replace("\0", "%")) for part in parts)
    return re.fullmatch(pattern, name) is not None


def current(path: str, now: float, zone: tzinfo | None) -> str:
    """The name at `now` (UTC epoch seconds); `zone` as in `timestamps.Clock`."""
    return _name(path, datetime.fromtimestamp(now, zone))


def earlier(path: str, now: float, since: float, zone: tzinfo | None) -> list[str]:
    """The names before that, down to `since`, the latest first."""
    if not is_dated(path):
        return []
    since = min(since, now - _LEAST_DAYS * _DAY)
    moment = datetime.fromtimestamp(now, zone)
    moments: list[datetime]
    if _changes_hourly(path):
        count = min(int((now - since) // _HOUR) + 1, _MOST)
        moments = [datetime.fromtimestamp(now - _HOUR * n, zone) for n in range(1, count + 1)]
    else:
        count = min(int((now - since) // _DAY) + 1, _MOST)
        noon = datetime.combine(moment.date(), time(12))
        moments = [noon - timedelta(days=n) for n in range(1, count + 1)]
    names = dict.fromkeys(_name(path, moment) for moment in moments)
    names.pop(_name(path, moment), None)
    return list(names)


def next_change(path: str, now: float, zone: tzinfo | None) -> float:
    """A time (UTC epoch seconds) until which the name stays; at most a day ahead, or infinity."""
    if not is_dated(path):
        return float("inf")
    name, quarter = current(path, now, zone), 900  # all zones' hours begin with one
    ahead = now // quarter * quarter + quarter
    while ahead < now + _DAY and current(path, ahead, zone) == name:
        ahead += quarter
    return ahead


def _changes_hourly(path: str) -> bool:
    return any(found[1] in _HOURS for found in _CONVERSION.finditer(path))


def _name(path: str, moment: datetime) -> str:
    return _CONVERSION.sub(
        lambda found: "%" if found[1] == "%" else moment.strftime(found[0]), path
    )
