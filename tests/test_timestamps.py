"""Stamps: every shape, the year that is not there, and the hours that daylight saving moves."""

import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapd.timestamps import Clock, moment, rfc3339, stamp_like, yearless, zone
from tests.servers.mounts import another_zone
from tests.site import Site, login

NOW = moment("2026-11-22T12:00:00Z", None)


@pytest.fixture
def berlin() -> Iterator[None]:
    """The system's zone is Europe/Berlin."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def read(stamp: str, now: str = "2026-11-22T12:00:00Z", of: str | None = "UTC") -> str | None:
    clock = Clock(moment(now, None), zone(of) if of else None)
    epoch = clock.epoch(stamp.encode())
    return None if epoch is None else rfc3339(epoch)


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("Nov 22 10:41:05", "2026-11-22T10:41:05Z"),
        ("Nov  2 01:02:03", "2026-11-02T01:02:03Z"),
        ("2026-11-22T10:41:05Z", "2026-11-22T10:41:05Z"),
        ("2026-11-22T10:41:05.123456+01:00", "2026-11-22T09:41:05Z"),
        ("2026-11-22T10:41:05.123456789-05:30", "2026-11-22T16:11:05Z"),
        ("Nov 22 10:41:05.123 2026", "2026-11-22T10:41:05Z"),
        ("Thu Jan  6 12:00:00 2000", "2000-01-06T12:00:00Z"),
        ("Nov 2 01:02:03", "2026-11-02T01:02:03Z"),
        ("2026-11-22T10:41:05+0100", "2026-11-22T09:41:05Z"),
        ("2026-11-22 10:41:05", "2026-11-22T10:41:05Z"),
        ("2026-11-22 10:41:05,123", "2026-11-22T10:41:05Z"),
        ("Nov 22 2026 10:41:05", "2026-11-22T10:41:05Z"),
        ("Nov  2 2004 10:41:05", "2004-11-02T10:41:05Z"),
        ("@400000004c91b044077a9e94", "2010-09-16T05:50:50Z"),  # as tai64nlocal says
        ("@4000000037c219bf2ef02e94", "1999-08-24T04:04:05Z"),
        ("2026/11/22 10:41:05", "2026-11-22T10:41:05Z"),
        ("22/Nov/2026:10:41:05 +0100", "2026-11-22T09:41:05Z"),
        ("1795344065", "2026-11-22T10:41:05Z"),
        ("1795344065.123", "2026-11-22T10:41:05Z"),
        ("22.11.2026 10:41:05", "2026-11-22T10:41:05Z"),
        ("02/11/2026 10:41:05", "2026-11-02T10:41:05Z"),
        ("02-11-2026 10:41:05", "2026-11-02T10:41:05Z"),
        ("Dec 31 23:59:60", "2026-01-01T00:00:00Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
    ],
)
def test_every_shape(stamp: str, expected: str) -> None:
    assert read(stamp) == expected
    clock, line = Clock(NOW, zone("UTC")), f"{stamp} mx1 popper[1]: x".encode()
    assert clock.of_line(line) == clock.epoch(stamp.encode())
    assert yearless(line) == (stamp[:1].isalpha() and len(stamp) <= len("Nov 22 10:41:05"))


@pytest.mark.parametrize(
    "stamp",
    ["2026-11-22 10:41:05", "Nov 22 2026 10:41:05", "2026/11/22 10:41:05", "22.11.2026 10:41:05"],
)
def test_stamps_of_own_files_are_in_the_logs_zone(stamp: str) -> None:
    assert read(stamp, of="Asia/Tokyo") == "2026-11-22T01:41:05Z"


@pytest.mark.parametrize("head", ["dovecot: ", "imap-login: ", "<22>1 "])
def test_a_stamp_may_stand_behind_a_head(head: str) -> None:
    assert Clock(NOW, zone("UTC")).of_line(f"{head}2026-11-22T10:41:05Z x".encode()) is not None


@pytest.mark.parametrize(
    "stamp",
    [
        "", "Nov 22", "Nov 31 10:41:05", "Feb 30 10:41:05", "Nov  0 10:41:05", "Nov 22 29:41:05",
        "2026-13-22T10:41:05Z", "2026-11-22T10:41:05+99:00", "0000-11-22T10:41:05Z",
        "2026-13-22 10:41:05", "Nov 31 2026 10:41:05", "@ffffffffffffffff00000000",
        "@000000000000000000000000", "2026/13/22 10:41:05", "22/11/2026:10:41:05 +0100x",
        "32/Nov/2026:10:41:05 +0100", "11.22.2026 10:41:05", "22.11.2026", "99999999999999", "1e9",
    ],
)  # fmt: skip
def test_no_time_is_none_and_never_an_error(stamp: str) -> None:
    assert read(stamp) is None


@given(st.binary(max_size=40))
def test_nothing_on_a_line_raises(garbage: bytes) -> None:
    Clock(NOW).of_line(garbage)


def test_the_fraction_is_kept() -> None:
    assert (
        Clock(NOW).epoch(b"2026-11-22T10:41:05.250Z") == moment("2026-11-22T10:41:05Z", None) + 0.25
    )


@pytest.mark.parametrize(
    ("stamp", "now", "expected"),
    [
        ("Dec 31 23:50:00", "2027-01-01T00:05:00Z", "2026-12-31T23:50:00Z"),
        ("Jan  1 00:00:30", "2026-12-31T23:59:50Z", "2027-01-01T00:00:30Z"),
        ("Nov 23 13:00:00", "2026-11-22T12:00:00Z", "2025-11-23T13:00:00Z"),
        ("Nov 23 11:00:00", "2026-11-22T12:00:00Z", "2026-11-23T11:00:00Z"),
        ("Feb 29 10:00:00", "2026-03-01T00:00:00Z", "2024-02-29T10:00:00Z"),
        ("Feb 29 10:00:00", "2028-02-29T10:05:00Z", "2028-02-29T10:00:00Z"),
        ("Feb 28 23:59:00", "2028-02-29T00:01:00Z", "2028-02-28T23:59:00Z"),
    ],
)
def test_the_year_is_the_latest_that_is_not_a_day_ahead(
    stamp: str, now: str, expected: str
) -> None:
    assert read(stamp, now) == expected


@pytest.mark.parametrize("of", ["Europe/Berlin", None])
@pytest.mark.parametrize(
    ("stamp", "now", "expected"),
    [
        ("Nov 22 10:41:05", "2026-11-22T12:00:00Z", "2026-11-22T09:41:05Z"),
        ("Jul 22 10:41:05", "2026-11-22T12:00:00Z", "2026-07-22T08:41:05Z"),
        # 25 October: at 01:00 UTC the clock goes from 03:00 back to 02:00.
        ("Oct 25 02:30:00", "2026-10-25T00:31:00Z", "2026-10-25T00:30:00Z"),
        ("Oct 25 02:30:00", "2026-10-25T01:31:00Z", "2026-10-25T01:30:00Z"),
        ("Oct 25 02:30:00", "2026-10-25T01:28:30Z", "2026-10-25T01:30:00Z"),
        ("Oct 25 02:30:00", "2026-10-25T01:20:00Z", "2026-10-25T00:30:00Z"),
        # 29 March: there is no 02:30.
        ("Mar 29 01:59:59", "2026-03-29T01:00:10Z", "2026-03-29T00:59:59Z"),
        ("Mar 29 03:00:05", "2026-03-29T01:00:10Z", "2026-03-29T01:00:05Z"),
    ],
)
@pytest.mark.usefixtures("berlin")
def test_zone_and_daylight_saving(of: str | None, stamp: str, now: str, expected: str) -> None:
    assert read(stamp, now, of) == expected


def test_a_zone_that_is_none_is_refused() -> None:
    for name in ("Europe/Berlln", "", " "):
        with pytest.raises(ValueError, match="no time zone"):
            zone(name)


def test_a_moment_takes_what_people_type() -> None:
    berlin_zone = zone("Europe/Berlin")
    assert rfc3339(moment("2026-11-22 10:41", berlin_zone)) == "2026-11-22T09:41:00Z"
    assert rfc3339(moment("2026-11-22 10:41 UTC", berlin_zone)) == "2026-11-22T10:41:00Z"
    assert rfc3339(moment("2026-11-22", berlin_zone)) == "2026-11-21T23:00:00Z"
    assert rfc3339(moment("10:41", berlin_zone, NOW)) == "2026-11-22T09:41:00Z"
    assert rfc3339(moment("yesterday 10:41:05", berlin_zone, NOW)) == "2026-11-21T09:41:05Z"
    assert rfc3339(moment("Nov 22 10:41:05", berlin_zone, NOW)) == "2026-11-22T09:41:05Z"
    for wrong in ("9.3.2026", "10m", "1969-12-31T00:00:00Z", "9999-01-01", "2026-13-01", "24:00"):
        with pytest.raises(ValueError):  # noqa: PT011 -- fromisoformat's own, too
            moment(wrong, None, NOW)
    with pytest.raises(ValueError, match="yesterdayish"):
        moment("yesterdayish", None)


def test_lines_begin_with_a_stamp_in_every_frame() -> None:
    clock = Clock(NOW, zone("UTC"))
    for line in (
        b"Nov 22 10:41:05 mx1 popper[1]: x",
        b"2026-11-22T10:41:05Z mx1 popper[1]: x",
        b"<149>1 2026-11-22T10:41:05Z mx1 popper 1 - -  x",
        b"Nov 22 10:41:05.000 2026 [4247] x",
        b"Sun Nov 22 10:41:05 2026 [1234] x",
    ):
        assert clock.of_line(line) == moment("2026-11-22T10:41:05Z", None), line
    assert clock.of_line(b"popper[1]: Nov 22 10:41:05 x") is None


def test_a_stamp_like_another() -> None:
    assert stamp_like(b"Nov 22 10:41:05 mx1 x", NOW, zone("UTC")) == b"Nov 22 12:00:00"
    assert stamp_like(b"Nov  2 ", moment("2026-01-02T03:04:05Z", None), zone("UTC")) == (
        b"Jan  2 03:04:05"
    )
    like = stamp_like(b"2026-11-22T10:41:05Z mx1 x", NOW, zone("Europe/Berlin"))
    assert Clock(NOW).epoch(like) == NOW


@pytest.mark.parametrize("caller", ["<-03>3", "<+05>-5", "Asia/Tokyo", ":/etc/passwd", ""])
@pytest.mark.parametrize("of", ["Etc/UTC", "Europe/Berlin"])
@pytest.mark.makemap
@pytest.mark.servers
def test_the_systems_zone_is_not_the_callers(tmp_path: Path, of: str, caller: str) -> None:
    site, now = Site(tmp_path), int(time.time())
    addresses = {f"192.0.2.{hours + 20}": hours for hours in range(-12, 13)}
    for address, hours in addresses.items():
        wall = datetime.fromtimestamp(now - 60 - hours * 3600, ZoneInfo(of))
        site.write(f"{wall:%b %e %H:%M:%S} " + login(address).partition(" ")[2])
    for command in ("run", "close 203.0.113.1", "run"):  # a first run, and another
        done = site.sapd(*command.split(), env={"TZ": caller}, prefix=another_zone(of))
        assert done.returncode == 0
        assert site.open_addresses() == {"192.0.2.20"}
    at = datetime.fromtimestamp(now, ZoneInfo(of))
    done = site.sapd(
        "run", "-v", "--at", f"{at:%F %T}", env={"TZ": caller}, prefix=another_zone(of)
    )
    assert done.returncode == 0
    assert site.open_addresses() == {"192.0.2.20"}
