"""`sapd run --for`: it opens and closes within a second, and is never in anybody's way."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sapd import config, errors, idle, messages, repeat, run, state
from sapd.maps.sendmail import Sendmail
from sapd.report import Report
from sapd.state import SavedState
from tests.repeating import Repeated
from tests.servers.faketime import ENVIRONMENT, library
from tests.servers.rsyslog import wait_until
from tests.servers.unprivileged import NOBODY, PYTHON, installed_for_everybody
from tests.site import MAKEMAP, Site, login, noise

pytestmark = pytest.mark.makemap

ALICE, BOB = "192.0.2.10", "192.0.2.11"
OWN = "198.51.100.9"  # the administrator's own


def wait_until_relaying(site: Site, *addresses: str) -> None:
    wait_until(lambda: site.database.exists() and site.relaying() == {OWN, *addresses})


def wait_until_idle(site: Site) -> None:
    """Wait until a pass is at its end, and nothing is left to do."""
    wait_until(lambda: idle.nothing_happened(str(site.config)))


def trail(site: Site) -> list[tuple[str, str]]:
    lines = (site.state.parent / "audit.jsonl").read_text().splitlines()
    return [(entry["event"], entry["address"]) for entry in map(json.loads, lines)]


def replace(path: Path, text: str) -> None:
    """As a careful editor does, who leaves no moment with half a file."""
    new = Path(f"{path}~")
    new.write_text(text)
    new.rename(path)


# The command, and its turns.


def test_a_login_meanwhile_opens_and_cron_has_nothing_to_mail(site: Site) -> None:
    command = [sys.executable, "-m", "sapd", "run", "-c", str(site.config), "--for", "2s"]
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        wait_until(site.database.exists)
        site.write(login(ALICE))
        said, _ = process.communicate(timeout=20)
    assert (process.returncode, said) == (0, b"")
    assert time.monotonic() - start > 2
    assert site.relaying() == {OWN, ALICE}


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--every", "1s"], "--every needs --for"),
        (["--for", "5s", "--every", "10s"], "--every 10s is more than --for 5s"),
        (["--for", "5s", "-n"], "--dry-run exclude"),
        (["--for", "5s", "--at", "10:00"], "--at exclude"),
        (["--for", "5"], "write a number and"),
        (["--for", "0s"], "must be more than 0"),
    ],
)
def test_what_makes_no_sense_is_refused(site: Site, options: list[str], word: str) -> None:
    done = site.sapd("run", *options)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert word in done.stderr
    assert not site.state.parent.exists()


def turns(site: Site, duration: float, every: float, takes: float) -> list[float]:
    """When turns begin, in seconds since the first, if the second one takes so long."""
    code = (
        "import sys, time; from sapd import repeat\n"
        "path, duration, every, takes = sys.argv[1], *map(float, sys.argv[2:])\n"
        "def turn(passes):\n"
        "    begun.append(time.monotonic())\n"
        "    time.sleep(takes if len(begun) == 2 else 0)\n"
        "    return True\n"
        "begun, repeat._Passes.turn = [], turn\n"
        "repeat.repeat(path, duration, every)\n"
        "print(*(at - begun[0] for at in begun))\n"
    )
    numbers = map(str, (duration, every, takes))
    command = [sys.executable, "-c", code, str(site.config), *numbers]
    return [float(at) for at in subprocess.check_output(command, text=True).split()]


def test_turns_keep_their_time_up_to_the_last_moment(site: Site) -> None:
    """So the next run's first turn, a minute on, is no more than `every` behind the last one."""
    assert turns(site, 0.5, 0.125, 0) == pytest.approx([0, 0.125, 0.25, 0.375, 0.5], abs=0.06)


def test_after_a_long_pass_the_next_follows_at_once_and_the_lost_turns_do_not(site: Site) -> None:
    assert turns(site, 1, 0.25, 0.6) == pytest.approx([0, 0.25, 0.85, 1], abs=0.1)


# Time.


def test_time_alone_closes_an_address_within_a_turn(site: Site) -> None:
    site.configure(window="4s")
    moment = time.time()
    with Repeated(site, every=0.2):
        site.write(login(ALICE, at=moment))
        wait_until_relaying(site, ALICE)
        due = int(moment) + 4
        wait_until(lambda: site.database.stat().st_mtime > due or time.time() > due + 2)
        wait_until_relaying(site)
        assert site.database.stat().st_mtime - due < 0.2 + 0.3  # a turn, and a pass


@pytest.mark.servers
def test_the_clock_may_be_set(site: Site) -> None:
    clock = site.folder / "clock"
    clock.write_text("+0\n")
    env = {**ENVIRONMENT, "LD_PRELOAD": library(), "FAKETIME_TIMESTAMP_FILE": str(clock)}
    env |= {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    with Repeated(site, env=env):
        site.write(login(ALICE))
        wait_until_relaying(site, ALICE)
        clock.write_text("+1860\n")
        wait_until_relaying(site)
        clock.write_text("+0\n")
        wait_until_relaying(site, ALICE)
        clock.write_text("-86400\n")
        time.sleep(0.2)
        clock.write_text("+0\n")
        wait_until_relaying(site, ALICE)
        clock.write_text("+86400\n")
        wait_until_relaying(site)


# Signals.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_pause_at_once(site: Site, number: signal.Signals) -> None:
    with Repeated(site, every=30) as repeated:
        wait_until(site.state.exists)
        repeated.process.send_signal(number)
        start = time.monotonic()
        assert repeated.ends() == []
        assert time.monotonic() - start < 5


def test_a_signal_that_the_caller_ignores_ends_nothing(site: Site) -> None:
    with Repeated(site, prefix=("sh", "-c", 'trap "" HUP; exec "$@"', "sh")) as repeated:
        wait_until(site.state.exists)
        repeated.process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        site.write(login(ALICE))
        wait_until_relaying(site, ALICE)
        assert repeated.end() == []


def test_a_signal_waits_for_the_pass_and_makemap_can_be_stopped(site: Site) -> None:
    program = site.folder / "makemap"
    program.write_text(
        f"#!/bin/sh\ncd {site.folder}\n"
        'while read -r name mask; do [ "$name" = SigBlk: ] && echo "$mask" >mask\n'
        "done </proc/$$/status; touch started\n"
        f'until [ -e go ]; do sleep 0.02; done; exec {MAKEMAP} "$@"\n'
    )
    program.chmod(0o755)
    site.configure(access_settings=f'makemap = "{program}"')
    site.write(login(ALICE))
    with Repeated(site) as repeated:
        wait_until((site.folder / "started").exists)
        assert int((site.folder / "mask").read_text(), 16) == 0
        repeated.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert repeated.process.poll() is None
        (site.folder / "go").touch()
        assert repeated.ends() == []
    assert site.relaying() == {OWN, ALICE}
    assert site.open_addresses() == {ALICE}


# Others at the same files.


def test_an_edited_configuration_is_heeded(site: Site) -> None:
    site.write(login(ALICE), login(BOB))
    with Repeated(site) as repeated:
        wait_until_relaying(site, ALICE, BOB)
        text = site.config.read_text()
        replace(site.config, f'{text}[policy]\nnever = ["{ALICE}/32"]\n')
        wait_until_relaying(site, BOB)
        assert repeated.end() == []


@pytest.mark.parametrize(
    "spoil", [lambda path: replace(path, "windov = 1"), lambda path: path.unlink()]
)
def test_a_spoilt_configuration_is_told_once_until_it_is_mended(
    site: Site, spoil: Callable[[Path], object]
) -> None:
    text = site.config.read_text()
    with Repeated(site) as repeated:
        wait_until_relaying(site)
        for address in (ALICE, BOB):
            spoil(site.config)
            time.sleep(0.3)  # a pass that had read it sees its own end
            site.write(login(address))
            time.sleep(0.3)
            assert address not in site.relaying()
            replace(site.config, text)
            wait_until(lambda address=address: address in site.relaying())  # type: ignore[misc]
        complaints = repeated.end()
    assert len(set(complaints)) <= len(complaints) // 2  # each of them once, both times
    assert all(line.startswith(f"sapd: error: {site.config}: ") for line in complaints)


def test_an_edited_format_is_heeded(site: Site) -> None:
    own = site.folder / "formats.d" / "own.toml"
    own.parent.mkdir()
    text = (
        'description = "ours"\nprograms = ["popper"]\n[[line]]\nevent = "login"\n'
        'needles = ["NEEDLE"]\nexample = "NEEDLE bob 192.0.2.1"\n'
        "pattern = 'NEEDLE (?P<account>\\w+) (?P<address>\\S+)'\n"
    )
    own.write_text(text.replace("NEEDLE", "hello"))
    site.configure(top='formats_directory = "formats.d"', log_settings='formats = ["own"]')
    stamp = login(ALICE).partition("(v4")[0]
    with Repeated(site) as repeated:
        site.write(f"{stamp}hello bob {ALICE}\n")
        wait_until_relaying(site, ALICE)
        replace(own, text.replace("NEEDLE", "enter"))
        time.sleep(0.2)
        site.write(f"{stamp}hello bob 192.0.2.66\n", f"{stamp}enter bob {BOB}\n")
        wait_until_relaying(site, ALICE, BOB)
        assert repeated.end() == []


def test_what_sapd_close_closes_stays_closed(site: Site) -> None:
    moment = time.time() - 5
    site.write(login(ALICE, at=moment), login(BOB, at=moment))
    with Repeated(site) as repeated:
        wait_until_relaying(site, ALICE, BOB)
        wait_until_idle(site)
        done = site.sapd("close", ALICE)
        assert (done.returncode, done.stderr) == (0, "")
        assert site.relaying() == {OWN, BOB}
        site.write(login("192.0.2.12"))
        wait_until_relaying(site, BOB, "192.0.2.12")
        assert repeated.end() == []
    assert site.open_addresses() == {BOB, "192.0.2.12"}


STATES: dict[str, tuple[Callable[[Site], object], set[str], int]] = {
    "removed": (lambda site: site.state.unlink(), {ALICE, BOB}, 0),
    "edited": (lambda site: site.rewrite_state(claims=[]), {BOB}, 0),
    "replaced": (
        lambda site: os.replace(site.folder / "older", site.state),
        {BOB},
        0,
    ),
    "damaged": (lambda site: site.state.write_text("{"), {ALICE, BOB}, 1),
}


@pytest.mark.parametrize(("change", "left", "said"), STATES.values(), ids=STATES)
def test_what_others_make_of_the_state_counts(
    site: Site, change: Callable[[Site], object], left: set[str], said: int
) -> None:
    site.write(login(ALICE))
    with Repeated(site) as repeated:
        wait_until_idle(site)
        written = json.loads(site.state.read_text())
        (site.folder / "older").write_text(json.dumps({**written, "claims": []}))
        with (site.state.parent / "lock").open() as lock:  # a pass must not find half of it
            fcntl.flock(lock, fcntl.LOCK_EX)
            change(site)
        site.write(login(BOB))
        wait_until_relaying(site, *left)
        wait_until_idle(site)
        assert len(repeated.end()) == said
    assert site.open_addresses() == left


def test_a_state_that_is_replaced_during_a_pass_is_read_by_the_next(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write(login(ALICE))
    site.run()
    settings, saved = config.load(str(site.config)), SavedState(str(site.state.parent))
    is_published = Sendmail.is_published

    def ask_slowly(*args: Any) -> bool:
        answer = is_published(*args)
        site.rewrite_state(claims=[])
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(Sendmail, "is_published", ask_slowly)
        run.once(settings, saved=saved)
    assert site.relaying() == {OWN, ALICE}
    run.once(settings, saved=saved)
    assert site.relaying() == {OWN}


def test_another_programs_lock_is_waited_for(site: Site) -> None:
    site.write(login(ALICE))
    site.state.parent.mkdir()
    with (site.state.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with Repeated(site, duration=0.2) as repeated:
            assert repeated.ends(errors.LOCKED) == []
        with Repeated(site) as repeated:
            time.sleep(0.3)
            fcntl.flock(lock, fcntl.LOCK_UN)
            wait_until_relaying(site, ALICE)
            fcntl.flock(lock, fcntl.LOCK_EX)
            site.write(login(BOB))
            time.sleep(0.1)
            assert repeated.end() == []  # it did work, if not to the end


def test_two_at_once_share_the_work(site: Site) -> None:
    with Repeated(site) as one, Repeated(site, every=0.03) as other:
        opened = [f"192.0.2.{number}" for number in range(1, 9)]
        for address in opened:
            site.write(login(address))
            time.sleep(0.07)
        wait_until_relaying(site, *opened)
        assert [one.end(), other.end()] == [[], []]
    assert trail(site) == [("open", address) for address in opened]
    site.run()
    assert site.open_addresses() == set(opened)


def test_an_upgraded_program_does_not_believe_the_note_of_the_one_before(site: Site) -> None:
    installed_for_everybody(site.folder)
    env = {"PYTHONPATH": str(site.folder / "library"), "PYTHONSAFEPATH": "1"}
    code = (
        "import sys; from sapd import idle; print(idle.__file__, end='')\n"
        "sys.exit(idle.nothing_happened(sys.argv[1]))"
    )
    new = [sys.executable, "-c", code, str(site.config)]
    with Repeated(site, env=env):
        wait_until(lambda: (site.state.parent / "idle").exists())
        Path(site.folder / "library/sapd/idle.py").touch()
        site.write(noise(1))
        time.sleep(0.5)
        done = subprocess.run(new, env={**os.environ, **env}, stdout=subprocess.PIPE, check=False)
        assert done.stdout == os.fsencode(site.folder / "library/sapd/idle.py")
        assert done.returncode == 0


# Root, where the map's folder is another user's.


@pytest.mark.root
def test_root_becomes_the_owner_and_leaves_an_edited_configuration_to_the_next_run(
    folder: Path,
) -> None:
    site = Site(folder)
    site.database = folder / "map" / "relay.db"
    text = site.config.read_text().replace('source = "access"', "")
    site.config.write_text(text.replace("access.db", "map/relay.db"))
    site.config.chmod(0o600)
    for path in (site.database.parent, site.state.parent):
        path.mkdir()
        os.chown(path, NOBODY, NOBODY)
    env = installed_for_everybody(folder)
    site.config.touch()  # just now: it may look the same after another change
    with Repeated(site, python=PYTHON, env=env) as repeated:
        site.write(login(ALICE))
        wait_until(lambda: site.database.exists() and site.relaying() == {ALICE})
        uids = Path(f"/proc/{repeated.process.pid}/status").read_text().partition("Uid:")[2]
        assert uids.split()[:4] == [str(NOBODY)] * 4
        site.write(login(BOB))
        wait_until(lambda: site.relaying() == {ALICE, BOB})
        site.config.touch()
        assert repeated.ends() == []
    assert site.state.owner() == "nobody"


# Complaints.


def test_a_problem_is_told_once_and_again_when_it_comes_again(site: Site) -> None:
    with Repeated(site) as repeated:
        wait_until_relaying(site)
        for _ in range(2):
            site.log.rename(f"{site.log}~")
            os.mkdir(site.log)
            time.sleep(0.3)
            site.log.rmdir()
            Path(f"{site.log}~").rename(site.log)
            site.write(login(ALICE))
            time.sleep(0.3)
        assert site.relaying() == {OWN, ALICE}
        complaints = repeated.end()
    assert len(complaints) == 2
    assert all(line.startswith(f"sapd: error: {site.log}: ") for line in complaints)


def test_a_warning_that_comes_with_every_pass_is_told_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As that another map is no longer kept, if two configurations share a state."""
    told: set[str] = set()
    for about in ("one", "one", "other", "one"):
        report = Report()
        report.warnings = [(about, "is no longer kept")]
        told = messages.tell_what_is_new(report, told)
    said = [line.split(": ")[2] for line in capsys.readouterr().err.splitlines()]
    assert said == ["one", "other", "one"]


def test_the_last_pass_gives_the_status(site: Site) -> None:
    site.log.unlink()
    site.log.mkdir()
    with Repeated(site) as repeated:
        wait_until(site.state.exists)
        assert len(repeated.end(errors.LOG_UNREADABLE)) == 1


def test_what_cannot_be_saved_is_done_and_told_once(site: Site) -> None:
    """Nor is the trail told of it in every pass."""
    site.configure(window="4s")
    site.source.write_text(f"Connect:{OWN}\tRELAY\nConnect:{BOB}\tREJECT\n")
    with Repeated(site) as repeated:
        wait_until_idle(site)
        (site.state.parent / "state.json.new").mkdir()
        site.write(login(ALICE), login(BOB))
        wait_until_relaying(site, ALICE)
        time.sleep(0.3)
        wait_until_relaying(site)
        complaints = repeated.end(errors.CANT_CREATE)
    assert [line.split(":")[1:3] for line in complaints] == [
        [" warning", f" {BOB}"],
        [" error", f" {site.state}"],
    ]
    assert trail(site) == [("open", ALICE), ("refuse", BOB), ("close", ALICE)]


def test_without_its_state_there_is_no_other_turn(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a pass costs then is for once a minute."""
    site.write(login(ALICE))
    site.run()
    passes = repeat._Passes(str(site.config), 0)
    assert passes.turn()

    def read(directory: str) -> str:
        raise errors.SapdError(errors.NO_PERMISSION, directory, "can't be read")

    site.write(login(BOB))
    site.state.touch()
    with monkeypatch.context() as patch:
        patch.setattr(state, "_read", read)
        assert not passes.turn()
    assert passes.status == errors.NO_PERMISSION
    assert passes.turn()
    assert passes.status == 0


# Costs.


def test_thousands_of_turns_leave_nothing_behind(site: Site) -> None:
    code = (
        "import gc, os, sys; from sapd import repeat\n"
        "passes, log, left = repeat._Passes(sys.argv[1], 0), open(sys.argv[2], 'a'), []\n"
        "def turns(number, busy):\n"
        "    for _ in range(number):\n"
        "        log.write(busy); log.flush(); assert passes.turn() and not passes.status\n"
        "def look():\n"
        "    gc.collect()\n"
        "    pages = int(open('/proc/self/statm').read().split()[1])\n"
        "    return pages * 4, len(os.listdir('/proc/self/fd'))\n"
        "for _ in range(2):\n"
        "    turns(150, sys.argv[3]); turns(2000, ''); left += look()\n"
        "print(*left)\n"
    )
    command = [sys.executable, "-c", code, str(site.config), str(site.log), login(ALICE)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    before, open_before, after, open_after = map(int, done.stdout.split())
    assert open_after == open_before
    assert after - before < 256  # KiB
