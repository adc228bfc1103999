"""A log's time stamps turned into UTC epoch seconds. Pure; the only importer of dateutil.

The shapes of stamp that are known (`STAMPS`): RFC 3164 section 4.1.2 (`Nov 22 10:41:05`, no year,
no zone; some daemons leave out the blank before a day of one digit, journalctl's short-precise adds
microseconds), RFC 3339 as RFC 5424
restricts it, and those of servers' own files: qpopper's two (`Nov 22 10:41:05.123 2026`, and
ctime(3)), Dovecot's `2026-11-22 10:41:05`, Apple's `Nov 22 2026 10:41:05`, nginx's
`2026/11/22 10:41:05`, web servers' `22/Nov/2026:10:41:05 +0100`, multilog's TAI64N, seconds of the
epoch, and `22.11.2026 10:41:05`, which is never guessed: a format has to name it.
What does not depend on generality goes past dateutil, because a busy log is stamped a million
times and cron pays for the import every minute.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache

from sapd.events.prefixes import BEFORE_STAMP

AHEAD = 120
"""Seconds that a stamp may be ahead of now and still be evidence: clocks differ a little."""

LAST = 200_000_000_000
"""UTC epoch seconds in the year 8307: what is not before is no time."""

_DAY = 86400
_MONTHS = {
    name: number
    for number, name in enumerate(
        b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(),
        start=1,
    )
}
_MONTH = rb"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"

_TIME = rb" [0-2]\d:[0-5]\d:[0-6]\d"

STAMPS: dict[str, bytes] = {
    "traditional": _MONTH + rb" (?:[ 0-3]\d|\d)" + _TIME,
    "rfc3339": rb"\d{4}-\d\d-\d\dT[0-2]\d:[0-5]\d:[0-6]\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d)",
    "trace": _MONTH + rb" [ 0-3]\d" + _TIME + rb"\.\d{3} \d{4}",
    "ctime": rb"[A-Z][a-z]{2} " + _MONTH + rb" [ 0-3]\d" + _TIME + rb" \d{4}",
    "iso": rb"\d{4}-\d\d-\d\d" + _TIME,
    "log4j": rb"\d{4}-\d\d-\d\d" + _TIME + rb",\d{3}",
    "apple": _MONTH + rb" [ 0-3]\d \d{4}" + _TIME,
    "tai64n": rb"@[0-9a-f]{24}",
    "slashes": rb"\d{4}/\d\d/\d\d" + _TIME,
    "clf": rb"\d\d/" + _MONTH + rb"/\d{4}:[0-2]\d:[0-5]\d:[0-6]\d [+-]\d{4}",
    "epoch": rb"\d{9,11}(?:\.\d{1,9})?",
    "precise": _MONTH + rb" [ 0-3]\d" + _TIME + rb"\.\d{6}",
    "day_first": rb"\d\d[./-]\d\d[./-]\d{4}" + _TIME,
}
"""The shapes as regular expressions (bytes, no groups)."""

_YEARLESS = ("traditional", "precise")
_PARTS = re.compile(rb"(.+?[ T:]\d\d:\d\d):(\d\d(?:[.,]\d+)?)(.*)", re.DOTALL)
_TAI = 0x4000000000000000 + 10  # libtai's, and so multilog's, offset of UTC epoch seconds


@cache
def _leading() -> re.Pattern[bytes]:
    """A line's stamp; compiled when it is wanted, which in most minutes it is not: 1 ms."""
    return re.compile(
        BEFORE_STAMP
        + rb"(?:(?P<yearless>"
        + b"|".join(STAMPS[name] for name in _YEARLESS)
        + rb")|(?P<dated>"
        + b"|".join(STAMPS[name] for name in STAMPS if name not in _YEARLESS)
        + rb"))(?: |$)"
    )


class Clock:
    """Reads the stamps of one log, as of one moment.

    `now` is UTC epoch seconds; `zone` is the log's zone for stamps that name none. None is that of
    the process, which is the system's: `__main__` drops the caller's TZ.
    """

    def __init__(self, now: float, zone: tzinfo | None = None) -> None:
        """Start with an empty cache: a log's minute is worked out once."""
        self.now = now
        self.zone = zone
        self._minutes: dict[tuple[bytes, bytes], int | None] = {}

    def epoch(self, stamp: bytes) -> float | None:
        """UTC epoch seconds of a stamp in one of the shapes of `STAMPS`; None if it is no time.

        A stamp without a year is the latest such date that is not more than a day after now. In
        the hour that daylight saving repeats, the later reading holds unless it lies ahead of
        now, so that a fresh login is never taken for an old one.
        """
        if stamp[:1] == b"@":
            return _sane(int(stamp[1:17], 16) - _TAI + int(stamp[17:], 16) / 1e9)
        if b":" not in stamp:
            return _sane(float(stamp)) if re.fullmatch(STAMPS["epoch"], stamp) else None
        parts = _PARTS.fullmatch(stamp)
        if parts is None:
            return None
        head, seconds, rest = parts.groups()
        try:
            minute = self._minutes[head, rest]
        except KeyError:
            if len(self._minutes) > 10_000:
                self._minutes.clear()
            minute = self._minutes[head, rest] = self._minute(head, rest)
        if minute is None:
            return None
        return minute + (int(seconds) if len(seconds) == 2 else float(seconds.replace(b",", b".")))

    def of_line(self, line: bytes) -> float | None:
        """Epoch seconds of the stamp that a log line begins with, None if it has none."""
        found = _leading().match(line)
        return self.epoch(found["yearless"] or found["dated"]) if found else None

    def _minute(self, head: bytes, rest: bytes) -> int | None:
        minute = self._any_minute(head, rest)
        return None if minute is None or _sane(minute) is None else int(minute)

    def _any_minute(self, head: bytes, rest: bytes) -> float | None:
        try:
            if iso := _iso(head):
                parsed = datetime.fromisoformat((iso + rest.lstrip()).decode("ascii"))
                return parsed.timestamp() if parsed.tzinfo else self._local(parsed)
            if rest or len(head.split()) == 4:  # with its year behind, or in front
                from dateutil import parser

                return self._local(parser.parse((head + rest).decode("ascii")))
            return self._without_year(head)
        except (ValueError, OverflowError):
            return None

    def _without_year(self, head: bytes) -> float | None:
        name, number, wall = head.split()
        month, day, hour, minute = _MONTHS[name], int(number), int(wall[:2]), int(wall[3:])
        this_year = datetime.fromtimestamp(self.now, self.zone).year
        for year in range(this_year + 1, this_year - 9, -1):
            try:
                epoch = self._local(datetime(year, month, day, hour, minute))
            except ValueError:  # 29 February: the leap year before has it
                continue
            if epoch <= self.now + _DAY:
                return epoch
        return None

    def _local(self, wall: datetime) -> float:
        first, second = (wall.replace(tzinfo=self.zone, fold=fold).timestamp() for fold in (0, 1))
        late, early = max(first, second), min(first, second)
        return late if late <= self.now + AHEAD else early


def _iso(head: bytes) -> bytes | None:
    """A stamp up to its minute, with its date as ISO 8601 has it; None for one without digits."""
    if head[4:5] in (b"-", b"/"):
        return head.replace(b"/", b"-")
    if not head[:2].isdigit():
        return None
    day, month, year, wall = head[:2], head[3:-11], head[-10:-6], head[-5:]
    number = b"%02d" % _MONTHS[month] if month in _MONTHS else month
    return b"%b-%b-%b %b" % (year, number, day, wall)


def _sane(epoch: float) -> float | None:
    return epoch if 0 <= epoch < LAST else None


def stamp_like(line: bytes, epoch: float, zone: tzinfo | None) -> bytes:
    """A stamp for `epoch` in the shape of the one `line` begins with: traditional, or RFC 3339."""
    local = datetime.fromtimestamp(int(epoch), zone)
    if line[:3] in _MONTHS:
        month = list(_MONTHS)[local.month - 1]
        return month + b" %2d " % local.day + local.strftime("%H:%M:%S").encode("ascii")
    return local.astimezone().isoformat().encode("ascii")


def yearless(line: bytes) -> bool:
    """Whether the stamp that a line begins with names no year."""
    found = _leading().match(line)
    return found is not None and found["yearless"] is not None


def zone(name: str) -> tzinfo:
    """The time zone of an IANA name such as Europe/Berlin; raises ValueError if there is none.

    dateutil reads the system's zone files and falls back on a copy of its own. POSIX rules such as
    GMT-2, which it takes, too, are refused: a misspelt name would become one.
    """
    from dateutil import tz

    usable = re.fullmatch(r"[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,3}", name)
    found = tz.gettz(name) if usable else None
    if found is None or isinstance(found, tz.tzstr | tz.tzlocal):
        raise ValueError(f'no time zone "{name[:40]}"; names look like Europe/Berlin or UTC')
    return found


_DAYS_AGO = {"today": 0, "yesterday": 1}
_WALL = r"[0-2]\d:[0-5]\d(?::[0-5]\d(?:\.\d{1,9})?)?(?: ?(?:Z|UTC|[+-]\d\d:?\d\d))?"
_TYPED = rf"(?P<date>\d{{4}}-\d\d-\d\d)(?:[T ](?P<wall>{_WALL}))?"


def moment(text: str, default_zone: tzinfo | None, now: float | None = None) -> float:
    """Epoch seconds of a time that a person typed.

    It is an ISO 8601 date, with or without a time; a time of today alone; "today" or "yesterday",
    with or without a time; or a stamp as syslog writes it. Nothing is guessed: other forms mean
    different days in different countries. A text that names no zone is taken in `default_zone`
    (None: the system's), one that names no day is of the day of `now` (UTC epoch seconds; None: the
    clock's). Raises ValueError, also for what lies before 1970 or behind `LAST`.
    """
    now = datetime.now(UTC).timestamp() if now is None else now
    today = datetime.fromtimestamp(now, default_zone).date()
    text = text.strip()
    word, _, rest = text.partition(" ")
    if (days := _DAYS_AGO.get(word.lower())) is not None:
        text = f"{today - timedelta(days)} {rest}".strip()
    elif re.fullmatch(_WALL, text, re.ASCII):
        text = f"{today} {text}"
    stamp = text.encode("utf-8", "surrogateescape")
    if found := re.fullmatch(_TYPED, text, re.ASCII):
        epoch = _of_wall(found["date"], found["wall"] or "00:00", default_zone)
    elif re.fullmatch(STAMPS["traditional"], stamp):
        epoch = Clock(now, default_zone).epoch(stamp)
    else:
        raise ValueError(f'"{text}" is in no form that is known')
    if epoch is None:
        raise ValueError(f'"{text}" is not a time that a clock shows')
    return epoch


def _of_wall(date: str, wall: str, zone: tzinfo | None) -> float | None:
    wall = wall.replace("UTC", "Z").replace(" ", "")
    parsed = datetime.fromisoformat(f"{date} {wall}")
    try:
        return _sane((parsed if parsed.tzinfo else parsed.replace(tzinfo=zone)).timestamp())
    except OverflowError:
        return None


def rfc3339(epoch: float) -> str:
    """RFC 3339 in UTC with Z, whole seconds, for files and programs: `2026-11-22T10:41:05Z`."""
    return datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def local(epoch: float) -> str:
    """The same in the system's zone, for people: `2026-11-22T11:41:05+01:00`."""
    return datetime.fromtimestamp(int(epoch), UTC).astimezone().isoformat()


_UTC = r"(?<!\S)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ(?![\w:.-])"


def localised(text: str) -> str:
    """A text with each time that `rfc3339` wrote into it as `local` writes it."""
    return re.sub(_UTC, lambda found: local(datetime.fromisoformat(found[0]).timestamp()), text)
