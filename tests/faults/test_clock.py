"""The clock jumps, stands still in 1970, or is another one than the log's.

Who logged in within the window by the clock of the run is open, and nobody else. Four things no
program can tell, and the tests that end in `_cannot_be_told` show what then happens:
- a stamp that lies more than two minutes ahead of the run that first reads it is no evidence. It
  is said, and forgotten: the clock that wrote it was wrong, or its zone is;
- a stamp too far behind (a zone to the east in the configuration, a clock that stood in 1970) is
  as old as it says;
- a stamp without a zone in the hour that is repeated, first read when it has come round again, is
  taken for the later one;
- a log that no run has read yet, and whose last change lies behind the window by a clock that was
  set back in the meantime, is as old as its time of change.
"""

import itertools
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from unittest.mock import Mock
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapd import cut, run
from sapd.timestamps import AHEAD, moment
from tests.faults.passes import OWN, Passes, site_in_memory, wall_clock
from tests.servers.faketime import ENVIRONMENT, told
from tests.site import Site, login, noise

pytestmark = pytest.mark.makemap

WINDOW = 1800
DAY = 86400
YEAR = 365 * DAY
NOON = moment("2026-11-22T12:00:00Z", None)


@pytest.fixture
def site() -> Iterator[Site]:
    with site_in_memory() as made:
        yield made


def traditional(address: str, at: float, zone: str) -> str:
    """A login line whose stamp names neither year nor zone."""
    wall = datetime.fromtimestamp(at, ZoneInfo(zone))
    return (
        f"{wall:%b} {wall.day:2d} {wall:%H:%M:%S} mx1 popper[7]: (v4.0.5) POP login "
        f'by user "bob" at (client.example.net) {address} [pop_log.c:244]\n'
    )


@contextmanager
def machine_in(zone: str) -> Iterator[None]:
    """The machine's own zone is `zone`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        try:
            yield
        finally:
            patch.undo()
            time.tzset()


# Any sequence of clock steps, logins and runs.

DEAD = int(NOON) - 3600  # what a clock is behind that begins in 1970
ERRORS = [0, 0, 0, 45, -45, 110, -110, 600, -600, 7200, -7200, DAY, -DAY, YEAR, -YEAR, -DEAD]
ADDRESSES = [f"192.0.2.{number}" for number in range(1, 5)]
MOMENTS = st.lists(
    st.tuples(
        st.sampled_from([1, 20, 60, 60, 300, 900, 1500]),  # seconds that pass
        st.sampled_from(ERRORS),
        st.lists(st.sampled_from(ADDRESSES), max_size=2),
        st.sampled_from([True, True, False]),
    ),
    min_size=3,
    max_size=14,
)


class Rule:
    """Who must be open, and who may be, by nothing but the stamps and the clock of each run.

    Must: whose login lay within the window, two minutes less, and not ahead of the run that first
    read it. May: whose login lies within the window or up to two minutes ahead; and who was open
    when the clock was set back behind his login, for a window from then. What was read before the
    clock was set back, and then lay ahead of it, counts no more when that hour comes again.
    """

    def __init__(self) -> None:
        self.unread: list[tuple[str, float]] = []
        self.logins: list[tuple[str, float]] = []
        self.countable: list[tuple[str, float]] = []
        self.evident: list[tuple[str, float]] = []
        self.clamped: dict[str, float] = {}  # by when the clock was set back
        self.kept: dict[str, float] = {}  # open, and the least clock since it is without reason

    def check(self, now: float, saved: float, opened: set[str]) -> None:
        """Check a run at `now`, before which the state was of the time `saved`."""
        if saved > now + AHEAD:
            self.clamped = {who: min(since, now) for who, since in self.clamped.items()}
            self.clamped |= {who: now for who, stamp in self.countable if stamp > now + AHEAD}
            # All is read again, and from then on only what is new.
            self.countable = [(who, stamp) for who, stamp in self.logins if stamp <= now + AHEAD]
            self.evident = list(self.countable)
        self.logins += self.unread
        self.countable += self.unread
        self.evident += [(who, stamp) for who, stamp in self.unread if stamp <= now + AHEAD]
        self.unread.clear()
        must = {who for who, stamp in self.evident if now - WINDOW + AHEAD < stamp <= now}
        fresh = {who for who, stamp in self.countable if now - WINDOW < stamp <= now + AHEAD}
        ahead = {who for who, stamp in self.logins if stamp > now}
        set_back = {
            who for who, since in self.kept.items() if who in ahead and now < since + WINDOW
        } | {who for who, since in self.clamped.items() if now < since + WINDOW}
        assert must <= opened, ("shut out", must - opened, now)
        assert opened <= fresh | set_back, ("let in", opened - fresh - set_back, now)
        reasons = {who for who, stamp in self.countable if now - WINDOW < stamp <= now}
        self.kept = {
            who: float("inf") if who in reasons else min(self.kept.get(who, now), now)
            for who in opened
        }


@pytest.mark.parametrize("file_times", [False, True], ids=["at", "by the machine's clock"])
@settings(max_examples=40, deadline=None)
@given(moments=MOMENTS)
def test_whatever_the_clock_does_who_just_logged_in_is_open_and_nobody_else(
    file_times: bool, moments: list[tuple[int, int, list[str], bool]]
) -> None:
    rule, right = Rule(), NOON
    with site_in_memory() as site:
        passes = Passes(site)
        make_pass = passes.by_clock if file_times else passes.at
        passes.write(NOON, *(noise(number, NOON) for number in range(5)))
        make_pass(NOON)
        for passed, error, logins, is_run in moments:
            right += passed
            clock = right + error
            if logins:
                passes.write(clock, *(login(address, at=clock) for address in logins))
                rule.unread += [(address, clock) for address in logins]
            if is_run:
                saved = json.loads(site.state.read_text())["time"]
                rule.check(clock, saved, make_pass(clock))


# Zones, and the days on which they are hard.

CHANGES = {
    "Europe/Berlin": ["2026-10-25T01:00Z", "2027-03-28T01:00Z"],
    "America/New_York": ["2026-11-01T06:00Z", "2027-03-14T07:00Z"],
    "Australia/Lord_Howe": ["2027-04-03T15:00Z", "2026-10-03T15:30Z"],
}
MIDNIGHTS = {
    "Pacific/Auckland": ["2026-12-31T11:00Z"],
    "Asia/Kolkata": ["2026-12-31T18:30Z"],
    "America/New_York": ["2027-01-01T05:00Z"],
    "Europe/Berlin": ["2028-02-28T23:00Z", "2028-02-29T23:00Z", "2027-02-28T23:00Z"],
}
HARD = [(zone, when) for table in (CHANGES, MIDNIGHTS) for zone, of in table.items() for when in of]


@pytest.mark.parametrize("zone", CHANGES)
def test_the_days_are_those_on_which_the_zones_change(zone: str) -> None:
    for change in CHANGES[zone]:
        before, after = (
            datetime.fromtimestamp(moment(change, None) + second, ZoneInfo(zone)).utcoffset()
            for second in (-1, 0)
        )
        assert before != after


@pytest.mark.parametrize("of", ["log", "machine"])
@pytest.mark.parametrize(("zone", "when"), HARD)
def test_each_login_is_open_for_its_window_over_a_hard_midnight_or_hour(
    site: Site, zone: str, when: str, of: str
) -> None:
    if of == "log":
        site.configure(log_settings=f'timezone = "{zone}"')
    logins: dict[str, float] = {}
    with machine_in(zone) if of == "machine" else machine_in("UTC"):
        passes = Passes(site)
        for number in range(21):
            clock = moment(when, None) + 9 * 60 * (number - 8)
            address = f"192.0.2.{number + 1}"
            logins[address] = clock - 20
            passes.write(clock, traditional(address, clock - 20, zone))
            if number % 3 != 1:  # one pass of three does not come
                fresh = {who for who, at in logins.items() if clock - WINDOW < at}
                assert passes.at(clock) == fresh, clock


@pytest.mark.parametrize("year", [2027, 2028])
def test_a_stamp_of_29_february_is_evidence_in_a_leap_year_alone(site: Site, year: int) -> None:
    passes = Passes(site)
    passes.write(NOON, f"Feb 29 23:50:00{traditional('192.0.2.29', 0, 'UTC')[15:]}")
    now = moment(f"{year}-03-01T00:05:00Z", None)
    passes.write(NOON, login("192.0.2.1", at=now - 60))
    with machine_in("UTC"):
        assert passes.at(now) == {"192.0.2.1"} | ({"192.0.2.29"} if year == 2028 else set())
        assert passes.at(now + WINDOW) == set()


@pytest.mark.parametrize("zone", CHANGES)
def test_a_stamp_read_when_its_hour_comes_round_again_cannot_be_told(site: Site, zone: str) -> None:
    """It is taken for the later one, and opens for no longer than a window from there."""
    site.configure(log_settings=f'timezone = "{zone}"')
    change = moment(CHANGES[zone][0], None)
    passes = Passes(site)
    repeats = 1800 if zone.endswith("Howe") else 3600
    passes.write(change, traditional("192.0.2.1", change - 600, zone))
    now = change - 600 + repeats
    assert passes.at(now + 60) == {"192.0.2.1"}
    assert passes.at(now + WINDOW) == set()


# A log in another zone than the configuration says.


@pytest.mark.parametrize(
    ("configured", "written"),
    [
        ("UTC", "Europe/Berlin"),
        ("Europe/Berlin", "UTC"),
        ("Australia/Brisbane", "Australia/Adelaide"),
        ("Australia/Adelaide", "Australia/Brisbane"),
        ("UTC", "Asia/Kolkata"),
        ("Asia/Kolkata", "UTC"),
    ],
)
@pytest.mark.parametrize("window", [WINDOW, 8 * 3600])
def test_a_log_of_another_zone_cannot_be_told_but_harms_nobody_else(
    site: Site, configured: str, written: str, window: int
) -> None:
    """Stamps behind are as old as they say; stamps ahead open nothing, which is said once."""
    site.configure(f"{window}s", f'timezone = "{configured}"')
    offsets = [
        datetime.fromtimestamp(NOON, ZoneInfo(zone)).utcoffset() for zone in (written, configured)
    ]
    assert offsets[0] is not None
    assert offsets[1] is not None
    ahead = (offsets[0] - offsets[1]).total_seconds()
    assert abs(ahead) >= 1800
    passes = Passes(site)
    passes.write(NOON, login("192.0.2.1", at=NOON))
    assert passes.at(NOON) == {"192.0.2.1"}
    passes.write(
        NOON,
        traditional("192.0.2.66", NOON + 10, written),
        login("192.0.2.2", at=NOON + 10),
        traditional("192.0.2.66", NOON + 20, written),
    )
    opened = {"192.0.2.66"} if -window < ahead < 0 else set()
    assert passes.at(NOON + 30) == {"192.0.2.1", "192.0.2.2"} | opened
    assert bool(passes.report.warnings) == (ahead > 0)
    passes.write(NOON, traditional("192.0.2.66", NOON + 40, written))
    until = {
        "192.0.2.1": NOON + window,
        "192.0.2.2": NOON + 10 + window,
        "192.0.2.66": NOON + 40 + window + ahead if opened else 0,
    }
    moments = {
        NOON + 60,
        NOON + abs(ahead) + 60,
        *until.values(),
        *(at - 1 for at in until.values()),
    }
    for now in sorted(moments):
        if now > NOON + 30:
            assert passes.at(now) == {who for who, end in until.items() if now < end}
            assert passes.report.warnings == []


# Stamps in the future.


@pytest.mark.parametrize("by", [121, 3600, DAY, 2 * DAY, YEAR, 7900 * YEAR])
def test_a_future_stamp_blocks_neither_reading_nor_expiry_nor_others(site: Site, by: int) -> None:
    passes = Passes(site)
    for now, logged_in, expected in (
        (NOON, ["192.0.2.1"], {"192.0.2.1"}),
        (NOON + 60, ["192.0.2.2"], {"192.0.2.1", "192.0.2.2"}),
        (NOON + WINDOW, [], {"192.0.2.2"}),
        (NOON + WINDOW + 60, ["192.0.2.3"], {"192.0.2.3"}),
    ):
        future = login("192.0.2.66", at=now + by)
        passes.write(now, future, *(login(who, at=now) for who in logged_in), future)
        assert passes.at(now) == expected


@pytest.mark.parametrize("by", [121, YEAR])
def test_future_stamps_do_not_lead_the_first_runs_walk_back_astray(site: Site, by: int) -> None:
    passes = Passes(site)
    old, future = noise(1, NOON - 9 * DAY), login("192.0.2.66", at=NOON + by)
    fresh = login("192.0.2.1", at=NOON - 60)
    passes.write(NOON, old * 360_000, fresh, future, old, future, old, old, future)
    assert passes.at(NOON) == {"192.0.2.1"}
    ((_, read), *_) = passes.report.actions
    assert 16 << 20 < int(read.split(": ")[1].split(" bytes")[0]) < 17 << 20
    assert site.log.stat().st_size > 30 << 20


# Whole runs that are told another time, with files whose times say what the clock said.


class Machine:
    """A machine on which POP server, file system and sapd go by one clock, and it is wrong."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.warnings = ""

    def login(self, address: str, clock: float) -> None:
        self.site.write(login(address, at=clock))
        os.utime(self.site.log, (clock, clock))

    def run(self, clock: float) -> set[str]:
        done = self.site.sapd("run", prefix=told(clock), env=ENVIRONMENT)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        self.warnings = done.stderr
        return self.site.relaying() - {OWN}


@pytest.fixture
def machine(site: Site) -> Machine:
    return Machine(site)


@pytest.mark.servers
def test_a_clock_a_year_ahead_and_right_again(machine: Machine) -> None:
    machine.login("192.0.2.1", NOON)
    assert machine.run(NOON + 5) == {"192.0.2.1"}
    assert machine.run(NOON + YEAR) == set()
    machine.login("192.0.2.2", NOON + YEAR + 5)
    assert machine.run(NOON + YEAR + 10) == {"192.0.2.2"}
    opened = machine.run(NOON + 60)
    assert opened >= {"192.0.2.1"}
    assert opened <= {"192.0.2.1", "192.0.2.2"}  # who was open when it was set back may stay
    machine.login("192.0.2.3", NOON + 70)
    assert machine.run(NOON + 90) == opened | {"192.0.2.3"}
    assert machine.run(NOON + 65 + WINDOW) == {"192.0.2.3"}
    assert machine.run(NOON + 70 + WINDOW) == set()


@pytest.mark.servers
@pytest.mark.parametrize("dead", [30, 30 * YEAR + 7 * DAY], ids=["1970", "2000"])
def test_a_dead_clock_at_boot_that_is_put_right(machine: Machine, dead: int) -> None:
    """Who logged in before the boot stays open, and logs in again once the clock is right.

    Nobody can tell his login from one that a fast clock stamped so before it was set back.
    """
    machine.login("192.0.2.1", NOON)
    assert machine.run(NOON + 5) == {"192.0.2.1"}
    machine.login("192.0.2.2", dead)
    assert machine.run(dead + 30) == {"192.0.2.1", "192.0.2.2"}
    assert "stamped more than 120 s ahead" in machine.warnings
    assert machine.run(NOON + 180) == set()  # a stamp of 1970 cannot be told
    machine.login("192.0.2.1", NOON + 190)
    assert machine.run(NOON + 200) == {"192.0.2.1"}


@pytest.mark.servers
def test_a_clock_a_day_behind_and_right_again(machine: Machine) -> None:
    machine.login("192.0.2.1", NOON)
    assert machine.run(NOON + 5) == {"192.0.2.1"}
    assert machine.run(NOON - DAY) == {"192.0.2.1"}
    machine.login("192.0.2.2", NOON - DAY + 60)
    assert machine.run(NOON - DAY + 90) == {"192.0.2.1", "192.0.2.2"}
    assert machine.run(NOON - DAY + WINDOW + 5) == {"192.0.2.2"}
    machine.login("192.0.2.3", NOON + 110)
    assert machine.run(NOON + 120) == {"192.0.2.3"}


@pytest.mark.servers
def test_a_login_of_a_fast_clock_opens_once(machine: Machine) -> None:
    """Not again when the right clock comes to that hour, whatever else is read again then."""
    fast = NOON + 5400
    machine.login("192.0.2.1", fast)
    assert machine.run(fast + 5) == {"192.0.2.1"}
    assert machine.run(NOON + 10) == {"192.0.2.1"}
    for minute in range(1, 150):
        now = NOON + 30 + 60 * minute  # each run takes some seconds of its clock
        machine.login("192.0.2.2", now - 3)
        opened = machine.run(now)
        assert "192.0.2.2" in opened
        assert ("192.0.2.1" in opened) == (minute < 30), minute


@pytest.mark.servers
def test_a_login_that_came_when_the_fast_clock_was_right_again_counts(machine: Machine) -> None:
    """Also if it is stamped as those were that count no more."""
    fast = NOON + 5400
    machine.login("192.0.2.1", fast)
    machine.run(fast + 5)
    machine.run(NOON + 10)
    assert machine.run(NOON + 3600) == set()
    machine.login("192.0.2.1", fast)
    machine.login("192.0.2.2", fast + 1)
    assert machine.run(fast + 5) == {"192.0.2.1", "192.0.2.2"}


@pytest.mark.parametrize("is_interrupted", [False, True], ids=["at once", "resumed"])
def test_a_cut_lets_no_login_of_a_fast_clock_open_twice(
    site: Site, monkeypatch: pytest.MonkeyPatch, is_interrupted: bool
) -> None:
    """One that it leaves in the log, though it takes what stood before that."""
    passes, fast = Passes(site), NOON + 5400
    noises = [noise(number, fast) for number in range(200)]
    passes.write(fast, *noises, login("192.0.2.1", at=fast))
    assert passes.by_clock(fast + 5) == {"192.0.2.1"}
    assert passes.by_clock(NOON + 10) == {"192.0.2.1"}
    site.configure(log_settings="keep_lines = 2")
    passes = Passes(site)
    passes.write(NOON + 20, login("192.0.2.2", at=NOON + 20))
    if is_interrupted:
        with monkeypatch.context() as patch:
            patch.setattr(cut, "_finish", Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                passes.by_clock(NOON + 30)
    assert passes.by_clock(NOON + 40) == {"192.0.2.1", "192.0.2.2"}
    marker, *kept = site.log.read_text().splitlines(keepends=True)
    assert "log cut, " in marker
    assert kept == [login("192.0.2.1", at=fast), login("192.0.2.2", at=NOON + 20)]
    for now in (NOON + 3600, fast - 60, fast + 10, fast + 600):
        assert passes.by_clock(now) == set()
    passes.write(fast + 610, login("192.0.2.3", at=fast + 610))
    assert passes.by_clock(fast + 620) == {"192.0.2.3"}


@pytest.mark.servers
@pytest.mark.parametrize("step", [-100, -30, -1, 1, 30, 100])
def test_small_steps_between_runs_shut_nobody_out(machine: Machine, step: int) -> None:
    for number in range(1, 4):
        clock = NOON + 60 * number + step * (number % 2)
        machine.login(f"192.0.2.{number}", clock)
        assert machine.run(clock + 1) == {f"192.0.2.{other}" for other in range(1, number + 1)}
        assert machine.warnings == ""


def test_a_clock_that_steps_while_the_run_works(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run goes by the time at which it began."""
    passes = Passes(site)
    passes.write(NOON, login("192.0.2.1", at=NOON - 60), login("192.0.2.2", at=NOON - WINDOW))
    steps = itertools.cycle([NOON, NOON + DAY, NOON - DAY])
    monkeypatch.setattr(run, "time", wall_clock(lambda: next(steps)))
    assert passes.at() == {"192.0.2.1"}
