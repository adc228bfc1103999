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
from sapd.access import Published
from sapd.maillog import Cursor, PendingCut, Position
from sapd.recogniser import Context, Doubt
from sapd.relay import EVERY, Ledger
from sapd.state import Stuck

LEDGER = Ledger()
LEDGER.claims = {"192.0.2.1": {"bob": 1e9, "\udcff\n": 1.5}, "2001:db8::7": {"eve": 2.0}}
LEDGER.logouts = {"192.0.2.1": {"bob": 1e9 + 60}}
LEDGER.homes = {"bob": ("2001:db8::7", 1e9 + 90)}
LEDGER.shut = {"192.0.2.9": (1e9, 1e9), EVERY: (1e9 + 1, 1e9)}

FULL = state.empty()._replace(
    time=1e9 + 0.5,
    positions={
        "/var/log/qpopper": Position(
            Cursor(300, bytes(range(256))),
            Cursor(5, b"x\n"),
            12,
            PendingCut(Cursor(3, b"abc"), b"\xff\n"),
        ),
        "/var/log/mail.log": Position(),
    },
    contexts={
        "/var/log/mail.log": Context(
            {"mx1 popa3d[7]": ("192.0.2.1", 1e9 + 0.25)}, {"mx1 pop3d": Doubt(16384, 3, 29_796_490)}
        )
    },
    ledger=LEDGER,
    refused={"192.0.2.1": 'access line 1 says "x"'},
    closed={"192.0.2.1": {"bob": "it logged out"}},
    ahead={"/var/log/qpopper"},
    published=Published("/access.db", "digest", (1, 2, 3), "boot"),
    latest=2e9,
    stuck=Stuck(3e9, {"192.0.2.1": ["bob"]}),
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
    assert read["version"] == 4
    assert read["claims"]["192.0.2.1"]["bob"] == 1e9
    assert read["logs"]["/var/log/qpopper"]["offset"] == 300


def test_older_versions_are_read(tmp_path: Path) -> None:
    log = "/var/log/qpopper"
    begun = FULL.positions[log]._replace(pending_cut=PendingCut(Cursor(3, b"abc"), b""))
    claims = Ledger()
    claims.claims = FULL.ledger.claims
    expected = FULL._replace(ledger=claims, closed={})
    read = json.loads(state.to_text(FULL))
    for key in ("logouts", "homes", "shut", "closed"):
        del read[key]
    put(tmp_path, json.dumps({**read, "version": 3}))
    assert state.load(str(tmp_path)) == expected
    expected = expected._replace(positions={**FULL.positions, log: begun})
    del read["logs"][log]["cut"]["marker"]
    put(tmp_path, json.dumps({**read, "version": 2}))
    assert state.load(str(tmp_path)) == expected
    del read["contexts"]
    put(tmp_path, json.dumps({**read, "version": 1}))
    assert state.load(str(tmp_path)) == expected._replace(contexts={})


def replaced(*path: str, by: object) -> str:
    read: Any = json.loads(state.to_text(FULL))
    at = read
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = by
    return json.dumps(read)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "3", '"x"', "{}", '{"version": 1}', '{"version": 2}', b"\xff\xfe",
        "[" * 100_000, state.to_text(FULL)[:-20], "\0" * 100,
        replaced("version", by=5), replaced("version", by=0), replaced("version", by="1"),
        replaced("time", by=10**400), replaced("time", by=-1), replaced("stuck", by="x"),
        replaced("stuck", "since", by=None), replaced("stuck", "open", by={"192.0.2.1": "bob"}),
        replaced("latest", by=None), replaced("logs", "/var/log/qpopper", "offset", by=10**30),
        replaced("time", by="now"), replaced("time", by=float("nan")), replaced("time", by=True),
        replaced("logs", by=[]), replaced("logs", "/var/log/qpopper", by=3),
        replaced("logs", "/var/log/qpopper", "offset", by=-1),
        replaced("logs", "/var/log/qpopper", "offset", by=1.5),
        replaced("logs", "/var/log/qpopper", "offset", by=3),
        replaced("logs", "/var/log/qpopper", "anchor", by="\u20ac"),
        replaced("logs", "/var/log/qpopper", "lines", by="12"),
        replaced("logs", "/var/log/qpopper", "before", by={}),
        replaced("claims", by=None), replaced("claims", "192.0.2.1", by=3),
        replaced("claims", "192.0.2.1", "bob", by="x"),
        replaced("claims", "192.0.2.1", "bob", by=float("inf")),
        replaced("claims", "evil.example", by={"bob": 1}),
        replaced("claims", "192.0.2.1\nConnect:0 RELAY", by={"bob": 1}),
        replaced("claims", "192.0.2", by={"bob": 1}),
        replaced("claims", "2001:DB8::7", by={"bob": 1}),
        replaced("logouts", by=None), replaced("logouts", "192.0.2.1", "bob", by="x"),
        replaced("homes", by=[]), replaced("homes", "bob", by="192.0.2.1"),
        replaced("homes", "bob", by=["192.0.2", 1]), replaced("homes", "bob", by=["192.0.2.1"]),
        replaced("shut", by=None), replaced("shut", "every", by=1),
        replaced("shut", "all", by=[1, 1]), replaced("shut", "every", by=[1, -1]),
        replaced("closed", by=["192.0.2.1"]), replaced("closed", "192.0.2.1", by=["bob"]),
        replaced("refused", by=["192.0.2.1"]), replaced("ahead", by="x"), replaced("ahead", by=[1]),
        replaced("contexts", by=[]), replaced("contexts", by={"/log": {}}),
        replaced("contexts", "/var/log/mail.log", "connects", by={"mx1 x[7]": ["evil", 1]}),
        replaced("contexts", "/var/log/mail.log", "connects", by={"mx1 x[7]": ["192.0.2.1"]}),
        replaced("contexts", "/var/log/mail.log", "connects", by={"mx1 x[7]": ["192.0.2.1", "x"]}),
        replaced("contexts", "/var/log/mail.log", "cut", by=["mx1 pop3d"]),
        replaced("contexts", "/var/log/mail.log", "cut", by={"mx1 pop3d": -1}),
        replaced("published", by=[]), replaced("published", "database", by="x"),
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
    for section in ("logs", "claims", "refused", "published", "ahead", "time"):
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


def test_one_lock_at_a_time(tmp_path: Path) -> None:
    held = state.lock(str(tmp_path))
    with pytest.raises(files.Locked):
        state.lock(str(tmp_path))
    os.close(held)
    os.close(state.lock(str(tmp_path)))
    assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600
