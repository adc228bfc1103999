"""The state: what goes in comes out, and what is damaged is never half used."""

import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapd import errors, files, state
from sapd.cut import PendingCut
from sapd.decision import Closed, Decision, Reason
from sapd.events.context import Context, Doubt
from sapd.maps import Access
from sapd.maps.live import Published
from sapd.reading.place import Cursor, Place, Position
from sapd.relay import EVERY_ADDRESS, Ledger, Stamp
from sapd.state import SavedState, Unpublished
from sapd.timestamps import AHEAD

LOG = "/var/log/qpopper"

LEDGER = Ledger()
LEDGER.claims = {
    "192.0.2.1": {"bob": Stamp(1e9, 1e9), "\udcff\n": Stamp(1e9 + 40, 1e9)},
    "2001:db8::7": {"eve": Stamp(2.0, 2.0)},
}
LEDGER.logouts = {"192.0.2.1": {"bob": Stamp(1e9 + 60, 1e9 + 30)}}
LEDGER.last_address = {"bob": ("2001:db8::7", 1e9 + 90)}
LEDGER.revoked = {"192.0.2.9": (1e9, 1e9), EVERY_ADDRESS: (1e9 + 1, 1e9)}

FULL = state.State(
    time=1e9 + 0.5,
    latest=2e9,
    positions={
        LOG: Position(Cursor(300, bytes(range(256))), Cursor(5, b"x\n"), 12),
        "/var/log/mail.log": Position(),
    },
    pending_cuts={LOG: PendingCut(Cursor(3, b"abc"), b"\xff\n")},
    at_set_back={LOG: Position(Cursor(200, b"abc"))},
    contexts={
        "/var/log/mail.log": Context(
            {"mx1 popa3d[7]": ("192.0.2.1", 1e9 + 0.25)},
            {"mx1 pop3d": Doubt(16384, 3, 29_796_490)},
            "busybox",
        )
    },
    ledger=LEDGER,
    decision=Decision(
        {"192.0.2.1": {"\udcff\n": 1e9 + 1800}},
        {
            "192.0.2.1": {"bob": Closed(Reason.LOGGED_OUT)},
            "2001:db8::7": {"eve": Closed(Reason.REFUSED, "IPv6:2001:db8 REJECT")},
        },
    ),
    ahead={LOG},
    access=Access("sendmail", {"database": "/access.db", "source": None, "limits": {}}),
    published=Published("/access.db", "digest", "content", (1, 2, 3), "boot", True),
    unpublished=Unpublished(3e9, {"192.0.2.1": {"bob": 3e9 + 60}}),
)


def put(tmp_path: Path, text: str | bytes) -> None:
    (tmp_path / "state.json").write_bytes(text if isinstance(text, bytes) else text.encode())


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    assert state.load(str(tmp_path)) == state.empty()
    before = os.umask(0o777)
    try:
        for saved in (FULL, state.empty()):
            state.save(str(tmp_path), state.to_text(saved))
            assert state.load(str(tmp_path)) == saved
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "state.json").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["state.json"]


def test_it_is_plain_json(tmp_path: Path) -> None:
    read = json.loads(state.to_text(FULL))
    assert read["version"] == 6
    assert read["claims"] == [
        ["192.0.2.1", "bob", 1e9, 1e9, None],
        ["192.0.2.1", "\udcff\n", 1e9 + 40, 1e9, 1e9 + 1800],
        ["2001:db8::7", "eve", 2, 2, None],
    ]
    assert read["closed"][1] == ["2001:db8::7", "eve", "refused", "IPv6:2001:db8 REJECT"]
    assert read["logs"][LOG]["offset"] == 300
    assert read["access"] == {
        "server": "sendmail", "database": "/access.db", "source": None, "limits": {},
    }  # fmt: skip


VERSION_4 = """{
 "version": 4,
 "time": 1790000000.5,
 "latest": 1790000100,
 "logs": {"/var/log/qpopper": {
  "offset": 150,
  "anchor": "half a line that was read\\n",
  "lines": 2,
  "before": {
  "offset": 4,
  "anchor": "end\\n"},
  "cut": {
  "offset": 60,
  "anchor": "read\\n",
  "marker": "mx1 sapd[7]: log cut, 9 lines removed\\n"}}},
 "contexts": {"/var/log/qpopper": {
  "connects": {
  "mx1 popa3d[7]": [
  "192.0.2.4",
  1789999990.0]},
  "cut": {}}},
 "claims": {"192.0.2.1": {
  "bob": 1789999900.0,
  "eve": 1789999800.0},
  "203.0.113.9": {
  "bob": 1789999700.0},
  "192.0.2.3": {
  "ann": 1789999600.0}},
 "logouts": {"192.0.2.1": {
  "eve": 1789999850.0}},
 "homes": {"bob": [
  "192.0.2.1",
  1789999900.0]},
 "shut": {"every": [
  1789999000.0,
  1789999000.0]},
 "refused": {"203.0.113.9": "/etc/mail/access line 12 says \\"203.0.113 REJECT\\"",
  "192.0.2.3": ""},
 "closed": {"192.0.2.1": {
  "eve": "it logged out"}},
 "ahead": ["/var/log/qpopper"],
 "published": {"path": "/etc/mail/access.db",
  "wanted": "4f2c",
  "database": [
  64769,
  131,
  12288,
  1790000000000000000,
  1790000000000000000],
  "boot": "2d1e"},
 "stuck": {"since": 1789999950.0,
  "open": {
  "192.0.2.1": [
  "bob"]}}
}
"""
"""As sapd 0.1.0 wrote it."""


def test_the_state_of_the_last_release_is_read(tmp_path: Path) -> None:
    put(tmp_path, VERSION_4)
    found = state.load(str(tmp_path))
    at = 1.79e9
    ledger = Ledger()
    ledger.claims = {
        "192.0.2.1": {
            "bob": Stamp(at - 100, at - 100),
            "eve": Stamp(at - 200, at - 200),
        },
        "203.0.113.9": {"bob": Stamp(at - 300, at - 300)},
        "192.0.2.3": {"ann": Stamp(at - 400, at - 400)},
    }
    ledger.logouts = {"192.0.2.1": {"eve": Stamp(at - 150, at - 150)}}
    ledger.last_address = {"bob": ("192.0.2.1", at - 100)}
    ledger.revoked = {EVERY_ADDRESS: (at - 1000, at - 1000)}
    assert found._replace(decision=Decision({}, {})) == state.State(
        time=at + 0.5,
        latest=at + 100,
        positions={
            LOG: Position(Cursor(150, b"half a line that was read\n"), Cursor(4, b"end\n"), 2)
        },
        pending_cuts={
            LOG: PendingCut(Cursor(60, b"read\n"), b"mx1 sapd[7]: log cut, 9 lines removed\n")
        },
        at_set_back={},
        contexts={LOG: Context({"mx1 popa3d[7]": ("192.0.2.4", at - 10)}, {})},
        ledger=ledger,
        decision=Decision({}, {}),
        ahead={LOG},
        published=Published("/etc/mail/access.db", "4f2c", "", (64769, 131, 12288, 179 * 10**16,
                                                            179 * 10**16), "2d1e"),
        unpublished=Unpublished(at - 50, {"192.0.2.1": {"bob": at - 50}}),
    )  # fmt: skip
    # What was open is so, and warnings are not told again.
    assert {address: [*accounts] for address, accounts in found.decision.open.items()} == {
        "192.0.2.1": ["bob"]
    }
    assert found.decision.closed["203.0.113.9"] == {
        "bob": Closed(Reason.REFUSED, "203.0.113 REJECT")
    }
    assert found.decision.closed["192.0.2.3"] == {"ann": Closed(Reason.RELAYS_ALREADY)}
    assert found.decision.closed["192.0.2.1"].keys() == {"eve"}


def test_what_version_4_could_say_is_saved_as_version_6(tmp_path: Path) -> None:
    put(tmp_path, VERSION_4)
    found = state.load(str(tmp_path))
    state.save(str(tmp_path), state.to_text(found))
    assert state.load(str(tmp_path)) == found
    assert json.loads((tmp_path / "state.json").read_text())["version"] == 6


@pytest.mark.parametrize("version", [0, 1, 2, 3, 5, 7])
def test_other_versions_are_refused(tmp_path: Path, version: int) -> None:
    put(tmp_path, VERSION_4.replace('"version": 4', f'"version": {version}'))
    with pytest.raises(state.Damaged, match=f"is of version {version}, this program knows 6"):
        state.load(str(tmp_path))


def replaced(*path: str | int, by: object) -> str:
    read: Any = json.loads(state.to_text(FULL))
    at = read
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = by
    return json.dumps(read)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "3", '"x"', "{}", '{"version": 4}', '{"version": 6}', b"\xff\xfe",
        "[" * 100_000, state.to_text(FULL)[:-20], "\0" * 100, '{"version": 6, "version": 6}',
        replaced("version", by=7), replaced("version", by=0), replaced("version", by="1"),
        replaced("time", by=10**400), replaced("time", by=-1), replaced("time", by="now"),
        replaced("time", by=float("nan")), replaced("time", by=True), replaced("latest", by=None),
        replaced("unpublished", by="x"), replaced("unpublished", "since", by=None),
        replaced("unpublished", "open", by={"192.0.2.1": ["bob"]}),
        replaced("unpublished", "open", by={"192.0.2.1": {"bob": "now"}}),
        replaced("logs", by=[]), replaced("logs", LOG, by=3),
        replaced("logs", LOG, "offset", by=10**30), replaced("logs", LOG, "offset", by=-1),
        replaced("logs", LOG, "offset", by=1.5), replaced("logs", LOG, "offset", by=255),
        replaced("logs", LOG, "anchor", by="\u20ac"), replaced("logs", LOG, "lines", by="12"),
        replaced("logs", LOG, "rotated", by={}), replaced("logs", LOG, "rotated", "offset", by=1),
        replaced("logs", LOG, "pending_cut", by="x"),
        replaced("logs", LOG, "pending_cut", "offset", by=2),
        replaced("logs", LOG, "pending_cut", "marker", by=None),
        replaced("at_set_back", by=None), replaced("at_set_back", LOG, "offset", by=2),
        replaced("claims", by=None), replaced("claims", by={}), replaced("claims", by="x"),
        replaced("claims", by=[{}]), replaced("claims", 0, by=3), replaced("claims", 0, by=[]),
        replaced("claims", 0, by=["192.0.2.1", "bob", 1e9, 1e9]),
        replaced("claims", 0, by=["192.0.2.1", "bob", 1e9, 1e9, None, None]),
        replaced("claims", 0, 2, by="x"), replaced("claims", 0, 2, by=True),
        replaced("claims", 0, 3, by=float("inf")), replaced("claims", 0, 3, by=float("nan")),
        replaced("claims", 0, 3, by=None), replaced("claims", 0, 4, by=-1),
        replaced("claims", 0, 4, by=2e11), replaced("claims", 0, 4, by=False),
        replaced("claims", 0, 0, by="evil.example"), replaced("claims", 0, 0, by=None),
        replaced("claims", 0, 0, by="192.0.2.1\nConnect:0 RELAY"),
        replaced("claims", 0, 0, by="192.0.2"), replaced("claims", 0, 0, by="2001:DB8::7"),
        replaced("claims", 0, 1, by=7), replaced("claims", 1, 1, by="bob"),
        replaced("logouts", by=None), replaced("logouts", 0, by=["192.0.2.1", "bob", 1e9, "x"]),
        replaced("last_address", by={}), replaced("last_address", 0, by=["bob", "192.0.2.1"]),
        replaced("last_address", 0, by=["bob", "192.0.2", 1]),
        replaced("last_address", by=[["bob", "192.0.2.1", 1], ["bob", "192.0.2.2", 1]]),
        replaced("revoked", by=None), replaced("revoked", 1, by=["every", 1]),
        replaced("revoked", 1, by=["all", 1, 1]), replaced("revoked", 1, by=["every", 1, -1]),
        replaced("revoked", by=[["every", 1, 1], ["every", 1, 1]]),
        replaced("closed", by=["192.0.2.1"]), replaced("closed", 0, 2, by="it logged out"),
        replaced("closed", 0, 2, by=3), replaced("closed", 0, 3, by=None),
        replaced("closed", 0, 0, by="evil.example"), replaced("basis", by=None),
        replaced("access", by=[]), replaced("access", by={"database": "x"}),
        replaced("ahead", by="x"), replaced("ahead", by=[1]),
        replaced("contexts", by=[]), replaced("contexts", by={"/log": {}}),
        replaced("contexts", "/var/log/mail.log", "connects", by={"mx1 x[7]": ["evil", 1]}),
        replaced("contexts", "/var/log/mail.log", "connects", by={"mx1 x[7]": ["192.0.2.1"]}),
        replaced("contexts", "/var/log/mail.log", "connects", by={"mx1 x[7]": ["192.0.2.1", "x"]}),
        replaced("contexts", "/var/log/mail.log", "frame", by=7),
        replaced("contexts", "/var/log/mail.log", "cut", by=["mx1 pop3d"]),
        replaced("contexts", "/var/log/mail.log", "cut", by={"mx1 pop3d": -1}),
        replaced("published", by=[]), replaced("published", "file", by="x"),
        replaced("published", "wanted", by=None),
    ],
)  # fmt: skip
def test_what_is_damaged_is_set_aside_whole(tmp_path: Path, text: str | bytes) -> None:
    put(tmp_path, text)
    before = (tmp_path / "state.json").read_bytes()
    with pytest.raises(state.Damaged, match=r"state\.json: can't be used") as raised:
        state.load(str(tmp_path))
    assert raised.value.status == errors.BAD_STATE
    assert "\n" not in str(raised.value)
    aside = Path(state.set_aside(str(tmp_path)))
    assert aside.name.startswith("state.json.damaged-")
    assert aside.read_bytes() == before
    assert state.load(str(tmp_path)) == state.empty()


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_any_json_is_taken_whole_or_refused(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    folder = tmp_path_factory.mktemp("state")
    for section in ("logs", "claims", "closed", "access", "published", "ahead", "time"):
        put(folder, replaced(section, by=value))
        with suppress(state.Damaged):
            state.load(str(folder))


@pytest.mark.parametrize("kind", ["folder", "fifo", "symlink"])
def test_what_is_no_file_is_set_aside_too(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "state.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/etc/passwd")
    with pytest.raises(state.Damaged):
        state.load(str(tmp_path))
    state.set_aside(str(tmp_path))
    state.save(str(tmp_path), state.to_text(FULL))
    assert state.load(str(tmp_path)) == FULL


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "state.json.new").symlink_to(victim)
    (tmp_path / "lock").symlink_to(victim)
    state.save(str(tmp_path), state.to_text(FULL))
    with pytest.raises(errors.SapdError, match="lock: can't be written"):
        state.lock(str(tmp_path))
    assert victim.read_text() == "precious"


def test_what_was_planted_for_a_lock_is_locked_and_stays_as_it_is(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    for text in ("precious", "1" * 21):
        lock.write_text(text)
        os.utime(lock, (1, 1))
        held = state.lock(str(tmp_path))
        with pytest.raises(files.Locked) as raised:
            state.lock(str(tmp_path))
        os.close(held)
        assert raised.value.complaint.endswith("see fuser(1)") == (text == "precious")
        assert (lock.read_text(), lock.stat().st_mtime) == (text, 1)


@pytest.mark.parametrize("left", ["", "7\n", "123456789\n", "\0" * 12])
def test_the_lock_names_who_has_it(tmp_path: Path, left: str) -> None:
    """Whatever a run before, or a power cut, left there."""
    lock = tmp_path / "lock"
    lock.write_text(left)
    os.utime(lock, (1, 1))
    held = state.lock(str(tmp_path))
    assert lock.read_text() == f"{os.getpid()}\n"
    os.utime(lock, (1, 1))
    with pytest.raises(files.Locked) as raised:
        state.lock(str(tmp_path))
    os.close(held)
    assert raised.value.complaint.endswith(f"look at process {os.getpid()}")


def test_one_lock_at_a_time(tmp_path: Path) -> None:
    held = state.lock(str(tmp_path))
    with pytest.raises(files.Locked):
        state.lock(str(tmp_path))
    os.close(held)
    os.close(state.lock(str(tmp_path)))
    assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600


# A clock that was set back.

NOW = 1_800_000_000.0
OTHER = "/var/log/mail.log"


def read_by(time: float, latest: float, at: int, at_set_back: int | None = None) -> state.State:
    """The state of a pass that read up to an offset."""
    back: dict[str, Position | Place] = (
        {} if at_set_back is None else {LOG: Position(Cursor(at_set_back, b"x"))}
    )
    contexts = {LOG: Context({"mx1 popa3d[7]": ("192.0.2.1", time)}, {})}
    return state.empty()._replace(
        time=time,
        latest=latest,
        positions={LOG: Position(Cursor(at, b"x")), OTHER: Position(Cursor(9, b"x"))},
        at_set_back=back,
        contexts=contexts,
    )


def offsets(of: dict[str, Position | Place]) -> dict[str, int]:
    return {path: at.here.offset for path, at in of.items() if isinstance(at, Position)}


def test_a_clock_that_runs_on_or_is_a_little_behind_is_no_reason_to_read_again() -> None:
    was = read_by(NOW, NOW, 500)
    for now in (NOW + 60, NOW + 10**7, NOW - AHEAD):
        assert state.after_clock_change(was, [LOG], now) is None


def test_when_the_clock_was_set_back_all_is_read_again() -> None:
    now = state.after_clock_change(read_by(NOW, NOW, 500), [LOG], NOW - AHEAD - 1)
    assert now is not None
    assert offsets(now.positions) == {OTHER: 9}  # that log could not be made whole
    assert offsets(now.at_set_back) == {LOG: 500}
    assert now.contexts == {}


def test_when_the_clock_comes_to_the_hour_again_only_what_is_new_since_is_read_again() -> None:
    was = read_by(NOW - 3600, NOW, 800, 500)
    assert state.after_clock_change(was, [LOG], NOW - 3600 + AHEAD) is None
    between = state.after_clock_change(was, [LOG], NOW - 3600 + AHEAD + 1)
    assert between is not None
    assert offsets(between.positions) == {LOG: 500, OTHER: 9}
    assert offsets(between.at_set_back) == {LOG: 500}
    at_last = state.after_clock_change(was, [LOG], NOW + 1)
    assert at_last is not None
    assert (offsets(at_last.positions), at_last.at_set_back) == ({LOG: 500, OTHER: 9}, {})


def test_a_cut_moves_the_place_where_the_clock_was_set_back() -> None:
    """Its anchor may be gone: a place that is lost has all be read again."""
    was = read_by(NOW - 3600, NOW, 800, 500)
    was.note_cut(OTHER, Position(Cursor(4, b"x")))
    assert offsets(was.at_set_back) == {LOG: 500}
    was.note_cut(LOG, Position(Cursor(300, b"x")))
    assert offsets(was.positions) == {LOG: 300, OTHER: 4}
    assert offsets(was.at_set_back) == {LOG: 300}


# What several passes of one process share.


def test_it_is_loaded_once_and_saved_when_it_changed(tmp_path: Path) -> None:
    problems: list[errors.SapdError] = []
    saved = SavedState(str(tmp_path))
    saved.load(problems)
    assert saved.save(NOW, problems)
    assert os.listdir(tmp_path) == []  # nothing is as good as an empty state
    saved.change(ahead={LOG})
    assert saved.save(NOW, problems)
    saved.finish()
    known = saved.state
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "_read", lambda _: pytest.fail("was read"))
        saved.load(problems)
    assert saved.state is known
    saved.finish()
    put(tmp_path, state.to_text(FULL))
    saved.load(problems)
    assert saved.state == FULL
    assert problems == []


def test_a_dry_run_saves_and_moves_nothing(tmp_path: Path) -> None:
    put(tmp_path, "damaged")
    problems: list[errors.SapdError] = []
    saved = SavedState(str(tmp_path), dry=True)
    saved.load(problems)
    saved.change(ahead={LOG})
    assert saved.save(NOW, problems)
    assert os.listdir(tmp_path) == ["state.json"]
    assert [problem.status for problem in problems] == [errors.BAD_STATE]
    assert "a run would set it aside" in problems[0].reason
