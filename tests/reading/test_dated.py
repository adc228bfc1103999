"""A log whose name is the date: the names, and passes from one day to the next."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sapd import config, errors, intake, run
from sapd.reading import dated
from sapd.timestamps import zone
from tests.site import Site, login

NOON = datetime(2026, 11, 27, 12, 0, tzinfo=UTC).timestamp()
HOUR, DAY = 3600, 86400


def name_log(site: Site, path: str) -> None:
    text = site.config.read_text()
    site.config.write_text(text.replace('path = "qpopper"', f'path = "{path}"'))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/l/mail-%Y%m%d.log", "/l/mail-20261127.log"),
        ("/l/%Y/%m/%d/mail", "/l/2026/11/27/mail"),
        ("/l/mail.%a", "/l/mail.Fri"),
        ("/l/100%%-%d", "/l/100%-27"),
        ("/l/mail-%y%j-%H", "/l/mail-26331-12"),
    ],
)
def test_the_name_of_today(path: str, name: str) -> None:
    assert dated.objection_to(path) is None
    assert dated.current(path, NOON, UTC) == name
    assert dated.fits(path, name)
    assert not dated.fits(path, f"/x{name}")


def test_the_name_is_of_the_logs_zone() -> None:
    late = NOON + 11.5 * HOUR
    assert dated.current("%d", late, zone("Europe/Berlin")) == "28"
    assert dated.current("%d", late, zone("America/New_York")) == "27"


@pytest.mark.parametrize(
    ("path", "count", "first", "last"),
    [
        ("%m%d", 9, "1126", "1118"),
        ("%m%d-%H", 8 * 24 + 1, "1127-11", "1119-11"),
        ("%a", 6, "Thu", "Sat"),  # a week of files
        ("%Y-%m", 0, "", ""),
        ("mail", 0, "", ""),
        ("%%Y", 0, "", ""),
    ],
)
def test_the_names_before(path: str, count: int, first: str, last: str) -> None:
    found = dated.earlier(path, NOON, NOON - HOUR, UTC)
    assert (len(found), *(found[:1] or [""]), *(found[-1:] or [""])) == (count, first, last)


def test_the_names_before_reach_back_as_far_as_the_window() -> None:
    assert dated.earlier("%m%d", NOON, NOON - 30 * DAY, UTC)[-1] <= "1028"


@pytest.mark.parametrize(
    ("name", "day", "hours"),
    [
        ("Europe/Berlin", (2026, 10, 25), 25),
        ("Europe/Berlin", (2026, 3, 29), 23),
        ("UTC", (2026, 5, 5), 24),
    ],
)
def test_a_day_has_its_hours(name: str, day: tuple[int, int, int], hours: int) -> None:
    """Where daylight saving ends or begins, too."""
    where = zone(name)
    start = datetime(*day, tzinfo=where).timestamp()
    now = start + 6 * HOUR
    end = dated.next_change("%d", now, where)
    assert end == min(start + hours * HOUR, now + DAY)
    assert dated.current("%d", end - 1, where) == dated.current("%d", now, where)
    names = dated.earlier("%d%H", end - 1, start, where)
    assert len([each for each in names if each.startswith(f"{day[2]:02d}")]) == min(hours, 24) - 1


def test_a_name_changes_with_the_hour() -> None:
    kolkata = zone("Asia/Kolkata")
    assert dated.next_change("%H", NOON, UTC) == NOON + HOUR
    assert dated.next_change("%H", NOON, kolkata) == NOON + HOUR / 2
    assert dated.next_change("mail", NOON, UTC) == float("inf")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/var/log/mail-*.log", 'has "*", and a log is one file'),
        ("/var/log/mail-%q", 'has "%q", which is not part of a date'),
        ("/var/log/mail-%M", "a literal % is %%"),
        ("/var/log/50%", 'has "%"'),
    ],
)
def test_a_path_that_names_no_file_is_refused(path: str, words: str, tmp_path: Path) -> None:
    site = Site(tmp_path)
    name_log(site, path)
    with pytest.raises(errors.SapdError) as caught:
        config.load(str(site.config))
    assert caught.value.status == errors.BAD_CONFIG
    assert words in str(caught.value)


def log_of(site: Site) -> config.Log:
    return config.load(str(site.config)).logs[0]


class Days(Site):
    """A site whose log has the date for its name."""

    def __init__(self, folder: Path, pattern: str, window: str = "1h") -> None:
        super().__init__(folder)
        self.configure(window=window, log_settings='timezone = "UTC"')
        self.pattern = str(folder / pattern)
        name_log(self, self.pattern)

    def say(self, address: str, at: float, logged_at: float | None = None) -> None:
        """A login in the file of its day, or in that of `logged_at`."""
        file = Path(dated.current(self.pattern, at if logged_at is None else logged_at, UTC))
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as log:
            log.write(login(address, at=at))
        os.utime(file, (at, at))

    def look(self, at: float) -> set[str]:
        report = run.once(config.load(str(self.config)), at)
        assert (report.problems, report.warnings) == ([], [])
        return self.relaying()


@pytest.fixture(params=["mail-%Y%m%d.log", "%Y/%m/%d/mail.log", "mail.%a"])
def days(request: pytest.FixtureRequest, tmp_path: Path) -> Days:
    site = Days(tmp_path, request.param)
    site.source.write_text("")
    return site


@pytest.mark.makemap
def test_from_one_day_to_the_next(days: Days) -> None:
    midnight = NOON + 12 * HOUR
    days.say("192.0.2.1", midnight - 600)
    assert days.look(midnight - 500) == {"192.0.2.1"}
    days.say("192.0.2.2", midnight - 60)
    # There is no new file yet.
    assert days.look(midnight + 60) == {"192.0.2.1", "192.0.2.2"}
    assert days.look(midnight + 61) == {"192.0.2.1", "192.0.2.2"}
    # A late line comes to the old one, and the first one to the new.
    days.say("192.0.2.3", midnight + 70, logged_at=midnight - 1)
    days.say("192.0.2.4", midnight + 80)
    assert days.look(midnight + 120) == {f"192.0.2.{n}" for n in (1, 2, 3, 4)}
    days.say("192.0.2.5", midnight + 130, logged_at=midnight - 1)
    days.say("192.0.2.6", midnight + 140)
    assert days.look(midnight + 180) == {f"192.0.2.{n}" for n in range(1, 7)}


@pytest.mark.makemap
def test_a_first_run_after_midnight_reads_both_files(days: Days) -> None:
    midnight = NOON + 12 * HOUR
    days.say("192.0.2.1", midnight - 600)
    days.say("192.0.2.2", midnight + 60)
    assert days.look(midnight + 120) == {"192.0.2.1", "192.0.2.2"}


@pytest.mark.makemap
def test_a_quiet_night_is_no_error(tmp_path: Path) -> None:
    site = Days(tmp_path, "mail-%Y%m%d.log")
    site.source.write_text("")
    today = time.time() // DAY * DAY
    site.say("192.0.2.1", today - DAY + 60)  # of yesterday, long before the window
    for _ in range(3):
        done = site.run()
        assert (done.returncode, done.stderr) == (0, "")
    site.say("192.0.2.2", time.time())
    assert site.run().stderr == ""
    assert site.relaying() == {"192.0.2.2"}


@pytest.mark.makemap
def test_a_file_that_was_deleted_is_said_once(tmp_path: Path) -> None:
    site, now = Days(tmp_path, "mail-%Y%m%d.log"), time.time()
    site.source.write_text("")
    site.say("192.0.2.1", now // DAY * DAY - DAY + 60)  # of yesterday, long before the window
    site.say("192.0.2.2", now)
    site.run()
    Path(dated.current(site.pattern, now, UTC)).unlink()
    assert "nowhere to be found" in site.sapd("run").stderr
    assert site.run().stderr == ""
    assert site.relaying() == {"192.0.2.2"}


@pytest.mark.makemap
def test_two_days_without_a_file_are_an_error(tmp_path: Path) -> None:
    site = Days(tmp_path, "mail-%Y%m%d.log")
    site.source.write_text("")
    done = site.run(status=errors.LOG_UNREADABLE)
    assert "no such file" in done.stderr
    assert log_of(site).file(time.time()) in done.stderr


@pytest.mark.makemap
def test_the_note_of_an_idle_minute_ends_with_the_name(tmp_path: Path) -> None:
    site = Days(tmp_path, "%Y/%m/%d/%H.log")
    site.source.write_text("")
    settings, now = config.load(str(site.config)), time.time()
    until = intake.names_stay_until(settings.logs, now)
    assert now < until <= now + HOUR
    coming = Path(dated.current(site.pattern, until, UTC))
    assert {str(coming), str(coming.parent)} <= set(intake.looked_at(settings, now))


@pytest.mark.makemap
def test_keep_lines_is_refused(tmp_path: Path) -> None:
    site = Days(tmp_path, "mail-%Y%m%d.log")
    text = site.config.read_text().replace('timezone = "UTC"', "keep_lines = 100")
    site.config.write_text(text)
    with pytest.raises(errors.SapdError, match=r"keep_lines .*has a date; delete old files"):
        config.load(str(site.config))


def test_match_and_check_know_the_files(tmp_path: Path) -> None:
    site = Days(tmp_path, "mail-%Y%m%d.log")
    site.say("192.0.2.1", time.time())
    log = log_of(site)
    file = log.file(time.time())
    assert log.is_at(file)
    assert not log.is_at(str(tmp_path / "mail.log"))
    said = site.sapd("check").stdout
    assert f"{site.pattern}: is {file} now" in said
    assert f"{file}: 1 line read, login: qpopper 1" in said
    assert "nothing of sapd's deletes old ones" in said


def test_a_literal_percent_sign(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.configure(log_settings="keep_lines = 10")
    name_log(site, f"{tmp_path}/50%%Y")
    log = log_of(site)
    assert (log.path, log.pattern, log.keep_lines) == (f"{tmp_path}/50%Y", "", 10)
    assert log.file(NOON) == log.path
