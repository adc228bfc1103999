"""A pass that is killed, or refused, at any system call: the next one ends where it would have.

strace counts the calls of a pass that write, rename, truncate, lock, sync, remove, create, or
change mode, owner or times. Each in turn is then the last one of a pass, or fails.
"""

import errno
import os
import re
import shlex
from pathlib import Path

import pytest

from sapd.timestamps import rfc3339
from tests.faults import strace
from tests.faults.bench import (
    AT,
    FIRST,
    FOREIGN,
    LATER,
    NEW,
    NOW,
    OWN,
    RENEWED,
    SELDOM,
    SELDOM_COPY,
    STALE,
    STEADY,
    STRANGERS,
    STRANGERS_COPY,
    VARIANTS,
    Bench,
    Variant,
    benches,
    each,
    finish,
    outcome,
)
from tests.faults.strace import Call
from tests.site import MAKEMAP, Site, login

pytestmark = pytest.mark.servers

STATUS = {"ENOSPC": 74, "EIO": 74, "EACCES": 77}
# Where the manual says that a signal may break the call off; Python then makes it again.
INTERRUPTED = re.compile(r"open(at)?|write|pwrite64|ftruncate|fallocate|fsync|flock")
# Without these the map can't be written.
NEEDED = re.compile(r"mkdir\(|chmod\(|/state/lock\b|/access\.|/memfd:")


def killed(bench: Bench, call: Call, *before: str) -> None:
    assert bench.met(call, call.killed, *before).returncode == -9
    finish(bench.site)
    assert outcome(bench.site) == bench.end


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_pass_killed_at_any_call_is_finished_by_the_next(
    tmp_path: Path, variant: Variant
) -> None:
    with benches(tmp_path, variant) as some:
        found = some[0].calls()
        assert len(found) >= (40 if variant == STEADY else 4)
        each(some, [(call,) for call in found], killed)


def test_a_pass_killed_while_it_makes_a_spoilt_map_good_is_finished_by_the_next(
    tmp_path: Path,
) -> None:
    with benches(tmp_path, STEADY) as some:
        (spoilt,) = (
            call
            for call in some[0].calls()
            if call.name == "utimensat" and "/access.db" in call.text
        )
        some[0].fresh()
        found = some[0].traced(spoilt.failing("EIO"))
        start, end = (
            next(n for n, call in enumerate(found) if words in call.text)
            for words in ("INJECTED", "/state.json.new")
        )
        rest = found[start + 1 : end + 1]
        assert [call.name for call in rest[:5]] == [
            "fchown", "fchmod", "fallocate", "fsync", "rename",
        ]  # fmt: skip
        each(some, [(call, spoilt.failing("EIO")) for call in rest], killed)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_call_that_fails_is_named_and_made_good_by_the_next_pass(
    tmp_path: Path, variant: Variant
) -> None:
    """All else is done all the same: the stale address is closed if the map can be written.

    What could not be added to the trail is lost; nothing else is.
    """

    def check(bench: Bench, call: Call, error: str) -> None:
        site, done = bench.site, bench.met(call, call.failing(error))
        if done.returncode == 0:
            assert (done.stdout, done.stderr) == ("", "")
        else:
            assert done.returncode == STATUS[error]
            assert_said(site, done.stderr, os.strerror(getattr(errno, error)))
        if done.returncode == 0 or not NEEDED.search(call.text):
            assert STALE not in site.relaying()
        end = bench.end
        if "/audit.jsonl" in call.text and done.returncode != 0:
            site.audit.touch(0o600)
            told = {"trail": outcome(site)["trail"]}
            assert told["trail"] < end["trail"]
            end = end | told
            assert outcome(site) == end
        finish(site)
        if call.name == "unlink":  # of the copied map: left until one is built again
            (site.folder / "access.sapd-new.db").unlink(missing_ok=True)
        assert outcome(site) == end

    with benches(tmp_path, variant) as some:
        found = [call for call in some[0].calls() if "<pipe:" not in call.text]
        cases = [(call, error) for call in found for error in STATUS]
        cases += [(call, "EINTR") for call in found if INTERRUPTED.fullmatch(call.name)]
        each(some, cases, check)


def assert_said(site: Site, stderr: str, reason: str) -> None:
    """One line that names a file of the site, and why."""
    assert re.fullmatch(rf"sapd: error: {site.folder}/[^ ]+: .*{reason}.*\n", stderr)


def test_a_sync_that_failed_once_is_not_taken_for_done(tmp_path: Path) -> None:
    """The file is written again: a second sync of the same bytes proves nothing."""

    def check(bench: Bench, call: Call, path: str) -> None:
        site = bench.fresh()
        found = bench.traced(call.failing("EIO"))
        start = next(n for n, other in enumerate(found) if "INJECTED" in other.text)
        found = [*found[start + 1 :], *bench.traced()]
        again = [other for other in found if path in other.text]
        written = next(n for n, other in enumerate(again) if other.name in ("openat", "fchmod"))
        assert any(other.name == "fsync" for other in again[written:])
        assert outcome(site) == bench.end

    with benches(tmp_path, STEADY) as some:
        found = [call for call in some[0].calls() if call.name == "fsync"]
        files = {"access.db": "access.sapd-new.db", "state.json.new": "state.json.new"}
        cases = [(call, made) for call in found for of, made in files.items() if of in call.text]
        assert len(cases) == 4
        each(some, cases, check)


@pytest.mark.parametrize("variant", [STEADY, SELDOM, SELDOM_COPY, FIRST], ids=str)
def test_a_state_that_a_power_cut_took_back_ends_in_the_same(
    tmp_path: Path, variant: Variant
) -> None:
    """So a folder that could not be synced is no more than a complaint.

    An old state knows nothing of the cut that came after it, and can't tell it from a loss.
    """
    with benches(tmp_path, variant) as (bench, *_):
        site = bench.fresh()
        renames = [
            call for call in bench.traced() if call.name == "rename" and "/state.json" in call.text
        ]
        assert len(renames) == 3
        for call in renames:
            bench.met(call, call.killed)
            before = site.state.read_bytes() if site.state.exists() else None
            finish(bench.fresh())
            site.state.unlink()
            if before is not None:
                site.state.write_bytes(before)
                os.chown(site.state, site.state.parent.stat().st_uid, -1)
                site.state.chmod(0o600)
            finish(site, may_warn="nowhere to be found")
            assert outcome(site) == bench.end, call


def test_a_cut_never_has_the_log_begin_with_a_strangers_words(tmp_path: Path) -> None:
    """Not even for a pass that has lost the state, and reads from the edge of the window."""

    def check(bench: Bench, call: Call) -> None:
        site = bench.site
        bench.met(call, call.killed)
        site.state.unlink()
        finish(site)
        assert FOREIGN not in site.relaying()

    with benches(tmp_path, STRANGERS) as some:
        each(some, [(call,) for call in some[0].calls()], check)


def test_a_log_that_is_half_copied_is_not_read(tmp_path: Path) -> None:
    """Where the copied tail ends there is half a line; the stale address is closed all the same."""
    half_copied = 0

    def check(bench: Bench, call: Call) -> None:
        nonlocal half_copied
        site = bench.site
        bench.met(call, call.killed)
        half = b"]: cutting, " in site.log.read_bytes()
        half_copied += half
        other = site.folder / "another name"
        other.hardlink_to(site.log)
        site.write(login("192.0.2.99", at=AT))
        for at in (AT - 600, LATER):  # a clock that was set back is no reason to read it
            done = site.sapd("run", "--at", rfc3339(at))
            assert done.returncode == 73
            assert FOREIGN not in site.relaying()
        assert_said(site, done.stderr, "has hard links")
        assert site.relaying() == {OWN, RENEWED, NEW} | (set() if half else {"192.0.2.99"})
        other.unlink()
        finish(site)
        assert site.relaying() == {OWN, RENEWED, NEW, "192.0.2.99"}

    with benches(tmp_path, STRANGERS_COPY) as some:
        each(some, [(call,) for call in some[0].calls()], check)
    assert half_copied >= 3


def test_a_log_that_can_not_be_cut_is_read(tmp_path: Path) -> None:
    with benches(tmp_path, STEADY) as (bench, *_):
        collapse = next(call for call in bench.calls() if "COLLAPSE" in call.text)
        site = bench.site
        bench.met(collapse, collapse.failing("ENOSPC"))
        site.write(login("192.0.2.99", at=AT))
        both = "inject=fallocate:error=ENOSPC:when=1+2"  # with the map's between them
        done = site.sapd("run", *NOW, prefix=strace.strace(both))
        assert done.returncode == 74
        assert_said(site, done.stderr, "No space left")
        assert site.relaying() == {OWN, RENEWED, NEW, "192.0.2.99"}
        finish(site)
        marker, *kept = site.log.read_text().splitlines(keepends=True)
        assert " log cut, " in marker
        assert len(kept) == 100
        assert kept[-1] == login("192.0.2.99", at=AT)


def wrapped(site: Site, work: str, *prefix: str) -> None:
    """Have makemap run behind the command `prefix`, where it builds a map or where it dumps one."""
    makemap = site.folder / "makemap"
    makemap.unlink()
    behind, plain = shlex.join([*prefix, MAKEMAP]), MAKEMAP
    build, dump = (behind, plain) if work == "build" else (plain, behind)
    makemap.write_text(
        f'#!/bin/sh\ncase " $* " in *" -u "*) exec {dump} "$@" ;; esac\nexec {build} "$@"\n'
    )
    makemap.chmod(0o755)


def unwrapped(site: Site) -> None:
    (site.folder / "makemap").unlink()
    (site.folder / "makemap").symlink_to(MAKEMAP)


@pytest.mark.parametrize("work", ["build", "dump"])
def test_a_makemap_that_is_killed_or_refused_changes_nothing(tmp_path: Path, work: str) -> None:
    """Or, where it does its work all the same, gives the map that was wanted."""

    def check(bench: Bench, fault: str) -> None:
        site = bench.fresh()
        old = site.entries()
        wrapped(site, work, *strace.strace(fault))
        done = site.sapd("run", *NOW)
        if done.returncode == 0:
            assert "SIGKILL" not in fault
            assert (done.stdout, done.stderr) == ("", "")
            assert site.entries() == bench.end["map"]
        else:
            assert done.returncode in (69, 73, 74, 77)
            assert_said(site, done.stderr, "the old map stays in force")
            # But for whom it let in too long already, if that could be closed at least.
            closed = {key: word for key, word in old.items() if key != f"connect:{STALE}"}
            assert site.entries() in (old, closed)
        unwrapped(site)
        finish(site)
        assert outcome(site) == bench.end

    with benches(tmp_path, STEADY) as some:
        site, trace = some[0].fresh(), tmp_path / "makemap.trace"
        wrapped(site, work, *strace.strace(trace=str(trace)))
        site.run(*NOW)
        found = strace.calls(trace, site.folder)
        assert len(found) >= (8 if work == "build" else 1)
        faults = [call.killed for call in found]
        faults += [call.failing(error) for call in found for error in (*STATUS, "EINTR")]
        each(some, [(fault,) for fault in faults], check)
