"""What a cut, a rotation or a lost state takes away from a log makes nothing of it evidence."""

import gzip
import json
import os
import time
from pathlib import Path

import pytest

from tests.site import Site

pytestmark = pytest.mark.makemap

FORMATS = 'formats = ["courier", "dovecot"]\ntimezone = "UTC"\n'
STRANGER = "6.6.6.6"
LONG = "LOGIN FAILED, user=" + "A" * 486


def line(text: str, age: float = 120, tag: str = "pop3d") -> bytes:
    stamp = time.strftime("%b %e %H:%M:%S", time.gmtime(time.time() - age))
    return f"{stamp} mx1 {tag}: {text}\n".encode()


def login(address: str, age: float = 60) -> bytes:
    return line(f"LOGIN, user=bob, ip=[::ffff:{address}], port=[1]", age)


NOISE = line("Connection, ip=[::ffff:198.51.100.1]")
HEAD, TAIL = line(LONG), login(STRANGER)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, log_settings=FORMATS)


def lose(site: Site, how: str) -> None:
    if how == "damaged":
        site.state.write_text("no JSON")
        site.run(status=65)
    elif how == "gone":
        site.state.unlink()
        site.run()
    else:  # the clock was set back when the state was saved, and comes right
        state = json.loads(site.state.read_text())
        site.rewrite_state(time=state["time"] + 200, latest=state["latest"] + 200)
        site.run()


@pytest.mark.parametrize("how", ["damaged", "gone", "clock"])
@pytest.mark.parametrize("before", [0, 1, 20, 49])
def test_a_cut_does_not_part_a_tail_from_its_head(site: Site, how: str, before: int) -> None:
    site.configure(log_settings=FORMATS + "keep_lines = 50\ncut_above = 60\n")
    tail = [NOISE] * before + [TAIL] + [NOISE] * (49 - before)
    site.log.write_bytes(b"".join([NOISE] * 30 + [HEAD, *tail]))
    site.run()
    assert b"sapd[" in site.log.read_bytes()  # it was cut
    assert site.open_addresses() == set()
    lose(site, how)
    assert site.open_addresses() == set()


def test_a_log_is_cut_while_strangers_write_long_names(site: Site) -> None:
    site.configure(log_settings=FORMATS + "keep_lines = 50\ncut_above = 60\n")
    site.log.write_bytes((HEAD + NOISE * 9) * 30)
    site.run()
    assert 50 <= site.log.read_bytes().count(b"\n") <= 61


@pytest.mark.parametrize("pack", ["", ".gz"])
@pytest.mark.parametrize("hours", [0, 5])
@pytest.mark.parametrize("first", [TAIL, NOISE + TAIL], ids=["at once", "later"])
def test_the_end_of_a_rotated_file_is_looked_at(
    site: Site, first: bytes, hours: int, pack: str
) -> None:
    """Its last line is a head; the tail comes hours later, when somebody else logs in."""
    old = line(LONG, 120 + 3600 * hours)
    rotated = Path(f"{site.log}.1{pack}")
    rotated.write_bytes(gzip.compress(NOISE + old) if pack else NOISE + old)
    os.utime(rotated, (time.time() - 3600 * hours,) * 2)
    site.log.write_bytes(first)
    site.run()
    assert site.open_addresses() == set()


def test_a_first_run_sees_the_end_of_a_quiet_log(site: Site) -> None:
    site.log.write_bytes(line("x", 18000) + line(LONG, 18000))
    os.utime(site.log, (time.time() - 18000,) * 2)
    site.run()
    site.log.write_bytes(site.log.read_bytes() + TAIL)
    site.run()
    assert site.open_addresses() == set()


def test_half_a_line_at_the_head_is_distrusted(site: Site) -> None:
    """As `tail -c` leaves it; where the frame is not named, nothing in so short a log counts."""
    site.configure(log_settings=FORMATS + 'frame = "traditional"\n')
    site.log.write_bytes(HEAD[100:] + TAIL)
    site.run()
    assert site.open_addresses() == set()


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"\0" * 4096,
        line("log cut, 12 lines removed    ", tag="sapd[7]"),
    ],
    ids=["empty", "zeros", "marker"],
)
@pytest.mark.parametrize(
    "honest",
    [
        login("192.0.2.10"),
        line("pop3-login: Login: user=<b>, rip=192.0.2.10, lip=192.0.2.1", 60, "dovecot"),
    ],
    ids=["courier", "dovecot"],
)
@pytest.mark.parametrize("rotated", [b"", NOISE * 50], ids=["alone", "rotated"])
def test_the_first_login_of_a_new_log_opens_at_once(
    site: Site, beginning: bytes, honest: bytes, rotated: bytes
) -> None:
    if rotated:
        Path(f"{site.log}.1").write_bytes(rotated)
    site.log.write_bytes(beginning + honest)
    site.run()
    assert site.open_addresses() == {"192.0.2.10"}


def test_the_first_login_after_a_rotation_opens_at_once(site: Site) -> None:
    site.log.write_bytes(NOISE * 30)
    site.run()
    site.log.rename(f"{site.log}.1")
    site.log.write_bytes(login("192.0.2.10"))
    site.run()
    assert site.open_addresses() == {"192.0.2.10"}
