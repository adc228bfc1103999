"""The state is damaged, lies, or is not a file at all.

It is then used whole or not at all: the next run opens whom the log and a valid state allow, keeps
the damaged file beside it, says so once (65), and the run after that is an ordinary one.
"""

import json
import os
import resource
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sapd import cut, errors, run, state
from tests.faults.passes import OWN, Passes, site_in_memory
from tests.servers.unprivileged import (
    NOBODY,
    PREFIX,
    PYTHON,
    installed_for_everybody,
    let_everybody_in,
)
from tests.site import Site, login, logout, noise

pytestmark = pytest.mark.makemap

NOW = time.time()
IN_STATE = "192.0.2.4"  # logged in by a line that the log holds no more
IN_LOG = {"192.0.2.1", "192.0.2.2", "192.0.2.3"}  # the last by a line that was not read yet
ALL = {*IN_LOG, IN_STATE}
REFUSED, DENIED, CLOSED = "192.0.2.5", "192.0.2.6", "192.0.2.7"
POLICY = """[policy]
after_logout = "8h"
one_address_per_account = true
deny_accounts = ["mallory"]
"""
Json = dict[str, Any]


class Ruin:
    """A site whose state holds something at every place, and is spoilt again and again."""

    def __init__(self, site: Site) -> None:
        self.site = site
        site.configure("8h", 'formats = ["qpopper", "popa3d", "courier"]', top=POLICY)
        site.source.write_text(f"Connect:{OWN} RELAY\nConnect:{REFUSED} REJECT\n")
        self.passes = Passes(site)
        site.write(login(IN_STATE, at=NOW))
        self.passes.at()
        site.log.rename(f"{site.log}.1")
        stamp = login("192.0.2.77", at=NOW).split()[0]
        site.write(
            *(noise(number, NOW) for number in range(5)),
            *(login(address, at=NOW) for address in ("192.0.2.1", "192.0.2.2", REFUSED)),
            f"{stamp} mx1 popa3d[7]: Session from 192.0.2.77\n",
            f"{stamp} mx1 pop3d: LOGIN FAILED, user={'A' * 486}\n",
            login("192.0.2.66", at=NOW + 7 * 86400),
            login(DENIED, "mallory", at=NOW),
            logout("192.0.2.1", at=NOW),
        )
        self.passes.at()
        run.once(self.passes.config, closing=[CLOSED])
        Path(f"{site.log}.1").unlink()
        self.good: Json = json.loads(site.state.read_text())
        self.position: Json = self.good["logs"][str(site.log)]
        self.position["lines"] = 2
        place = {"offset": 300, "anchor": "x" * 256}
        self.good["at_set_back"] = {str(site.log): {**place, "lines": 1, "rotated": place}}
        self.position["pending_cut"] = {**place, "marker": "m\n"}
        self.good["contexts"][str(site.log)]["containers"] = {"pop|": NOW}
        self.good["unpublished"] = {"since": NOW, "open": {"192.0.2.1": {"bob": NOW}}}
        site.write(login("192.0.2.3", at=NOW))

    def asides(self) -> list[Path]:
        return sorted(self.site.state.parent.glob("state.json.damaged-*"))

    def put(self, content: str | bytes) -> None:
        self.site.state.write_bytes(content if isinstance(content, bytes) else content.encode())

    def expect(self, status: int, opened: set[str]) -> None:
        """Make the next pass, which must end so, and the one after it, which finds all well."""
        for path in self.asides():
            path.unlink()
        before = self.site.state.read_bytes()
        report = run.once(self.passes.config)
        assert [problem.status for problem in report.problems] == [status] * (status != 0)
        assert self.passes.relaying() == opened
        kept = [path.read_bytes() for path in self.asides()]
        assert kept == ([before] if status == errors.BAD_STATE else [])
        assert self.passes.at() == opened
        assert len(self.asides()) == len(kept)


@pytest.fixture(scope="module")
def ruin(tmp_path_factory: pytest.TempPathFactory) -> Ruin:
    """On a disk, because file systems in memory take offsets that no disk does."""
    return Ruin(Site(tmp_path_factory.mktemp("ruin")))


@pytest.fixture
def site() -> Iterator[Site]:
    with site_in_memory() as made:
        yield made


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value in a piece of JSON, its own included."""
    yield path
    if isinstance(value, list):
        value = dict(enumerate(value))
    for key, of in value.items() if isinstance(value, dict) else ():
        yield from places(of, (*path, key))


def replaced(value: Json, path: tuple[Any, ...], by: str) -> str:
    """The JSON text of `value` with the text `by` at one place."""
    mark = "what is to be replaced"
    root = json.loads(json.dumps([value]))
    at: Any = root
    for key in (0, *path)[:-1]:
        at = at[key]
    at[(0, *path)[-1]] = mark
    return json.dumps(root[0]).replace(f'"{mark}"', by)


def test_there_is_something_at_every_place(ruin: Ruin) -> None:
    """As it stands the state is valid, and what it lacks would not be spoilt by these tests."""
    for path in places(ruin.good):
        value: Any = ruin.good
        for key in path:
            value = value[key]
        # A claim that opens nothing has no end, few reasons have a detail, and limits are rare.
        assert value not in (None, {}, [], "") or path[0] in ("claims", "closed", "access"), path
    ruin.put(json.dumps(ruin.good))
    ruin.expect(0, ALL)


@pytest.mark.parametrize(
    "by",
    [
        "null", "true", "-1", "1.5", "1e999", "NaN", '""', '"x"', "[]", "{}", "9" * 400, "9" * 5000,
        "[" * 900 + "]" * 900, "[" * 100_000, '{"a":' * 900 + "1" + "}" * 900,
    ],
    ids=lambda by: by[:6] + str(len(by)),
)  # fmt: skip
def test_anything_else_at_any_place_is_refused_or_valid(ruin: Ruin, by: str) -> None:
    refused = 0
    for path in places(ruin.good):
        text = replaced(ruin.good, path, by)
        ruin.put(text)
        try:
            state.load(str(ruin.site.state.parent))
        except state.Damaged:
            refused += 1
            if refused % 8 == 1:  # all go one way from here
                ruin.expect(errors.BAD_STATE, IN_LOG)
            continue
        ruin.expect(0, still_open(json.loads(text)) | {"192.0.2.3"})
    assert refused > 20


def still_open(read: Json) -> set[str]:
    """Whose claims are fresh, by the login or its logout, if bob did not log in elsewhere since."""
    homes = {account: where for account, *where in read["last_address"]}
    latest, since = homes.get("bob", ("", 0))
    logouts = {(address, account): stamp for address, account, *stamp in read["logouts"]}
    found = set()
    for address, account, written, counted, _ in read["claims"]:
        logout = logouts.get((address, account), [0, 0])
        last = logout[1] if logout[0] >= written else counted
        if account != "mallory" and last > 2 and (since <= written or latest == address):
            found.add(address)
    return found - {REFUSED}


def test_a_state_cut_short_at_any_length_is_refused(ruin: Ruin) -> None:
    whole = json.dumps(ruin.good, indent=1).encode()
    for length in range(len(whole)):
        ruin.put(whole[:length])
        with pytest.raises(state.Damaged):
            state.load(str(ruin.site.state.parent))
        if length % 400 == 0:
            ruin.expect(errors.BAD_STATE, IN_LOG)


def nested(rows: list[Any]) -> dict[str, dict[str, float]]:
    """{address: {account: time}}."""
    found: dict[str, dict[str, float]] = {}
    for address, account, written, *_ in rows:
        found.setdefault(address, {})[account] = written
    return found


def of_version_4(good: Json) -> Json:
    """The same as sapd 0.1.0 wrote it."""
    return {
        **good,
        "version": 4,
        "logs": {
            path: {
                "offset": where["offset"],
                "anchor": where["anchor"],
                "lines": where["lines"],
                "before": where["rotated"],
                "cut": where["pending_cut"],
            }
            for path, where in good["logs"].items()
        },
        "claims": nested(good["claims"]),
        "logouts": nested(good["logouts"]),
        "homes": {account: where for account, *where in good["last_address"]},
        "shut": {address: times for address, *times in good["revoked"]},
        "refused": {REFUSED: f'/etc/mail/access line 2 says "Connect:{REFUSED} REJECT"'},
        "closed": {DENIED: {"mallory": 'policy.deny_accounts has "mallory"'}},
        "published": {**good["published"], "database": good["published"]["file"]},
        "stuck": {"since": NOW, "open": {"192.0.2.1": ["bob"]}},
    }


WRITTEN: dict[str, tuple[Callable[[Json], str | bytes], bool]] = {
    "as it was": (json.dumps, True),
    "with a byte order mark": (lambda good: b"\xef\xbb\xbf" + json.dumps(good).encode(), True),
    "in UTF-16": (lambda good: json.dumps(good).encode("utf-16"), True),
    "in UTF-32": (lambda good: json.dumps(good).encode("utf-32"), True),
    "in EBCDIC": (lambda good: json.dumps(good).encode("cp037"), False),
    "with NULs behind": (lambda good: json.dumps(good) + "\0" * 4096, False),
    "with NULs in front": (lambda good: "\0" * 512 + json.dumps(good), False),
    "all NULs": (lambda good: "\0" * 4096, False),
    "twice": (lambda good: json.dumps(good) * 2, False),
    "with a comma behind": (lambda good: json.dumps(good)[:-1] + ",}", False),
    "with a bit turned": (lambda good: json.dumps(good).encode()[:-1] + b"\xfd", False),
    "of version 4": (lambda good: json.dumps(of_version_4(good)), True),
    "of version 4, with what version 6 has": (
        lambda good: json.dumps({**good, "version": 4}), False,
    ),
    "of version 3": (lambda good: json.dumps({**of_version_4(good), "version": 3}), False),
    "of version 6, with what version 4 had": (
        lambda good: json.dumps({**of_version_4(good), "version": 6}), False,
    ),
    "of version 6, by name": (lambda good: json.dumps({**good, "version": "6"}), False),
    "of version 0": (lambda good: json.dumps({**good, "version": 0}), False),
    "of version 7": (lambda good: json.dumps({**good, "version": 7}), False),
    "of version 6.0": (lambda good: replaced(good, ("version",), "6.0"), False),
    "of a very long version": (lambda good: json.dumps({**good, "version": "9" * 10**6}), False),
    "with a second version": (lambda good: json.dumps(good)[:-1] + ', "version": 2}', False),
    "with second claims": (
        lambda good: json.dumps(good)[:-1] + ', "claims": []}', False,
    ),
    "with a claim twice": (
        lambda good: json.dumps(good).replace(
            f'["{IN_STATE}", "bob", ', f'["{IN_STATE}", "bob", 1, 1, 1], ["{IN_STATE}", "bob", ', 1
        ),
        False,
    ),
    "with something more": (lambda good: json.dumps({**good, "more": 1}), True),
}  # fmt: skip


@pytest.mark.parametrize("how", WRITTEN)
def test_a_state_written_otherwise_is_used_whole_or_not_at_all(ruin: Ruin, how: str) -> None:
    write, is_good = WRITTEN[how]
    ruin.put(write(ruin.good))
    said = ruin.site.sapd("run", "-n").stderr
    assert all(len(line) < 500 for line in said.splitlines()), said
    ruin.expect(0 if is_good else errors.BAD_STATE, ALL if is_good else IN_LOG)
    assert json.loads(ruin.site.state.read_text())["version"] == state.VERSION


@pytest.mark.parametrize(
    "key",
    [
        "", "x", "192.0.2", "192.0.2.0/24", "192.0.2.066", "192.0.2.66 ", "0xC0000242",
        "3221226050", "192.0.2.66\tRELAY\n6.6.6.6", "Connect:192.0.2.66", "[192.0.2.66]",
        "192.0.2.66\0", "fe80::1%eth0", "fe80::1%\tRELAY\nConnect:6.6.6.6", "::ffff:192.0.2.66",
        "::ffff:c000:242", "2001:DB8::66", "2001:db8:0::66", "2001_db8__66", "١٩٢.0.2.66", "\udcff",
    ],
    ids=ascii,
)  # fmt: skip
@pytest.mark.parametrize(
    "place",
    ["claims", "logouts", "last_address", "revoked", "closed", "open", "connects"],
)
def test_what_is_no_address_as_sapd_writes_it_is_refused(ruin: Ruin, place: str, key: str) -> None:
    good, (log,) = ruin.good, ruin.good["logs"]
    spoilt: dict[str, Json] = {
        "claims": {"claims": [*good["claims"], [key, "eve", NOW, NOW, None]]},
        "logouts": {"logouts": [*good["logouts"], [key, "eve", NOW, NOW]]},
        "last_address": {"last_address": [*good["last_address"], ["eve", key, NOW]]},
        "revoked": {"revoked": [*good["revoked"], [key, NOW, NOW]]},
        "closed": {"closed": [*good["closed"], [key, "eve", "expired", ""]]},
        "open": {"unpublished": {"since": NOW, "open": {key: {"eve": NOW}}}},
        "connects": {"contexts": {log: {"connects": {"mx1 popa3d[8]": [key, NOW]}, "cut": {}}}},
    }
    ruin.put(json.dumps({**good, **spoilt[place]}))
    ruin.expect(errors.BAD_STATE, IN_LOG)


def test_account_names_are_never_more_than_names(ruin: Ruin) -> None:
    hostile = [
        "bob\tRELAY\n6.6.6.6\tRELAY",
        "Connect:6.6.6.6\tRELAY",
        "\0",
        "\udcff",
        "\x1b[2J",
        "",
    ]
    own = [["2001:db8::7", name, NOW, NOW, None] for name in hostile]
    claims = ruin.good["claims"] + own
    ruin.put(json.dumps({**ruin.good, "claims": claims}))
    said = ruin.site.sapd("list").stdout
    assert len(said.splitlines()) == 1 + len(
        {row[0] for row in claims} - {REFUSED, DENIED}
    )  # with a head
    assert said.replace("\n", "").isprintable()
    ruin.expect(0, {*ALL, "ipv6:2001:db8::7", "ipv6:2001:db8:0:0:0:0:0:7"})


FAR = 2**62


def of_log(**lies: object) -> Callable[[Ruin], Json]:
    return lambda ruin: {"logs": {str(ruin.site.log): {**ruin.position, **lies}}}


def of_map(**lies: object) -> Callable[[Ruin], Json]:
    return lambda ruin: {"published": {**ruin.good["published"], **lies}}


def of_cut(offset: int, anchor: str) -> Callable[[Ruin], Json]:
    return of_log(pending_cut={"offset": offset, "anchor": anchor, "marker": "m\n"})


def cut_to_the_end(ruin: Ruin) -> Json:
    return of_cut(ruin.site.log.stat().st_size, "")(ruin)


def with_bob(ruin: Ruin, *times: float | None) -> list[Any]:
    """The claims, with another one of bob's in the place of his from 192.0.2.1."""
    others = [row for row in ruin.good["claims"] if row[:2] != ["192.0.2.1", "bob"]]
    return [*others, ["192.0.2.1", "bob", *times]]


LIES: dict[str, Callable[[Ruin], Json]] = {
    "behind the log's end": of_log(offset=10**6),
    "where no file reaches": of_log(offset=FAR),
    "another anchor": of_log(anchor="y" * 256),
    "no anchor": of_log(anchor=""),
    "too few lines": of_log(lines=0),
    "too many lines": of_log(lines=FAR),
    "a rotated file that is not there": of_log(rotated={"offset": FAR, "anchor": ""}),
    "the start of any rotated file": of_log(rotated={"offset": 0, "anchor": ""}),
    "a cut where no file reaches": of_cut(offset=FAR, anchor=""),
    "a cut where no file reaches, with an anchor": of_cut(offset=FAR, anchor="x" * 256),
    "a cut behind the log's end": of_cut(offset=10**6, anchor="\n"),
    "a cut at the log's end": cut_to_the_end,
    "another map": of_map(path="/nowhere/access.db"),
    "another map's text": of_map(wanted="0" * 64),
    "another boot": of_map(boot=""),
    "no signature": of_map(file=[]),
    "another signature": of_map(file=[FAR] * 5),
    "nothing published": lambda ruin: {"published": None},
    "logs": lambda ruin: {"logs": {}},
    "a log that is not configured": lambda ruin: {"logs": {"/nowhere": ruin.position}},
    "time": lambda ruin: {"time": NOW + 10**9},
    "latest": lambda ruin: {"latest": NOW + 10**9},
    "a login to come": lambda ruin: {
        "claims": with_bob(ruin, *[NOW + 10**9] * 3)
    },
    "a login that counts from a time to come": lambda ruin: {
        "claims": with_bob(ruin, NOW, NOW + 10**9, NOW + 10**9)
    },
    "a login without an end": lambda ruin: {
        "claims": with_bob(ruin, NOW, NOW, None)
    },
    "closed": lambda ruin: {
        "closed": [[address, "bob", "refused", "x"] for address in ("192.0.2.1", "192.0.2.99")]
    },
    "nobody closed": lambda ruin: {"closed": []},
    "a logout to come": lambda ruin: {"logouts": [["192.0.2.1", "bob", NOW + 10**9, NOW + 10**9]]},
    "a logout of nobody": lambda ruin: {"logouts": [["192.0.2.99", "bob", NOW, NOW]]},
    "revoked in a time to come": lambda ruin: {
        "revoked": [["192.0.2.1", NOW + 10**9, NOW - 1]]
    },
    "ahead": lambda ruin: {"ahead": ["/nowhere"]},
    "another server": lambda ruin: {"access": {"server": "none", "path": 3}},
    "published": lambda ruin: {"unpublished": None},
    "unpublished since a time to come": lambda ruin: {
        "unpublished": {"since": NOW + 10**9, "open": {}}
    },
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_valid_state_that_lies_opens_and_shuts_out_nobody(ruin: Ruin, lie: str) -> None:
    ruin.put(json.dumps({**ruin.good, **LIES[lie](ruin)}))
    ruin.expect(0, ALL)


def test_a_login_to_come_opens_for_no_longer_than_a_window(site: Site) -> None:
    site.write(*(noise(number, NOW) for number in range(5)))
    passes = Passes(site)
    passes.at(NOW)
    site.rewrite_state(claims=[["192.0.2.1", "bob", *[NOW + 10**9] * 3]])
    assert passes.at(NOW + 60) == {"192.0.2.1"}
    assert passes.at(NOW + 60 + 1799) == {"192.0.2.1"}
    assert passes.at(NOW + 60 + 1800) == set()


def test_an_end_that_somebody_edited_counts_for_nothing(site: Site) -> None:
    now = int(NOW)
    site.write(*(noise(number, now) for number in range(5)), login("192.0.2.1", at=now))
    passes = Passes(site)
    assert passes.at(now) == {"192.0.2.1"}
    text = site.state.read_text()
    assert text.count(f", {now + 1800}]") == 1
    site.state.write_text(text.replace(f", {now + 1800}]", f", {now + 10**9}]"))
    assert passes.at(now + 1799) == {"192.0.2.1"}
    assert passes.at(now + 1800) == set()


def test_a_wrong_number_of_lines_cuts_nothing_that_was_not_read(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.configure(log_settings="keep_lines = 50")
    passes = Passes(site)
    site.write(*(noise(number, NOW) for number in range(100)))
    passes.at()
    (where,) = json.loads(site.state.read_text())["logs"].values()
    site.rewrite_state(logs={str(site.log): {**where, "lines": 10**9}})
    rest = [noise(number, NOW) for number in range(100, 200)]
    site.write(*rest[:60])

    def late(*args: Any) -> cut.Cut | None:
        site.write(*rest[60:], login("192.0.2.1", at=NOW))
        monkeypatch.undo()
        return cut.plan(*args)

    monkeypatch.setattr(cut, "plan", late)
    passes.at()
    kept = site.log.read_text().splitlines(keepends=True)[1:]
    assert kept == [*rest, login("192.0.2.1", at=NOW)][-len(kept) :]
    assert len(kept) >= 41
    assert passes.at() == {"192.0.2.1"}


def test_a_state_from_a_backup_is_as_good_as_the_last(site: Site) -> None:
    passes = Passes(site)
    site.write(*(noise(number, NOW) for number in range(5)), login("192.0.2.1", at=NOW - 1700))
    passes.at(NOW)
    backup = site.state.read_bytes()
    site.write(login("192.0.2.2", at=NOW + 10))
    assert passes.at(NOW + 20) == {"192.0.2.1", "192.0.2.2"}
    assert passes.at(NOW + 110) == {"192.0.2.2"}
    site.state.write_bytes(backup)
    assert passes.at(NOW + 120) == {"192.0.2.2"}


@pytest.mark.parametrize(
    "top",
    [
        '[policy]\nnever = ["192.0.2.64/26"]\n',
        '[policy]\nnever = ["::ffff:192.0.2.66/128"]\n',
        '[[network]]\nnetworks = ["192.0.2.64/26"]\nwindow = "5m"\n',
    ],
)
def test_a_claim_that_the_configuration_now_forbids_is_dropped(site: Site, top: str) -> None:
    site.write(login("192.0.2.1", at=NOW - 600), login("192.0.2.66", at=NOW - 600))
    assert Passes(site).at(NOW) == {"192.0.2.1", "192.0.2.66"}
    site.configure(top=top)
    assert Passes(site).at(NOW) == {"192.0.2.1"}
    assert [row[0] for row in json.loads(site.state.read_text())["claims"]] == ["192.0.2.1"]
    site.configure("9m")
    assert Passes(site).at(NOW) == set()


# What is no file, or not ours.


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


KINDS: dict[str, Callable[[Path], object]] = {
    "folder": lambda path: path.mkdir(),
    "full folder": lambda path: (path / "x").mkdir(parents=True),
    "fifo": os.mkfifo,
    "socket": bind,
    "link": lambda path: path.symlink_to(path.rename(path.with_name("elsewhere"))),
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "zeros": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5)),
    "null": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    "terabytes": lambda path: os.truncate(os.open(path, os.O_WRONLY | os.O_CREAT), 1 << 40),
}


@pytest.mark.root
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_state_is_set_aside_unread(site: Site, kind: str) -> None:
    site.write(login("192.0.2.1"))
    site.run()
    if kind != "link":
        site.state.unlink()
    KINDS[kind](site.state)
    before = site.state.lstat()
    done = site.run(status=errors.BAD_STATE)
    assert done.stderr.count("\n") == 1
    (aside,) = site.state.parent.glob("state.json.damaged-*")
    assert os.path.samestat(aside.lstat(), before)
    assert site.relaying() == {OWN, "192.0.2.1"}
    assert site.state.lstat().st_mode == stat.S_IFREG | 0o600
    site.run()


@pytest.mark.root
def test_somebody_elses_state_is_used_by_root(site: Site) -> None:
    site.write(login("192.0.2.1"))
    site.run()
    for path in (site.state.parent, site.state):
        os.chown(path, NOBODY, NOBODY)
    site.write(login("192.0.2.2"))
    site.run()
    assert site.relaying() == {OWN, "192.0.2.1", "192.0.2.2"}


@pytest.mark.root
def test_a_state_that_may_not_be_read_keeps_nobody_open(site: Site) -> None:
    """Nor is it touched; the run says so until it may be read."""
    site.write(login("192.0.2.1", at=NOW - 1700), login("192.0.2.2", at=NOW))
    separate = site.config.read_text().replace('source = "access"', "")
    site.config.write_text(separate.replace("access.db", "state/relay.db"))
    site.database = site.state.parent / "relay.db"
    site.state.parent.mkdir()
    os.chown(site.state.parent, NOBODY, NOBODY)
    let_everybody_in(site.folder)
    env = installed_for_everybody(site.folder)

    def run_as_nobody(status: int, later: float) -> set[str]:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW + later))
        done = site.sapd("run", "--at", at, prefix=PREFIX, env=env, python=PYTHON)
        assert done.returncode == status, done.stderr
        assert done.stderr.count("\n") == (status != 0)
        return site.relaying()

    assert run_as_nobody(0, 0) == {"192.0.2.1", "192.0.2.2"}
    os.chown(site.state, 0, 0)
    before = site.state.read_bytes()
    site.write(login("192.0.2.3", at=NOW + 200))
    for later in (210, 270):
        assert run_as_nobody(errors.NO_PERMISSION, later) == {"192.0.2.2", "192.0.2.3"}
    assert site.state.read_bytes() == before
    os.chown(site.state, NOBODY, NOBODY)
    assert run_as_nobody(0, 330) == {"192.0.2.2", "192.0.2.3"}


# Again and again.


def test_each_damaged_state_is_kept_however_fast_they_come(site: Site) -> None:
    """One a run, and none is removed: what spoils the state each minute fills the folder."""
    site.write(login("192.0.2.1"))
    passes = Passes(site)
    for number in range(30):
        site.state.parent.mkdir(exist_ok=True)
        site.state.write_text(f"damaged {number}")
        assert run.once(passes.config).status == errors.BAD_STATE
        assert passes.relaying() == {"192.0.2.1"}
    kept = [path.read_text() for path in site.state.parent.glob("state.json.damaged-*")]
    assert sorted(kept) == sorted(f"damaged {number}" for number in range(30))


@pytest.mark.parametrize("moment", ["1960-01-01", "9000-01-01"])
def test_no_run_leaves_a_state_that_the_next_refuses(site: Site, moment: str) -> None:
    site.write(login("192.0.2.1"))
    site.run("--at", moment, status=2)
    site.run()
    assert site.relaying() == {OWN, "192.0.2.1"}


@pytest.mark.parametrize(
    "every", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)], ids="{:,}".format
)
def test_up_to_a_million_addresses(
    site: Site, capsys: pytest.CaptureFixture[str], every: int
) -> None:
    """Most are stale; with all of them fresh makemap alone would take ten seconds."""
    site.run()
    fresh = 20_000
    claims = [
        (f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", "bob", login, login, None)
        for n in range(every)
        for login in (NOW - (60 if n < fresh else 3600),)
    ]
    site.rewrite_state(claims=claims)
    size, began = site.state.stat().st_size, time.monotonic()
    command = [sys.executable, "-m", "sapd", "run", "-c", str(site.config)]
    done = subprocess.run(command, capture_output=True, check=False)
    took = time.monotonic() - began
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    with capsys.disabled():
        print(f"\n{every} addresses, {size >> 20} MB: {took:.1f} s, {memory} MB", end=" ")
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(site.relaying()) == fresh + 1
    site.run()
