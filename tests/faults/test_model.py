"""Random days of a mail host, against the model that says who may relay.

Each example is a row of steps: the server writes, the log is rotated or cut, the clock is set, the
state is damaged, somebody closes an address or rebuilds the map, a run is killed ... After every
run the map and the list are what `model.py` says. The examples are the same every time. For others,
and more, and to have what fails made as small as can be:

    SAPD_EXAMPLES=5000 pytest tests/faults/test_model.py
"""

import copy
import gzip
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sapd import config, decision, maps, run, state, who
from sapd.cut import MARKER
from sapd.report import Report
from tests.faults.killed import happening, killed
from tests.faults.model import Event, Model, Rules, Source
from tests.folders import snapshot
from tests.servers.filesystems import mounted
from tests.site import MAKEMAP, Site, login, logout, noise

pytestmark = pytest.mark.servers

EXAMPLES = int(os.environ.get("SAPD_EXAMPLES", "0"))
START = 1_800_000_000

ADDRESSES = ["192.0.2.1", "192.0.2.10", "192.0.2.100", "10.0.0.7", "2001:db8::7"]
ACCOUNTS = ["bob", "eve", "Zoe", "BOB"]
SPELLINGS = {"192.0.2.100": "::ffff:192.0.2.100", "2001:db8::7": "2001:DB8:0::7"}

STRANGER = "203.0.113.66"
FORGED = login(STRANGER, "eve", START).rstrip("\n")
FORGED_LOGOUT = logout(ADDRESSES[0], "bob", START).rstrip("\n")
HOSTILE = [
    f"mx1 sm-mta[77]: ruleset=check_mail, arg1=<{FORGED}>",
    f"mx1 sm-mta[77]: {FORGED}",
    f'mx1 popper[1]: [AUTH] Failed attempted login to "x {FORGED}" from host (h) {STRANGER}',
    f'mx1 popper[1]: (v4.0.5) POP login by user "eve" at ({"x" * 1000}) {STRANGER}',
    f'mx1 popper[1]: (v4.0.5) POP login by user "eve" at (h) {STRANGER} {FORGED}',
    'mx1 popper[1]: (v4.0.5) POP login by user "eve" at (h) 0.0.0.0 [pop_log.c:244]',
    'mx1 popper[1]: (v4.0.5) POP login by user "eve" at (h) 203.0.113.666 [pop_log.c:244]',
    f"mx1 popper[1]: Stats: eve 0 0 3 4310 h {STRANGER} [pop_updt.c:195]",
    f"mx1 popper[1]: [AUTH] Failed attempted login to {FORGED_LOGOUT} from host (h)",
    "mx1 sapd[1]: log cut, 5 lines removed",
    "\0" * 300,
]
ENTRIES = [
    ("192.0.2", "REJECT"),
    ("192.0.2.1", "REJECT"),
    ("connect:192.0.2.10", "RELAY"),
    ("192.0.2.100", "OK"),
    ("10", "OK"),
    ("connect:ipv6:2001:db8", "REJECT"),
    ("connect:ipv6:2001:db8:0:0:0:0:0:7", "REJECT"),
]
MANY = [(f"from:user{number}@example.net", "REJECT") for number in range(300)]
WINDOWS = [
    Rules(),
    Rules(window=120),
    Rules(window=7200),
    Rules(windows=(("10.0.0.0/8", 28_800), ("10.0.0.0/24", 60))),
    Rules(windows=(("192.0.2.0/25", 600), ("2001:db8::/32", 3600)), never=("10.0.0.7/32",)),
    Rules(never=("192.0.2.0/28", "2001:db8::/32")),
]
RULES = st.builds(
    replace,
    st.sampled_from(WINDOWS),
    after_logout=st.sampled_from([None, 60, 900, 4000]),
    most_accounts=st.sampled_from([None, None, 1, 2]),
    one_address=st.booleans(),
    denied=st.sampled_from([(), (), ("EVE",), ("[a-c]*", "nobody")]),
)


@dataclass(frozen=True)
class Line:
    """What the server writes: a login or logout, so many seconds late, or else other lines."""

    address: str = ""
    account: str = ""
    late: int = 0
    is_logout: bool = False
    others: int = 0
    text: str = ""


def events(*late: int) -> st.SearchStrategy[Line]:
    return st.builds(
        Line,
        st.sampled_from(ADDRESSES),
        st.sampled_from(ACCOUNTS),
        st.sampled_from(late),
        st.sampled_from([False, False, True]),
    )


PROMPT = st.lists(events(0, 5), min_size=1, max_size=3)
EVENTS = events(0, 0, 0, 5, 1000, 3000, -100, -3600)
LINES = st.one_of(
    EVENTS,
    st.builds(Line, others=st.sampled_from([1, 1, 5, 90])),
    st.builds(Line, text=st.sampled_from(HOSTILE)),
)
STEPS = st.integers(0, 100)
SEEN = st.sampled_from([True, True, False])
CLOSING = st.lists(st.sampled_from(ADDRESSES), unique=True, max_size=2)
Work = Callable[[], object]


class Host(RuleBasedStateMachine):
    """A mail host, its people and its accidents."""

    folder: Path
    collapses: bool  # the file system can take blocks out of a file

    def __init__(self) -> None:
        super().__init__()
        self.site = Site(Path(tempfile.mkdtemp(dir=self.folder)))
        self.model = Model()
        self.now = START
        self.clock_went_back = self.was_cut = self.was_ever_cut = False
        self.numbers = itertools.count(1000)
        self.lines: dict[int, str] = {}
        self.writes_to = self.site.log
        self.half: tuple[Event, str] | None = None
        self.broken = False
        self.damage: bytes | None = None
        self.dumps: dict[bytes, dict[str, str]] = {}

    @initialize(
        rules=RULES,
        keeps=st.sampled_from([None, (1, 1), (2, 2), (4, 40)]),
        entries=st.lists(st.sampled_from(ENTRIES), max_size=1),
    )
    def somebody_sets_it_up(
        self, rules: Rules, keeps: tuple[int, int] | None, entries: list[tuple[str, str]]
    ) -> None:
        self.keeps = keeps
        self.somebody_writes_entries(entries, many=False)
        self.somebody_changes_the_rules(rules)

    def teardown(self) -> None:
        shutil.rmtree(self.site.folder)

    # What the server does.

    def append(self, text: str) -> None:
        with self.writes_to.open("a") as file:
            file.write(text)

    def text_of(self, line: Line) -> str:
        """The line's text; an event becomes known to the model, as not yet read."""
        if line.text:
            return f"{noise(0, self.now).split()[0]} {line.text}\n"
        if line.others:
            return "".join(noise(next(self.numbers), self.now) for _ in range(line.others))
        time, about = self.now - line.late, (line.address, line.account)
        found = Event(next(self.numbers), time, *about, line.is_logout)
        spelt = SPELLINGS.get(line.address, line.address)
        write = logout if line.is_logout else login
        self.lines[found.number] = write(spelt, line.account, found.time, found.number)
        self.model.unread.append(found)
        return self.lines[found.number]

    @precondition(lambda self: self.half is None)
    @rule(lines=st.lists(LINES, min_size=1, max_size=5), seen=SEEN)
    def the_server_writes(self, lines: list[Line], seen: bool) -> None:
        self.append("".join(self.text_of(line) for line in lines))
        self.sapd_runs_if(seen)

    @precondition(lambda self: self.half is None)
    @rule(
        addresses=st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=3),
        accounts=st.lists(st.sampled_from(ACCOUNTS), min_size=1, max_size=3, unique=True),
        left=st.booleans(),
    )
    def people_fetch_mail(self, addresses: list[str], accounts: list[str], left: bool) -> None:
        """Each at one place after the other, in turns of ten seconds; some have `left` again."""
        for late, address in zip((20, 10, 0), addresses, strict=False):
            self.the_server_writes([Line(address, name, late) for name in accounts], seen=False)
        self.the_server_writes([Line(address, accounts[0], is_logout=True)] * left, seen=True)

    @precondition(lambda self: self.half is None)
    @rule(line=EVENTS, part=st.floats(0.1, 0.99), seen=SEEN)
    def the_server_writes_half_a_line(self, line: Line, part: float, seen: bool) -> None:
        """Which says nothing, until the rest stands behind it."""
        text = self.text_of(line)
        half = int(len(text) * part)
        self.append(text[:half])
        self.half = self.model.unread.pop(), text[half:]
        self.sapd_runs_if(seen)

    @precondition(lambda self: self.half is not None)
    @rule()
    def the_server_writes_the_rest(self) -> None:
        if self.half is None:
            return
        found, rest = self.half
        self.half = None
        self.append(rest)
        self.model.unread.append(found)

    @precondition(lambda self: self.half is not None)
    @rule(line=LINES, zeros=st.sampled_from([0, 0, 1, 300]), seen=SEEN)
    def the_rest_never_comes(self, line: Line, zeros: int, seen: bool) -> None:
        """The disk was full, or the power failed: the next line stands behind the half of one."""
        self.half = None
        text = self.text_of(line)
        if not line.text and not line.others:
            self.model.unread.pop()
        self.append("\0" * zeros + text)
        self.sapd_runs_if(seen)

    # What becomes of the log.

    def rotated(self, number: int, extension: str = "") -> Path:
        return self.site.log.with_name(f"qpopper.{number}{extension}")

    def make_room(self) -> None:
        """Rename the rotated files, of which the oldest goes; the server writes to the log."""
        if self.writes_to != self.site.log:
            self.the_server_opens_its_log_again()
        for number in (4, 3, 2, 1):
            for extension in ("", ".gz"):
                if self.rotated(number, extension).exists():
                    self.rotated(number, extension).rename(self.rotated(number + 1, extension))
        for extension in ("", ".gz"):
            self.rotated(5, extension).unlink(missing_ok=True)

    @rule(reopened=st.booleans(), seen=SEEN)
    def the_log_is_renamed(self, reopened: bool, seen: bool) -> None:
        self.make_room()
        self.site.log.rename(self.rotated(1))
        self.site.log.touch()
        if not reopened or self.half is not None:
            self.writes_to = self.rotated(1)
        self.sapd_runs_if(seen)

    @precondition(lambda self: self.half is None)
    @rule(new=EVENTS, late=EVENTS)
    def one_process_still_writes_to_a_renamed_log(self, new: Line, late: Line) -> None:
        """Such a line is read if the log held something when it was renamed."""
        if self.site.log.stat().st_size == 0:
            return
        self.the_log_is_renamed(reopened=True, seen=True)
        self.the_server_writes([new], seen=True)
        self.writes_to = self.rotated(1)
        self.the_server_writes([late], seen=True)

    @precondition(lambda self: self.writes_to != self.site.log)
    @rule()
    def the_server_opens_its_log_again(self) -> None:
        self.the_server_writes_the_rest()
        self.writes_to = self.site.log

    @rule(delayed=st.booleans())
    def the_log_is_renamed_and_compressed(self, delayed: bool) -> None:
        self.the_server_writes_the_rest()
        self.the_log_is_renamed(reopened=True, seen=False)
        plain, packed = self.rotated(1 + delayed), self.rotated(1 + delayed, ".gz")
        if plain.exists():
            packed.write_bytes(gzip.compress(plain.read_bytes()))
            shutil.copystat(plain, packed)
            plain.unlink()

    @rule()
    def the_log_is_copied_and_truncated(self) -> None:
        self.make_room()
        shutil.copy(self.site.log, self.rotated(1))
        os.truncate(self.site.log, 0)

    @rule(lines=st.sampled_from([0, 1, 3, 50]), moved=st.booleans())
    def somebody_cuts_the_log(self, lines: int, moved: bool) -> None:
        """With tail, whose output is moved or copied over the log."""
        if moved:
            self.the_server_writes_the_rest()
        rows = self.site.log.read_bytes().splitlines(keepends=True)
        other = self.site.folder / "tail"
        other.write_bytes(b"".join(rows[max(0, len(rows) - lines) :]))
        if moved:
            other.rename(self.site.log)
        else:
            self.site.log.write_bytes(other.read_bytes())
        self.was_cut = self.was_ever_cut = True

    # What the administrator, the clock and accidents do.

    @rule(entries=st.lists(st.sampled_from(ENTRIES), unique=True, max_size=3), many=st.booleans())
    def somebody_writes_entries(self, entries: list[tuple[str, str]], many: bool) -> None:
        self.model.source = Source((*entries, *(MANY if many else ())))
        self.site.source.write_text(
            "".join(f"{key}\t{word}\n" for key, word in self.model.source.entries)
        )
        self.broken = False

    @rule()
    def somebody_spoils_the_entries(self) -> None:
        self.site.source.write_text("foo\n")
        self.broken = True

    @rule(rules=RULES)
    def somebody_changes_the_rules(self, rules: Rules) -> None:
        self.model.rules = rules
        networks = "".join(
            f'[[network]]\nnetworks = ["{network}"]\nwindow = "{window}s"\n'
            for network, window in rules.windows
        )
        limits = {
            "never": list(rules.never),
            "after_logout": rules.after_logout and f"{rules.after_logout}s",
            "max_accounts_per_address": rules.most_accounts,
            "one_address_per_account": rules.one_address,
            "deny_accounts": list(rules.denied),
        }
        policy = "".join(
            f"{key} = {json.dumps(value)}\n" for key, value in limits.items() if value is not None
        )
        cuts = "keep_lines = {}\ncut_above = {}".format(*self.keeps) if self.keeps else ""
        self.site.configure(f"{rules.window}s", cuts, top=f"{networks}[policy]\n{policy}")
        self.config = config.load(str(self.site.config))

    @rule(seconds=st.sampled_from([1, 60, 300, 900, 1799, 1801, 4000, 30_000]), seen=SEEN)
    def time_passes(self, seconds: int, seen: bool) -> None:
        self.now += seconds
        self.sapd_runs_if(seen)

    @rule(seconds=st.sampled_from([86_400, -86_400, -60, -300, -4000]), seen=SEEN)
    def the_clock_is_set(self, seconds: int, seen: bool) -> None:
        self.now += seconds
        self.clock_went_back |= seconds < 0
        self.sapd_runs_if(seen)

    @rule(seconds=st.sampled_from([86_400, -86_400, 4000, -4000]), seen=SEEN)
    def the_clock_is_wrong_for_a_while(self, seconds: int, seen: bool) -> None:
        self.the_clock_is_set(seconds, seen=True)
        self.the_clock_is_set(-seconds, seen)

    @rule()
    def somebody_rebuilds_the_map(self) -> None:
        """From the source alone, as Debian's make in /etc/mail does."""
        new = self.site.folder / "new.db"
        command = [MAKEMAP, "-C", "/dev/null", "hash", str(new)]
        text = self.site.source.read_bytes()
        done = subprocess.run(command, input=text, capture_output=True, check=False)
        if done.returncode == 0 and self.site.database.exists():
            new.rename(self.site.database)
        new.unlink(missing_ok=True)

    @rule(damage=st.sampled_from(["removed", "emptied", "halved", "of another version"]))
    def the_state_is_lost(self, damage: str) -> None:
        text = self.saved()
        if text is None:
            return
        if damage == "removed":
            self.site.state.unlink()
        elif damage == "emptied":
            self.site.state.write_bytes(b"")
        elif damage == "halved":
            self.site.state.write_bytes(text[: len(text) // 2])
        else:
            self.site.state.write_bytes(text.replace(b'"version": 6', b'"version": 9'))
        self.damage = self.saved()
        self.model.lose_the_state()

    # Runs.

    @rule(foreseen=st.booleans())
    def sapd_runs(self, foreseen: bool) -> None:
        self.it_runs(self.foreseen() if foreseen else None)

    @rule(addresses=CLOSING)
    def somebody_closes(self, addresses: list[str]) -> None:
        """These addresses, or all."""
        self.it_runs(closing=addresses)

    def it_runs(self, report: Report | None = None, closing: list[str] | None = None) -> None:
        self.model = self.model_after_a_run(closing)
        status = self.expected_status()
        dump, saved, log = self.dump(), self.saved(), self.site.log.read_bytes()
        done = run.once(self.config, self.now, closing=closing)
        assert done.status == status, done.problems
        if report is not None and not self.broken:  # it starts no makemap
            assert (report.status, report.actions) == (status, done.actions)
            assert report.warnings == done.warnings
        if self.saved() != saved:
            self.note_that_it_was_saved()
        self.was_cut = False
        if self.broken:
            self.only_closes(dump, self.dump())
        else:
            self.map_and_list_are_right()
        self.log_lacks_only_what_was_to_be_cut(log)
        self.running_again_changes_nothing()

    def sapd_runs_if(self, seen: bool) -> None:
        if seen:
            self.sapd_runs(foreseen=False)

    def foreseen(self) -> Report:
        """What a dry run says, which changes nothing."""
        before = snapshot(self.site.folder)
        report = run.once(self.config, self.now, dry=True)
        assert snapshot(self.site.folder) == before
        return report

    def running_again_changes_nothing(self) -> None:
        """Unless what is read again, in doubt, may mean something else by now."""
        event(f"known: {'for certain' if self.model.is_certain() else 'within bounds'}")
        before = self.lasting()
        done = run.once(self.config, self.now)
        assert done.status == self.expected_status(), done.problems
        if self.model.is_certain():
            ((verb, what),) = done.actions
            assert verb == "read"
            after = self.lasting()
            if (
                ": 0 bytes, " not in what
            ):  # a late writer's file, of which the state notes the frame
                for noted in ("state", "state/state.json"):
                    before.pop(noted)
                    after.pop(noted)
            assert after == before

    def only_closes(self, before: dict[str, str] | None, after: dict[str, str] | None) -> None:
        """While the entries can't be used nobody is opened, and none is closed who must be open."""
        old, new = before or {}, after or {}
        assert new.items() <= old.items()
        must = self.model.entries(self.model.must_be_open(self.now))
        assert not (old.items() - new.items()) & must.items()

    def lasting(self) -> dict[str, tuple[object, ...]]:
        """All files, but for the traces of any run: who held the lock, and when that was."""
        traces = {"state/lock", "state/last-pass"}
        found = snapshot(self.site.folder)
        return {name: about for name, about in found.items() if name not in traces}

    def map_and_list_are_right(self) -> None:
        must, may = self.model.must_be_open(self.now), self.model.may_be_open(self.now)
        grants, stuck = who.grants(self.config, self.now)
        assert stuck is None
        listed = {grant.address: grant for grant in grants}
        assert self.dump() == self.model.entries(listed)
        assert must.keys() <= listed.keys() <= may.keys()
        for address, grant in listed.items():
            least, most = must.get(address, {}), may[address]
            assert least.keys() <= set(grant.accounts) <= most.keys()
            assert max(least.values(), default=0) <= grant.until <= max(most.values())
        self.deciding_from_scratch_changes_nothing()

    def deciding_from_scratch_changes_nothing(self) -> None:
        """What is kept from earlier decisions is what all claims together come to."""
        saved = state.load(self.config.state_directory)
        rules, server = self.config.rules, maps.chosen(self.config.access)
        settled = decision.unsettled(saved.ledger, rules, saved.decision, self.now) is not None
        event(f"decision: {'kept in part' if settled else 'made from scratch'}")
        ledger = copy.deepcopy(saved.ledger)
        ledger.expire(rules, self.now)
        assert ledger == saved.ledger
        assert decision.decide(ledger, rules, server.objection_to, self.now) == saved.decision

    def log_lacks_only_what_was_to_be_cut(self, before: bytes) -> None:
        after = self.site.log.read_bytes()
        old_marker = MARKER.match(before)
        lines = before.count(b"\n") - (old_marker is not None)
        if after == before:
            lacking = b"".join(
                before.splitlines(keepends=True)[: -self.keeps[0]] if self.keeps else []
            )
            assert self.keeps is None or lines <= self.keeps[1] or len(lacking) < 200
            return
        assert self.keeps is not None
        assert lines > self.keeps[1]
        marker = MARKER.match(after)
        assert marker is not None
        kept = after[marker.end() :]
        assert kept.count(b"\n") == self.keeps[0]
        assert before.endswith(b"\n" + kept)

    @rule(step=STEPS, closing=st.none() | CLOSING)
    def sapd_is_killed(self, step: int, closing: list[str] | None) -> None:
        self.disturbed(lambda work: killed(step, work), closing=closing)

    @precondition(lambda self: self.half is None)
    @rule(step=STEPS, lines=PROMPT)
    def the_server_writes_while_sapd_runs(self, step: int, lines: list[Line]) -> None:
        def how(work: Work, write: Work) -> None:
            with happening({step: write}):
                work()

        self.disturbed_by_lines(lines, how)

    @precondition(lambda self: self.half is None)
    @rule(steps=st.tuples(STEPS, STEPS), lines=PROMPT)
    def the_server_writes_while_sapd_runs_and_is_killed(
        self, steps: tuple[int, int], lines: list[Line]
    ) -> None:
        first, last = sorted(steps)
        self.disturbed_by_lines(lines, lambda work, write: killed(last, work, {first: write}))

    def disturbed_by_lines(self, lines: list[Line], how: Callable[[Work, Work], object]) -> None:
        """They are read by this run or the next, unless they came in the instant of a slow cut."""
        before = len(self.model.unread)
        text = "".join(self.text_of(line) for line in lines)
        late = self.model.unread[before:]
        del self.model.unread[before:]
        written = self.site.folder.with_suffix(".written")

        def write() -> None:
            self.append(text)
            written.touch()

        self.disturbed(lambda work: how(work, write), late)
        if not written.exists():
            self.append(text)
        written.unlink(missing_ok=True)
        self.note_what_was_written_meanwhile(late)
        self.sapd_runs(foreseen=False)

    def note_what_was_written_meanwhile(self, events: Collection[Event]) -> None:
        """What does not stand any more was cut; it must have been read before."""
        standing = self.standing()[1]
        self.model.unread += [found for found in events if found.number in standing]
        gone = [found for found in events if found.number not in standing]
        self.model.read += gone
        self.model.possibly.read(gone, self.model.rules, self.now)
        if self.collapses:
            self.model.surely.read(gone, self.model.rules, self.now)

    def disturbed(
        self,
        how: Callable[[Work], object],
        late: Collection[Event] = (),
        closing: list[str] | None = None,
    ) -> None:
        """Have a run that may not come to its end: it counts if it saved the state.

        The map is that of before, or what it is to be, and never anything else.
        """
        expected = self.model_after_a_run(closing)
        dump, saved = self.dump(), self.saved()
        how(lambda: run.once(self.config, self.now, closing=closing))
        found = self.dump()
        if self.broken:
            self.only_closes(dump, found)
        elif found != dump:
            assert found is not None
            possibly = copy.deepcopy(expected)
            possibly.possibly.read(late, possibly.rules, self.now)
            possibly.possibly.forget(possibly.rules, self.now)
            opened = [
                address
                for address in ADDRESSES
                if possibly.source.leave_open(address)
                and possibly.entries([address]).items() <= found.items()
            ]
            assert found == possibly.entries(opened)
            assert possibly.must_be_open(self.now).keys() <= set(opened)
            assert possibly.may_be_open(self.now).keys() >= set(opened)
        if not self.site.state.exists():
            self.damage = None
        elif self.saved() != saved:
            self.model = expected
            self.note_that_it_was_saved()

    # What is there.

    def model_after_a_run(self, closing: list[str] | None = None) -> Model:
        model = copy.deepcopy(self.model)
        model.run(self.now, *self.standing(), closing, lost=self.was_ever_cut)
        return model

    def note_that_it_was_saved(self) -> None:
        self.model.save(self.now)
        self.damage = None

    def expected_status(self) -> int:
        if self.damage is not None:
            return 65
        return 69 if self.broken else 0

    def saved(self) -> bytes | None:
        return self.site.state.read_bytes() if self.site.state.exists() else None

    def dump(self) -> dict[str, str] | None:
        """The map's entries by makemap's own reading, which the same bytes don't need twice."""
        if not self.site.database.exists():
            return None
        database = self.site.database.read_bytes()
        if database not in self.dumps:
            self.dumps[database] = self.site.entries()
        return self.dumps[database]

    def standing(self) -> tuple[set[int], set[int]]:
        """The numbers of the events whose lines are read, and of those that perhaps are.

        Where the log is read from the window's edge on, rotated files are only looked into if the
        log begins inside the window; once the clock was set back, its stamps don't tell.
        """
        from_edge = (
            self.was_cut
            or self.model.saved == 0
            or (self.model.was_set_back(self.now) or self.model.is_right_again(self.now))
        )
        surely: set[int] = set()
        perhaps: set[int] = set()
        for path in self.site.folder.glob("qpopper*"):
            text = path.read_bytes()
            if path.suffix == ".gz":
                text = gzip.decompress(text)
            rows = text.decode().splitlines(keepends=True)
            found = {number for number, line in self.lines.items() if line in rows}
            perhaps |= found
            if path == self.site.log or not (from_edge and self.clock_went_back):
                surely |= found
        return surely, perhaps


@pytest.mark.parametrize(("kind", "examples"), [("ext4", 60), ("tmpfs", 90)])
def test_who_may_relay_is_what_the_model_says(tmp_path: Path, kind: str, examples: int) -> None:
    with mounted(tmp_path, kind, megabytes=64) as mount:

        class HostHere(Host):
            folder, collapses = mount, kind == "ext4"

        run_state_machine_as_test(
            HostHere,
            settings=settings(
                max_examples=EXAMPLES or examples,
                stateful_step_count=30,
                derandomize=not EXAMPLES,
                database=None,
                deadline=None,
                phases=list(Phase) if EXAMPLES else [Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
