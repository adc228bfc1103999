"""What mail administrators met in public: each case of cases/cases.jsonl with what is right.

A case that is no matter of formats names the test module that has it.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from sapd import errors
from sapd.events import formats
from sapd.events.recogniser import Event, Recogniser, Rejection
from sapd.timestamps import Clock, moment, zone
from tests.events.test_formats import write

_FILE = Path(__file__).with_name("cases") / "cases.jsonl"
CASES: dict[str, dict[str, Any]] = {
    case["id"]: case for case in map(json.loads, _FILE.read_text(encoding="utf-8").splitlines())
}
NOW = moment("2026-11-27T20:00:00Z", None)

PROGRAMS = {"dovecot-instance-name": ("dovecot-backend",)}
"""What the log's setting `programs` has to say."""

ELSEWHERE = {
    "rotate-multilog-at-s": "test_rotation",
    "rotate-zst": "test_rotation",
    "rotate-newsyslog-bz2": "test_rotation",
    "rotate-dateext-hourly-gz": "test_rotation",
    "dated-path-no-symlink": "test_rotation",
    "makemap-no-hash-photon": "test_access",
    "courier-mixed-check-ok": "test_check",
    "access-crlf": "test_access",
    "access-crlf-blank-line": "test_access",
    "access-trailing-comment": "test_access",
    "access-indented-comment": "test_access",
    "access-ipv6-forms": "test_access",
    "access-long-line": "test_access",
    "tz-container-utc": "test_check",
    "tz-container-ahead": "test_check",
}
OWN_FORMATS = {"nginx-own-log", "own-format-inherit-dovecot", "zimbra-own-format"}
MATCHED = sorted(name for name, case in CASES.items() if "match" in case)


def test_no_case_is_forgotten() -> None:
    assert set(CASES) == {*MATCHED, *OWN_FORMATS, *ELSEWHERE}
    assert set(PROGRAMS) < set(MATCHED)


@pytest.mark.parametrize("name", MATCHED)
def test_lines(name: str) -> None:
    case = CASES[name]["match"]
    recogniser = Recogniser(
        [case["format"]], Clock(NOW, zone("UTC")), programs=PROGRAMS.get(name, ())
    )
    found = [recogniser.recognise(line.encode() + b"\n") for line in case["lines"]]
    logins = [
        [event.address, event.account]
        for event in found
        if isinstance(event, Event) and event.event == "login"
    ]
    assert logins == case["logins"]


def test_one_plain_login_does_not_hide_that_tls_logins_are_missed() -> None:
    """Both count now; what `check` says of lines that nearly fit is in test_check."""
    recogniser = Recogniser(["courier"], Clock(NOW, zone("UTC")))
    tail = "ip=[::ffff:192.0.2.10], port=[52258]"
    for line in (f"LOGIN, user=bob, {tail}, stls=1", f"LOGIN, user=eve, {tail}"):
        assert isinstance(
            recogniser.recognise(f"Nov 27 19:10:05 mx1 pop3d: {line}\n".encode()), Event
        )


def test_a_stamp_that_no_clock_reads_is_refused(tmp_path: Path) -> None:
    stamp = r"['(?P<stamp>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) ']"
    write(tmp_path, own_file=stamp, programs="")
    with pytest.raises(errors.SapdError, match=r"write one of .*\{slashes\}"):
        formats.load("ours", str(tmp_path))


def test_nginxs_own_log_is_no_evidence() -> None:
    line = (
        b'2026/11/27 19:10:05 [info] 1#1: *1 client logged in, client: 192.0.2.10, login: "bob"\n'
    )
    found = Recogniser(["nginx-mail"], Clock(NOW)).recognise(line)
    assert isinstance(found, Rejection)


def test_a_shipped_format_under_another_programs_name(tmp_path: Path) -> None:
    write(tmp_path, "backend", inherit='"dovecot"', programs='["dovecot-backend"]', line="")
    recogniser = Recogniser(["backend"], Clock(NOW, zone("UTC")), str(tmp_path))
    (line,) = CASES["dovecot-instance-name"]["match"]["lines"]
    assert isinstance(recogniser.recognise(line.encode() + b"\n"), Event)


def test_zimbras_bracket_in_a_format_of_ones_own(tmp_path: Path) -> None:
    lines = r"""
[[line]]
event = "login"
needles = [" authenticated, mechanism="]
pattern = 'I \[name=[^;]+;.*oip=(?P<address>[^;]*);\] (?P<account>\S+) authenticated, mechanism=\w+'
example = 'I [name=bob;ip=192.0.2.2;oip=192.0.2.10;] bob authenticated, mechanism=LOGIN'
"""
    write(tmp_path, programs="", own_file=r"['{iso},\d{3} ']", line=lines)
    line = (
        b"2026-11-27 19:10:05,123 I [name=bob;ip=192.0.2.2;oip=192.0.2.10;] bob"
        b" authenticated, mechanism=LOGIN\n"
    )
    event = Recogniser(["ours"], Clock(NOW, zone("UTC")), str(tmp_path)).recognise(line)
    assert isinstance(event, Event)
    assert (event.address, event.account) == ("192.0.2.10", "bob")
