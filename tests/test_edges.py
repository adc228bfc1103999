"""The edges of single decisions: what holds at the very second, stamp or byte."""

import json
import os
from pathlib import Path

import pytest

from sapd import decision, state
from sapd.reading import maillog
from sapd.reading.maillog import Reading
from sapd.reading.place import Cursor, Position
from sapd.relay import Ledger, Rules
from sapd.timestamps import Clock, rfc3339
from tests.cutting import NOW, line, read, shorten

HERE, THERE = "192.0.2.1", "10.0.0.7"
WINDOW = 1800.0


def opened(ledger: Ledger, rules: Rules, now: float) -> set[str]:
    ledger.expire(rules, now)
    return set(decision.decide(ledger, rules, lambda _: None, now).open)


def test_a_logout_in_the_second_of_its_login_ends_the_claim() -> None:
    rules, ledger = Rules(1800, after_logout=60), Ledger()
    ledger.login(rules, HERE, "bob", NOW, NOW)
    ledger.logout(rules, HERE, "bob", NOW, NOW)
    assert opened(ledger, rules, NOW + 59) == {HERE}
    assert opened(ledger, rules, NOW + 60) == set()


def test_logins_from_two_addresses_in_one_second_both_count() -> None:
    """Nobody knows which was the later one."""
    rules, ledger = Rules(1800, one_address=True), Ledger()
    ledger.login(rules, HERE, "bob", NOW, NOW)
    ledger.login(rules, THERE, "bob", NOW, NOW)
    assert opened(ledger, rules, NOW) == {HERE, THERE}
    ledger.login(rules, THERE, "bob", NOW + 1, NOW + 1)
    assert opened(ledger, rules, NOW + 1) == {THERE}


# Where a log that nobody has read begins to matter: "-" is a line before the window, "+" in it.


def written(path: Path, ages: str, first: int = 0) -> None:
    stamps = {"+": rfc3339(NOW - 60), "-": rfc3339(NOW - WINDOW - maillog.LATE - 60)}
    lines = [f"{stamps[age]} mx1 popper[42]: {n}\n" for n, age in enumerate(ages, first)]
    path.write_text("".join(lines))
    os.utime(path, (NOW, NOW))


def seen(log: Path) -> list[int]:
    edge = NOW - WINDOW
    text = b"".join(Reading(str(log), None, edge, edge, Clock(NOW)).blocks())
    return [int(row.split()[-1]) for row in text.splitlines()]


@pytest.mark.parametrize(
    ("ages", "first"),
    [("+--+", 0), ("+---+", 1), ("+-+--+", 0), ("+--+--+", 0), ("+---+--+", 1), ("----", 1)],
)
def test_three_old_stamps_in_a_row_end_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ages: str, first: int
) -> None:
    """Not two, and not three with a fresh one among them."""
    monkeypatch.setattr("sapd.reading.edge._LEAST", 0)
    written(tmp_path / "log", ages)
    assert seen(tmp_path / "log") == list(range(first, len(ages)))


@pytest.mark.parametrize(
    ("ages", "inside"),
    [("-++", True), ("--+", False), ("+--", False), ("++--", True), ("-+-+", False), ("", True),
     ("-", True), ("--", False)],
)  # fmt: skip
def test_a_log_begins_inside_the_window_if_two_of_its_first_stamps_do(
    tmp_path: Path, ages: str, inside: bool
) -> None:
    """One old stamp alone may be a late line's. What is older is then in the rotated file."""
    log = tmp_path / "log"
    written(Path(f"{log}.1"), "+", first=100)
    written(log, ages)
    assert (100 in seen(log)) == inside


# Cutting.


def log_of(tmp_path: Path, count: int) -> tuple[Path, Position]:
    """A log of so many lines, and its end."""
    log = tmp_path / "qpopper"
    log.write_bytes(b"".join(map(line, range(count))))
    return log, read(log)[1]


def test_all_that_was_read_may_be_cut_and_nothing_behind_it(tmp_path: Path) -> None:
    log, position = log_of(tmp_path, 1000)
    with log.open("ab") as file:
        file.writelines(map(line, range(1000, 1100)))
    planned = shorten(log, position, keep=50)
    assert planned is not None
    assert (planned.removed, planned.kept) == (1000, 100)
    assert read(log, planned.after)[0] == b"".join(map(line, range(1000, 1100)))


@pytest.mark.parametrize("false", [999, 1001, 5000])
def test_a_count_that_is_wrong_removes_no_line_that_was_not_read(
    tmp_path: Path, false: int
) -> None:
    log, position = log_of(tmp_path, 1000)
    with log.open("ab") as file:
        file.writelines(map(line, range(1000, 1100)))
    planned = shorten(log, position._replace(lines=false), keep=50)
    assert planned is not None
    assert read(log, planned.after)[0] == b"".join(map(line, range(1000, 1100)))


# The state.


def test_an_anchor_reaches_back_to_the_logs_first_byte_at_most(tmp_path: Path) -> None:
    log = "/var/log/qpopper"
    saved = state.empty()._replace(positions={log: Position(Cursor(5, b"abcde"))})
    text = json.loads(state.to_text(saved))
    (tmp_path / "state.json").write_text(json.dumps(text))
    assert state.load(str(tmp_path)).positions[log] == saved.positions[log]
    text["logs"][log]["offset"] = 4
    (tmp_path / "state.json").write_text(json.dumps(text))
    with pytest.raises(state.Damaged, match="anchor longer than its offset 4"):
        state.load(str(tmp_path))
